import { randomUUID } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import t from 'tap';
import { Connection } from '#bridge/client/connection.js';
import { Channels, ExecutionChannel } from '#bridge/client/execution-channel.js';
import { Link } from '#bridge/client/link.js';
import { ExecutionId, VariableKey } from '#bridge/wire/names.js';
import type { EventDocument, Variable, VariableChange } from '#bridge/wire/protocol.js';
import { InProcessServer } from '#test/support/in-process-server.js';
import { eventually } from '#test/support/installation.js';

// Tokens are waited for until they expire.
t.setTimeout(90_000);

const key = (name: string) => VariableKey.parse(name);
const event: EventDocument = {
  id: 1,
  name: 'test',
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

const ENDED = {
  status: 'succeeded' as const,
  exitCode: 0,
  signal: null,
  warnings: [],
  startedAt: 1,
  finishedAt: 2,
};

/** What a tree would hear. */
class Ears {
  readonly changes: VariableChange[] = [];
  readonly documents: (readonly Variable[])[] = [];
  changed(changes: readonly VariableChange[]): void {
    this.changes.push(...changes);
  }
  readonly reasons: string[] = [];
  refreshed(variables: readonly Variable[]): void {
    this.documents.push(variables);
  }
  cancelled(reason: string): void {
    this.reasons.push(reason);
  }
}

function linkTo(
  server: InProcessServer,
  outageBudgetMs?: number,
): { link: Link; channels: Channels } {
  const link = new Link(
    { address: server.address, tls: server.tls('host'), software: 'test' },
    outageBudgetMs,
  );
  return { link, channels: new Channels(link) };
}

const open = async (link: Link, channels: Channels, ears = new Ears()) =>
  await ExecutionChannel.create(
    link,
    channels,
    { user: 'ada', variablesOf: { user: 'ada' }, runtime: 'bash', event, timeoutMs: 1000 },
    ears,
  );

void t.test(
  'an execution outlives its token, because the token is renewed over the link',
  async (t) => {
    await using server = await InProcessServer.start({ tokenLifetimeMs: 2_000 });
    const { link, channels } = linkTo(server);
    await using _link = link;
    using channel = await open(link, channels);
    await sleep(4_500);
    await channel.setOutput('1');
    t.pass('a commit after twice the token’s life');
  },
);

void t.test('a channel whose token was not renewed is refused', async (t) => {
  await using server = await InProcessServer.start({ tokenLifetimeMs: 1_000 });
  using connection = await Connection.open({
    address: server.address,
    tls: server.tls('host'),
    software: 'test',
  });
  const { token } = await connection.call('execution.create', {
    user: 'ada',
    variablesOf: { user: 'ada' },
    runtime: 'bash',
    event,
    timeoutMs: 1000,
  });
  const { channel } = await connection.call('execution.open', { token });
  await connection.call('condition.set', { condition: true }, { channel });
  await sleep(1_100);
  await t.rejects(connection.call('condition.set', { condition: true }, { channel }), {
    code: 'token_expired',
  });
  await t.rejects(
    connection.call('token.renew', {}, { channel }),
    { code: 'token_expired' },
    'nor can it be renewed then',
  );
});

void t.test('an execution whose token expired while the server was away goes on', async (t) => {
  await using server = await InProcessServer.start({ tokenLifetimeMs: 1_000 });
  const { link, channels } = linkTo(server);
  await using _link = link;
  const ears = new Ears();
  using channel = await open(link, channels, ears);
  const place = { executionId: channel.executionId, namespace: { user: 'ada' } } as const;
  const handedOut = async () => (await server.executions.tokensOf(place)).length;
  t.equal(await handedOut(), 1);
  // Clocks may differ by 5 s: so long it can be opened still, but no call may be made.
  for (const [round, awayMs] of [2_500, 7_000].entries()) {
    await server.pause();
    const during = channel.setOutput(String(round));
    await sleep(awayMs);
    await server.resume();
    await during;
    t.equal(await handedOut(), 2 + round, `a new token after ${awayMs} ms`);
    const { output } = await server.executions.get(channel.executionId);
    t.equal(output, String(round));
  }
  await server.variables.edit(
    { user: 'ada' },
    { set: [[key('news'), '1']], delete: [] },
    { by: 'somebody' },
  );
  await eventually('pushes arrive', () => ears.changes.some(({ key: name }) => name === 'news'));
  await server.pause();
  await server.executions.finish(place, ENDED);
  await sleep(6_500);
  await server.resume();
  await t.rejects(channel.setOutput('1'), { code: 'denied', message: /has ended/ });
});

void t.test('a server that is back after a second is found within 300 ms', async (t) => {
  await using server = await InProcessServer.start();
  const { link } = linkTo(server);
  await using _link = link;
  const found: number[] = [];
  for (let round = 0; round < 5; round++) {
    const connection = await link.connection();
    await server.pause();
    await connection.closed;
    await sleep(1_000 + 77 * round);
    await server.resume();
    const back = performance.now();
    await link.connection();
    found.push(Math.round(performance.now() - back));
  }
  // And what TLS takes on a busy machine.
  t.ok(
    found.every((ms) => ms < 500),
    `after ${found.join(', ')} ms`,
  );
});

void t.test(
  'the server restarts: waiting calls get through, the document is caught up, pushes go on',
  async (t) => {
    await using server = await InProcessServer.start();
    const { link, channels } = linkTo(server);
    await using _link = link;
    const ears = new Ears();
    using channel = await open(link, channels, ears);
    await channel.commitVariables({
      id: randomUUID(),
      set: [[key('a'), '1']],
      delete: [],
      bases: [],
    });

    await server.pause();
    const during = channel.commitVariables({
      id: randomUUID(),
      set: [[key('b'), '2']],
      delete: [],
      bases: [],
    });
    await server.variables.edit(
      { user: 'ada' },
      { set: [[key('c'), '3']], delete: [] },
      { by: 'somebody' },
    );
    await sleep(200);
    t.notOk(link.status.connected);
    await server.resume();
    t.match(await during, [{ key: 'b', text: '2' }], 'what was called while it was away is done');
    await eventually('the document arrived', () => ears.documents.length > 0);
    t.match(
      ears.documents[0]?.map(({ key: name }) => name),
      ['a', 'c'],
      'with what others did meanwhile',
    );

    await server.variables.edit(
      { user: 'ada' },
      { set: [[key('d'), '4']], delete: [] },
      { by: 'somebody' },
    );
    await eventually('the push arrived', () => ears.changes.some(({ key: name }) => name === 'd'));
    t.notOk(
      ears.changes.some(({ key: name }) => name === 'b'),
      'its own changes are not pushed back',
    );
  },
);

void t.test(
  'when the server stays away longer than the budget, calls fail and say so',
  async (t) => {
    await using server = await InProcessServer.start();
    const { link, channels } = linkTo(server, 300);
    await using _link = link;
    using channel = await open(link, channels);
    await server.pause();
    await t.rejects(channel.setOutput('1'), {
      code: 'unavailable',
      message: /the server was out of reach for \d+ ms: no server answers at/,
    });
    await server.resume();
    await eventually('the link is back', () => link.status.connected);
    await channel.setOutput('1');
    t.pass('and go on when it is back');
  },
);

void t.test(
  'a change of one execution reaches the others of its namespace, and no other',
  async (t) => {
    await using server = await InProcessServer.start();
    const { link, channels } = linkTo(server);
    await using _link = link;
    const [mine, theirs] = [new Ears(), new Ears()];
    using a = await open(link, channels, mine);
    using b = await open(link, channels, theirs);
    const strangers = new Ears();
    using _c = await ExecutionChannel.create(
      link,
      channels,
      { user: 'bob', variablesOf: { user: 'bob' }, runtime: 'bash', event, timeoutMs: 1000 },
      strangers,
    );
    t.not(a.executionId, b.executionId);
    await a.commitVariables({
      id: randomUUID(),
      set: [[key('news'), '"x"']],
      delete: [],
      bases: [],
    });
    await eventually('the push arrived', () => theirs.changes.length > 0);
    t.match(theirs.changes, [{ key: 'news', text: '"x"' }]);
    t.same(mine.changes, []);
    t.same(strangers.changes, []);
  },
);

void t.test(
  'a cancellation arrives at once, when the link is back, and when it came before the channel',
  async (t) => {
    await using server = await InProcessServer.start();
    const { link, channels } = linkTo(server);
    await using _link = link;
    const ears = new Ears();
    const strangers = new Ears();
    using channel = await open(link, channels, ears);
    using _other = await open(link, channels, strangers);
    await server.executions.cancel(channel.executionId, { reason: 'too slow' }, 'operator:ada');
    await eventually('it was told', () => ears.reasons.length > 0);
    t.same(ears.reasons, ['too slow']);

    const away = new Ears();
    using second = await open(link, channels, away);
    await server.pause();
    await server.executions.cancel(second.executionId, { reason: 'while away' }, 'operator:ada');
    await server.resume();
    await eventually('it was told when the link was back', () => away.reasons.length > 0);
    t.equal(away.reasons[0], 'while away');

    await eventually('the link is back', () => link.status.connected);
    const connection = await link.connection();
    const early = new Ears();
    const executionId = ExecutionId.parse(randomUUID());
    const params = { user: 'ada', variablesOf: { user: 'ada' }, runtime: 'bash', event };
    await connection.call('execution.create', { ...params, timeoutMs: 1000, executionId });
    await server.executions.cancel(executionId, { reason: 'before it began' }, 'operator:ada');
    using _third = await ExecutionChannel.create(
      link,
      channels,
      { ...params, timeoutMs: 1000, executionId },
      early,
    );
    await eventually('it was told after the opening', () => early.reasons.length > 0);
    t.equal(early.reasons[0], 'before it began');
    t.same(strangers.reasons, [], 'nobody else was told');
  },
);

void t.test(
  'a connection lost while an execution is created: one execution, however often it was asked for',
  async (t) => {
    await using server = await InProcessServer.start();
    const { link, channels } = linkTo(server);
    await using _link = link;
    await link.connection();
    // The answer to the creation is lost: the server has made it, and goes away before it can say so.
    const { executions } = server;
    const create = executions.create.bind(executions);
    let paused: Promise<void> | undefined;
    executions.create = async (...args) => {
      const id = await create(...args);
      paused = server.pause();
      await paused;
      return id;
    };
    const opening = open(link, channels);
    await eventually('the server went away', () => paused !== undefined);
    await paused;
    await server.resume();
    using channel = await opening;
    await channel.setOutput('1');
    const listed = await server.executions.list({ limit: 10 });
    t.same(
      listed.map(({ executionId }) => executionId),
      [channel.executionId],
    );
  },
);

void t.test('what has ended takes no more writes', async (t) => {
  await using server = await InProcessServer.start();
  const { link, channels } = linkTo(server);
  await using _link = link;
  using channel = await open(link, channels);
  await channel.finish({
    status: 'succeeded',
    exitCode: 0,
    signal: null,
    warnings: [],
    startedAt: 1,
    finishedAt: 2,
  });
  await t.rejects(channel.setOutput('1'), { code: 'denied' });
});
