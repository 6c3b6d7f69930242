import { randomBytes } from 'node:crypto';
import { setImmediate } from 'node:timers/promises';
import t, { type Test } from 'tap';
import { BridgeError } from '#bridge/wire/errors.js';
import { StoreClock } from '#server/store/clock.js';
import { EncryptedStore } from '#server/store/encrypted-store.js';
import { Keyring } from '#server/store/keyring.js';
import { LargeValues, type LargeValuesOptions } from '#server/store/large-values.js';
import { MemoryStore } from '#server/store/memory-store.js';
import {
  type Change,
  type Commit,
  type Committed,
  type Key,
  type Op,
  type Reader,
  type Store,
  SYSTEM,
  VALUE_OVERHEAD_BYTES_MAX,
} from '#server/store/store.js';
import { type Random, randomTest } from '#test/support/random.js';
import { codeOf, entriesOf, put, text } from './contract.js';

/** Values over 255 bytes lie in chunks, and 20 ops or 2 KiB are a large commit. */
const TINY = {
  valueBytesMax: 256 - VALUE_OVERHEAD_BYTES_MAX,
  commitBytesMax: 2048,
  commitOpsMax: 20,
};
/** The same, roughly, when what is below a seal. */
const TINY_SEALED = { valueBytesMax: -700, commitBytesMax: 8192, commitOpsMax: 24 };

const ELEVEN_MINUTES = 11 * 60 * 1000;

/** A store below, and the hands of its clock. */
function tiny(limits = TINY): { inner: MemoryStore; pass: (ms: number) => void } {
  let passed = 0;
  const clock = new StoreClock(
    0,
    undefined,
    () => Date.now() + passed,
    () => performance.now() + passed,
  );
  return {
    inner: new MemoryStore(clock, limits),
    pass: (ms) => {
      passed += ms;
    },
  };
}

const numbered = (count: number) => Array.from({ length: count }, (_, i) => i);
const doc = (i: number): Key => ['var', 'user:ada', `doc-${i}`];
const filled = (length: number, byte: number) => Buffer.alloc(length, byte);

async function okVersion(committed: Promise<Committed>): Promise<number> {
  const result = await committed;
  if (!result.ok) throw new Error(`conflicts: ${JSON.stringify(result.conflicts)}`);
  return result.version;
}

/** Every key of `families` with a digest of its value. */
async function stateOf(store: Reader, families = ['var', 'hist']): Promise<Record<string, string>> {
  const state: Record<string, string> = {};
  for (const family of families)
    for (const { key, value } of await entriesOf(store, [family]))
      state[JSON.stringify(key)] = shownValue(value);
  return state;
}
const isEqual = (value: Uint8Array | undefined, expected: Uint8Array): boolean =>
  value !== undefined && Buffer.compare(value, expected) === 0;
const shownValue = (value: Uint8Array): string =>
  `${value.byteLength} ${Buffer.from(value.subarray(0, 12)).toString('hex')}`;

/** What lies around beside the values. */
async function leftovers(inner: Store): Promise<{ chunks: number; owners: number; redo: number }> {
  const count = async (family: string) => (await entriesOf(inner, [family])).length;
  return {
    chunks: await count('chunk'),
    owners: await count('chunk-owner'),
    redo: await count('redo'),
  };
}

// ---------------------------------------------------------------- values

void t.test('a small value costs one byte and nothing else', async (t) => {
  const { inner } = tiny();
  const store = await LargeValues.open(inner);
  await store.commit({ ops: [put(doc(1), filled(255, 7))] });
  t.equal((await inner.get(doc(1)))?.value.byteLength, 256);
  t.strictSame(await leftovers(inner), { chunks: 0, owners: 0, redo: 0 });
  t.equal(inner.version, 1);
});

void t.test('values of every size come back, with the version of their commit', async (t) => {
  for (const [limits, below] of [
    [TINY, (inner: Store) => inner],
    [TINY_SEALED, (inner: Store) => new EncryptedStore(inner, Keyring.ephemeral())],
  ] as const) {
    const store = await LargeValues.open(below(tiny(limits).inner));
    const sizes = [0, 1, 254, 255, 256, 257, 511, 512, 513, 5000, 16 * 256, 16 * 256 + 1, 70_000];
    for (const [i, size] of sizes.entries()) {
      const value = randomBytes(size);
      const heard: string[] = [];
      const stop = store.watch(doc(i), (change) => {
        for (const { value, version } of change.entries)
          heard.push(`${version} ${shownValue(value)}`);
      });
      const version = await okVersion(store.commit({ ops: [put(doc(i), value)] }));
      stop();
      const entry = await store.get(doc(i));
      t.equal(entry?.version, version);
      t.ok(entry !== undefined && Buffer.compare(entry.value, value) === 0, `${size} bytes`);
      t.strictSame(heard, [`${version} ${shownValue(value)}`]);
    }
    t.strictSame(
      (await entriesOf(store, ['var'])).map(({ value }) => value.byteLength).sort((a, b) => a - b),
      [...sizes].sort((a, b) => a - b),
    );
  }
});

void t.test('a caller may use its buffers again at once', async (t) => {
  const { inner } = tiny();
  const store = await LargeValues.open(inner);
  const value = filled(3000, 1);
  const ops = numbered(30).map((i) => put(doc(i), value.subarray(0, 100)));
  const commits = [store.commit({ ops: [put(doc(100), value)] }), store.commit({ ops })];
  value.fill(2);
  await Promise.all(commits);
  const kept = await entriesOf(store, ['var']);
  t.equal(kept.length, 31);
  const changed = kept.filter(({ value }) => value.some((byte) => byte !== 1));
  t.strictSame(
    changed.map(({ key }) => key),
    [],
    'what was written is what the buffers held when commit was called',
  );
});

void t.test('a value that is replaced or deleted takes its chunks along', async (t) => {
  for (const size of [1000, 30_000]) {
    const { inner, pass } = tiny();
    const store = await LargeValues.open(inner);
    await store.commit({ ops: [put(doc(1), filled(size, 1)), put(doc(2), filled(size, 2))] });
    await store.commit({ ops: [put(doc(1), filled(size, 3))] });
    t.equal((await leftovers(inner)).owners, 2);
    await store.commit({ ops: [put(doc(1), 'small')] });
    t.equal((await leftovers(inner)).owners, 1);
    await store.commit({ ops: [{ del: doc(2) }] });
    t.strictSame(await leftovers(inner), { chunks: 0, owners: 0, redo: 0 });

    // Who does not know that it is large leaves that to a sweep.
    await store.commit({ ops: [put(doc(1), filled(size, 1))] });
    const other = await LargeValues.open(inner);
    await store.commit({ ops: [put(doc(2), filled(size, 2))] });
    await other.commit({ ops: [{ del: doc(2) }, put(doc(1), '')] });
    t.strictSame((await leftovers(inner)).owners, 1, 'what was there when it was opened, it knew');
    t.equal(await store.sweep(), 0, 'not yet');
    pass(ELEVEN_MINUTES);
    t.equal(await store.sweep(), 1);
    t.strictSame(await leftovers(inner), { chunks: 0, owners: 0, redo: 0 });
  }
});

void t.test('a commit that meets a conflict, or was made before, leaves no chunks', async (t) => {
  const { inner } = tiny();
  const store = await LargeValues.open(inner);
  const large = put(doc(1), filled(2000, 1));
  const many = numbered(50).map((i) => put(doc(i + 10), filled(i < 10 ? 300 : 50, i)));
  const checks = [{ key: doc(7), version: 3 }];
  for (const ops of [[large], many])
    t.strictSame(await store.commit({ checks, ops }), { ok: false, conflicts: [doc(7)] });
  t.strictSame(await leftovers(inner), { chunks: 0, owners: 0, redo: 0 });
  t.strictSame(await stateOf(store), {});

  const first = await store.commit({ ops: many, id: 'call' });
  t.match(await store.commit({ ops: many, id: 'call' }), { ...first, repeated: true });
  t.equal((await leftovers(inner)).owners, 10);
  t.equal(await codeOf(store.commit({ ops: many, id: '' })), 'invalid');
  const tooMany = numbered(30).map((i) => ({ key: doc(i + 500), version: 0 }));
  t.equal(await codeOf(store.commit({ checks: tooMany, ops: many })), 'too_large');
  t.equal((await leftovers(inner)).owners, 10);
});

void t.test('a value that is replaced all the time can be read all the time', async (t) => {
  const { inner } = tiny();
  const store = await LargeValues.open(inner);
  const other = await LargeValues.open(inner);
  await store.commit({ ops: [put(doc(1), filled(3000, 0))] });
  let isStopped = false;
  const write = async () => {
    for (let i = 1; i <= 200; i++) {
      await store.commit({ ops: [put(doc(1), filled(300 + 40 * (i % 100), i))] });
      if (i % 20 === 0) await setImmediate();
    }
    isStopped = true;
  };
  let reads = 0;
  const read = async (reader: Store) => {
    while (!isStopped) {
      const one = await reader.get(doc(1));
      const [two] = await reader.getMany([doc(1)]);
      const [three] = await entriesOf(reader, ['var']);
      for (const entry of [one, two, three]) {
        const byte = entry?.value[0];
        if (entry === undefined || !entry.value.every((b) => b === byte)) t.fail('not one value');
      }
      reads++;
      if (reads % 10 === 0) await setImmediate();
    }
  };
  await Promise.all([write(), read(store), read(other)]);
  t.ok(reads > 20, `${reads} reads`);
});

void t.test('in a snapshot a large value stays as it was', async (t) => {
  const { inner } = tiny();
  const store = await LargeValues.open(inner);
  await store.commit({ ops: [put(doc(1), filled(3000, 1))] });
  await using snapshot = await store.snapshot();
  await store.commit({ ops: [{ del: doc(1) }] });
  t.ok(isEqual((await snapshot.get(doc(1)))?.value, filled(3000, 1)));
  t.ok(isEqual((await entriesOf(snapshot, ['var']))[0]?.value, filled(3000, 1)));
  t.equal(await store.get(doc(1)), undefined);
});

void t.test('a value of which a chunk is lost is an error, not another value', async (t) => {
  const { inner } = tiny();
  const store = await LargeValues.open(inner);
  await store.commit({ ops: [put(doc(1), filled(3000, 1)), put(doc(2), 'x')] });
  const [chunk] = await entriesOf(inner, ['chunk']);
  if (chunk === undefined) throw new Error('no chunk');
  await inner.commit({ ops: [{ del: chunk.key }] });
  t.equal(await codeOf(store.get(doc(1))), 'internal');
  t.equal(await codeOf(store.getMany([doc(2), doc(1)])), 'internal');
  t.equal(await codeOf(entriesOf(store, ['var'])), 'internal');
  t.ok(isEqual((await store.get(doc(2)))?.value, text('x')));
});

void t.test('a writer that was slower than the sweep begins again', async (t) => {
  const { inner, pass } = tiny();
  const writer = await LargeValues.open(inner);
  const sweeper = await LargeValues.open(inner);
  for (const ops of [
    [put(doc(1), filled(3000, 1))],
    numbered(40).map((i) => put(doc(i + 10), 'x')),
  ]) {
    const commit = inner.commit.bind(inner);
    let swept = 0;
    inner.commit = async (one) => {
      const isHead = one.ops.some((op) => 'put' in op && ['var', 'redo'].includes(op.put[0]));
      if (!isHead || swept > 0) return await commit(one);
      inner.commit = commit;
      pass(ELEVEN_MINUTES);
      swept = await sweeper.sweep();
      return await commit(one);
    };
    const { ok } = await writer.commit({ ops });
    t.equal(ok, true);
    t.equal(swept, 1);
  }
  t.ok(isEqual((await sweeper.get(doc(1)))?.value, filled(3000, 1)));
  t.equal((await entriesOf(sweeper, ['var'])).length, 41);
  pass(ELEVEN_MINUTES);
  await sweeper.sweep();
  t.equal((await leftovers(inner)).owners, 1);
});

// ---------------------------------------------------------------- commits

void t.test('a legacy document of 30,000 members is one commit, for every reader', async (t) => {
  const inner = new EncryptedStore(new MemoryStore(), Keyring.ephemeral());
  const store = await LargeValues.open(inner, { exclusive: true });
  const COUNT = 30_000;
  const key = (i: number): Key => ['var', 'user:ada', `member-${i}`];
  const write = async (round: number) =>
    await okVersion(store.commit({ ops: numbered(COUNT).map((i) => put(key(i), `${round}`)) }));
  await write(1);
  let isDone = false;
  const second = write(2).finally(() => {
    isDone = true;
  });
  let reads = 0;
  while (!isDone) {
    const entries = await store.getMany([key(0), key(1), key(COUNT / 2), key(COUNT - 1)]);
    const seen = new Set(entries.map((entry) => entry?.version));
    if (seen.size !== 1) t.fail(`versions ${[...seen].join(' ')}`);
    reads++;
    await setImmediate();
  }
  const version = await second;
  const entries = await entriesOf(store, ['var']);
  t.equal(entries.length, COUNT);
  t.ok(entries.every((entry) => entry.version === version));
  t.ok(reads > 0, `${reads} reads`);
  t.equal((await entriesOf(inner, ['chunk'])).length, 0);
  t.equal((await entriesOf(inner, ['redo'])).length, 0);
});

void t.test(
  'a large commit is heard once, whole, before it resolves and before later ones',
  async (t) => {
    for (const exclusive of [true, false]) {
      const { inner } = tiny();
      const store = await LargeValues.open(inner, { exclusive });
      const heard: string[] = [];
      const tell =
        (who: string) =>
        ({ version, entries }: Change) =>
          heard.push(
            `${who} ${version}: ${entries.map(({ key, value }) => `${key[2]}=${value.byteLength}`).join(' ')}`,
          );
      store.watch(['var'], tell('all'));
      store.watch(['var', 'user:ada'], tell('ada'));
      store.watch(doc(3), tell('3'));
      store.watch(['hist'], tell('hist'));
      const ops: Op[] = numbered(30).map((i) => put(doc(i), filled(i === 3 ? 1000 : 1, i)));
      const large = store.commit({ ops: [...ops, { del: doc(4) }, put(doc(5), 'five')] });
      const [, later] = await Promise.all([
        large.then(({ ok }) => heard.push(`resolved ${ok}`)),
        large.then(async () => await okVersion(store.commit({ ops: [put(doc(3), 'later')] }))),
      ]);
      const version = (await store.get(doc(0)))?.version;
      const expected = numbered(30)
        .filter((i) => i !== 4)
        .map((i) => `doc-${i}=${i === 3 ? 1000 : i === 5 ? 4 : 1}`)
        .join(' ');
      t.strictSame(heard.slice(0, 3).sort(), [
        `3 ${version}: doc-3=1000`,
        `ada ${version}: ${expected}`,
        `all ${version}: ${expected}`,
      ]);
      t.equal(heard[3], 'resolved true');
      t.strictSame(
        heard.slice(4).sort(),
        ['3', 'ada', 'all'].map((who) => `${who} ${later}: doc-3=5`),
      );

      const since: string[] = [];
      store.watch(['var', 'user:ada'], tell(''), (version ?? 0) - 1);
      for (let i = 0; i < 200 && heard.length < 9; i++) await setImmediate();
      since.push(...heard.slice(7));
      t.equal(since.length, 2, 'also who begins later');
      t.match(since[0], `doc-0=1`);
      t.equal(since[1], ` ${later}: doc-3=5`);
    }
  },
);

void t.test("another process's large values and commits are heard, in order", async (t) => {
  const { inner } = tiny();
  const [writer, reader] = [await LargeValues.open(inner), await LargeValues.open(inner)];
  const heard: string[] = [];
  reader.watch(['var'], ({ version, entries }) =>
    heard.push(`${version}: ${entries.map(({ value }) => value.byteLength).join(' ')}`),
  );
  const versions: number[] = [];
  versions.push(await okVersion(writer.commit({ ops: [put(doc(1), filled(3000, 1))] })));
  versions.push(await okVersion(writer.commit({ ops: [put(doc(2), 'x')] })));
  versions.push(await okVersion(writer.commit({ ops: numbered(25).map((i) => put(doc(i), '')) })));
  versions.push(await okVersion(writer.commit({ ops: [put(doc(1), filled(500, 1))] })));
  versions.push(await okVersion(writer.commit({ ops: [put(doc(2), 'xyz')] })));
  for (let i = 0; i < 100 && heard.length < 5; i++) await setImmediate();
  // What was replaced before it could be read is heard as what replaced it.
  const [first, second, third, fourth, fifth] = versions;
  const allowed = [
    `${first}: 3000`,
    `${second}: 1`,
    new RegExp(`^${third}: `),
    `${fourth}: 500`,
    `${fifth}: 3`,
  ];
  t.ok(heard.length >= 3, heard.join(', '));
  let at = 0;
  for (const one of heard) {
    const found = allowed.findIndex(
      (a, i) => i >= at && (typeof a === 'string' ? a === one : a.test(one)),
    );
    t.ok(found >= 0, one);
    at = found + 1;
  }
  t.equal(heard.at(-1), `${fifth}: 3`);
});

void t.test(
  'a recorder hears of each commit once, also when a large one was in the way',
  async (t) => {
    for (const exclusive of [true, false]) {
      const { inner } = tiny();
      const store = await LargeValues.open(inner, { exclusive });
      const noted: string[] = [];
      let records = 0;
      store.recordWith({
        record: (group) => {
          if (group.length === 0) t.fail('called for nothing');
          for (const { note, committed } of group) noted.push(`${String(note)} ${committed.ok}`);
          return [put(['audit', SYSTEM, ++records], filled(600, records))];
        },
        reset: async () => {},
      });
      const commits = numbered(40).map(async (i) => {
        if (i % 3 === 0) await setImmediate();
        const count = i % 4 === 0 ? 30 : 1;
        const ops = numbered(count).map((n) => put(doc(n), `${i}`));
        return await store.commit({ ops, note: `note ${i}` });
      });
      const results = await Promise.all(commits);
      t.ok(results.every(({ ok }) => ok));
      t.strictSame(
        [...noted].sort(),
        numbered(40)
          .map((i) => `note ${i} true`)
          .sort(),
      );
      const audit = await entriesOf(store, ['audit']);
      t.equal(audit.length, records);
      t.ok(audit.every(({ key, value }) => isEqual(value, filled(600, Number(key[2])))));
      const gone = audit.map(({ key }): Op => ({ del: key }));
      t.equal(await codeOf(store.commit({ ops: gone })), 'no error');
    }
  },
);

// ---------------------------------------------------------------- crashes

/** A store whose process is killed at its n-th commit: before it is made, or before anybody hears that it was. */
class Mortal implements Store {
  readonly #inner: Store;
  readonly #diesAt: number;
  readonly #isMade: boolean;
  commits = 0;

  constructor(inner: Store, diesAt: number, isMade: boolean) {
    this.#inner = inner;
    this.#diesAt = diesAt;
    this.#isMade = isMade;
  }

  get isDead(): boolean {
    return this.commits > this.#diesAt;
  }
  get version(): number {
    return this.#inner.version;
  }
  get limits() {
    return this.#inner.limits;
  }
  now = () => this.#inner.now();
  get = async (key: Key) => await this.#alive().get(key);
  getMany = async (keys: readonly Key[]) => await this.#alive().getMany(keys);
  range: Store['range'] = (prefix, options) => this.#alive().range(prefix, options);
  snapshot = async () => await this.#alive().snapshot();
  watch: Store['watch'] = (...all) => this.#inner.watch(...all);
  recordWith: Store['recordWith'] = (recorder) => this.#inner.recordWith(recorder);

  async commit(commit: Commit): Promise<Committed> {
    const n = this.commits++;
    if (n > this.#diesAt || (n === this.#diesAt && !this.#isMade)) throw killed();
    const committed = await this.#inner.commit(commit);
    if (n === this.#diesAt) throw killed();
    return committed;
  }

  async [Symbol.asyncDispose](): Promise<void> {}

  #alive(): Store {
    if (this.isDead) throw killed();
    return this.#inner;
  }
}
const killed = () => new BridgeError('unavailable', 'killed');

/** Commits that are made by many inner commits. */
const HEAVY: Readonly<Record<string, readonly Op[]>> = {
  'a large value': [put(doc(1), filled(2000, 9)), put(doc(5), 'new')],
  'a large value for a small one, and the other way round': [
    put(doc(2), filled(2000, 9)),
    put(doc(1), 'small'),
    { del: doc(0) },
  ],
  'a large commit': [
    ...numbered(45).map((i) => put(doc(i), filled(60, i))),
    { del: doc(1) },
    put(['hist', 'user:bob', 'x', 1], 'other namespace'),
  ],
  'a large commit with large values': [
    ...numbered(25).map((i) => put(doc(i + 2), filled(i % 5 === 0 ? 700 : 10, i))),
    { del: doc(0) },
    put(doc(1), filled(1500, 4)),
  ],
};

for (const [what, ops] of Object.entries(HEAVY))
  for (const isSealed of [false, true])
    void t.test(
      `killed at any point of ${what}, all of it is there or nothing${isSealed ? ' (sealed)' : ''}`,
      async (t) => {
        const outcomes = new Set<string>();
        for (let diesAt = 0, isLast = false; !isLast; diesAt++)
          for (const isMade of [false, true]) {
            const { isThere, isAlive } = await killAt(t, ops, isSealed, diesAt, isMade);
            outcomes.add(isThere ? 'there' : 'nothing');
            isLast = isAlive;
          }
        t.equal(outcomes.size, 2, 'both happen');
      },
    );

async function killAt(
  t: Test,
  ops: readonly Op[],
  isSealed: boolean,
  diesAt: number,
  isMade: boolean,
): Promise<{ isThere: boolean; isAlive: boolean }> {
  const { inner: memory, pass } = tiny(isSealed ? TINY_SEALED : TINY);
  const inner = isSealed ? new EncryptedStore(memory, Keyring.ephemeral()) : memory;
  const setup = await LargeValues.open(inner);
  await setup.commit({
    ops: [put(doc(0), filled(900, 1)), put(doc(1), filled(1200, 2)), put(doc(2), 'two')],
  });
  const before = await stateOf(setup);

  const mortal = new Mortal(inner, diesAt, isMade);
  const store = await LargeValues.open(mortal, { exclusive: diesAt % 2 === 0 });
  const check = { key: doc(2), version: (await setup.get(doc(2)))?.version ?? 0 };
  const commit = { checks: [check], ops, id: 'the commit' };
  const result = await store.commit(commit).catch((error: unknown) => error as BridgeError);
  const isAlive = !mortal.isDead;

  const again = await LargeValues.open(inner);
  t.equal((await leftovers(inner)).redo, 0);
  const after = await stateOf(again);
  const expected = modelOf(before, ops);
  const isThere = shownState(after) === shownState(expected);
  if (!isThere) t.same(after, before, `killed at ${diesAt}, made: ${isMade}`);
  if (!(result instanceof BridgeError) && !isThere) t.fail('acknowledged, but not there');

  // Who asks again under the same id gets it made once.
  const second = await again.commit(commit);
  t.equal(second.ok && second.repeated === true, isThere);
  t.same(await stateOf(again), expected);
  const keys = ops.flatMap((op) => ('put' in op ? [op.put] : []));
  const versions = new Set((await again.getMany(keys)).map((entry) => entry?.version));
  versions.delete(undefined);
  t.strictSame([...versions], second.ok ? [second.version] : []);

  pass(ELEVEN_MINUTES);
  await again.sweep();
  const large = (await entriesOf(again, ['var'])).filter(
    ({ value }) => value.byteLength > plainMax(inner),
  );
  const chunks = large.reduce(
    (sum, { value }) => sum + Math.ceil(value.byteLength / chunkBytes(inner)),
    0,
  );
  const left = { chunks, owners: large.length, redo: 0 };
  t.strictSame(await leftovers(inner), left, 'nothing is left lying around');
  return { isThere, isAlive };
}

const plainMax = ({ limits }: Store) =>
  Math.min(limits.valueBytesMax, Math.floor(limits.commitBytesMax / 2)) - 1;
const chunkBytes = ({ limits }: Store) =>
  Math.min(limits.valueBytesMax, limits.commitBytesMax - 512);
const shownState = (state: Record<string, string>) =>
  JSON.stringify(Object.entries(state).sort(byName));
const byName = ([a]: readonly [string, unknown], [b]: readonly [string, unknown]) =>
  a < b ? -1 : 1;

function modelOf(before: Record<string, string>, ops: readonly Op[]): Record<string, string> {
  const state = { ...before };
  for (const op of ops)
    if ('del' in op) delete state[JSON.stringify(op.del)];
    else state[JSON.stringify(op.put)] = shownValue(op.value);
  return state;
}

void t.test('others who meet an unfinished large commit finish it', async (t) => {
  const ops = HEAVY['a large commit'] ?? [];
  const readers: Readonly<Record<string, (store: Store) => Promise<unknown>>> = {
    get: (store) => store.get(doc(44)),
    getMany: (store) => store.getMany([doc(44)]),
    range: (store) => entriesOf(store, ['var']),
    snapshot: (store) => store.snapshot(),
    commit: (store) => store.commit({ ops: [put(doc(100), 'x')] }),
  };
  for (const [how, use] of Object.entries(readers)) {
    const { inner } = tiny();
    const other = await LargeValues.open(inner);
    for (let diesAt = 0; ; diesAt++) {
      const mortal = new Mortal(inner, diesAt, true);
      const store = await LargeValues.open(mortal);
      await store.commit({ ops }).catch(() => {});
      if ((await leftovers(inner)).redo === 1) break;
    }
    await use(other);
    t.strictSame((await leftovers(inner)).redo, 0, how);
    t.ok(isEqual((await other.get(doc(44)))?.value, filled(60, 44)));
    t.equal(await other.get(doc(1)), undefined);
  }
});

/** `inner` as one process sees it, whose commits that `isHeld` picks wait until they are let go. */
function gated(inner: Store, isHeld: (commit: Commit) => boolean) {
  let release = () => {};
  const held = new Promise<void>((resolve) => {
    release = resolve;
  });
  const store = new Mortal(inner, Number.POSITIVE_INFINITY, true);
  const commit = store.commit.bind(store);
  let waiting = 0;
  store.commit = async (one) => {
    if (isHeld(one)) {
      waiting++;
      await held;
    }
    return await commit(one);
  };
  return { store, release, isWaiting: () => waiting > 0 };
}

async function until(holds: () => boolean): Promise<void> {
  for (let i = 0; i < 1000 && !holds(); i++) await setImmediate();
  if (!holds()) throw new Error('it never happened');
}

void t.test('who helps too late with a large commit does not undo what came after', async (t) => {
  const { inner } = tiny();
  const gate = gated(inner, ({ ops }) => ops.some((op) => 'put' in op && op.version !== undefined));
  const late = await LargeValues.open(gate.store);
  const other = await LargeValues.open(inner);
  const large = late.commit({ ops: HEAVY['a large commit'] ?? [] });
  await until(gate.isWaiting);
  await other.commit({ ops: [put(doc(0), 'later'), { del: doc(2) }] });
  gate.release();
  t.equal((await large).ok, true);
  for (const store of [late, other]) {
    t.ok(isEqual((await store.get(doc(0)))?.value, text('later')));
    t.equal(await store.get(doc(2)), undefined);
    t.ok(isEqual((await store.get(doc(44)))?.value, filled(60, 44)));
  }
});

void t.test('a sweep does not take a value whose commit came in between', async (t) => {
  const { inner, pass } = tiny();
  const isHead = ({ ops }: Commit) => ops.some((op) => 'put' in op && op.put[0] === 'var');
  const writerGate = gated(inner, isHead);
  const writer = await LargeValues.open(writerGate.store);
  const commit = writer.commit({ ops: [put(doc(1), filled(3000, 1))] });
  await until(writerGate.isWaiting);
  const sweeperGate = gated(inner, () => true);
  const sweeper = await LargeValues.open(sweeperGate.store);
  pass(ELEVEN_MINUTES);
  const sweep = sweeper.sweep();
  await until(sweeperGate.isWaiting);
  writerGate.release();
  t.equal((await commit).ok, true);
  sweeperGate.release();
  t.equal(await sweep, 0);
  t.ok(isEqual((await writer.get(doc(1)))?.value, filled(3000, 1)));
});

void t.test('alone, a read that is on its way does not see half of a large commit', async (t) => {
  const { inner } = tiny();
  let release = () => {};
  const held = new Promise<void>((resolve) => {
    release = resolve;
  });
  const slow = new Mortal(inner, Number.POSITIVE_INFINITY, true);
  const store = await LargeValues.open(slow, { exclusive: true });
  slow.getMany = async (keys) => {
    if (keys.length === 2) await held;
    return await inner.getMany(keys);
  };
  const read = store.getMany([doc(0), doc(44)]);
  let isMade = false;
  const commit = store.commit({ ops: HEAVY['a large commit'] ?? [] }).finally(() => {
    isMade = true;
  });
  for (let i = 0; i < 50; i++) await setImmediate();
  t.equal(isMade, false, 'it waits for the read');
  t.equal((await leftovers(inner)).redo, 0);
  release();
  t.strictSame(await read, [undefined, undefined]);
  t.equal((await commit).ok, true);
});

void t.test(
  'an erased namespace does not hold up a large commit that was interrupted',
  async (t) => {
    const { inner, pass } = tiny(TINY_SEALED);
    const keyring = Keyring.ephemeral();
    const sealed = new EncryptedStore(inner, keyring);
    for (let diesAt = 0; ; diesAt++) {
      const store = await LargeValues.open(new Mortal(sealed, diesAt, true));
      await store.commit({ ops: HEAVY['a large commit'] ?? [] }).catch(() => {});
      if ((await leftovers(sealed)).redo === 1) break;
    }
    await sealed.shred('user:ada');
    const again = await LargeValues.open(sealed);
    t.equal((await entriesOf(again, ['var'])).length, 0);
    t.equal((await entriesOf(again, ['hist'])).length, 1, 'the share of the others is there');
    pass(ELEVEN_MINUTES); // the attempts above left theirs
    await again.sweep();
    t.strictSame(await leftovers(sealed), { chunks: 0, owners: 0, redo: 0 });
  },
);

// ---------------------------------------------------------------- anything

for (const [name, options, isSealed] of [
  ['two processes', {}, false],
  ['one process that is alone', { exclusive: true }, false],
  ['two processes, sealed', {}, true],
] as const)
  randomTest(
    `${name}: whatever is committed at once, a map would hold the same`,
    async (t, random) => {
      await checkAgainstModel(t, random, options, isSealed);
    },
  );

/** Takes its time as a database does: commits queue up, and a read sees the moment it is made, not the one it was asked for. */
function slowly(inner: Store, random: Random): Store {
  const pause = async () => {
    for (let turns = random.int(4); turns > 0; turns--) await setImmediate();
  };
  let queue: Promise<unknown> = Promise.resolve();
  return {
    get version() {
      return inner.version;
    },
    limits: inner.limits,
    now: () => inner.now(),
    get: async (key) => {
      await pause();
      return await inner.get(key);
    },
    getMany: async (keys) => {
      await pause();
      return await inner.getMany(keys);
    },
    range: (prefix, options) => inner.range(prefix, options),
    snapshot: async () => {
      await pause();
      return await inner.snapshot();
    },
    commit: async (commit) => {
      const before = queue;
      const made = (async () => {
        await before;
        await pause();
        return await inner.commit(commit);
      })();
      queue = made.catch(() => {});
      return await made;
    },
    watch: (...all) => inner.watch(...all),
    recordWith: (recorder) => inner.recordWith(recorder),
    [Symbol.asyncDispose]: async () => await inner[Symbol.asyncDispose](),
  };
}

/** Written together by one large commit, so never seen apart. */
const PAIR: readonly Key[] = [
  ['pair', 'user:ada', 'first'],
  ['pair', 'user:bob', 'second'],
];

async function commitPair(store: Store, round: number): Promise<void> {
  const [first = ['pair'], second = ['pair']] = PAIR;
  const between = numbered(30).map((i) => put(['pair', 'user:ada', i], `${round}`));
  await store.commit({ ops: [put(first, ''), ...between, put(second, '')] });
}

async function readPair(t: Test, random: Random, store: Store): Promise<void> {
  for (let i = 0; i < 3; i++) {
    const entries = random.chance(0.5)
      ? await store.getMany(PAIR)
      : (await entriesOf(store, ['pair'])).filter(({ key }) => typeof key[2] === 'string');
    if (new Set(entries.map((entry) => entry?.version)).size > 1) t.fail('half of a commit');
    await setImmediate();
  }
}

/** Commits of any size, several at once and by two processes, against a Map; watchers against the commits. */
async function checkAgainstModel(
  t: Test,
  random: Random,
  options: LargeValuesOptions,
  isSealed: boolean,
): Promise<void> {
  const { inner: memory, pass } = tiny(isSealed ? TINY_SEALED : TINY);
  const slow = random.chance(0.7) ? slowly(memory, random) : memory;
  const inner = isSealed ? new EncryptedStore(slow, Keyring.ephemeral()) : slow;
  const stores = [await LargeValues.open(inner, options)];
  if (options.exclusive !== true) stores.push(await LargeValues.open(inner, options));
  const model = new Map<string, { value: string; version: number }>();
  const key = (): Key => [
    random.pick(['var', 'hist']),
    random.pick(['user:ada', 'user:bob']),
    `k${random.int(40)}`,
  ];
  const op = (): Op =>
    random.chance(0.25)
      ? { del: key() }
      : put(key(), filled(random.int(random.chance(0.15) ? 3000 : 100), random.int(256)));
  const heard = new Map<number, string[]>();
  let last = 0;
  stores[0]?.watch(['var'], ({ version, entries }) => {
    if (version <= last) t.fail(`heard ${version} after ${last}`);
    last = version;
    heard.set(
      version,
      entries.map(({ key, value }) => `${JSON.stringify(key)} ${shownValue(value)}`).sort(),
    );
  });
  const expectedToHear = new Map<number, string[]>();

  for (let round = 0; round < 40; round++) {
    const commits = numbered(1 + random.int(4)).map((): Commit & { by: number } => ({
      by: random.chance(0.7) ? 0 : random.int(stores.length),
      checks: numbered(random.chance(0.5) ? 0 : 1 + random.int(2)).map(() => {
        const one = key();
        const known = model.get(JSON.stringify(one))?.version ?? 0;
        return { key: one, version: random.chance(0.8) ? known : known + 1 };
      }),
      ops: numbered(random.int(random.chance(0.3) ? 60 : 5)).map(op),
      ...(random.chance(0.3) && { id: `id-${round}-${random.int(1000)}` }),
    }));
    const commitAll = async () =>
      await Promise.all(
        commits.map(async ({ by, ...commit }) => {
          const store = stores[by];
          if (store === undefined) throw new RangeError('no store');
          const result = await store.commit(commit);
          if (by === 0 && result.ok && varPuts(commit.ops).length > 0 && !heard.has(result.version))
            t.fail(`round ${round}: resolved before watchers heard`);
          return result;
        }),
      );
    const [results] = await Promise.all([
      commitAll(),
      readPair(t, random, random.pick(stores)),
      readPair(t, random, random.pick(stores)),
      random.chance(0.5) ? commitPair(random.pick(stores), round) : undefined,
    ]);
    // In the order in which they were made; a conflict must be one at some moment of the round.
    const made = results
      .flatMap((result, i) =>
        result.ok && result.repeated !== true
          ? [{ version: result.version, commit: commits[i] }]
          : [],
      )
      .sort((a, b) => a.version - b.version);
    for (const { version, commit } of made) {
      for (const { key, version: wanted } of commit?.checks ?? [])
        if ((model.get(JSON.stringify(key))?.version ?? 0) !== wanted)
          t.fail(`round ${round}: a check did not hold`);
      for (const one of commit?.ops ?? [])
        if ('del' in one) model.delete(JSON.stringify(one.del));
        else model.set(JSON.stringify(one.put), { value: shownValue(one.value), version });
      if (commit?.by === 0 && varPuts(commit.ops).length > 0)
        expectedToHear.set(version, varPuts(commit.ops));
    }
    if (commits.length === 1 && results[0]?.ok === false) {
      const wrong = commits[0]?.checks?.filter(
        (check) => (model.get(JSON.stringify(check.key))?.version ?? 0) !== check.version,
      );
      t.strictSame(
        results[0].conflicts,
        wrong?.map((check) => check.key),
        `round ${round}`,
      );
    }
    if (random.chance(0.2)) {
      pass(ELEVEN_MINUTES);
      await random.pick(stores).sweep();
    }
    const reader = random.pick(stores);
    const found = new Map<string, { value: string; version: number }>();
    for (const family of ['var', 'hist'])
      for (const { key, value, version } of await entriesOf(reader, [family]))
        found.set(JSON.stringify(key), { value: shownValue(value), version });
    const [a, b] = [found, model].map((map) => JSON.stringify([...map].sort(byName)));
    if (a !== b) {
      t.strictSame(
        new Map([...found].sort(byName)),
        new Map([...model].sort(byName)),
        `round ${round}`,
      );
      return;
    }
  }
  for (const [version, entries] of expectedToHear)
    if (JSON.stringify(heard.get(version)) !== JSON.stringify(entries))
      t.strictSame(heard.get(version), entries, `version ${version}`);
  pass(ELEVEN_MINUTES);
  for (const store of stores) await store.sweep();
  const large = [...model.values()].filter(({ value }) => Number.parseInt(value) > plainMax(inner));
  t.equal((await leftovers(inner)).owners, large.length);
  t.equal((await leftovers(inner)).redo, 0);
}

/** What a watcher of `var` hears of them. */
function varPuts(ops: readonly Op[]): string[] {
  const last = new Map<string, Op>();
  for (const op of ops) last.set(JSON.stringify('put' in op ? op.put : op.del), op);
  return [...last.values()]
    .flatMap((op) =>
      'put' in op && op.put[0] === 'var'
        ? [`${JSON.stringify(op.put)} ${shownValue(op.value)}`]
        : [],
    )
    .sort();
}
