import { setTimeout as sleep } from 'node:timers/promises';
import Docker from 'dockerode';
import t from 'tap';
import {
  eventually,
  finished,
  type RunJson,
  TestInstallation,
} from '#test/support/installation.js';
import { needsMachine } from '#test/support/machine.js';
import { killProcess } from '#test/support/processes.js';

/** The server is stopped (SIGSTOP): it takes every call and answers none. Containers must be killable all the same. */
const options = await needsMachine();

const WAITING: Readonly<Record<string, string>> = {
  'closes variables.json': `echo '{"a": 1}' > variables.json; sleep 100`,
  'renames onto output.json, and others wait for the directory': `echo 1 > t; (sleep 0.5; ls > x; touch y) & mv t output.json; sleep 100`,
  'has eight children that all close at once': `for i in 1 2 3 4 5 6 7 8; do (echo "{\\"k$i\\": $i}" > variables.json) & done; wait; sleep 100`,
};

void t.test(
  'docker kill ends a container whose processes wait for a silent server',
  options,
  async (t) => {
    await using cronium = await TestInstallation.up();
    await cronium.run('sh', 'true'); // everything is warm
    const pid = cronium.serverPid;
    const docker = new Docker({ socketPath: '/var/run/docker.sock' });
    const seen = new Set<string>();
    for (const [what, script] of Object.entries(WAITING)) {
      await t.test(what, async (t) => {
        const running = finished(
          cronium.spawn([
            'run',
            '--json',
            cronium.script('sh', `touch ready; until [ -e go ]; do sleep 0.05; done; ${script}`),
          ]),
        );
        let id = '';
        await eventually('the container runs', async () => {
          id = (await cronium.containers()).find(({ State }) => State === 'running')?.Id ?? '';
          return id !== '' && !seen.has(id);
        });
        seen.add(id);
        const container = docker.getContainer(id);
        const exec = async (command: string) => {
          const one = await container.exec({
            Cmd: ['sh', '-c', command],
            User: '1000:1000',
            AttachStdout: true,
          });
          const stream = await one.start({});
          stream.resume();
          await new Promise((resolve) => stream.once('end', resolve));
          return (await one.inspect()).ExitCode;
        };
        await eventually(
          'the script runs',
          async () => (await exec('[ -e /cronium/work/ready ]')) === 0,
        );
        killProcess(pid, 'SIGSTOP');
        let killedAfter = Number.NaN;
        try {
          await exec('touch /cronium/work/go');
          await sleep(1500);
          t.equal(
            await exec('cat /cronium/input.json > /dev/null'),
            0,
            'the tree answers meanwhile',
          );
          const started = performance.now();
          await container.kill();
          await eventually('the container is down', async () => {
            const found = await container.inspect().catch(() => undefined);
            return found?.State.Running !== true;
          });
          killedAfter = performance.now() - started;
        } finally {
          killProcess(pid, 'SIGCONT');
        }
        t.comment(`docker kill took ${Math.round(killedAfter)} ms`);
        const { stdout } = await running;
        t.equal((JSON.parse(stdout) as RunJson).status, 'killed');
      });
    }
  },
);
