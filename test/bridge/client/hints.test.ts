import { randomUUID } from 'node:crypto';
import t from 'tap';
import { Channels, ExecutionChannel } from '#bridge/client/execution-channel.js';
import { Link } from '#bridge/client/link.js';
import { BridgeError, type Code } from '#bridge/wire/errors.js';
import type { EventDocument } from '#bridge/wire/protocol.js';
import { InProcessServer } from '#test/support/in-process-server.js';

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

/** A server that refuses some calls, and what it was asked, when. */
class Busy {
  readonly asked: { readonly op: string; readonly at: number }[] = [];
  /** Refusals left, by operation. */
  readonly refusals = new Map<string, number>();
  code: Code = 'rate_limited';
  hintMs: number | undefined = 80;

  readonly serve = async (op: string): Promise<unknown> => {
    this.asked.push({ op, at: performance.now() });
    const left = this.refusals.get(op) ?? 0;
    this.refusals.set(op, left - 1);
    if (left > 0)
      throw new BridgeError(
        this.code,
        'too much at once',
        this.hintMs === undefined ? {} : { retryAfterMs: this.hintMs },
      );
    switch (op) {
      case 'execution.create':
        return {
          executionId: randomUUID(),
          token: 't',
          expiresAt: Date.now() + 300_000,
          lifetimeMs: 300_000,
        };
      case 'execution.open':
        return {
          executionId: randomUUID(),
          channel: 1,
          expiresAt: Date.now() + 300_000,
          variables: [],
          merged: [],
        };
      default:
        return {};
    }
  };

  times = (op: string): number[] => this.asked.filter((one) => one.op === op).map(({ at }) => at);
}

async function execution(busy: Busy, outageBudgetMs: number) {
  const server = await InProcessServer.start({ serve: busy.serve });
  const link = new Link(
    { address: server.address, tls: server.tls('host'), software: 'test' },
    outageBudgetMs,
  );
  const channels = new Channels(link);
  const create = async (signal?: AbortSignal) =>
    await ExecutionChannel.create(
      link,
      channels,
      { user: 'ada', variablesOf: { user: 'ada' }, runtime: 'bash', event, timeoutMs: 1000 },
      { changed: () => {}, refreshed: () => {}, cancelled: () => {} },
      signal,
    );
  return {
    create,
    async [Symbol.asyncDispose]() {
      await link[Symbol.asyncDispose]();
      await server[Symbol.asyncDispose]();
    },
  };
}

void t.test('a write that a busy server refuses for now is made when it said', async (t) => {
  const busy = new Busy();
  await using running = await execution(busy, 5_000);
  using channel = await running.create();
  busy.refusals.set('output.set', 2);
  await channel.setOutput('1');
  const [first = 0, second = 0, third = 0, ...more] = busy.times('output.set');
  t.same(more, []);
  t.ok(second - first >= 78, `after ${second - first} ms`);
  t.ok(third - second >= 78, `and ${third - second} ms`);
  t.ok(third - first < 1000);
});

void t.test('so is what starts an execution', async (t) => {
  const busy = new Busy();
  await using running = await execution(busy, 5_000);
  busy.refusals.set('execution.create', 1).set('execution.open', 2);
  using _channel = await running.create();
  t.equal(busy.times('execution.create').length, 2);
  t.equal(busy.times('execution.open').length, 3);
});

void t.test('a refusal without a hint, or with one beyond the budget, fails at once', async (t) => {
  const busy = new Busy();
  await using running = await execution(busy, 500);
  using channel = await running.create();
  let asked = 0;
  for (const hintMs of [undefined, 501, 60_000]) {
    busy.hintMs = hintMs;
    busy.refusals.set('output.set', 1);
    await t.rejects(channel.setOutput('1'), { code: 'rate_limited', message: 'too much at once' });
    t.equal(busy.times('output.set').length, ++asked, `not again: ${hintMs}`);
  }
});

void t.test('a server that is always busy is asked until the budget is used up', async (t) => {
  const busy = new Busy();
  await using running = await execution(busy, 500);
  using channel = await running.create();
  busy.refusals.set('output.set', 1_000_000);
  const started = performance.now();
  await t.rejects(channel.setOutput('1'), { code: 'rate_limited' });
  t.ok(performance.now() - started < 10_000);
  const { length } = busy.times('output.set');
  t.ok(length >= 2 && length <= 7, `${length} times`);
  busy.hintMs = 0;
  const before = busy.asked.length;
  await t.rejects(channel.setOutput('1'), { code: 'rate_limited' });
  t.ok(busy.asked.length - before < 60, 'a hint of nothing makes no storm');
});

void t.test('who is interrupted does not wait for a busy server', async (t) => {
  const busy = new Busy();
  await using running = await execution(busy, 20_000);
  busy.hintMs = 4_000;
  busy.refusals.set('execution.create', 1);
  const started = performance.now();
  await t.rejects(running.create(AbortSignal.timeout(100)), { code: 'interrupted' });
  t.ok(performance.now() - started < 3_900, 'before the hint');
});
