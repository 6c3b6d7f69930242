import t, { type Test } from 'tap';
import { lineOf, nextHash } from '#bridge/wire/audit-chain.js';
import type { Damage } from '#bridge/wire/audit-check.js';
import {
  type BatchRecord,
  batchKey,
  chainKey,
  eventsOf,
  type HeadRecord,
  headKey,
  linesOf,
  readBatch,
  readHead,
} from '#server/services/audit/batches.js';
import { noteOf, target } from '#server/services/audit/note.js';
import { Audit } from '#server/services/audit.js';
import { packRecord } from '#server/services/record.js';
import { StoreClock } from '#server/store/clock.js';
import { MemoryStore } from '#server/store/memory-store.js';
import type { Key } from '#server/store/store.js';
import { type Random, randomTest } from '#test/support/random.js';

const ADA = { role: 'operator', name: 'ada', thumbprint: 'A'.repeat(43) };
const DAY_MS = 24 * 60 * 60 * 1000;

/** A log of three runs with five records of ten events each, a day apart, and whatever somebody does to it. */
class Victim {
  now = Date.UTC(2026, 0, 1);
  readonly store = new MemoryStore(
    new StoreClock(
      0,
      () => {},
      () => this.now,
      () => this.now,
    ),
  );
  audit: Audit | undefined;

  static async of(runs = 3): Promise<Victim> {
    const victim = new Victim();
    for (let run = 1; run <= runs; run++) await victim.run();
    return victim;
  }

  async run(): Promise<void> {
    await this.audit?.[Symbol.asyncDispose]();
    this.audit = await Audit.open(this.store);
    for (let record = 0; record < 5; record++) {
      for (let n = 0; n < 10; n++)
        void this.audit.done(target(noteOf(ADA, 'variable.get'), [`key-${record}-${n}`]));
      await this.audit.flush();
      this.now += DAY_MS;
    }
  }

  /** A verification by a process that has nothing to do with it. */
  async verify(heads: readonly string[] = []) {
    return await (this.audit ?? (await Audit.open(this.store))).verify(heads);
  }

  async firsts(writer: number): Promise<number[]> {
    const firsts: number[] = [];
    for await (const { key } of this.store.range(chainKey(writer))) firsts.push(Number(key[3]));
    return firsts;
  }

  async batch(writer: number, first: number): Promise<BatchRecord> {
    const entry = await this.store.get(batchKey(writer, first));
    if (entry === undefined) throw new Error(`no record ${writer}/${first}`);
    return readBatch(entry);
  }

  async put(key: Key, record: object): Promise<void> {
    await this.store.commit({ ops: [{ put: key, value: packRecord({ ...record }) }] });
  }

  async delete(...keys: Key[]): Promise<void> {
    await this.store.commit({ ops: keys.map((del) => ({ del })) });
  }

  async lines(writer: number, first: number, change: (lines: string[]) => string[]) {
    const batch = await this.batch(writer, first);
    const events = Buffer.from(change(linesOf(batch)).join('\n'));
    await this.put(batchKey(writer, first), { ...batch, events });
  }

  async head(writer: number): Promise<HeadRecord> {
    const entry = await this.store.get(headKey(writer));
    if (entry === undefined) throw new Error(`no head ${writer}`);
    return readHead(entry);
  }

  /** A chain as it would be had its events been `change`d all along: by one who knows how it is made. */
  async rewrite(writer: number, change: (line: string) => string): Promise<void> {
    let { hash } = await this.batch(writer, 0);
    for (const first of (await this.firsts(writer)).slice(1)) {
      const batch = await this.batch(writer, first);
      const prev = hash;
      let marks = '';
      const lines = linesOf(batch).map(change);
      for (const line of lines) {
        hash = nextHash(hash, line);
        marks += hash.slice(0, 8);
      }
      const events = Buffer.from(lines.join('\n'));
      await this.put(batchKey(writer, first), { ...batch, events, marks, prev, hash });
    }
    await this.put(headKey(writer), { ...(await this.head(writer)), hash });
  }
}

interface Tampering {
  readonly name: string;
  readonly what: Damage;
  readonly writer?: number;
  readonly seq: number;
  readonly act: (victim: Victim) => Promise<void>;
}

const swap = ([a, b, ...rest]: string[]): string[] => [b ?? '', a ?? '', ...rest];

/** Each is found at its place. Records of a run begin with events 0, 1, 11, 21, 31, 41. */
const TAMPERINGS: readonly Tampering[] = [
  {
    name: 'an event inside a record is removed',
    what: 'removed',
    seq: 14,
    act: async (v) => await v.lines(2, 11, (lines) => lines.toSpliced(3, 1)),
  },
  {
    name: 'the last event of a record is removed',
    what: 'removed',
    seq: 20,
    act: async (v) => await v.lines(2, 11, (lines) => lines.slice(0, -1)),
  },
  {
    name: 'an event is removed, and what counts them is adapted',
    what: 'removed',
    seq: 20,
    act: async (v) => {
      await v.lines(2, 11, (lines) => lines.slice(0, -1));
      await v.put(batchKey(2, 11), { ...(await v.batch(2, 11)), count: 9 });
    },
  },
  {
    name: 'a record is removed',
    what: 'removed',
    seq: 21,
    act: async (v) => await v.delete(batchKey(2, 21)),
  },
  {
    name: 'the first record is removed',
    what: 'removed',
    seq: 0,
    act: async (v) => await v.delete(batchKey(2, 0)),
  },
  {
    name: 'two events are swapped',
    what: 'reordered',
    seq: 11,
    act: async (v) => await v.lines(2, 11, swap),
  },
  {
    name: 'two records are swapped',
    what: 'reordered',
    seq: 11,
    act: async (v) => {
      const [a, b] = [await v.batch(2, 11), await v.batch(2, 31)];
      await v.put(batchKey(2, 11), b);
      await v.put(batchKey(2, 31), a);
    },
  },
  {
    name: 'a record of another run is put in the place of one',
    what: 'reordered',
    seq: 11,
    act: async (v) => await v.put(batchKey(2, 11), await v.batch(1, 11)),
  },
  {
    name: 'a record is repeated',
    what: 'reordered',
    seq: 11,
    act: async (v) => await v.put(batchKey(2, 51), await v.batch(2, 11)),
  },
  {
    name: 'a field is changed',
    what: 'changed',
    seq: 15,
    act: async (v) =>
      await v.lines(2, 11, (lines) =>
        lines.with(4, lines[4]?.replace('"operator:ada"', '"operator:bob"') ?? ''),
      ),
  },
  {
    name: 'a field of the first event is changed',
    what: 'changed',
    seq: 0,
    act: async (v) => await v.lines(2, 0, ([line]) => [line?.replace('server', 'nobody') ?? '']),
  },
  {
    name: 'an event is changed with its mark',
    what: 'changed',
    seq: 11,
    act: async (v) => {
      await v.lines(2, 11, (lines) => lines.with(4, lines[4]?.replace(':ada', ':bob') ?? ''));
      await v.put(batchKey(2, 11), { ...(await v.batch(2, 11)), marks: '' });
    },
  },
  {
    name: 'an event is put in',
    what: 'reordered',
    seq: 20,
    act: async (v) => await v.lines(2, 11, (lines) => [...lines, lines.at(-1) ?? '']),
  },
  {
    name: 'a record is no record any more',
    what: 'changed',
    seq: 11,
    act: async (v) => await v.put(batchKey(2, 11), { first: 11 }),
  },
  {
    name: 'the tail is cut',
    what: 'removed',
    seq: 41,
    act: async (v) => await v.delete(batchKey(2, 41)),
  },
  {
    name: 'the tail is cut and the head adapted: the next run knew better',
    what: 'removed',
    seq: 41,
    act: async (v) => {
      await v.delete(batchKey(2, 41));
      const { hash, until: at } = await v.batch(2, 31);
      await v.put(headKey(2), { seq: 40, hash, at });
    },
  },
  {
    name: 'a whole chain is written anew: the next run knew better',
    what: 'changed',
    seq: 50,
    act: async (v) => await v.rewrite(2, (line) => line.replace(':ada', ':bob')),
  },
  {
    name: 'a head says less',
    what: 'head',
    seq: 50,
    act: async (v) => await v.put(headKey(2), { ...(await v.head(2)), seq: 40 }),
  },
  {
    name: 'a head has another hash',
    what: 'head',
    seq: 50,
    act: async (v) => await v.put(headKey(2), { ...(await v.head(2)), hash: '0'.repeat(64) }),
  },
  {
    name: 'a head is removed',
    what: 'head',
    seq: 50,
    act: async (v) => await v.delete(headKey(2)),
  },
  {
    name: 'a whole run is removed',
    what: 'removed',
    seq: 0,
    act: async (v) => await v.delete(headKey(2), ...(await keysOf(v, 2))),
  },
  {
    name: 'all events of a run are removed, but not its head',
    what: 'removed',
    seq: 0,
    act: async (v) => await v.delete(...(await keysOf(v, 2))),
  },
  {
    name: 'the beginning is cut as a prune would, but no prune is on record',
    what: 'removed',
    seq: 1,
    act: async (v) => {
      const { hash, until: at } = await v.batch(2, 11);
      await v.put(batchKey(2, 0), {
        ...(await v.batch(2, 0)),
        anchor: { writer: 2, seq: 20, hash, at },
      });
      await v.delete(batchKey(2, 1), batchKey(2, 11));
    },
  },
];

const keysOf = async (victim: Victim, writer: number): Promise<Key[]> =>
  (await victim.firsts(writer)).map((first) => batchKey(writer, first));

for (const { name, what, writer = 2, seq, act } of TAMPERINGS)
  void t.test(`${name}: found`, async (t) => {
    const victim = await Victim.of();
    t.same((await victim.verify()).broken, []);
    await act(victim);
    const { broken, chains } = await victim.verify();
    t.match(broken, [{ what, writer, seq }]);
    t.equal(broken.length, 1, 'and nothing else');
    t.same(
      chains.map((chain) => chain.writer),
      [1, 3],
    );
  });

void t.test('the newest run is cut with its head: only a head that was kept tells', async (t) => {
  const victim = await Victim.of();
  const { hash: kept } = await victim.head(3);
  await victim.delete(batchKey(3, 41));
  const { hash, until: at } = await victim.batch(3, 31);
  await victim.put(headKey(3), { seq: 40, hash, at });
  t.same((await victim.verify()).broken, []);
  t.match((await victim.verify([kept])).broken, [{ what: 'head', writer: 3, seq: 40 }]);
  t.same((await victim.verify([hash])).broken, []);
});

void t.test(
  'a run that begins after one whose head was removed does not take its number',
  async (t) => {
    const victim = await Victim.of();
    await victim.delete(headKey(3));
    await victim.run();
    t.equal(victim.audit?.writer, 4);
    t.match((await victim.verify()).broken, [{ what: 'head', writer: 3 }]);
  },
);

async function assertWhole(t: Test, victim: Victim): Promise<void> {
  t.same((await victim.verify()).broken, []);
}

void t.test(
  'a pruned log is intact, begins where it should, and tampering is found as before',
  async (t) => {
    const victim = await Victim.of(4);
    const prune = async (before: number) =>
      await victim.audit?.prune(before, noteOf(ADA, 'audit.prune'));
    const start = Date.UTC(2026, 0, 1);
    // Run 1 goes, and two days of run 2.
    t.match(await prune(start + 7 * DAY_MS), { events: 70, batches: 7 });
    await assertWhole(t, victim);
    t.same(await victim.firsts(1), [0]);
    t.same(await victim.firsts(2), [0, 21, 31, 41]);
    const page = await victim.audit?.read({ limit: 1000, reverse: false });
    t.match(page?.events[0], { writer: 2, seq: 21 });
    t.match(page?.events.at(-1), {
      op: 'audit.prune',
      who: 'operator:ada',
      links: [{ seq: 50 }, { seq: 20 }],
    });
    t.match(await prune(start + 12 * DAY_MS), { events: 50 });
    t.match(await prune(start + 12 * DAY_MS), { events: 0 });
    await assertWhole(t, victim);
    await victim.run();
    await assertWhole(t, victim);
    // Far later the record of the first prunes goes, too.
    await prune(victim.now);
    await assertWhole(t, victim);
    await victim.run();
    await victim.delete(batchKey(6, 21));
    t.match((await victim.verify()).broken, [{ what: 'removed', writer: 6, seq: 21 }]);
    await t.rejects(prune(victim.now), {
      code: 'conflict',
      message: /not intact at event 21 of run 6/,
    });
    await t.rejects(prune(victim.now + 1), { code: 'invalid' });
  },
);

void t.test('an anchor that was moved on is found', async (t) => {
  const victim = await Victim.of();
  await victim.audit?.prune(Date.UTC(2026, 0, 3), noteOf(ADA, 'audit.prune'));
  const { hash, until: at } = await victim.batch(1, 31);
  const start = await victim.batch(1, 0);
  await victim.put(batchKey(1, 0), { ...start, anchor: { writer: 1, seq: 40, hash, at } });
  t.match((await victim.verify()).broken, [{ what: 'removed', writer: 1, seq: 1 }]);
});

/** Something done to one place, by chance. Returns whether anything is different now. */
async function tamper(victim: Victim, random: Random): Promise<boolean> {
  const writer = 1 + random.int(3);
  const firsts = await victim.firsts(writer);
  const first = random.pick(firsts);
  const batch = await victim.batch(writer, first);
  const event = random.int(batch.count);
  switch (random.int(5)) {
    case 0:
      await victim.delete(batchKey(writer, first));
      return true;
    case 1:
      await victim.lines(writer, first, (lines) => lines.toSpliced(event, 1));
      return true;
    case 2: {
      const events = Buffer.from(batch.events);
      const at = random.int(events.length);
      events[at] = (events[at] ?? 0) ^ (1 << random.int(7));
      await victim.put(batchKey(writer, first), { ...batch, events });
      return true;
    }
    case 3: {
      const other = random.pick(firsts);
      await victim.put(batchKey(writer, first), await victim.batch(writer, other));
      return other !== first;
    }
    default: {
      const changed = (eventsOf(batch) ?? []).map((one, i) =>
        lineOf(i === event ? { ...one, at: one.at + 1 } : one),
      );
      await victim.lines(writer, first, () => changed);
      return true;
    }
  }
}

randomTest(
  'whatever is done to a stored log is found in the chain it was done to',
  async (t, random) => {
    let done = 0;
    for (let round = 0; round < 60; round++) {
      const victim = await Victim.of();
      const isTampered = await tamper(victim, random);
      const { broken } = await victim.verify();
      t.equal(broken.length > 0, isTampered, `round ${round}`);
      if (isTampered) done++;
    }
    t.ok(done > 30);
  },
);
