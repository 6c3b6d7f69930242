import { setTimeout as sleep } from 'node:timers/promises';
import Docker from 'dockerode';
import t from 'tap';
import { isClean } from '#test/support/clean.js';
import {
  eventually,
  finished,
  type RunJson,
  TestInstallation,
} from '#test/support/installation.js';
import { needsMachine } from '#test/support/machine.js';
import { killProcess } from '#test/support/processes.js';

/** Containers that were started before anybody asked for them: what a script, an operator and a crash find. */
const options = await needsMachine();

const docker = new Docker({ socketPath: '/var/run/docker.sock' });

/** All that a script sees of how it was started; what must differ from run to run is taken out. */
const LOOK = {
  sh: `
env | sort
pwd; umask; ulimit -a; trap
ls -lA --time-style=+ /cronium /cronium/work | sed 's/script_[0-9]*/script/g'
stat -c '%n %h %a %u' /cronium /cronium/work
cat /proc/self/cgroup /proc/self/limits
cat input.json; sed 's/"[0-9-]*T[0-9:.]*Z"/TIME/; s/script-[0-9]*/script/' event.json
ls -l /proc/self/fd | sed 's/[0-9]*]/N]/; s/^.* \\([0-9]* ->\\)/\\1/; s/proc.[0-9]*/proc/'
`,
  py: `
import os, sys, json
print(sorted(os.environ.items()), os.getcwd(), sys.path, len(sys.argv), os.listdir('.').__len__())
print(json.dumps(cronium.input()))
`,
  js: `
console.log(Object.entries(process.env).sort(), process.cwd(), process.execArgv, process.argv.length);
console.log(JSON.stringify(cronium.input()));
`,
} as const;

void t.test('containers that wait', options, async (t) => {
  await using cronium = await TestInstallation.up(undefined, '--warm', '2');
  const isWarm = (executionId: string): boolean => {
    const lines = cronium.log('mountd').split('\n');
    const started = lines
      .filter((line) => line.includes(executionId) && line.includes('execution started'))
      .map((line) => JSON.parse(line) as { isWarm: boolean });
    return started.length === 1 && started[0]?.isWarm === true;
  };
  /** Runs until one was served by a container that waited. */
  const warmRun = async (extension: string, text: string, ...args: string[]): Promise<RunJson> => {
    for (let tries = 0; ; tries++) {
      const run = await cronium.run(extension, text, ...args);
      if (isWarm(run.executionId) || tries > 5) return run;
      await cronium.waiting(2).catch(() => {});
    }
  };

  await t.test('a script sees nothing of it', async (t) => {
    for (const [extension, text] of Object.entries(LOOK)) {
      const args = ['--input', '{"a": [1]}', '--env', 'PS1=a b', '--env', "ODD=it's\n$HOME `x`\\"];
      const cold = await cronium.run(extension, text, ...args, '--memory', '200m');
      t.equal(isWarm(cold.executionId), false, 'a memory limit that was not asked for before');
      const warm = await warmRun(extension, text, ...args, '--memory', '200m');
      t.ok(isWarm(warm.executionId));
      const plain = (one: RunJson) => one.stdout.replaceAll(/HOSTNAME.*|[0-9a-f]{64}/g, '');
      t.equal(plain(warm), plain(cold), extension);
      t.equal(warm.stderr, cold.stderr);
      t.match(warm, { status: 'succeeded', warnings: [] });
    }
  });

  await t.test('its container is set up as any other', async (t) => {
    const settings = async () => {
      const running = finished(cronium.spawn(['run', cronium.script('sh', 'sleep 3')]));
      let name: string | undefined;
      await eventually('it runs', async () => {
        name = (await cronium.mountdStatus()).executions[0]?.containerName;
        return name !== undefined;
      });
      const { HostConfig, Config } = await docker.getContainer(name ?? '').inspect();
      t.equal((await running).code, 0);
      const { Mounts, ...host } = HostConfig;
      const own = ['Hostname', 'Labels', 'Cmd', 'Env'];
      const config = Object.entries(Config).filter(([name]) => !own.includes(name));
      return { host, config, mounts: Mounts?.map(({ Target }: { Target: string }) => Target) };
    };
    const cold = await settings();
    await cronium.waiting(2);
    t.same(await settings(), cold);
  });

  await t.test('no two scripts meet in one', async (t) => {
    const text =
      'ls -A /tmp /dev/shm; ps -o pid= -e | wc -l; touch /tmp/mark /dev/shm/mark; (sleep 30 >/dev/null 2>&1 &)';
    const outputs = new Set<string>();
    for (let i = 0; i < 3; i++) outputs.add((await warmRun('sh', text)).stdout);
    t.equal(outputs.size, 1, [...outputs].join());
  });

  await t.test('an image with an entry point of its own is not started ahead', async (t) => {
    // The entry point looks for the input, which a container that waits has not.
    const image = 'cronium-test-entry-point:latest';
    const before = await docker.createContainer({ Image: 'cronium-bash:latest', Cmd: ['true'] });
    const made = (await before.commit({
      repo: 'cronium-test-entry-point',
      tag: 'latest',
      changes:
        'ENTRYPOINT ["/bin/sh", "-c", "cat /cronium/work/input.json; exec \\"$0\\" \\"$@\\""]',
    })) as { Id: string };
    await before.remove();
    try {
      for (let i = 0; i < 3; i++) {
        const run = await cronium.run(
          'sh',
          'echo; echo ran',
          '--image',
          image,
          '--input',
          `[${i}]`,
        );
        t.match(run, { status: 'succeeded', stdout: `[${i}]\nran\n` }, run.stderr);
        t.equal(isWarm(run.executionId), false);
        await sleep(1500); // long enough for one to be started ahead, if one were
      }
    } finally {
      await docker.getImage(made.Id).remove({ force: true });
    }
  });

  await t.test('its time begins with its script', async (t) => {
    await warmRun('sh', 'true');
    await cronium.waiting(2);
    await sleep(2000);
    const run = await warmRun('sh', 'sleep 0.5', '--timeout', '1900ms');
    t.match(run, { status: 'succeeded' });
    const late = await warmRun('sh', 'sleep 30', '--timeout', '1s');
    t.match(late, { status: 'timed-out' });
  });

  await t.test('one that somebody removed is not missed', async (t) => {
    await warmRun('sh', 'true');
    await cronium.waiting(2);
    const waiting = await cronium.containers();
    await Promise.all(
      waiting.map(async ({ Id }) => await docker.getContainer(Id).remove({ force: true })),
    );
    t.match(await cronium.run('sh', 'echo fine'), { status: 'succeeded', stdout: 'fine\n' });
    t.match(await warmRun('sh', 'echo fine'), { status: 'succeeded', stdout: 'fine\n' });
  });

  await t.test('after a crash those that wait go, and those that serve go on', async (t) => {
    await warmRun('sh', 'true');
    await cronium.waiting(2);
    const before = (await cronium.containers()).map(({ Id }) => Id);
    const text = `
i=0
while [ $i -lt 40 ]; do echo line $i; i=$((i+1)); sleep 0.1; done
echo '{"lines": 40}' >output.json`;
    const child = cronium.spawn(['run', '--json', cronium.script('sh', text)]);
    const result = finished(child);
    await eventually(
      'it runs',
      async () => (await cronium.mountdStatus()).executions[0]?.containerName !== undefined,
    );
    await sleep(500);
    const { serving } = cronium.mountdPids;
    killProcess(serving, 'SIGKILL');
    const run = JSON.parse((await result).stdout) as RunJson;
    t.ok(isWarm(run.executionId));
    t.match(run, { status: 'succeeded', output: { lines: 40 } });
    t.same(
      run.stdout.split('\n').filter((line) => line.startsWith('line')),
      Array.from({ length: 40 }, (_, i) => `line ${i}`),
    );
    t.not(cronium.mountdPids.serving, serving);
    await eventually('nothing of before is left', async () => {
      const now = (await cronium.containers()).map(({ Id }) => Id);
      return before.every((id) => !now.includes(id));
    });
    t.match(await warmRun('sh', 'echo again'), { status: 'succeeded', stdout: 'again\n' });
  });

  await isClean(t, cronium);
});

void t.test('a crash in the very moment that a script is given to one', options, async (t) => {
  await using cronium = await TestInstallation.up(undefined, '--warm', '1');
  await cronium.run('sh', 'true');
  for (let i = 0; i < 8; i++) {
    await cronium.waiting(1);
    const { serving } = cronium.mountdPids;
    const result = finished(
      cronium.spawn(['run', '--json', cronium.script('sh', `echo once; echo '${i}' >output.json`)]),
    );
    await eventually('it was asked for', async () => {
      const [one] = (await cronium.mountdStatus().catch(() => undefined))?.executions ?? [];
      return one !== undefined || cronium.mountdPids.serving !== serving;
    });
    await sleep(i * 6);
    killProcess(serving, 'SIGKILL');
    const { stdout, stderr } = await result;
    const run = JSON.parse(stdout || '{}') as RunJson;
    t.match(run, { status: 'succeeded', stdout: 'once\n', output: i }, `${i}: ${stderr}`);
    await eventually('another one serves', () => cronium.mountdPids.serving !== serving);
    t.match(await cronium.run('sh', 'echo fine'), { status: 'succeeded', stdout: 'fine\n' });
  }
  await isClean(t, cronium);
});
