import { readFileSync } from 'node:fs';
import t, { type Test } from 'tap';
import { BridgeError } from '#bridge/wire/errors.js';
import { QUOTA_CEILINGS } from '#bridge/wire/protocol/quotas.js';
import { QUOTA_DEFAULTS } from '#server/services/quotas.js';
import {
  CLASS_OF,
  costOf,
  IN_FLIGHT,
  LIMITED,
  OPERATION_CLASSES,
  RATES,
  RateLimits,
  RateSettings,
  type Who,
} from '#server/services/rate-limits.js';
import { randomTest } from '#test/support/random.js';

const RUN: Who = { execution: 'run-1', namespace: 'user:ada', peer: 'host-1' };

/** Few units, so that a test can use them up. */
const TIGHT = {
  rates: {
    execution: { write: { burst: 10, perSecond: 100 } },
    namespace: { write: { burst: 20, perSecond: 1000 } },
  },
};

function refusedBy(act: () => void): BridgeError | undefined {
  try {
    act();
    return undefined;
  } catch (error) {
    if (error instanceof BridgeError) return error;
    throw error;
  }
}

/** Takes until refused; how many passed, and the refusal. */
function takeAll(
  limits: RateLimits,
  who: Who,
  now: number,
): { taken: number; refusal: BridgeError } {
  for (let taken = 0; ; taken++) {
    const refusal = refusedBy(() => limits.take(who, 'write', 1, now));
    if (refusal !== undefined) return { taken, refusal };
  }
}

void t.test(
  'a script that writes 2,000 values at once and 200 a second for an hour is never refused',
  async (t) => {
    const limits = new RateLimits();
    for (let i = 0; i < 2000; i++) limits.take(RUN, 'write', 1, 0);
    for (let i = 0; i < 3600 * 200; i++) limits.take(RUN, 'write', 1, i * 5);
    t.equal(limits.stats.refused.execution, 0);
  },
);

void t.test(
  'whoever calls too often hears which limit of whom it was, and when to try again',
  async (t) => {
    const limits = new RateLimits(TIGHT);
    const { taken, refusal } = takeAll(limits, RUN, 1000);
    t.equal(taken, 10);
    t.equal(refusal.code, 'rate_limited');
    t.equal(
      refusal.message,
      'execution run-1 may make 100 write calls per second, 10 at once; try again in 10 ms',
    );
    t.equal(refusal.retryAfterMs, 10);
    t.ok(
      refusedBy(() => limits.take(RUN, 'write', 1, 1009)),
      'earlier is too early',
    );
    limits.take(RUN, 'write', 1, 1010);
    t.equal(takeAll(limits, RUN, 1110).taken, 10, 'a bucket holds no more than its burst');
  },
);

void t.test('a refused call is charged to nobody', async (t) => {
  const limits = new RateLimits(TIGHT);
  takeAll(limits, RUN, 0);
  for (let i = 0; i < 100; i++) refusedBy(() => limits.take(RUN, 'write', 1, 0));
  const other = { ...RUN, execution: 'run-2' };
  const { taken, refusal } = takeAll(limits, other, 0);
  t.equal(taken, 10, 'of the namespace’s 20 only the 10 that passed are gone');
  t.match(refusal.message, /execution run-2/);
  const third = takeAll(limits, { ...RUN, execution: 'run-3' }, 0);
  t.equal(third.taken, 0);
  t.match(third.refusal.message, /^user:ada may make 1000 write calls/);
  t.same(limits.stats.refused, { execution: 102, namespace: 1, peer: 0 });
});

void t.test(
  'reading goes on while writing is refused, and another tenant notices nothing',
  async (t) => {
    const limits = new RateLimits(TIGHT);
    takeAll(limits, RUN, 0);
    limits.take(RUN, 'read', 1, 0);
    limits.take({ execution: 'run-9', namespace: 'org:acme' }, 'write', 1, 0);
    t.pass();
  },
);

void t.test('a message larger than a whole burst passes when the bucket is full', async (t) => {
  const limits = new RateLimits(TIGHT);
  t.equal(costOf(32 * 1024 * 1024), 513);
  limits.take({ execution: 'run-1' }, 'write', costOf(32 * 1024 * 1024), 0);
  t.equal(takeAll(limits, { execution: 'run-1' }, 0).taken, 0);
  limits.take({ execution: 'run-1' }, 'write', 513, 100);
});

void t.test(
  'a clock that goes back an hour keeps nobody out for longer than a bucket takes',
  async (t) => {
    const limits = new RateLimits(TIGHT);
    limits.take(RUN, 'write', 5, 3_600_000);
    let now = 0;
    const attempt = () => refusedBy(() => limits.take(RUN, 'write', 1, now));
    for (let refusal = attempt(); refusal !== undefined; refusal = attempt())
      now += refusal.retryAfterMs ?? Number.NaN;
    t.ok(now <= 100, `${now} ms`);
  },
);

void t.test('calls in flight are bounded per execution, and an answer makes room', async (t) => {
  const limits = new RateLimits();
  for (let i = 0; i < IN_FLIGHT.execution; i++) limits.enter(RUN, 'read', 1, 0);
  const refusal = refusedBy(() => limits.enter(RUN, 'read', 1, 0));
  t.equal(
    refusal?.message,
    'execution run-1 has 256 calls without an answer; that is the limit; try again in 50 ms',
  );
  t.equal(refusal?.retryAfterMs, 50);
  limits.enter({ ...RUN, execution: 'run-2' }, 'read', 1, 0);
  limits.leave(RUN);
  limits.enter(RUN, 'read', 1, 0);
  t.equal(limits.inFlight('execution', 'run-1'), 256);
  t.equal(limits.inFlight('namespace', 'user:ada'), 257);
});

void t.test('a namespace’s executions together have a bound as well', async (t) => {
  const limits = new RateLimits();
  for (let i = 0; i < IN_FLIGHT.namespace; i++)
    limits.enter({ execution: `run-${i % 16}`, namespace: 'user:ada' }, 'read', 1, 0);
  const refusal = refusedBy(() =>
    limits.enter({ execution: 'run-99', namespace: 'user:ada' }, 'read', 1, 0),
  );
  t.match(refusal?.message, /^user:ada has 2048 calls without an answer/);
  t.equal(limits.inFlight('execution', 'run-99'), 0, 'nothing was entered');
});

void t.test('a hundred thousand executions that come and go leave no memory behind', async (t) => {
  const limits = new RateLimits();
  let most = 0;
  for (let i = 0; i < 100_000; i++) {
    const who = { execution: `run-${i}` };
    limits.enter(who, 'write', 1, i * 10);
    limits.leave(who);
    most = Math.max(most, limits.stats.owners);
  }
  t.ok(most < 100, `at most ${most} were kept`);
});

void t.test(
  'a map full of busy owners refuses a stranger, and takes him once one is idle',
  async (t) => {
    const limits = new RateLimits({}, 10);
    for (let i = 0; i < 10; i++) limits.enter({ execution: `run-${i}` }, 'read', 1, 0);
    const stranger = { execution: 'run-10' };
    const refusal = refusedBy(() => limits.take(stranger, 'read', 1, 0));
    t.match(refusal?.message, /keeps count of 10 executions at once/);
    t.ok(refusal?.retryAfterMs);
    limits.leave({ execution: 'run-3' });
    limits.take(stranger, 'read', 1, 1000);
    t.equal(limits.stats.owners, 10);
    t.equal(limits.inFlight('execution', 'run-4'), 1, 'whoever has calls in flight is kept');
  },
);

void t.test('every limit can be set, and a wrong one is refused', async (t) => {
  for (const limited of LIMITED)
    for (const kind of OPERATION_CLASSES) {
      const settings = RateSettings.parse({
        rates: { [limited]: { [kind]: { burst: 1, perSecond: 1 } } },
      });
      const limits = new RateLimits(settings);
      limits.take(RUN, kind, 1, 0);
      const refusal = refusedBy(() => limits.take(RUN, kind, 1, 0));
      t.match(refusal?.message, `may make 1 ${kind} calls per second, 1 at once`, limited);
      for (const other of OPERATION_CLASSES) if (other !== kind) limits.take(RUN, other, 1, 0);
    }
  t.notOk(RateSettings.safeParse({ rates: { execution: { write: { burst: 0 } } } }).success);
  t.notOk(RateSettings.safeParse({ rates: { tenant: {} } }).success);
  t.notOk(RateSettings.safeParse({ inFlight: { execution: 0 } }).success);
});

void t.test('reads have four times the room of writes, for everybody', async (t) => {
  for (const limited of LIMITED) {
    t.equal(RATES[limited].read.burst, 4 * RATES[limited].write.burst);
    t.equal(RATES[limited].read.perSecond, 4 * RATES[limited].write.perSecond);
  }
  t.equal(CLASS_OF['variables.commit'], 'write');
});

void t.test('docs/operations.md has the numbers of the code', async (t) => {
  const docs = readFileSync(new URL('../../../../docs/operations.md', import.meta.url), 'utf8');
  const number = (n: number) => n.toLocaleString('en-US');
  for (const limited of LIMITED) {
    const cells = OPERATION_CLASSES.map((kind) => {
      const { burst, perSecond } = RATES[limited][kind];
      return `${number(burst)}, ${number(perSecond)}`;
    });
    const row = `| ${[limited, ...cells, number(IN_FLIGHT[limited])].join(' | ')} |`;
    t.ok(docs.includes(row), row);
  }
  for (const kind of ['variables', 'executions', 'connections'] as const) {
    const row = `| ${kind} | ${number(QUOTA_DEFAULTS[kind])} | ${number(QUOTA_CEILINGS[kind])} |`;
    t.ok(docs.includes(row), row);
  }
});

randomTest(
  'whatever is asked when, nobody gets more than burst and rate allow',
  async (t, random) => {
    const rate = { burst: 1 + random.int(50), perSecond: 1 + random.int(500) };
    const limits = new RateLimits({ rates: { execution: { write: rate } } });
    const model = new Map<string, { tokens: number; at: number }>();
    let now = 0;
    for (let i = 0; i < 20_000; i++) {
      now += random.chance(0.5) ? 0 : random.next() * 20;
      const id = `run-${random.int(5)}`;
      const cost = 1 + random.next() * (random.chance(0.1) ? 40 : 0);
      const bucket = model.get(id) ?? { tokens: rate.burst, at: now };
      const tokens = Math.min(
        rate.burst,
        bucket.tokens + ((now - bucket.at) * rate.perSecond) / 1000,
      );
      const charged = Math.min(cost, rate.burst);
      const refusal = refusedBy(() => limits.take({ execution: id }, 'write', cost, now));
      if (Math.abs(tokens - charged) > 1e-3) agree(t, refusal === undefined, tokens >= charged);
      if (refusal === undefined) model.set(id, { tokens: tokens - charged, at: now });
      else if (random.chance(0.1)) {
        // The hint is kept: whoever waits as long as it says is not refused.
        now += refusal.retryAfterMs ?? Number.NaN;
        limits.take({ execution: id }, 'write', cost, now);
        const then = Math.min(
          rate.burst,
          bucket.tokens + ((now - bucket.at) * rate.perSecond) / 1000,
        );
        model.set(id, { tokens: then - charged, at: now });
      }
    }
    t.pass();
  },
);

/** One comparison of thousands: only a difference is worth a line. */
function agree(t: Test, got: boolean, expected: boolean): void {
  if (got !== expected) t.equal(got, expected);
}
