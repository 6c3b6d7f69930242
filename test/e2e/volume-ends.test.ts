import { randomUUID } from 'node:crypto';
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { isClean } from '#test/support/clean.js';
import { eventually, TestInstallation } from '#test/support/installation.js';
import { needsMachine } from '#test/support/machine.js';
import { containerOn, docker, Orchestrator } from '#test/support/orchestrator.js';
import { killProcess } from '#test/support/processes.js';

const options = await needsMachine();

/** Holds the volume until it is told to go on, by a file. */
const HOLD = 'until [ -e go ]; do sleep 0.05; done';

void t.test(
  'whatever ends under a container of others, its execution ends well',
  options,
  async (t) => {
    await using own = await Orchestrator.up('volume ends');
    const { cronium, driver } = own;

    await t.test('what is not finished in time ends, also under a container', async (t) => {
      const prepared = await own.create('--runtime=bash', '--timeout=10s');
      const name = `cronium-test-${randomUUID()}`;
      await own.docker(prepared, ['-d', '--name', name], 'cronium-bash', 'bash', '-c', HOLD);
      t.teardown(async () => await docker('rm', '-f', name));
      const { executionId } = prepared;
      await eventually('it has ended', async () => {
        const { stdout } = await cronium.cronium(['exec', 'show', executionId, '--json']);
        return (
          (JSON.parse(stdout) as { record: { status?: string } }).record.status === 'timed-out'
        );
      });
      t.equal(await own.volumes(), '');
      const seen = await docker('exec', name, 'ls', '/cronium');
      t.not(seen.code, 0, 'its files are gone');
      t.match(await own.finish(prepared, 0), {
        status: 'timed-out',
        exitCode: null,
        warnings: [/was not finished in time/],
      });
      t.equal((await docker('rm', '-f', name)).code, 0, 'Docker can remove its container');
      t.match(await cronium.run('sh', 'echo well'), { stdout: 'well\n' });
    });

    await t.test('an operator cancels one, and one is finished by force', async (t) => {
      const [cancelled, forced] = [await own.create(), await own.create()];
      const name = `cronium-test-${randomUUID()}`;
      await own.docker(forced, ['-d', '--name', name], 'cronium-bash', 'sleep', '100');
      t.teardown(async () => await docker('rm', '-f', name));
      t.match(await cronium.cronium(['exec', 'cancel', cancelled.executionId, '--reason=typo']), {
        code: 0,
        stderr: /was killed/,
      });
      t.match(await own.finish(cancelled, 0), { status: 'killed', warnings: [/cancelled.*typo/] });
      t.match(await own.finish(forced, 'none', '--force'), { status: 'failed', exitCode: null });
    });

    await t.test('the serving process is killed: scripts and volumes go on', async (t) => {
      const [waiting, running] = [
        await own.create('--runtime=bash'),
        await own.create('--runtime=bash'),
      ];
      const rounds = `set -e
for i in $(seq 20); do echo $i >> lines; [[ $(cronium_setVariable n $i) == true ]]; done
${HOLD}
cronium_output "$(wc -l < lines)"`;
      const ran = own.docker(running, ['--rm'], 'cronium-bash', 'bash', '-c', rounds);
      await eventually('it runs', async () => (await containerOn(running.executionId)) !== '');
      const { serving } = cronium.mountdPids;
      killProcess(serving, 'SIGKILL');
      await eventually('another one serves', async () => {
        using control = await cronium.installation.control();
        const status = await control.call('status', {}).catch(() => undefined);
        return status !== undefined && status.pid !== serving;
      });
      const second = await own.docker(running, ['--rm'], 'cronium-bash', 'true');
      t.match(
        second,
        { code: 125, stderr: /is mounted in another container/ },
        'it is known still',
      );
      t.match(
        await own.docker(waiting, ['--rm'], 'cronium-bash', 'bash', '-c', 'cronium_output 1'),
        { code: 0, stderr: '' },
        'what waited for its container can be mounted',
      );
      await docker('exec', await containerOn(running.executionId), 'touch', 'go');
      t.match(await ran, { code: 0, stderr: '' });
      t.match(await own.finish(waiting, 0), { status: 'succeeded', output: 1 });
      t.match(await own.finish(running, 0), {
        status: 'succeeded',
        output: 20,
        variables: { set: { n: '20' } },
        warnings: [],
      });
    });

    await t.test(
      'it is killed when an end is known, and the server does not know it',
      async (t) => {
        const prepared = await own.create('--runtime=bash');
        const { executionId } = prepared;
        await own.docker(prepared, ['--rm'], 'cronium-bash', 'bash', '-c', 'cronium_output 1');
        const server = cronium.serverPid;
        killProcess(server, 'SIGSTOP');
        const finishing = own.finish(prepared, 0);
        const record = join(cronium.state, 'mountd/prepared', `${executionId}.json`);
        await eventually('its end is noted', () =>
          readFileSync(record, 'utf8').includes('"ended"'),
        );
        killProcess(cronium.mountdPids.serving, 'SIGKILL');
        killProcess(server, 'SIGCONT');
        t.match(await finishing, { status: 'succeeded', output: 1, warnings: [] });
        const { stdout } = await cronium.cronium(['exec', 'show', executionId, '--json']);
        t.match((JSON.parse(stdout) as { record: object }).record, {
          status: 'succeeded',
          exitCode: 0,
        });
      },
    );

    await t.test('a name is for one installation', async (t) => {
      await using other = new TestInstallation();
      t.match(await other.cronium(['up', '--volume-plugin', driver]), {
        code: 1,
        stderr: /another installation.* serves Docker's volume driver .*--no-volume-plugin/,
      });
      t.equal((await other.cronium(['up'])).code, 0, 'and is not kept');
      t.match(await other.cronium(['exec', 'create']), {
        code: 1,
        stderr: /serves no volumes to Docker.*cronium up --volume-plugin/,
      });
    });

    await t.test('a clean stop loses what was not finished, and leaves nothing', async (t) => {
      t.equal(await own.volumes(), '', 'nothing is left of all the above');
      await isClean(t, cronium);
      const { executionId } = await own.create();
      t.match(await cronium.cronium(['status']), { code: 0, stdout: /prepared, to be finished/ });
      t.equal((await cronium.cronium(['down'])).code, 0);
      t.notOk(existsSync(`/run/docker/plugins/${driver}.sock`));
      t.equal((await cronium.cronium(['up'])).code, 0, 'the driver is kept in the settings');
      t.ok(existsSync(`/run/docker/plugins/${driver}.sock`));
      const { stdout } = await cronium.cronium(['exec', 'show', executionId, '--json']);
      t.match((JSON.parse(stdout) as { record: object }).record, {
        status: 'lost',
        warnings: [/mountd was stopped before the execution was finished/],
      });
      t.same(readdirSync(join(cronium.state, 'mountd/prepared')), []);
      await isClean(t, cronium);
    });
  },
);
