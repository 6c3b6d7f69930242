import { randomUUID } from 'node:crypto';
import t from 'tap';
import { ExecutionId, type Namespace } from '#bridge/wire/names.js';
import { EXAMPLES } from '#test/support/example-calls.js';
import { InProcessServer } from '#test/support/in-process-server.js';
import { greeted, NAMESPACE, STRANGER } from '#test/support/matrix.js';
import type { RawClient } from '#test/support/raw-client.js';

const NOTHING = { keys: { text: '', number: '', array: '', kept: '' }, executionId: '', token: '' };

async function created(client: RawClient, instance?: string, namespace: Namespace = NAMESPACE) {
  const params = EXAMPLES['execution.create']({ ...NOTHING, version: 0, namespace });
  const of = instance === undefined ? {} : { instance };
  return await client.peer.call('execution.create', { ...params, ...of, variablesOf: namespace });
}

const statusOf = async (server: InProcessServer, executionId: ExecutionId) =>
  (await server.executions.get(executionId)).record['status'] ?? 'running';

void t.test(
  'a host ends as lost what is its own and has not ended, and nothing else',
  async (t) => {
    await using server = await InProcessServer.start({ store: 'level' });
    using host = await greeted(server, server.tls('host'));
    using other = await greeted(server, await server.issue({ name: 'other', role: 'host' }));
    const mine = async (client: RawClient, instance: string) =>
      (await client.peer.call('execution.mine', { instance })).executionIds.toSorted();
    const lose = async (
      executionIds: ExecutionId[],
      instance: string,
      reason = 'it was restarted',
    ) => await host.peer.call('execution.lose', { executionIds, instance, reason });

    const first = (await created(host, 'a')).executionId;
    const second = (await created(host, 'a', STRANGER)).executionId;
    const twin = (await created(host, 'b')).executionId; // of a machine whose certificate has the same name
    const theirs = (await created(other, 'a')).executionId;
    const nameless = (await created(host)).executionId;
    t.same(await mine(host, 'a'), [first, second].toSorted());
    t.same(await mine(host, 'b'), [twin]);
    t.same(await mine(other, 'a'), [theirs]);
    t.same((await host.peer.call('execution.mine', {})).executionIds, [nameless]);

    const nobodys = ExecutionId.parse(randomUUID());
    t.same(await lose([first, first, twin, theirs, nameless, nobodys], 'a'), {}, 'nothing is said');
    t.equal(await statusOf(server, first), 'lost');
    for (const one of [second, twin, theirs, nameless])
      t.equal(await statusOf(server, one), 'running');
    t.same(await mine(host, 'a'), [second]);

    const before = (await server.executions.get(first)).record;
    t.match(before, {
      exitCode: null,
      signal: null,
      warnings: ['Warning: lost: it was restarted'],
    });
    t.ok((before['finishedAt'] as number) >= (before['startedAt'] as number));
    await lose([first, second], 'a', 'again');
    t.same((await server.executions.get(first)).record, before, 'the first time counts');
    t.equal(await statusOf(server, second), 'lost');

    const finished = await created(host, 'a');
    const { channel } = await host.peer.call('execution.open', { token: finished.token });
    await host.peer.call('execution.finish', EXAMPLES['execution.finish'](), { channel });
    t.same(await mine(host, 'a'), [], 'what has ended is not listed');
    await lose([finished.executionId], 'a');
    t.equal(await statusOf(server, finished.executionId), 'succeeded');

    const page = await server.audit
      .flush()
      .then(() => server.audit.read({ limit: 100, reverse: false }));
    const onRecord = page.events.filter(({ op, version }) => op === 'execution.lose' && version);
    t.same(
      onRecord.map(({ execution, namespace }) => [execution, namespace]),
      [
        [first, 'user:ada'],
        [second, 'user:bob'],
      ],
      'each is on record, with whose it was',
    );
  },
);

void t.test('a lost execution makes room, and its channel takes no more writes', async (t) => {
  await using server = await InProcessServer.start();
  await server.services.quotas.set(NAMESPACE, { executions: 1 });
  using host = await greeted(server, server.tls('host'));
  const { executionId, token } = await created(host, 'a');
  const { channel } = await host.peer.call('execution.open', { token });
  await t.rejects(created(host, 'a'), { code: 'quota' });
  const lost = { executionIds: [executionId], instance: 'a', reason: 'the machine was restarted' };
  await host.peer.call('execution.lose', lost);
  t.match(await host.outcome('output.set', { text: '1' }, channel), { code: 'denied' });
  t.match(await host.outcome('execution.open', { token }), { code: 'denied' });
  t.ok(await created(host, 'a'), 'another one may run');
});

void t.test('an operator gives one up: its host, if it is there, is told to stop it', async (t) => {
  await using server = await InProcessServer.start();
  using host = await greeted(server, server.tls('host'));
  using operator = await greeted(server, server.tls('operator'));
  const { executionId, token } = await created(host, 'a');
  const { channel } = await host.peer.call('execution.open', { token });
  const told: unknown[] = [];
  host.peer.onPush = (on, topic, value) => told.push([on, topic, value]);
  const force = { executionId, reason: 'burnt', force: true };
  await operator.peer.call('execution.cancel', force);
  t.equal(await statusOf(server, executionId), 'lost');
  t.same((await host.peer.call('execution.mine', { instance: 'a' })).executionIds, []);
  t.same(told, [[channel, 'execution.cancelled', { reason: 'burnt' }]]);
  t.match(await host.outcome('output.set', { text: '1' }, channel), { code: 'denied' });
  t.match(await operator.outcome('execution.cancel', force), { code: 'conflict' });
});
