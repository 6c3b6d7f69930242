import { randomUUID } from 'node:crypto';
import t from 'tap';
import { Connection } from '#bridge/client/connection.js';
import { EXECUTION_COMMANDS } from '#server/cli/execution-commands.js';
import { Desk } from '#test/support/desk.js';

const event = {
  id: 1,
  name: 'nightly',
  description: null,
  type: 'BASH',
  runLocation: 'LOCAL',
  createdAt: '',
  updatedAt: '',
  userId: 1,
  server: null,
  successCount: 0,
  failureCount: 0,
  lastRunAt: null,
};

void t.test('executions are listed, and asked to end', async (t) => {
  await using desk = await Desk.open(EXECUTION_COMMANDS);
  const { server } = desk;
  const host = await Connection.open({
    address: server.address,
    tls: server.tls('host'),
    software: 'test',
  });
  t.teardown(() => host[Symbol.dispose]());
  const exec = async (...args: string[]) => await desk.run(['exec', ...args]);
  const listed = async (...args: string[]) =>
    (JSON.parse((await exec('list', '--json', ...args)).stdout) as { executionId: string }[]).map(
      ({ executionId }) => executionId,
    );
  t.match(await exec('list'), { code: 0, stdout: '', stderr: /nothing has been run/ });
  const started = async (user: string) => {
    const params = { user, variablesOf: { user }, runtime: 'bash', event, timeoutMs: 1000 };
    const { executionId, token } = await host.call('execution.create', params);
    const { channel } = await host.call('execution.open', { token });
    return { executionId, channel };
  };
  const ada = await started('ada');
  await new Promise((resolve) => setTimeout(resolve, 2)); // so that it is the newer one
  const bob = await started('bob');
  const end = async (channel: number, status: 'killed' | 'succeeded') =>
    await host.call(
      'execution.finish',
      { status, exitCode: 0, signal: null, warnings: [], startedAt: 1, finishedAt: 2 },
      { channel },
    );

  t.same(await listed(), [bob.executionId, ada.executionId], 'the newest first');
  t.same(await listed('--user', 'ada'), [ada.executionId]);
  t.same(await listed('-n', '1'), [bob.executionId]);
  t.match((await exec('list')).stdout, /running {4}bash {4}20.*Z {2}user:bob {2}nightly\n/);
  t.match(await exec('list', '-n', '0'), { code: 2, stderr: /from 1 to 1000/ });

  const asked = await exec('cancel', ada.executionId, '--no-wait', '--reason', 'too slow');
  t.match(asked, { code: 0, stderr: /is to end/ });
  t.match((await exec('show', ada.executionId)).stdout, /too slow/);
  host.onPush = (channel) => void end(channel, 'killed');
  const waited = await exec('cancel', ada.executionId, '--json');
  t.match(JSON.parse(waited.stdout), { executionId: ada.executionId, status: 'killed' });
  t.equal(waited.code, 0);
  t.match(await exec('cancel', ada.executionId), { code: 1, stderr: /has ended/ });
  t.same(await listed('--running'), [bob.executionId]);

  host.onPush = (channel) => void end(channel, 'succeeded');
  const late = await exec('cancel', bob.executionId);
  t.match(late, { code: 1, stderr: /ended by itself meanwhile: succeeded/ });
  host.onPush = () => {}; // it hears, and does nothing
  const deaf = await started('ada');
  const cancel = ['exec', 'cancel', deaf.executionId];
  const unheard = await desk.run(cancel, '', AbortSignal.timeout(300));
  t.match(unheard, { code: 1, stderr: /its host test-host does not answer.*cancel \S+ --force/ });
  const given = await exec('cancel', deaf.executionId, '--no-wait', '--force', '--reason', 'burnt');
  t.match(given, { code: 0, stderr: /given up: its status is lost/ });
  const shown = JSON.parse((await exec('show', deaf.executionId, '--json')).stdout) as unknown;
  t.match(shown, {
    record: {
      status: 'lost',
      warnings: ['Warning: lost: given up by operator:test-operator: burnt'],
      cancel: { force: true },
    },
  });
  t.same(await listed('--running'), []);
  t.match(await exec('cancel', deaf.executionId, '--force'), { code: 1, stderr: /has ended/ });

  t.match(await exec('cancel', randomUUID()), { code: 1, stderr: /see: cronium exec list/ });
  t.match(await exec('cancel', 'x'), { code: 2, stderr: /not an execution id/ });
  t.match(await exec('cancel'), { code: 2, stderr: /which execution/ });
});
