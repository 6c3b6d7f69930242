import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import t from 'tap';
import { BridgeError } from '#bridge/wire/errors.js';
import { encodeFrame } from '#bridge/wire/frames.js';
import { MESSAGE_BYTES_MAX } from '#bridge/wire/limits.js';
import { JsonText, type Namespace, VariableKey } from '#bridge/wire/names.js';
import { Variable, VariableChange } from '#bridge/wire/protocol.js';
import { MergePolicies } from '#server/services/merge-policies.js';
import { type Edit, Variables } from '#server/services/variables.js';
import { EncryptedStore } from '#server/store/encrypted-store.js';
import { Keyring } from '#server/store/keyring.js';
import { LARGE_LIMITS } from '#server/store/large-values.js';
import { LevelStore } from '#server/store/level-store.js';
import { MemoryStore } from '#server/store/memory-store.js';
import type { Commit, Entry, Key, Store } from '#server/store/store.js';
import { Random, randomTest } from '#test/support/random.js';

const ADA: Namespace = { user: 'ada' };
const key = (text: string): VariableKey => VariableKey.parse(text);
const set = (values: Readonly<Record<string, string>>): Edit => ({
  set: Object.entries(values).map(([name, text]) => [key(name), text] as const),
  delete: [],
});
const remove = (...names: string[]): Edit => ({ set: [], delete: names.map(key) });

/** The service under a clock that the test moves. */
class Desk {
  readonly store: Store;
  readonly variables: Variables;
  readonly policies: MergePolicies;
  now = Date.UTC(2026, 10, 23);

  constructor(store: Store = new MemoryStore(undefined, LARGE_LIMITS)) {
    this.store = store;
    this.policies = new MergePolicies(store);
    this.variables = new Variables(store, this.policies, () => this.now);
  }

  edit = (edit: Edit, namespace = ADA, by = 'run-1') =>
    this.variables.edit(namespace, edit, { by });

  /** `key=text`, in document order. */
  async document(namespace = ADA): Promise<string[]> {
    return (await this.variables.list(namespace)).map(
      (variable) => `${variable.key}=${variable.text}`,
    );
  }
}

const codeOf = async (body: Promise<unknown>) =>
  await body.then(
    () => 'no error',
    (error: unknown) => (error instanceof BridgeError ? error.code : String(error)),
  );

/** A store whose reads come back in an order of their own, as those of a database with several threads do. */
class ShuffledReads extends MemoryStore {
  readonly #random = new Random(7);

  override async get(wanted: Key): Promise<Entry | undefined> {
    const entry = await super.get(wanted);
    await sleep(this.#random.int(8));
    return entry;
  }
}

void t.test('a namespace without variables is empty, not an error', async (t) => {
  const desk = new Desk();
  t.strictSame(await desk.document(), []);
  t.equal(await codeOf(desk.variables.get(ADA, key('city'))), 'not_found');
});

void t.test(
  'variables stand in the order in which they were made, whatever their names',
  async (t) => {
    const desk = new Desk();
    await desk.edit(set({ zebra: '1', apple: '2' }));
    await desk.edit(set({ mango: '3' }));
    desk.now += 1;
    await desk.edit(set({ Banana: '4', '10': '5', '9': '6' }));
    // Object.entries puts names of numbers first, so 10 and 9 were made before Banana, 9 before 10.
    t.strictSame(await desk.document(), [
      'zebra=1',
      'apple=2',
      'mango=3',
      '9=6',
      '10=5',
      'Banana=4',
    ]);
  },
);

void t.test(
  'a new value keeps its place, a variable that was deleted and made again goes to the end',
  async (t) => {
    const desk = new Desk();
    await desk.edit(set({ a: '1', b: '2', c: '3' }));
    await desk.edit(set({ b: '"new"' }));
    t.strictSame(await desk.document(), ['a=1', 'b="new"', 'c=3']);
    await desk.edit(remove('a'));
    await desk.edit(set({ a: '4' }));
    t.strictSame(await desk.document(), ['b="new"', 'c=3', 'a=4']);
    await desk.edit({
      set: [
        [key('c'), '5'],
        [key('d'), '6'],
      ],
      delete: [key('b')],
    });
    t.strictSame(await desk.document(), ['c=5', 'a=4', 'd=6']);
  },
);

void t.test('the order goes on after a restart', async (t) => {
  const store = new MemoryStore();
  const before = new Desk(store);
  await before.edit(set({ b: '1', a: '2' }));
  const after = new Desk(store);
  after.now = before.now + 1;
  await after.edit(set({ A: '3' }));
  t.strictSame(await after.document(), ['b=1', 'a=2', 'A=3']);
});

void t.test(
  'more variables in one millisecond than have room in it keep their order',
  async (t) => {
    const desk = new Desk();
    const names = Array.from({ length: 3000 }, (_, i) => `v${(i * 7919) % 3000}`);
    await desk.edit({ set: names.map((name) => [key(name), '1'] as const), delete: [] });
    desk.now += 1;
    await desk.edit(set({ last: '1' }));
    t.strictSame(
      await desk.document(),
      [...names, 'last'].map((name) => `${name}=1`),
    );
  },
);

void t.test('values keep their text', async (t) => {
  const desk = new Desk();
  const texts = [
    '1.0',
    '9223372036854775808',
    '1e400',
    '-0',
    '"\\u00e9\\/"',
    '{ "b" : 1,\n"a":2 }',
    'null',
    '""',
    '[]',
  ];
  await desk.edit(set(Object.fromEntries(texts.map((text, i) => [`v${i}`, text]))));
  t.strictSame(
    (await desk.variables.list(ADA)).map(({ text }) => text),
    texts,
  );
  t.equal((await desk.variables.get(ADA, key('v1'))).text, '9223372036854775808');
  const large = JSON.stringify('x'.repeat(1024 * 1024));
  await desk.edit(set({ large: JsonText.parse(large) }));
  t.equal((await desk.variables.get(ADA, key('large'))).text, large);
});

void t.test('names of every kind are names', async (t) => {
  const desk = new Desk();
  const names = [
    'a b',
    'a/b',
    '../x',
    '__proto__',
    'constructor',
    'é',
    'e\u0301',
    '😀',
    '"',
    '\\',
    '$',
    '.',
    'x'.repeat(255),
  ];
  await desk.edit({ set: names.map((name, i) => [key(name), `${i}`] as const), delete: [] });
  t.strictSame(
    await desk.document(),
    names.map((name, i) => `${name}=${i}`),
  );
  for (const [i, name] of names.entries())
    t.equal((await desk.variables.get(ADA, key(name))).text, `${i}`);
});

void t.test(
  'what is listed says who, when and with which commit, as the protocol wants it',
  async (t) => {
    const desk = new Desk();
    const first = await desk.edit(set({ a: '1', b: '2' }));
    desk.now += 5000;
    const second = await desk.edit(set({ b: '3' }));
    t.ok(second.version > first.version);
    const [a, b] = await desk.variables.list(ADA);
    t.match(
      [a, b],
      [
        { key: 'a', text: '1', version: first.version, updatedAt: desk.now - 5000 },
        { key: 'b', text: '3', version: second.version, updatedAt: desk.now },
      ],
    );
    t.ok((a?.order ?? 0) < (b?.order ?? 0));
    t.strictSame(Variable.parse(b), b);
    t.strictSame(await desk.variables.get(ADA, key('b')), { ...b, by: 'run-1' });
    t.strictSame(
      second.changes.map((change) => VariableChange.parse(change)),
      [b],
    );
  },
);

void t.test(
  'a deletion is a change with a version, and then the variable is gone from get and list',
  async (t) => {
    const desk = new Desk();
    await desk.edit(set({ a: '1', b: '2' }));
    const { version, changes } = await desk.edit(remove('a'));
    t.match(changes, [{ key: 'a', text: null, version, updatedAt: desk.now }]);
    t.strictSame(await desk.document(), ['b=2']);
    t.equal(await codeOf(desk.variables.get(ADA, key('a'))), 'not_found');
    await desk.edit(remove('b'));
    t.strictSame(await desk.document(), []);
  },
);

void t.test(
  'a tombstone keeps the version of the deletion, so a late-comer can tell old from new',
  async (t) => {
    const desk = new Desk();
    await desk.edit(set({ a: '1' }));
    const { version } = await desk.edit(remove('a'));
    const stored = await desk.store.get(['var', 'user:ada', 'a']);
    t.equal(stored?.version, version);
  },
);

void t.test(
  'deleting what is not there, or not there any more, changes nothing and tells nobody',
  async (t) => {
    const desk = new Desk();
    await desk.edit(set({ a: '1' }));
    await desk.edit(remove('a'));
    const { version } = desk.store;
    const heard: unknown[] = [];
    desk.variables.watch(ADA, (...change) => heard.push(change));
    t.strictSame(await desk.edit(remove('a', 'never')), { version, changes: [] });
    t.strictSame(await desk.edit({ set: [], delete: [] }), { version, changes: [] });
    t.equal(desk.store.version, version, 'no commit was made');
    t.strictSame(heard, []);
    const mixed = await desk.edit({ set: [[key('b'), '2']], delete: [key('a'), key('never')] });
    t.strictSame(
      mixed.changes.map((change) => change.key),
      ['b'],
      'only what changed',
    );
  },
);

void t.test(
  'a key that is both set and deleted is deleted, one that is set twice has the last value',
  async (t) => {
    const desk = new Desk();
    await desk.edit(set({ a: '1' }));
    const { changes } = await desk.edit({
      set: [
        [key('a'), '2'],
        [key('b'), '1'],
        [key('b'), '2'],
      ],
      delete: [key('a')],
    });
    t.strictSame(await desk.document(), ['b=2']);
    t.equal(changes.length, 2, 'one change a key');
  },
);

void t.test('an edit is one commit: all of it is there, or nothing of it', async (t) => {
  const desk = new Desk();
  await desk.edit(set({ a: '1', b: '2' }));
  const before = desk.store.version;
  const { version, changes } = await desk.edit({
    set: [
      [key('a'), '3'],
      [key('c'), '4'],
    ],
    delete: [key('b')],
  });
  t.equal(desk.store.version, before + 1);
  t.strictSame(
    changes.map((change) => change.version),
    [version, version, version],
  );

  class FullStore extends MemoryStore {
    full = false;
    override async commit(commit: Commit) {
      if (this.full) throw new BridgeError('no_space', 'the disk is full');
      return await super.commit(commit);
    }
  }
  const store = new FullStore();
  const full = new Desk(store);
  await full.edit(set({ a: '1' }));
  store.full = true;
  t.equal(await codeOf(full.edit({ set: [[key('x'), '1']], delete: [key('a')] })), 'no_space');
  store.full = false;
  t.strictSame(await full.document(), ['a=1']);
});

void t.test('a reader never sees half of an edit', async (t) => {
  const desk = new Desk(new ShuffledReads());
  const names = ['a', 'b', 'c', 'd', 'e'];
  const writer = (async () => {
    for (let i = 0; i < 20; i++) {
      await desk.edit(set(Object.fromEntries(names.map((name) => [name, `${i}`]))));
      await sleep(1);
    }
    return 'done';
  })();
  let reads = 0;
  for (let state = 'writing'; state !== 'done'; reads++) {
    const texts = new Set((await desk.variables.list(ADA)).map(({ text }) => text));
    if (texts.size > 1) t.fail(`saw ${[...texts].join(' and ')}`);
    state = await Promise.race([writer, sleep(1, 'writing')]);
  }
  t.ok(reads > 10, `${reads} reads`);
  t.equal((await desk.document()).length, names.length);
  for (const { text } of await desk.variables.list(ADA)) t.equal(text, '19');
});

void t.test(
  'a watcher hears every change of its namespace once, in commit order, and who made it',
  async (t) => {
    const desk = new Desk();
    const heard: string[] = [];
    const stop = desk.variables.watch(ADA, (changes, by) => {
      for (const change of changes) VariableChange.parse(change);
      heard.push(`${by}: ${changes.map((change) => `${change.key}=${change.text}`).join(' ')}`);
    });
    await desk.edit(set({ a: '1', b: '2' }), ADA, 'run-1');
    await desk.edit({ set: [[key('c'), '3']], delete: [key('a')] }, ADA, 'run-2');
    await desk.edit(remove('c'), ADA, 'operator:ada');
    t.strictSame(heard, ['run-1: a=1 b=2', 'run-2: c=3 a=null', 'operator:ada: c=null']);
    stop();
    await desk.edit(set({ d: '4' }));
    t.equal(heard.length, 3, 'nothing after the stop');
  },
);

void t.test(
  'a watcher has heard before the edit resolves, with what the edit returns',
  async (t) => {
    const desk = new Desk();
    const heard: unknown[] = [];
    desk.variables.watch(ADA, (changes) => heard.push(...changes));
    const { changes } = await desk.edit({
      set: [
        [key('a'), '1'],
        [key('b'), '2'],
      ],
      delete: [],
    });
    t.strictSame(heard, changes);
  },
);

void t.test('namespaces do not see each other, however alike their names are', async (t) => {
  const desk = new Desk();
  const namespaces: Namespace[] = [
    { user: 'ada' },
    { org: 'ada' },
    { user: 'ada2' },
    { user: 'ad' },
    { user: 'ADA' },
    { user: 'org' },
    { org: 'user' },
  ];
  const heard = namespaces.map(() => [] as string[]);
  for (const [i, namespace] of namespaces.entries())
    desk.variables.watch(namespace, (changes) =>
      heard[i]?.push(...changes.map(({ text }) => `${text}`)),
    );
  for (const [i, namespace] of namespaces.entries())
    await desk.edit(set({ same: `${i}` }), namespace);
  for (const [i, namespace] of namespaces.entries()) {
    t.strictSame(await desk.document(namespace), [`same=${i}`], JSON.stringify(namespace));
    t.strictSame(heard[i], [`${i}`]);
  }
  await desk.edit(remove('same'), { user: 'ada' });
  t.strictSame(await desk.document({ org: 'ada' }), ['same=1'], 'a deletion neither');
});

void t.test('edits at once get versions of their own, and the highest one stays', async (t) => {
  const desk = new Desk();
  const heard: number[] = [];
  desk.variables.watch(ADA, (changes) => heard.push(...changes.map(({ version }) => version)));
  const edits = await Promise.all(
    Array.from({ length: 100 }, (_, i) =>
      desk.edit(set({ shared: `${i}`, [`own ${i}`]: '1' }), ADA, `run-${i}`),
    ),
  );
  t.equal(new Set(edits.map(({ version }) => version)).size, 100);
  t.strictSame(
    heard.filter((_, i) => i % 2 === 0),
    edits.map(({ version }) => version).sort((a, b) => a - b),
  );
  const last = edits.reduce((a, b) => (a.version > b.version ? a : b));
  const wanted = last.changes.find((change) => change.key === 'shared')?.text;
  t.equal((await desk.variables.get(ADA, key('shared'))).text, wanted);
  t.equal((await desk.document()).length, 101);
});

randomTest('any sequence of edits leaves the document that a map would', async (t, random) => {
  const desk = new Desk();
  const model = new Map<string, string>();
  /** What a client that only listens knows. */
  const told = new Map<string, VariableChange>();
  desk.variables.watch(ADA, (changes) => {
    for (const change of changes) told.set(change.key, change);
  });
  for (let i = 0; i < 300; i++) {
    const some = () => Array.from({ length: random.int(4) }, () => key(`key ${random.int(8)}`));
    const edit: Edit = { set: some().map((name) => [name, `${i}`] as const), delete: some() };
    const result = await desk.edit(edit);
    for (const [name, text] of edit.set) if (!edit.delete.includes(name)) model.set(name, text);
    for (const name of edit.delete) model.delete(name);
    for (const change of result.changes) t.equal(change.version, result.version);
    if (random.chance(0.2)) desk.now += random.int(3);
    const wanted = [...model].map(([name, text]) => `${name}=${text}`);
    const found = await desk.document();
    if (found.join() !== wanted.join()) t.strictSame(found, wanted, `edit ${i}`);
  }
  const known = [...told.values()]
    .filter(({ text }) => text !== null)
    .sort((a, b) => a.order - b.order);
  t.strictSame(known, await desk.variables.list(ADA), 'changes alone tell the whole document');
});

void t.test(
  'new variables of one edit stand in the order of the edit, however the store reads',
  async (t) => {
    const names = Array.from(
      { length: 12 },
      (_, i) => `v${String.fromCharCode(97 + ((i * 5) % 12))}`,
    );
    const desk = new Desk(new ShuffledReads());
    await desk.edit({ set: names.map((name) => [key(name), '1'] as const), delete: [] });
    t.strictSame(
      await desk.document(),
      names.map((name) => `${name}=1`),
    );
  },
);

void t.test(
  'a document of 500 variables comes back in its order from the encrypted store on disk',
  async (t) => {
    const directory = mkdtempSync(join(tmpdir(), 'cronium-variables-'));
    t.teardown(() => rmSync(directory, { recursive: true }));
    await using store = new EncryptedStore(
      await LevelStore.open(join(directory, 'db'), { integrityKey: () => Buffer.alloc(32) }),
      Keyring.ephemeral(),
    );
    const desk = new Desk(store);
    const names = Array.from({ length: 500 }, (_, i) => `v${(i * 7919) % 500}`);
    await desk.edit({ set: names.map((name) => [key(name), '1'] as const), delete: [] });
    t.strictSame(
      await desk.document(),
      names.map((name) => `${name}=1`),
    );
  },
);

/** What a connection sends for `value`, or what is wrong with it. */
const sendable = (value: unknown): string => {
  try {
    encodeFrame([1, 1, value]);
    return 'it can be sent';
  } catch (error) {
    return String(error);
  }
};

void t.test(
  'a namespace never holds more than the message that opens an execution can carry',
  async (t) => {
    const desk = new Desk();
    const large = JSON.stringify('x'.repeat(9 * 1024 * 1024));
    const codes: string[] = [];
    for (const name of ['a', 'b', 'c', 'd', 'e'])
      codes.push(await codeOf(desk.edit(set({ [name]: large }))));
    t.equal(codes[0], 'no error', 'one large value is fine');
    t.ok(large.length * codes.length > MESSAGE_BYTES_MAX, 'all of them together cannot be');
    t.equal(
      sendable({ variables: await desk.variables.list(ADA) }),
      'it can be sent',
      codes.join(),
    );
    t.equal(
      await codeOf(desk.edit(remove('a'))),
      'no error',
      'deleting is possible when it is full',
    );
    t.equal(await codeOf(desk.edit(set({ small: '1' }))), 'no error', 'and makes room');
  },
);

void t.test('many small variables count with what a message adds to each', async (t) => {
  const desk = new Desk();
  const COUNT = 20_000;
  const text = JSON.stringify('x'.repeat(Math.floor(MESSAGE_BYTES_MAX / COUNT) - 30));
  const names = Array.from({ length: COUNT }, (_, i) => `key_${i}`);
  const edit = { set: names.map((name) => [key(name), text] as const), delete: [] };
  t.equal(sendable(edit), 'it can be sent', 'the call itself');
  const answer = await desk.edit(edit).then(sendable, (error: unknown) => {
    t.match(error, { name: 'BridgeError' });
    return 'refused';
  });
  t.ok(answer === 'refused' || answer === 'it can be sent', answer);
  t.equal(sendable({ variables: await desk.variables.list(ADA) }), 'it can be sent');
});

void t.test('edits at once cannot fill a namespace beyond what a message can carry', async (t) => {
  const desk = new Desk();
  const large = JSON.stringify('x'.repeat(9 * 1024 * 1024));
  const names = ['a', 'b', 'c', 'd', 'e'];
  const codes = await Promise.all(names.map((name) => codeOf(desk.edit(set({ [name]: large })))));
  t.ok(codes.includes('no error'), codes.join());
  t.equal(sendable({ variables: await desk.variables.list(ADA) }), 'it can be sent', codes.join());
});

void t.test(
  'rewriting one variable many times at once takes no room from the others',
  async (t) => {
    const desk = new Desk();
    const text = JSON.stringify('x'.repeat(1024 * 1024));
    const rewrites = Array.from({ length: 40 }, () => codeOf(desk.edit(set({ a: text }))));
    t.ok((await Promise.all(rewrites)).includes('no error'));
    t.equal((await desk.document()).length, 1, 'a single variable of 1 MiB');
    const large = JSON.stringify('x'.repeat(9 * 1024 * 1024));
    t.equal(await codeOf(desk.edit(set({ b: large }))), 'no error', 'there is room for 9 more');
  },
);
