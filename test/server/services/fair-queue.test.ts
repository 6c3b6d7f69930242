import { setImmediate as turn } from 'node:timers/promises';
import t from 'tap';
import { BridgeError } from '#bridge/wire/errors.js';
import { FairQueue, type FairQueueOptions } from '#server/services/fair-queue.js';
import { type Random, randomTest } from '#test/support/random.js';

/** A server whose calls end when the test says so. `started` is in the order of their starts. */
class Server {
  readonly queue: FairQueue;
  readonly started: string[] = [];
  readonly failed: { call: string; error: unknown }[] = [];
  readonly running: string[] = [];

  constructor(options: FairQueueOptions) {
    this.queue = new FairQueue(options);
  }

  /** `ada:1`: tenant and name of the call. */
  call(call: string, bytes = 0, signal?: AbortSignal): void {
    const wait = this.queue.enter(tenantOf(call), bytes, signal && (() => signal));
    if (wait === undefined) this.#start(call);
    else
      wait.then(
        () => this.#start(call),
        (error: unknown) => this.failed.push({ call, error }),
      );
  }

  end(call = this.running[0]): void {
    if (call === undefined) throw new Error('nothing runs');
    this.running.splice(this.running.indexOf(call), 1);
    this.queue.leave(tenantOf(call));
  }

  #start(call: string): void {
    this.started.push(call);
    this.running.push(call);
  }
}

const tenantOf = (call: string): string => call.slice(0, call.indexOf(':'));

function codeOf(act: () => void): string | undefined {
  try {
    act();
    return undefined;
  } catch (error) {
    return error instanceof BridgeError ? error.code : String(error);
  }
}

void t.test('while there is room, every call starts at once', async (t) => {
  const server = new Server({ runningMax: 100, tenantRunningMax: 100 });
  for (let i = 0; i < 100; i++) server.call(`ada:${i}`);
  t.equal(server.started.length, 100);
  for (let i = 0; i < 100; i++) server.end();
  t.equal(server.queue.running, 0);
});

void t.test('a tenant with 5,000 waiting calls and one with a single call alternate', async (t) => {
  const server = new Server({ runningMax: 1 });
  for (let i = 0; i <= 5000; i++) server.call(`flood:${i}`);
  server.call('quiet:0');
  server.end();
  await turn();
  server.call('quiet:1');
  server.end();
  await turn();
  server.end();
  await turn();
  server.end();
  await turn();
  t.same(server.started, ['flood:0', 'flood:1', 'quiet:0', 'flood:2', 'quiet:1']);
});

void t.test(
  'one tenant leaves places free: the others need not even wait for a turn',
  async (t) => {
    const server = new Server({ runningMax: 8, tenantRunningMax: 6 });
    for (let i = 0; i < 100; i++) server.call(`flood:${i}`);
    t.equal(server.started.length, 6);
    server.call('quiet:0');
    t.equal(server.started.at(-1), 'quiet:0', 'started at once');
    server.end('quiet:0');
    server.end('flood:0');
    await turn();
    t.equal(server.started.at(-1), 'flood:6', 'and the place of the flood’s own call is its own');
    t.equal(server.running.length, 6);
  },
);

void t.test('a tenant of weight three gets three calls to the other’s one', async (t) => {
  const server = new Server({ runningMax: 1, weightOf: (name) => (name === 'big' ? 3 : 1) });
  server.call('first:0');
  for (let i = 0; i < 9; i++) server.call(`big:${i}`);
  for (let i = 0; i < 3; i++) server.call(`small:${i}`);
  for (let i = 0; i < 12; i++) {
    server.end();
    await turn();
  }
  t.same(server.started.slice(1).map(tenantOf).join(' '), 'big big big small '.repeat(3).trim());
});

void t.test(
  'a full queue refuses early, with a hint, and only the tenant that filled it',
  async (t) => {
    const server = new Server({ runningMax: 1, tenantQueuedMax: 3 });
    for (let i = 0; i < 4; i++) server.call(`flood:${i}`);
    try {
      server.call('flood:4');
      t.fail('not refused');
    } catch (error) {
      t.ok(error instanceof BridgeError);
      t.match(error, { code: 'rate_limited', retryAfterMs: 250 });
      t.match((error as Error).message, /^3 calls of flood \(0 bytes\) are waiting/);
    }
    server.call('quiet:0');
    t.equal(server.queue.queued, 4);
  },
);

void t.test('the bytes of waiting calls are bounded, of one tenant and of all', async (t) => {
  const server = new Server({ runningMax: 1, tenantQueuedBytesMax: 100, queuedBytesMax: 250 });
  server.call('first:0');
  server.call('ada:0', 1000);
  t.equal(
    codeOf(() => server.call('ada:1', 1)),
    'rate_limited',
    'a large call passes alone',
  );
  t.equal(
    codeOf(() => server.call('bob:0', 1)),
    'rate_limited',
    'and counts for all',
  );
  server.end();
  await turn();
  server.call('bob:1', 60);
  t.equal(
    codeOf(() => server.call('bob:2', 60)),
    'rate_limited',
  );
  server.call('bob:3', 40);
  t.equal(server.queue.queued, 2);
});

void t.test(
  'a call whose deadline passes in the queue fails, and its place goes to the next',
  async (t) => {
    const server = new Server({ runningMax: 1 });
    const [deadline, lost] = [new AbortController(), new AbortController()];
    server.call('ada:0');
    server.call('ada:1', 0, deadline.signal);
    server.call('ada:2', 0, lost.signal);
    server.call('ada:3');
    deadline.abort();
    lost.abort(new BridgeError('unavailable', 'the connection was lost'));
    server.call('ada:4', 0, AbortSignal.abort());
    await turn();
    t.match(server.failed, [
      { call: 'ada:1', error: { code: 'timeout' } },
      { call: 'ada:2', error: { code: 'unavailable' } },
      { call: 'ada:4', error: { code: 'timeout' } },
    ]);
    server.end();
    await turn();
    t.same(server.running, ['ada:3']);
    t.equal(server.queue.queued, 0);
  },
);

void t.test('a deadline that passes just as a call starts does not upset the count', async (t) => {
  const server = new Server({ runningMax: 1 });
  const deadline = new AbortController();
  server.call('ada:0');
  server.call('ada:1', 0, deadline.signal);
  server.end();
  deadline.abort();
  await turn();
  t.same(server.running, ['ada:1']);
  server.end();
  t.equal(server.queue.running + server.queue.queued, 0);
  server.call('ada:2');
  t.same(server.running, ['ada:2']);
});

void t.test('closing fails what waits and what comes; what runs may end', async (t) => {
  const server = new Server({ runningMax: 1 });
  for (let i = 0; i < 3; i++) server.call(`ada:${i}`);
  server.queue.close(new BridgeError('unavailable', 'the server is shutting down'));
  await turn();
  t.equal(server.failed.length, 2);
  t.equal(
    codeOf(() => server.call('bob:0')),
    'unavailable',
  );
  server.end();
  t.equal(server.queue.running, 0);
});

randomTest(
  'nothing is lost and bounds hold, whoever calls, ends or gives up when',
  async (t, random) => {
    const tenantRunningMax = 1 + random.int(8);
    const runningMax = tenantRunningMax + random.int(4);
    const tenantQueuedMax = 20 + random.int(50);
    const weights = new Map(['a', 'b', 'c', 'd', 'e'].map((name) => [name, 1 + random.int(3)]));
    const weightOf = (name: string) => weights.get(name) ?? 1;
    const server = new Server({ runningMax, tenantRunningMax, tenantQueuedMax, weightOf });
    const run = new RandomRun(server, random, [...weights.keys()]);
    for (let step = 0; step < 5000; step++) {
      await run.step();
      const { running } = server;
      if (running.length > runningMax) t.fail(`${running.length} run`);
      for (const name of weights.keys()) {
        const own = running.filter((call) => tenantOf(call) === name).length;
        if (own > tenantRunningMax) t.fail(`${own} of ${name} run`);
      }
      if (server.queue.queued > tenantQueuedMax * weights.size) t.fail('too many wait');
    }
    await run.finish();
    t.equal(
      server.started.length + server.failed.length,
      run.accepted,
      'every call has an outcome',
    );
    t.equal(server.queue.running + server.queue.queued, 0);
    t.equal(run.outOfOrder, 0, 'calls of one tenant start in their order');
  },
);

/** Many tenants that call, end and give up by chance. */
class RandomRun {
  readonly #server: Server;
  readonly #random: Random;
  readonly #tenants: readonly string[];
  readonly #gaveUp = new Map<string, AbortController>();
  accepted = 0;

  constructor(server: Server, random: Random, tenants: readonly string[]) {
    this.#server = server;
    this.#random = random;
    this.#tenants = tenants;
  }

  async step(): Promise<void> {
    const random = this.#random;
    if (random.chance(0.55)) {
      const call = `${random.chance(0.6) ? 'a' : random.pick(this.#tenants)}:${this.accepted}`;
      const giveUp = new AbortController();
      if (codeOf(() => this.#server.call(call, 0, giveUp.signal)) === undefined) {
        this.accepted++;
        this.#gaveUp.set(call, giveUp);
      }
    } else if (random.chance(0.1) && this.#gaveUp.size > 0) {
      random.pick([...this.#gaveUp.values()].slice(-50)).abort();
    } else if (this.#server.running.length > 0) {
      this.#server.end(random.pick(this.#server.running));
    }
    await Promise.resolve();
    await Promise.resolve();
  }

  async finish(): Promise<void> {
    while (this.#server.running.length > 0) {
      this.#server.end();
      await turn();
    }
  }

  get outOfOrder(): number {
    const last = new Map<string, number>();
    return this.#server.started.filter((call) => {
      const number = Number(call.slice(call.indexOf(':') + 1));
      const before = last.get(tenantOf(call)) ?? -1;
      last.set(tenantOf(call), number);
      return number < before;
    }).length;
  }
}

randomTest(
  'a quiet tenant’s call starts after at most one turn of every other active tenant',
  async (t, random) => {
    for (let round = 0; round < 200; round++) {
      const tenants = 1 + random.int(20);
      const server = new Server({ runningMax: 1 + random.int(4), tenantRunningMax: 1000 });
      for (let i = 0; i < 200; i++) server.call(`t${random.int(tenants)}:${i}`);
      for (let i = random.int(50); i > 0; i--) {
        server.end(random.pick(server.running));
        await turn();
      }
      const active = new Set(server.started.map(tenantOf)).size;
      const before = server.started.length;
      server.call('quiet:0');
      while (!server.started.includes('quiet:0')) {
        server.end(random.pick(server.running));
        await turn();
      }
      const waited = server.started.length - before - 1;
      if (waited > Math.max(active, tenants)) t.fail(`${waited} calls of ${tenants} tenants first`);
    }
    t.pass();
  },
);
