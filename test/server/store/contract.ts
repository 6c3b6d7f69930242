import { randomBytes } from 'node:crypto';
import { setImmediate, setTimeout as sleep } from 'node:timers/promises';
import { isDeepStrictEqual } from 'node:util';
import t, { type Test } from 'tap';
import { BridgeError, type Code } from '#bridge/wire/errors.js';
import {
  type Change,
  type Commit,
  type Committed,
  type Entry,
  type Key,
  type Noted,
  type Op,
  type RangeOptions,
  type Reader,
  type Store,
  SYSTEM,
} from '#server/store/store.js';
import { shown } from '#test/bridge/wire/shown.js';
import { type Random, randomTest } from '#test/support/random.js';

/** One store under test. The suite closes every store it opens. */
export interface Opened {
  readonly store: Store;
  /** Opens the same data again; undefined for a store that forgets. */
  readonly again?: () => Promise<Store>;
}

export interface Traits {
  /** Names are stored as they are, so siblings come in byte order. Numbers are ordered in every store. */
  readonly ordersNames: boolean;
  /** `Opened.again` opens the same data. */
  readonly durable: boolean;
}

export const text = (value: string): Buffer => Buffer.from(value);
export const put = (key: Key, value: string | Uint8Array): Op => ({
  put: key,
  value: typeof value === 'string' ? text(value) : value,
});

export async function entriesOf(
  store: Reader,
  prefix: Key,
  options?: RangeOptions,
): Promise<Entry[]> {
  const entries: Entry[] = [];
  for await (const entry of store.range(prefix, options)) entries.push(entry);
  return entries;
}

/** Keys and values, as text, of what `list` gives. */
const listed = async (store: Reader, prefix: Key) =>
  (await entriesOf(store, prefix)).map(({ key, value }) => [key, Buffer.from(value).toString()]);

const valueOf = async (store: Reader, key: Key): Promise<string | undefined> => {
  const entry = await store.get(key);
  return entry && Buffer.from(entry.value).toString();
};

/** The version of a commit that must succeed. */
async function versionOf(committed: Promise<Committed>): Promise<number> {
  const result = await committed;
  if (!result.ok) throw new Error(`conflicts: ${JSON.stringify(result.conflicts)}`);
  return result.version;
}

export async function codeOf(body: Promise<unknown>): Promise<Code | 'no error'> {
  try {
    await body;
    return 'no error';
  } catch (error) {
    if (error instanceof BridgeError) return error.code;
    throw error;
  }
}

/** As large as a store must take it, but no larger than a test wants to wait for. */
const largeBytes = ({ limits }: Store): number => Math.min(1024 * 1024, limits.valueBytesMax);

/** Waits for what a store does in its own time. */
async function eventually(holds: () => boolean): Promise<void> {
  for (let i = 0; i < 400 && !holds(); i++) await sleep(5);
}

const numbered = (count: number) => Array.from({ length: count }, (_, i) => i);

/** What every store promises: server/store/store.ts. `open` gives an empty store. */
export function storeContract(
  name: string,
  open: (t: Test) => Promise<Opened>,
  traits: Traits,
): void {
  const storeTest = (what: string, body: (t: Test, store: Store) => Promise<void>) =>
    void t.test(`${name}: ${what}`, async (t) => {
      const { store } = await open(t);
      await using _ = store;
      await body(t, store);
    });

  storeTest('a new store is empty and at version 0', async (t, store) => {
    t.equal(store.version, 0);
    t.equal(await store.get(['var', 'user:ada', 'city']), undefined);
    t.strictSame(await listed(store, ['var']), []);
  });

  storeTest(
    'what was put is there with the version of its commit, until it is deleted',
    async (t, store) => {
      const key: Key = ['var', 'user:ada', 'city'];
      const other: Key = ['var', 'user:ada', 'street'];
      t.equal(
        await versionOf(store.commit({ ops: [put(key, 'Oslo'), put(other, 'Storgata')] })),
        1,
      );
      t.equal(await versionOf(store.commit({ ops: [put(key, 'Bergen')] })), 2);
      const entry = await store.get(key);
      t.strictSame([entry?.key, entry?.version, await valueOf(store, key)], [key, 2, 'Bergen']);
      t.equal((await store.get(other))?.version, 1, 'others keep theirs');
      t.equal(await versionOf(store.commit({ ops: [{ del: key }] })), 3);
      t.equal(await store.get(key), undefined);
      t.strictSame(await listed(store, ['var']), [[other, 'Storgata']]);
      t.equal(
        await versionOf(store.commit({ ops: [{ del: key }] })),
        4,
        'deleting nothing is no error',
      );
      t.equal(await versionOf(store.commit({ ops: [put(key, 'Oslo')] })), 5);
      t.equal((await store.get(key))?.version, 5);
      t.equal(store.version, 5);
    },
  );

  storeTest('commits one after the other are all made', async (t, store) => {
    // The caller goes on in the very microtask in which its commit resolved: 50 times, with and without a pause.
    const all = (async () => {
      for (let i = 1; i <= 50; i++) {
        await store.commit({ ops: [put(['f'], `${i}`)] });
        if (i % 10 === 0) await setImmediate();
      }
    })();
    const made = await Promise.race([all.then(() => 'made'), sleep(1000, 'still waiting')]);
    t.equal(made, 'made');
    t.equal(await valueOf(store, ['f']), '50');
  });

  storeTest(
    'a commit whose checks hold is applied, also those for keys that are not there',
    async (t, store) => {
      const [a, b, c]: [Key, Key, Key] = [
        ['f', 'a'],
        ['f', 'b'],
        ['f', 'c'],
      ];
      await store.commit({ ops: [put(a, '1')] });
      await store.commit({ ops: [put(b, '2')] });
      const checks = [
        { key: a, version: 1 },
        { key: b, version: 2 },
        { key: c, version: 0 },
      ];
      t.strictSame(await store.commit({ checks, ops: [put(c, '3'), { del: a }] }), {
        ok: true,
        version: 3,
      });
      t.strictSame(
        await store.commit({ checks: [{ key: a, version: 0 }], ops: [put(a, '4')] }),
        { ok: true, version: 4 },
        'a deleted key is at version 0',
      );
    },
  );

  storeTest(
    'a commit with a conflict changes nothing and names exactly the keys at fault',
    async (t, store) => {
      const [a, b, c]: [Key, Key, Key] = [
        ['f', 'a'],
        ['f', 'b', 7],
        ['f', 'c'],
      ];
      await store.commit({ ops: [put(a, '1'), put(b, '1')] });
      await store.commit({ ops: [put(b, '2')] });
      const before = await entriesOf(store, ['f']);
      const seen: Change[] = [];
      store.watch(['f'], (change) => seen.push(change));
      const table: readonly (readonly [string, Commit['checks'], readonly Key[]])[] = [
        [
          'an older version',
          [
            { key: a, version: 1 },
            { key: b, version: 1 },
          ],
          [b],
        ],
        ['a version to come', [{ key: a, version: 3 }], [a]],
        ['not there', [{ key: c, version: 1 }], [c]],
        [
          'there already',
          [
            { key: a, version: 0 },
            { key: c, version: 0 },
          ],
          [a],
        ],
        [
          'several',
          [
            { key: c, version: 9 },
            { key: b, version: 2 },
            { key: a, version: 9 },
          ],
          [c, a],
        ],
      ];
      for (const [what, checks = [], conflicts] of table) {
        const ops = [put(a, 'x'), { del: b }, put(c, 'x')];
        t.strictSame(await store.commit({ checks, ops }), { ok: false, conflicts }, what);
        t.strictSame(await entriesOf(store, ['f']), before, `${what}: nothing changed`);
      }
      t.equal(store.version, 2);
      t.strictSame(seen, [], 'no watcher heard of it');
    },
  );

  storeTest('of two changes to one key in a commit the last wins', async (t, store) => {
    const key = (name: string): Key => ['f', name];
    await store.commit({ ops: [put(key('c'), 'old')] });
    const ops = [
      put(key('a'), '1'),
      put(key('a'), '2'),
      put(key('b'), '1'),
      { del: key('b') },
      { del: key('c') },
      put(key('c'), 'new'),
    ];
    await store.commit({ ops });
    t.equal(await valueOf(store, key('a')), '2');
    t.equal(await valueOf(store, key('b')), undefined);
    t.equal(await valueOf(store, key('c')), 'new');
    t.equal((await entriesOf(store, ['f'])).length, 2);
  });

  storeTest(
    'every value comes back byte for byte, from nothing to the largest',
    async (t, store) => {
      const values: Record<string, Uint8Array> = {
        nothing: new Uint8Array(),
        'a NUL': Buffer.from([0]),
        'every byte': Buffer.from(numbered(256)),
        'text that looks like a record': text('\u0001\0\0\0\u0001'),
        'a large one': randomBytes(largeBytes(store)),
        'part of a larger buffer': Buffer.from('0123456789').subarray(3, 6),
      };
      await store.commit({
        ops: Object.entries(values).map(([name, value]) => put(['f', name], value)),
      });
      for (const [name, value] of Object.entries(values)) {
        const entry = await store.get(['f', name]);
        t.ok(entry !== undefined && Buffer.compare(entry.value, value) === 0, name);
      }
      const all = await entriesOf(store, ['f']);
      t.equal(all.length, Object.keys(values).length);
      for (const { key, value } of all)
        t.ok(
          Buffer.compare(value, values[String(key[1])] ?? text('?')) === 0,
          `${key[1]} in a list`,
        );
    },
  );

  storeTest('a stored value is not shared with the buffer it came from', async (t, store) => {
    const value = text('before');
    await store.commit({ ops: [put(['f', 'a'], value)] });
    value.fill('x');
    t.equal(await valueOf(store, ['f', 'a']), 'before');
  });

  storeTest('a stored value is not shared with those who read it', async (t, store) => {
    await store.commit({ ops: [put(['f', 'a'], 'before')] });
    (await store.get(['f', 'a']))?.value.fill(0);
    t.equal(await valueOf(store, ['f', 'a']), 'before');
    for (const { value } of await entriesOf(store, ['f'])) value.fill(0);
    t.equal(await valueOf(store, ['f', 'a']), 'before');
  });

  storeTest(
    'a value or a commit over the limits is refused, one at them is not',
    async (t, store) => {
      const { valueBytesMax, commitBytesMax, commitOpsMax } = store.limits;
      const value = Buffer.alloc(valueBytesMax + 1, 'x');
      const most = value.subarray(1);
      const dels = numbered(commitOpsMax).map((i): Op => ({ del: ['f', i] }));
      const refused: Readonly<Record<string, Commit>> = {
        'a value': { ops: [put(['f', 'a'], value)] },
        'a value among others': { ops: [put(['f', 'b'], ''), put(['f', 'a'], value)] },
        'many bytes': {
          ops: numbered(Math.ceil(commitBytesMax / valueBytesMax)).map((i) => put(['f', i], most)),
        },
        'many ops': { ops: [...dels, { del: ['f', 'one more'] }] },
        'many checks': { checks: [{ key: ['f', 'a'], version: 0 }], ops: dels },
      };
      for (const [what, commit] of Object.entries(refused))
        t.equal(await codeOf(store.commit(commit)), 'too_large', what);
      t.equal(store.version, 0);
      t.strictSame(await listed(store, ['f']), []);

      t.equal(await codeOf(store.commit({ ops: [put(['f', 'a'], most)] })), 'no error');
      t.ok(Buffer.compare((await store.get(['f', 'a']))?.value ?? text(''), most) === 0);
      const count = Math.min(commitOpsMax, 10_000);
      const many = numbered(count).map((i) => put(['g', i], `${i}`));
      t.equal(await codeOf(store.commit({ ops: many })), 'no error');
      t.equal((await entriesOf(store, ['g'])).length, count);
    },
  );

  storeTest('many keys are read at once, in the order they are asked for', async (t, store) => {
    const [a, b, c]: [Key, Key, Key] = [
      ['f', 'a'],
      ['g', 'x', 7],
      ['f', 'c'],
    ];
    await store.commit({ ops: [put(a, '1')] });
    await store.commit({ ops: [put(b, '2')] });
    const read = async (keys: readonly Key[]) =>
      (await store.getMany(keys)).map(
        (entry) => entry && [entry.key, Buffer.from(entry.value).toString(), entry.version],
      );
    t.strictSame(await read([b, c, a, b]), [[b, '2', 2], undefined, [a, '1', 1], [b, '2', 2]]);
    t.strictSame(await read([]), []);
    t.strictSame(await read([c]), [undefined]);
  });

  storeTest('many keys are read as of one moment', async (t, store) => {
    const keys = numbered(20).map((i): Key => ['f', i]);
    const write = async () => {
      for (let round = 0; round < 50; round++)
        await store.commit({ ops: keys.map((key) => put(key, `${round}`)) });
    };
    const written = write();
    let isDone = false;
    void written.then(() => {
      isDone = true;
    });
    const torn: string[] = [];
    while (!isDone) {
      const versions = new Set((await store.getMany(keys)).map((entry) => entry?.version));
      if (versions.size !== 1) torn.push([...versions].join(' '));
      await setImmediate();
    }
    await written;
    t.strictSame(torn, [], 'every read shows one version of all keys');
  });

  storeTest('a list can be bounded by numbers, reversed, and cut', async (t, store) => {
    const all = [0, 1, 2, 9, 10, 255, 256, 70_000];
    const ops = all.flatMap((n) => [
      put(['log', 'user:a', 'run', n, 'x'], `${n}`),
      put(['log', 'user:a', 'other', n], ''),
    ]);
    await store.commit({ ops: [...ops, put(['log', 'user:a', 'run'], 'the run itself')] });
    const found = async (options: RangeOptions) =>
      (await entriesOf(store, ['log', 'user:a', 'run'], options)).map(({ key }) => key[3]);
    const table: readonly (readonly [RangeOptions, readonly (number | undefined)[]])[] = [
      [{}, [undefined, ...all]],
      [{ reverse: true }, [...all.toReversed(), undefined]],
      [{ from: 0 }, all],
      [{ from: 9 }, [9, 10, 255, 256, 70_000]],
      [{ from: 3 }, [9, 10, 255, 256, 70_000]],
      [{ to: 9 }, [undefined, 0, 1, 2]],
      [{ from: 2, to: 256 }, [2, 9, 10, 255]],
      [{ from: 2, to: 256, reverse: true }, [255, 10, 9, 2]],
      [{ from: 2, limit: 2 }, [2, 9]],
      [{ reverse: true, limit: 1 }, [70_000]],
      [{ from: 1, to: 256, reverse: true, limit: 2 }, [255, 10]],
      [{ from: 5, to: 5 }, []],
      [{ from: 10, to: 2 }, []],
      [{ from: 70_001 }, []],
      [{ limit: 1000 }, [undefined, ...all]],
    ];
    for (const [options, expected] of table)
      t.strictSame(await found(options), expected, JSON.stringify(options));
    t.equal((await entriesOf(store, ['log'], { limit: 3 })).length, 3, 'a family');
    t.equal((await entriesOf(store, ['log', 'user:a'], { limit: 17 })).length, 17);
  });

  if (traits.ordersNames)
    storeTest('a list can be bounded by names', async (t, store) => {
      const names = ['', 'a', 'ab', 'b', 'c'];
      await store.commit({ ops: names.map((name) => put(['f', name, 'x'], name)) });
      const found = async (options: RangeOptions) =>
        (await entriesOf(store, ['f'], options)).map(({ key }) => key[1]);
      t.strictSame(await found({ from: 'ab' }), ['ab', 'b', 'c']);
      t.strictSame(await found({ from: 'a', to: 'b' }), ['a', 'ab']);
      t.strictSame(await found({ to: 'b', reverse: true, limit: 2 }), ['ab', 'a']);
    });

  storeTest('a snapshot shows one moment, whatever is committed later', async (t, store) => {
    const large = randomBytes(largeBytes(store));
    await store.commit({ ops: [put(['f', 'a'], 'old'), put(['f', 'gone'], 'x')] });
    await store.commit({ ops: [put(['f', 'large'], large)] });
    const version = store.version;
    await using snapshot = await store.snapshot();
    t.equal(snapshot.version, version);
    const keys: Key[] = [
      ['f', 'a'],
      ['f', 'gone'],
      ['f', 'large'],
      ['f', 'new'],
    ];
    const before = await entriesOf(store, ['f']);
    const beforeMany = await store.getMany(keys);
    await store.commit({
      ops: [put(['f', 'a'], 'new'), put(['f', 'new'], 'x'), { del: ['f', 'gone'] }],
    });
    await store.commit({ ops: [put(['f', 'large'], 'small')] });
    t.strictSame(await entriesOf(snapshot, ['f']), before);
    t.strictSame(await snapshot.getMany(keys), beforeMany);
    t.equal(await valueOf(snapshot, ['f', 'a']), 'old');
    t.equal(await valueOf(snapshot, ['f', 'new']), undefined);
    t.equal((await entriesOf(snapshot, ['f'], { limit: 1 })).length, 1);
    t.equal(snapshot.version, version);
    t.equal(await valueOf(store, ['f', 'a']), 'new');
    t.equal(await valueOf(store, ['f', 'large']), 'small');
  });

  storeTest('a commit made again under its id happens once', async (t, store) => {
    const key: Key = ['f', 'a'];
    const heard: number[] = [];
    store.watch(['f'], ({ version }) => heard.push(version));
    const commit = { ops: [put(key, 'first')], id: 'call-1' };
    t.strictSame(await store.commit(commit), { ok: true, version: 1 });
    await store.commit({ ops: [put(key, 'second')] });
    const repeated = { ok: true, version: 1, repeated: true } as const;
    t.strictSame(await store.commit(commit), repeated);
    t.strictSame(
      await store.commit({ checks: [{ key, version: 77 }], ops: [{ del: key }], id: 'call-1' }),
      repeated,
      'whatever it asks for',
    );
    t.equal(await valueOf(store, key), 'second');
    t.equal(store.version, 2);
    t.strictSame(heard, [1, 2]);
    t.strictSame(await store.commit({ ...commit, id: 'call-2' }), { ok: true, version: 3 });

    const both = await Promise.all([1, 2].map(() => store.commit({ ...commit, id: 'twice' })));
    t.strictSame(both, [
      { ok: true, version: 4 },
      { ok: true, version: 4, repeated: true },
    ]);
  });

  storeTest('a commit that met a conflict may be made again under its id', async (t, store) => {
    const key: Key = ['f', 'a'];
    const commit = (version: number) =>
      store.commit({ checks: [{ key, version }], ops: [put(key, 'x')], id: 'again' });
    t.strictSame(await commit(5), { ok: false, conflicts: [key] });
    t.strictSame(await commit(5), { ok: false, conflicts: [key] });
    t.strictSame(await commit(0), { ok: true, version: 1 });
    t.strictSame(await commit(5), { ok: true, version: 1, repeated: true });
  });

  storeTest('a commit id has 1 to 128 characters', async (t, store) => {
    for (const id of ['', 'x'.repeat(129)])
      t.equal(await codeOf(store.commit({ ops: [put(['f'], 'x')], id })), 'invalid');
    t.equal(await store.get(['f']), undefined);
    for (const id of ['x', 'é'.repeat(128), '\0'])
      t.equal((await store.commit({ ops: [put(['f'], 'x')], id })).ok, true);
  });

  storeTest(
    'a put with a version is the same record in other bytes: it keeps it, and no watcher hears',
    async (t, store) => {
      const [a, b]: [Key, Key] = [
        ['f', 'a'],
        ['f', 'b'],
      ];
      await store.commit({ ops: [put(a, 'a')] });
      await store.commit({ ops: [put(b, 'b')] });
      const heard: unknown[] = [];
      store.watch(['f'], ({ entries }) => heard.push(...entries.map(({ key }) => key)));
      const checks = [{ key: a, version: 1 }];
      const again = { ...put(a, 'A'), version: 1 };
      t.equal((await store.commit({ checks, ops: [again] })).ok, true);
      t.strictSame(await valueOf(store, a), 'A');
      t.equal((await store.get(a))?.version, 1);
      t.strictSame(
        (await entriesOf(store, ['f'])).map(({ version }) => version).sort((x, y) => x - y),
        [1, 2],
      );
      t.strictSame(heard, []);
      t.equal((await store.commit({ checks, ops: [again, put(b, 'B')] })).ok, true, 'it holds');
      t.strictSame(heard, [b]);
    },
  );

  storeTest('time never goes back, and is about the time of day', async (t, store) => {
    let last = store.now();
    t.ok(Math.abs(last - Date.now()) < 60_000);
    for (let i = 0; i < 200; i++) {
      if (i % 50 === 0) await store.commit({ ops: [put(['f'], `${i}`)] });
      const now = store.now();
      if (now < last || !Number.isSafeInteger(now)) t.fail(`${now} after ${last}`);
      last = now;
    }
  });

  storeTest('keys that look alike are different keys', async (t, store) => {
    // biome-ignore format: a table
    const keys: readonly Key[] = [
      ['f'], ['f', ''], ['f', '', ''], ['f', '\0'], ['f', '\0', ''], ['f', '\0\0'], ['f', '', '\0'], ['f', '\u0001'],
      ['f', '\0a'], ['f', 'a\0'], ['f', 'a', '\0'], ['f', 'a\0b'], ['f', 'a', 'b'], ['f', 'ab'], ['f', 'a'], ['f', 'a', ''],
      ['f', '\u00ff'], ['f', '\0\u00ff'], ['f', '\ufeff'], ['f', '\ufffd'], ['f', '\uffff'], ['f', '\u{10ffff}'],
      ['f', 'é'], ['f', 'e\u0301'], ['f', '😀'], ['f', '\u2028'], ['f', 'A'], ['f', ' '], ['f', 'a '], ['f', '__proto__'],
      ['f', 0], ['f', '0'], ['f', 1], ['f', '1'], ['f', 1, 'a'], ['f', '1', 'a'], ['f', 0, 0], ['f', 256], ['f', 1, 0],
      ['f', 'x'.repeat(2000)], ['f', 'x'.repeat(2001)], ['', 'a'], [''], ['ff'], ['\0'], ['F', 'a'],
    ];
    await store.commit({ ops: keys.map((key, i) => put(key, `value ${i}`)) });
    for (const [i, key] of keys.entries()) {
      const entry = await store.get(key);
      t.strictSame(
        [entry?.key, entry && Buffer.from(entry.value).toString()],
        [key, `value ${i}`],
        shown(JSON.stringify(key)),
      );
    }
    for (const absent of [['f', 'b'], ['f', '\0b'], ['f', 2], ['f', 0, 1], ['g']] satisfies Key[])
      t.equal(await store.get(absent), undefined, JSON.stringify(absent));
    await store.commit({ ops: keys.filter((_, i) => i % 2 === 0).map((key) => ({ del: key })) });
    for (const [i, key] of keys.entries())
      t.equal(
        await valueOf(store, key),
        i % 2 === 0 ? undefined : `value ${i}`,
        `odd: ${shown(JSON.stringify(key))}`,
      );
  });

  storeTest('a list holds what is under the prefix, by whole parts', async (t, store) => {
    // biome-ignore format: a table
    const keys: readonly Key[] = [
      ['var'], ['var', 'user:a'], ['var', 'user:a', 'x'], ['var', 'user:a', 'x', 1], ['var', 'user:a', ''],
      ['var', 'user:ab', 'x'], ['var', 'user:a\0', 'x'], ['var', 'user:', 'x'], ['var', 'user:b', 'x'], ['var', ''],
      ['var', 1, 'x'], ['var', 1], ['var', 10, 'x'], ['var', 256], ['vary', 'user:a'], ['va'], ['', 'var'],
    ];
    await store.commit({ ops: keys.map((key) => put(key, JSON.stringify(key))) });
    const prefixes: readonly Key[] = [
      ...keys,
      ['var', 'user'],
      ['var', 'user:a', 'x', 0],
      ['var', 0],
      ['v'],
      ['w'],
      ['var', 'user:a', 'x', 1, 'y'],
    ];
    for (const prefix of prefixes) {
      const under = keys.filter((key) => isDeepStrictEqual(key.slice(0, prefix.length), prefix));
      const found = (await entriesOf(store, prefix)).map(({ key }) => key);
      const bySource = (list: readonly Key[]) => list.map((key) => JSON.stringify(key)).sort();
      t.strictSame(bySource(found), bySource(under), shown(JSON.stringify(prefix)));
    }
  });

  storeTest('numbers in keys are ordered as numbers', async (t, store) => {
    const numbers = [2 ** 53 - 1, 2 ** 32, 2 ** 32 - 1, 65_536, 256, 255, 100, 10, 9, 2, 1, 0];
    await store.commit({ ops: numbers.map((n) => put(['log', 'run', n, 'line'], `${n}`)) });
    t.strictSame(
      (await entriesOf(store, ['log', 'run'])).map(({ key }) => key[2]),
      [...numbers].reverse(),
    );
  });

  if (traits.ordersNames)
    storeTest(
      'names in keys are ordered by their UTF-8 bytes, a prefix first',
      async (t, store) => {
        const names = [
          '',
          '\0',
          '\0a',
          '\u0001',
          'A',
          'B',
          'a',
          'a\0',
          'a\0b',
          'ab',
          'b',
          '\u007f',
          'é',
          '\uffff',
          '😀',
        ];
        await store.commit({ ops: [...names].reverse().map((n) => put(['f', n], n)) });
        t.strictSame(
          (await entriesOf(store, ['f'])).map(({ key }) => key[1]),
          names,
        );
        t.strictSame(
          [...names].sort((a, b) => Buffer.compare(text(a), text(b))),
          names,
        );
      },
    );

  storeTest(
    'a list of thousands shows one moment: later commits do not appear in it',
    async (t, store) => {
      const COUNT = 2500;
      await store.commit({ ops: numbered(COUNT).map((i) => put(['f', i], `${i}`)) });
      const found: string[] = [];
      for await (const { key, value, version } of store.range(['f'])) {
        if (found.length === 0)
          await store.commit({
            ops: [
              put(['f', COUNT + 1], 'new'),
              put(['f', COUNT - 1], 'changed'),
              { del: ['f', COUNT - 2] },
            ],
          });
        found.push(`${key[1]}=${Buffer.from(value).toString()}@${version}`);
      }
      t.strictSame(
        found,
        numbered(COUNT).map((i) => `${i}=${i}@1`),
      );
      t.equal((await entriesOf(store, ['f'])).length, COUNT, 'one more, one less');
      t.equal(await valueOf(store, ['f', COUNT - 1]), 'changed');
    },
  );

  storeTest('a list may be left early, again and again', async (t, store) => {
    await store.commit({ ops: numbered(100).map((i) => put(['f', i], `${i}`)) });
    for (let i = 0; i < 50; i++)
      for await (const { key } of store.range(['f'])) {
        t.strictSame(key, ['f', 0]);
        break;
      }
    await store.commit({ ops: [{ del: ['f', 0] }] });
    t.equal((await entriesOf(store, ['f'])).length, 99);
  });

  storeTest(
    'a watcher hears the puts under its prefix, before their commit resolves',
    async (t, store) => {
      const heard: string[] = [];
      const tell = (who: string) => (change: Change) => {
        const entries = change.entries.map(
          ({ key, value }) => `${key.join('/')}=${Buffer.from(value).toString()}`,
        );
        heard.push(`${who} ${change.version}: ${entries.join(' ')}`);
      };
      const stops = [
        store.watch(['var', 'user:a'], tell('a')),
        store.watch(['var'], tell('all')),
        store.watch(['var', 'user:a', 'x'], tell('x')),
        store.watch(['exec'], tell('exec')),
      ];
      const commit = store.commit({
        ops: [
          put(['var', 'user:a', 'x'], '1'),
          put(['var', 'user:ab', 'y'], '2'),
          put(['var', 'user:a', 'z'], ''),
        ],
      });
      await commit.then(() => heard.push('done'));
      await store.commit({
        ops: [{ del: ['var', 'user:a', 'x'] }, put(['var', 'user:b', 'x'], '3')],
      });
      await store.commit({ ops: [{ del: ['var', 'user:b', 'x'] }] });
      t.strictSame(
        heard.splice(0, 3).sort(),
        [
          'a 1: var/user:a/x=1 var/user:a/z=',
          'all 1: var/user:a/x=1 var/user:ab/y=2 var/user:a/z=',
          'x 1: var/user:a/x=1',
        ],
        'watchers in any order',
      );
      t.strictSame(heard, ['done', 'all 2: var/user:b/x=3']);
      heard.length = 0;
      for (const stop of stops) stop();
      for (const stop of stops) stop();
      await store.commit({ ops: [put(['var', 'user:a', 'x'], '4')] });
      t.strictSame(heard, [], 'nothing after the stop');
    },
  );

  storeTest(
    'a watcher that begins at a version first hears what is there and newer, in order',
    async (t, store) => {
      await store.commit({ ops: [put(['f', 'a', 1], 'old')] });
      await store.commit({ ops: [put(['f', 'a', 2], 'x'), put(['f', 'b', 3], 'other')] });
      await store.commit({ ops: [put(['f', 'a', 3], 'replaced'), put(['f', 'a', 4], 'gone')] });
      await store.commit({ ops: [put(['f', 'a', 5], 'y'), put(['f', 'a', 6], 'z')] });
      await store.commit({ ops: [put(['f', 'a', 3], 'last'), { del: ['f', 'a', 4] }] });
      const heard: unknown[] = [];
      const tell = ({ version, entries }: Change) =>
        heard.push([
          version,
          ...entries.map(({ key, value }) => `${key[2]}=${Buffer.from(value).toString()}`).sort(),
        ]);
      const stop = store.watch(['f', 'a'], tell, 1);
      await store.commit({ ops: [put(['f', 'a', 1], 'new')] });
      await eventually(() => heard.length >= 4);
      t.strictSame(heard, [
        [2, '2=x'],
        [4, '5=y', '6=z'],
        [5, '3=last'],
        [6, '1=new'],
      ]);
      stop();
      heard.length = 0;
      store.watch(['f', 'a'], tell, store.version);
      await store.commit({ ops: [put(['f', 'a', 1], 'newer')] });
      await eventually(() => heard.length >= 1);
      t.strictSame(heard, [[7, '1=newer']], 'nothing was missed');
    },
  );

  storeTest(
    'a watcher that begins in the middle of commits hears each of them once, in order',
    async (t, store) => {
      const COUNT = 150;
      const write = async () => {
        for (let i = 1; i <= COUNT; i += 3) {
          await Promise.all(
            [i, i + 1, i + 2].map((n) => store.commit({ ops: [put(['f', 'a', n], `${n}`)] })),
          );
          if (i % 30 === 1) await setImmediate();
        }
      };
      const written = write();
      const heard: [since: number, versions: number[]][] = [];
      for (let i = 0; i < 10; i++) {
        const since = Math.floor((store.version * i) / 10);
        const versions: number[] = [];
        heard.push([since, versions]);
        store.watch(['f', 'a'], ({ version }) => versions.push(version), since);
        await setImmediate();
      }
      await written;
      await eventually(() => heard.every(([, versions]) => versions.at(-1) === COUNT));
      for (const [since, versions] of heard)
        t.strictSame(
          versions,
          numbered(COUNT - since).map((i) => since + i + 1),
          `since ${since}`,
        );
    },
  );

  storeTest(
    'a recorder adds to every group of commits that carry notes, also when all met conflicts',
    async (t, store) => {
      const key: Key = ['f', 'a'];
      const groups: Noted[][] = [];
      let records = 0;
      store.recordWith({
        record: (group) => {
          groups.push([...group]);
          return [put(['audit', SYSTEM, ++records], JSON.stringify(group))];
        },
        reset: async () => {},
      });
      t.strictSame(await store.commit({ ops: [put(key, '1')], note: { who: 'ada' } }), {
        ok: true,
        version: 1,
      });
      t.strictSame(groups, [[{ note: { who: 'ada' }, committed: { ok: true, version: 1 } }]]);
      t.equal((await store.get(['audit', SYSTEM, 1]))?.version, 1, 'in the same commit');

      const checks = [{ key, version: 9 }];
      const conflict = { ok: false, conflicts: [key] } as const;
      t.strictSame(await store.commit({ checks, ops: [put(key, '2')], note: 'late' }), conflict);
      t.strictSame(groups[1], [{ note: 'late', committed: conflict }]);
      t.match(await valueOf(store, ['audit', SYSTEM, 2]), /late/);
      t.equal(store.version, 2, 'the record alone takes a version');

      await store.commit({ ops: [put(key, '3')] });
      t.equal(groups.length, 2, 'no note, no record');
      t.equal(store.version, 3);
    },
  );

  storeTest(
    'of commits at once each is recorded once, in order, and together with its change',
    async (t, store) => {
      const noted: string[] = [];
      let records = 0;
      store.recordWith({
        record: (group) => {
          const notes = group.map(({ note, committed }) => `${String(note)} ${committed.ok}`);
          noted.push(...notes);
          return [put(['audit', SYSTEM, ++records], JSON.stringify(notes))];
        },
        reset: async () => {},
      });
      const all = Promise.all(
        numbered(60).map((i) =>
          store.commit({
            checks: i % 3 === 2 ? [{ key: ['f', 0], version: 999 }] : [],
            ops: [put(['f', i], `${i}`)],
            note: `${i}`,
          }),
        ),
      );
      let isDone = false;
      void all.then(() => {
        isDone = true;
      });
      while (!isDone) {
        await using snapshot = await store.snapshot();
        const recorded = new Set(
          (await entriesOf(snapshot, ['audit'])).flatMap(
            ({ value }) => JSON.parse(Buffer.from(value).toString()) as string[],
          ),
        );
        const there = (await entriesOf(snapshot, ['f'])).map(({ key }) => `${key[1]} true`);
        const missing = there.filter((one) => !recorded.has(one));
        if (missing.length > 0) t.fail(`not on record: ${missing.join(' ')}`);
        await setImmediate();
      }
      const results = await all;
      t.strictSame(
        noted,
        results.map(({ ok }, i) => `${i} ${ok}`),
      );
    },
  );

  storeTest('what a watcher is told has the version that get shows', async (t, store) => {
    const told: Entry[] = [];
    store.watch(['f'], ({ version, entries }) => {
      t.ok(entries.every((entry) => entry.version === version));
      told.push(...entries);
    });
    await store.commit({ ops: [put(['g'], '')] });
    await store.commit({ ops: [put(['f', 'a', 5], 'x'), put(['f', 'b'], 'y')] });
    t.equal(told.length, 2);
    for (const entry of told) {
      const stored = await store.get(entry.key);
      t.strictSame(
        [stored?.version, stored && Buffer.compare(stored.value, entry.value)],
        [entry.version, 0],
      );
    }
  });

  storeTest(
    'a watcher does not hear of a put that the same commit takes back',
    async (t, store) => {
      const told: string[] = [];
      store.watch(['f'], ({ entries }) => {
        for (const { key, value } of entries)
          told.push(`${key[1]}=${Buffer.from(value).toString()}`);
      });
      await store.commit({
        ops: [
          put(['f', 'a'], '1'),
          put(['f', 'a'], '2'),
          put(['f', 'b'], '1'),
          { del: ['f', 'b'] },
        ],
      });
      t.strictSame(told, ['a=2'], 'what is stored afterwards');
    },
  );

  storeTest(
    '200 commits at once get the versions 1 to 200, and watchers hear them in that order',
    async (t, store) => {
      const heard: [number, string][] = [];
      store.watch(['f'], ({ version, entries }) => {
        heard.push([version, Buffer.from(entries[0]?.value ?? []).toString()]);
      });
      const versions = await Promise.all(
        numbered(200).map((i) =>
          versionOf(store.commit({ ops: [put(['f', 'shared'], `${i}`), put(['f', i], `${i}`)] })),
        ),
      );
      t.strictSame(
        versions,
        numbered(200).map((i) => i + 1),
        'in the order they were asked for',
      );
      t.strictSame(
        heard,
        numbered(200).map((i) => [i + 1, `${i}`]),
      );
      t.equal(await valueOf(store, ['f', 'shared']), '199', 'the last one wins');
      t.equal(store.version, 200);
      for (const i of numbered(200)) t.equal((await store.get(['f', i]))?.version, i + 1);
    },
  );

  storeTest('20 counters-up with checks lose no count', async (t, store) => {
    const key: Key = ['f', 'counter'];
    let conflicts = 0;
    const countUp = async () => {
      for (let done = 0; done < 5; ) {
        const entry = await store.get(key);
        const next = Number(entry === undefined ? 0 : Buffer.from(entry.value).toString()) + 1;
        const checks = [{ key, version: entry?.version ?? 0 }];
        const { ok } = await store.commit({ checks, ops: [put(key, `${next}`)] });
        if (ok) done++;
        else conflicts++;
      }
    };
    await Promise.all(numbered(20).map(countUp));
    t.equal(await valueOf(store, key), '100');
    t.ok(conflicts > 0, `${conflicts} of them met a conflict`);
    t.equal(store.version, 100, 'conflicts took no version');
  });

  storeTest('of many that create a key at once exactly one does', async (t, store) => {
    const checks = [{ key: ['f', 'lock'] satisfies Key, version: 0 }];
    const results = await Promise.all(
      numbered(50).map((i) => store.commit({ checks, ops: [put(['f', 'lock'], `${i}`)] })),
    );
    t.strictSame(
      results.map(({ ok }) => ok),
      numbered(50).map((i) => i === 0),
    );
    t.equal(await valueOf(store, ['f', 'lock']), '0');
  });

  storeTest(
    'a commit with a key that cannot exist fails alone and changes nothing',
    async (t, store) => {
      for (const wrong of [-1, 1.5, Number.NaN, Number.POSITIVE_INFINITY]) {
        const before = await entriesOf(store, ['f']);
        const good = (name: string) => store.commit({ ops: [put(['f', name], `${wrong}`)] });
        const outcomes = await Promise.allSettled([
          good('first'),
          store.commit({ ops: [put(['f', 'part'], 'x'), put(['f', wrong], 'x')] }),
          good('last'),
        ]);
        t.strictSame(
          outcomes.map(({ status }) => status),
          ['fulfilled', 'rejected', 'fulfilled'],
          `${wrong}`,
        );
        t.equal(await store.get(['f', 'part']), undefined, `${wrong}: nothing of it was applied`);
        t.equal(
          await valueOf(store, ['f', 'last']),
          `${wrong}`,
          `${wrong}: after ${before.length} entries`,
        );
      }
    },
  );

  void t.test(
    `${name}: closing waits for queued commits, and nothing works afterwards`,
    async (t) => {
      const { store, again } = await open(t);
      const commits = numbered(300).map((i) =>
        store.commit({ ops: [put(['f', i], randomBytes(10_000))] }),
      );
      await store[Symbol.asyncDispose]();
      t.strictSame(
        await Promise.all(commits.map(versionOf)),
        numbered(300).map((i) => i + 1),
      );
      t.equal(await codeOf(store.get(['f', 0])), 'unavailable');
      t.equal(await codeOf(entriesOf(store, ['f'])), 'unavailable');
      t.equal(await codeOf(store.commit({ ops: [] })), 'unavailable');
      if (again === undefined) return;
      await using second = await again();
      t.equal((await entriesOf(second, ['f'])).length, 300);
      t.equal(second.version, 300);
    },
  );

  randomTest(`${name}: a store behaves like a map, whatever happens to it`, async (t, random) => {
    const { store, again } = await open(t);
    await checkAgainstModel(t, random, store, again);
  });

  if (!traits.durable) return;
  const openDurable = async (t: Test) => {
    const { store, again } = await open(t);
    if (again === undefined) throw new TypeError(`${name} cannot be opened again`);
    return { store, again };
  };

  void t.test(`${name}: opened again, everything is there and versions go on`, async (t) => {
    const { store, again } = await openDurable(t);
    // Small enough to be one record in every store, so that the versions below are known.
    const large = randomBytes(Math.min(60_000, store.limits.valueBytesMax));
    await store.commit({
      ops: [put(['f', 'a\0é😀', 5], 'x'), put(['f', ''], ''), put(['f', 'large'], large)],
    });
    await store.commit({ ops: [put(['f', 'gone'], 'x')] });
    await store.commit({ ops: [{ del: ['f', 'gone'] }, put(['g'], 'y')] });
    const before = [...(await entriesOf(store, ['f'])), ...(await entriesOf(store, ['g']))];
    await store[Symbol.asyncDispose]();
    await using second = await again();
    t.equal(second.version, 3);
    t.strictSame(
      [...(await entriesOf(second, ['f'])), ...(await entriesOf(second, ['g']))],
      before,
    );
    t.ok(Buffer.compare((await second.get(['f', 'large']))?.value ?? text(''), large) === 0);
    t.equal(await second.get(['f', 'gone']), undefined);
    t.equal((await second.commit({ checks: [{ key: ['g'], version: 3 }], ops: [] })).ok, true);
    t.equal(await versionOf(second.commit({ ops: [{ del: ['g'] }] })), 5);
  });

  void t.test(`${name}: opened again, ids are known and time has not gone back`, async (t) => {
    const { store, again } = await openDurable(t);
    const commit = { ops: [put(['f', 'a'], 'first')], id: 'call-1' };
    t.strictSame(await store.commit(commit), { ok: true, version: 1 });
    await store.commit({ ops: [put(['f', 'a'], 'second')] });
    const now = store.now();
    await store[Symbol.asyncDispose]();
    await using second = await again();
    t.ok(second.now() >= now);
    t.strictSame(await second.commit(commit), { ok: true, version: 1, repeated: true });
    t.equal(await valueOf(second, ['f', 'a']), 'second');
    const heard: number[] = [];
    second.watch(['f'], ({ version }) => heard.push(version), 1);
    await eventually(() => heard.length > 0);
    t.strictSame(heard, [2], 'who had heard the first goes on from there');
  });

  void t.test(`${name}: a store in use cannot be opened a second time`, async (t) => {
    const { store, again } = await openDurable(t);
    await using _ = store;
    await store.commit({ ops: [put(['f'], 'x')] });
    t.equal(await codeOf(again()), 'busy');
    t.equal(await valueOf(store, ['f']), 'x', 'the first one goes on');
    t.equal(await versionOf(store.commit({ ops: [put(['f'], 'y')] })), 2);
  });
}

/** Random commits, a few at a time, against a Map; now and then the store is opened again. */
async function checkAgainstModel(
  t: Test,
  random: Random,
  first: Store,
  again: (() => Promise<Store>) | undefined,
): Promise<void> {
  let store = first;
  const model = new Map<string, { value: string; version: number }>();
  const names = ['', 'a', 'b', '\0', 'é'];
  const randomKey = (): Key => {
    const key: [string, ...(string | number)[]] = [random.pick(['f', 'g'])];
    for (let parts = random.int(3); parts > 0; parts--)
      key.push(random.chance(0.3) ? random.pick([0, 1, 256]) : random.pick(names));
    return key;
  };
  const randomOp = (): Op =>
    random.chance(0.3)
      ? { del: randomKey() }
      : put(randomKey(), random.bytes(random.int(20)).toString('hex'));
  let version = 0;

  for (let round = 0; round < 120; round++) {
    const commits = Array.from({ length: 1 + random.int(4) }, (): Commit => {
      const checks = Array.from({ length: random.chance(0.5) ? 0 : 1 + random.int(2) }, () => {
        const key = randomKey();
        const known = model.get(JSON.stringify(key))?.version ?? 0;
        return { key, version: random.chance(0.8) ? known : random.int(version + 2) };
      });
      return { checks, ops: Array.from({ length: random.int(5) }, randomOp) };
    });
    const results = await Promise.all(commits.map((commit) => store.commit(commit)));
    for (const [i, { checks = [], ops }] of commits.entries()) {
      const conflicts = checks
        .filter((check) => (model.get(JSON.stringify(check.key))?.version ?? 0) !== check.version)
        .map(({ key }) => key);
      const expected: Committed =
        conflicts.length === 0 ? { ok: true, version: version + 1 } : { ok: false, conflicts };
      if (!isDeepStrictEqual(results[i], expected))
        throw new Error(`round ${round}: ${JSON.stringify({ got: results[i], expected })}`);
      if (conflicts.length > 0) continue;
      version++;
      for (const op of ops) {
        if ('del' in op) model.delete(JSON.stringify(op.del));
        else
          model.set(JSON.stringify(op.put), { value: Buffer.from(op.value).toString(), version });
      }
    }
    if (again !== undefined && round % 40 === 39) {
      await store[Symbol.asyncDispose]();
      store = await again();
    }
    const prefix = randomKey();
    const found = (await entriesOf(store, prefix)).map((entry) => [
      JSON.stringify(entry.key),
      { value: Buffer.from(entry.value).toString(), version: entry.version },
    ]);
    const wanted = [...model].filter(([key]) =>
      isDeepStrictEqual((JSON.parse(key) as Key).slice(0, prefix.length), prefix),
    );
    const same = isDeepStrictEqual(new Map(found as typeof wanted), new Map(wanted));
    if (!same || found.length !== wanted.length)
      throw new Error(`round ${round}: ${JSON.stringify({ prefix, found, wanted })}`);
  }
  t.equal(store.version, version);
  for (const [key, { value, version }] of model) {
    const entry = await store.get(JSON.parse(key) as Key);
    t.strictSame(
      [entry?.version, entry && Buffer.from(entry.value).toString()],
      [version, value],
      shown(key),
    );
  }
  await store[Symbol.asyncDispose]();
}
