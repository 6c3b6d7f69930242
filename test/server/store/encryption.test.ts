import { createDecipheriv, randomBytes } from 'node:crypto';
import {
  existsSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { BridgeError } from '#bridge/wire/errors.js';
import { EncryptedStore } from '#server/store/encrypted-store.js';
import { Keyring } from '#server/store/keyring.js';
import { LargeValues } from '#server/store/large-values.js';
import { LevelStore } from '#server/store/level-store.js';
import { masterKeyFile } from '#server/store/master-key.js';
import { MemoryStore } from '#server/store/memory-store.js';
import { NameCache } from '#server/store/name-cache.js';
import type { Entry, Key, Store } from '#server/store/store.js';
import { randomTest } from '#test/support/random.js';
import { entriesOf, put, text } from './contract.js';

const integrityKey = () => Buffer.alloc(32, 7);

function temporaryDirectory(t: Test): string {
  const directory = mkdtempSync(join(tmpdir(), 'cronium-encryption-'));
  t.teardown(() => rmSync(directory, { recursive: true }));
  return directory;
}

function keyringFiles(directory: string) {
  const masterKey = join(directory, 'master.key');
  return { keyring: join(directory, 'keyring.json'), masterKey, master: masterKeyFile(masterKey) };
}

/** What `body` failed with; it must be a BridgeError with a message of one line. */
async function errorOf(t: Test, body: () => unknown): Promise<BridgeError | undefined> {
  try {
    await body();
  } catch (error) {
    t.match(error, { name: 'BridgeError', message: /^[^\n]{10,400}$/ });
    return error instanceof BridgeError ? error : undefined;
  }
  t.fail('it did not fail');
  return undefined;
}

// ---------------------------------------------------------------- on the disk

/** A text in the forms in which it might lie in a file. */
function formsOf(secret: string): Map<string, Buffer> {
  const bytes = text(secret);
  const forms = new Map<string, Buffer>([
    ['as it is', bytes],
    ['reversed', Buffer.from(bytes).reverse()],
    ['UTF-16LE', Buffer.from(secret, 'utf16le')],
    ['UTF-16BE', Buffer.from(secret, 'utf16le').swap16()],
    ['hexadecimal', text(bytes.toString('hex'))],
    ['HEXADECIMAL', text(bytes.toString('hex').toUpperCase())],
    ['half of it', bytes.subarray(0, bytes.length / 2)],
  ]);
  // Base64 of the text at each of the three places it can start within three bytes, without the ends it shares.
  for (const before of [0, 1, 2])
    for (const alphabet of ['base64', 'base64url'] as const) {
      const encoded = Buffer.concat([Buffer.alloc(before), bytes])
        .toString(alphabet)
        .replaceAll('=', '');
      forms.set(
        `${alphabet} after ${before} bytes`,
        text(encoded.slice(before === 0 ? 0 : before + 1, -2)),
      );
    }
  return forms;
}

/** In which file and form `secret` lies below `directory`. */
function findSecret(directory: string, secret: string): string[] {
  const found: string[] = [];
  for (const name of readdirSync(directory, { recursive: true, encoding: 'utf8' })) {
    const path = join(directory, name);
    if (!statSync(path).isFile()) continue;
    const content = readFileSync(path);
    for (const [form, bytes] of formsOf(secret))
      if (content.includes(bytes)) found.push(`${name}: ${form}`);
  }
  return found;
}

const VALUE = 'canary-value-5f1e92';
const NAME = 'CANARY_NAME_77aa03';
const OWNER = 'canary-owner-93be41';
const SECRETS = [VALUE, NAME, OWNER];

/** Writes the canaries many times, overwrites and deletes them, so that log, tables and old versions hold them. */
async function writeCanaries(store: Store): Promise<void> {
  const key = (i: number): Key => ['var', `user:${OWNER}`, `${NAME}_${i}`];
  for (let round = 0; round < 3; round++) {
    const ops = Array.from({ length: 200 }, (_, i) =>
      put(key(i), `{"secret": "${VALUE}", "n": ${round * i}}`),
    );
    await store.commit({ ops });
  }
  await store.commit({
    checks: [{ key: key(0), version: 3 }],
    ops: Array.from({ length: 100 }, (_, i) => ({ del: key(i) })),
  });
}

void t.test(
  'neither a value, nor a name, nor an owner can be found in the database files',
  async (t) => {
    const directory = temporaryDirectory(t);
    const files = keyringFiles(directory);
    const database = join(directory, 'db');
    const open = async (fresh: boolean) =>
      new EncryptedStore(
        await LevelStore.open(database, { integrityKey }),
        Keyring.open(files, fresh),
      );
    {
      await using store = await open(true);
      await writeCanaries(store);
      for (const secret of SECRETS)
        t.strictSame(findSecret(directory, secret), [], `${secret}, while it is open`);
    }
    {
      // Opening again turns the log into a table.
      await using store = await open(false);
      t.equal((await entriesOf(store, ['var', `user:${OWNER}`])).length, 100, 'the data is there');
      await writeCanaries(store);
    }
    t.ok(
      readdirSync(database).some((name) => /\.(ldb|sst)$/.test(name)),
      'there is a table',
    );
    for (const secret of SECRETS)
      t.strictSame(findSecret(directory, secret), [], `${secret}, after it was closed`);
  },
);

void t.test('the search above does find what is not encrypted', async (t) => {
  const directory = temporaryDirectory(t);
  {
    await using store = await LevelStore.open(join(directory, 'db'), { integrityKey });
    await writeCanaries(store);
  }
  for (const secret of SECRETS) t.not(findSecret(directory, secret).length, 0, secret);

  const forms = temporaryDirectory(t);
  for (const [i, [form, bytes]] of [...formsOf(VALUE)].entries()) {
    writeFileSync(join(forms, `${i}`), Buffer.concat([randomBytes(7), bytes, randomBytes(5)]));
    t.ok(findSecret(forms, VALUE).includes(`${i}: ${form}`), form);
  }
  for (const padding of ['', 'x', 'xy', 'xyz']) {
    writeFileSync(
      join(forms, 'base64'),
      Buffer.from(`${padding}${VALUE}${padding}`).toString('base64'),
    );
    t.ok(
      findSecret(forms, VALUE).some((found) => found.startsWith('base64: base64 ')),
      `after ${padding.length} bytes`,
    );
  }
});

void t.test('nothing of a large value, a large commit, or a commit id shows below', async (t) => {
  const inner = new MemoryStore();
  const below: Buffer[] = [];
  const commit = inner.commit.bind(inner);
  inner.commit = async (one) => {
    below.push(text(JSON.stringify({ checks: one.checks, id: one.id })));
    for (const op of one.ops) {
      below.push(text(JSON.stringify('put' in op ? op.put : op.del)));
      if ('put' in op) below.push(Buffer.from(op.value));
    }
    return await commit(one);
  };
  const directory = temporaryDirectory(t);
  const keyring = Keyring.open(keyringFiles(directory), true);
  await using store = await LargeValues.open(new EncryptedStore(inner, keyring));
  const key = (i: number): Key => ['var', `user:${OWNER}`, `${NAME}_${i}`];
  const id = `${OWNER}:${NAME}`;
  await store.commit({ ops: [put(key(0), VALUE.repeat(20_000))], id });
  const many = Array.from({ length: 5000 }, (_, i) => put(key(i), VALUE));
  await store.commit({ checks: [{ key: key(9999), version: 0 }], ops: many, id: `${id} again` });
  t.ok(below.length > 10_000);
  for (const secret of SECRETS) {
    for (const [form, bytes] of formsOf(secret))
      t.notOk(
        below.some((one) => one.includes(bytes)),
        `${secret}: ${form}`,
      );
    t.strictSame(findSecret(directory, secret), [], 'nor in the keyring');
  }
});

void t.test('the family and numbers stay readable, which is what a key order needs', async (t) => {
  const inner = new MemoryStore();
  await using store = new EncryptedStore(inner, Keyring.ephemeral());
  await store.commit({ ops: [put(['log', NAME, 7], 'x')] });
  const [entry] = await entriesOf(inner, ['log']);
  t.equal(entry?.key[0], 'log');
  t.match(entry?.key[1], /^[A-Za-z0-9_-]{22}$/);
  t.equal(entry?.key[2], 7);
});

void t.test('equal values and equal names of two stores look nothing alike', async (t) => {
  const records = await Promise.all(
    [1, 2].map(async () => {
      const inner = new MemoryStore();
      const store = new EncryptedStore(inner, Keyring.ephemeral());
      await store.commit({ ops: [put(['f', NAME], VALUE)] });
      return await entriesOf(inner, ['f']);
    }),
  );
  const [[one] = [], [two] = []] = records;
  t.not(one?.key[1], two?.key[1]);
  t.notSame(one?.value, two?.value);
});

// ---------------------------------------------------------------- tampering

/** A store with two entries, and its records as they rest in `inner`. */
async function tamperable(): Promise<{
  inner: MemoryStore;
  store: EncryptedStore;
  first: Entry;
  second: Entry;
}> {
  const inner = new MemoryStore();
  const store = new EncryptedStore(inner, Keyring.ephemeral());
  await store.commit({ ops: [put(FIRST, 'first value')] });
  await store.commit({ ops: [put(SECOND, 'second value')] });
  const records = await entriesOf(inner, ['var']);
  const [first, second] = [1, 2].map((version) =>
    records.find((record) => record.version === version),
  );
  if (first === undefined || second === undefined) throw new Error('no records');
  return { inner, store, first, second };
}
const FIRST: Key = ['var', 'user:ada', 'first'];
const SECOND: Key = ['var', 'user:ada', 'second'];

void t.test('a record with any byte flipped is an error, never other data', async (t) => {
  const { inner, store, first } = await tamperable();
  const flips = [0x01, 0x80, 0xff];
  let refused = 0;
  for (let at = 0; at < first.value.length; at++)
    for (const flip of flips) {
      const value = Buffer.from(first.value);
      value[at] = (value[at] ?? 0) ^ flip;
      await inner.commit({ ops: [{ put: first.key, value }] });
      const codes = await Promise.all(
        [store.get(FIRST), entriesOf(store, ['var'])].map((read) =>
          read.then(
            (data) => `data: ${JSON.stringify(data)}`,
            (error: unknown) => (error instanceof BridgeError ? error.code : String(error)),
          ),
        ),
      );
      if (codes.every((code) => code === 'internal')) refused++;
      else t.strictSame(codes, ['internal', 'internal'], `byte ${at} ^ ${flip}`);
    }
  t.equal(refused, first.value.length * flips.length);
  await inner.commit({ ops: [{ put: first.key, value: first.value }] });
  t.strictSame(
    (await store.get(FIRST))?.value,
    text('first value'),
    'put back, it is readable again',
  );
});

void t.test('a record cut short or with bytes added is an error', async (t) => {
  const { inner, store, first } = await tamperable();
  const versions = [
    ...Array.from({ length: first.value.length }, (_, length) => first.value.subarray(0, length)),
    Buffer.concat([first.value, Buffer.alloc(1)]),
    Buffer.concat([first.value, first.value]),
    Buffer.alloc(first.value.length),
    text('{"not":"encrypted at all, and long enough to be a record"}'),
  ];
  for (const value of versions) {
    await inner.commit({ ops: [{ put: first.key, value }] });
    const error = await errorOf(t, () => store.get(FIRST));
    t.match(
      error,
      { code: 'internal', message: /family var .*restore a backup/ },
      `${value.length} bytes`,
    );
  }
});

void t.test(
  'two records that changed places, and a record under a new name, are errors',
  async (t) => {
    const { inner, store, first, second } = await tamperable();
    await inner.commit({
      ops: [
        { put: first.key, value: second.value },
        { put: second.key, value: first.value },
      ],
    });
    for (const key of [FIRST, SECOND])
      t.match(await errorOf(t, () => store.get(key)), { code: 'internal' });
    t.match(await errorOf(t, () => entriesOf(store, ['var'])), { code: 'internal' });

    const [, owner = '', name = ''] = first.key;
    const moved: readonly Key[] = [
      ['var', name, owner],
      ['exec', owner, name],
      ['var', owner, name, 0],
    ];
    for (const key of moved) {
      await inner.commit({
        ops: [{ del: first.key }, { del: second.key }, { put: key, value: first.value }],
      });
      t.match(
        await errorOf(t, () => entriesOf(store, [key[0]])),
        { code: 'internal' },
        JSON.stringify(key.length),
      );
      await inner.commit({ ops: [{ del: key }] });
    }
  },
);

void t.test('a damaged record does not hide the others', async (t) => {
  const { inner, store, first } = await tamperable();
  await inner.commit({ ops: [{ put: first.key, value: Buffer.alloc(60) }] });
  t.strictSame((await store.get(SECOND))?.value, text('second value'));
});

void t.test('no nonce is used twice', async (t) => {
  const inner = new MemoryStore();
  await using store = new EncryptedStore(inner, Keyring.ephemeral());
  const COUNT = 2000;
  for (let i = 0; i < COUNT; i += 100)
    await store.commit({ ops: Array.from({ length: 100 }, (_, j) => put(['f', i + j], 'same')) });
  const records = await entriesOf(inner, ['f']);
  t.equal(
    new Set(records.map(({ value }) => Buffer.from(value.subarray(5, 17)).toString('hex'))).size,
    COUNT,
  );
  t.equal(
    new Set(records.map(({ value }) => Buffer.from(value.subarray(17)).toString('hex'))).size,
    COUNT,
  );
});

// ---------------------------------------------------------------- the keyring

/** The keyring as it is in the file. */
interface Contents {
  format: number;
  names: string;
  integrity: string;
  nextKeyId: number;
  families: string[];
  namespaces: Record<string, { names: string; keys: { id: number; wrapped: string }[] }>;
  shredding: { namespace: string; keyIds: number[] }[];
}
type Files = ReturnType<typeof keyringFiles>;
const contentsOf = (files: Files) => JSON.parse(readFileSync(files.keyring, 'utf8')) as Contents;
const masterOf = (files: Files) =>
  Buffer.from(readFileSync(files.masterKey, 'utf8').trim(), 'base64url');
const unwrapped = (master: Buffer, wrapped: string): Buffer => {
  const decipher = createDecipheriv('id-aes256-wrap', master, Buffer.alloc(8, 0xa6));
  return Buffer.concat([decipher.update(Buffer.from(wrapped, 'base64url')), decipher.final()]);
};
const dataKeysOf = (files: Files) =>
  Object.values(contentsOf(files).namespaces).flatMap(({ keys }) => keys);

void t.test(
  'with the keyring of another store nothing is found and nothing is shown',
  async (t) => {
    const { inner } = await tamperable();
    const foreign = new EncryptedStore(inner, Keyring.ephemeral());
    t.equal(await foreign.get(FIRST), undefined, 'its names are hidden differently');
    t.match(await errorOf(t, () => entriesOf(foreign, ['var'])), { code: 'internal' });
  },
);

void t.test('a record of a data key that is not in the keyring is an error', async (t) => {
  const { inner, store, first } = await tamperable();
  const value = Buffer.from(first.value);
  value.writeUInt32BE(77, 1);
  await inner.commit({ ops: [{ put: first.key, value }] });
  t.match(await errorOf(t, () => store.get(FIRST)), { code: 'internal' });
});

void t.test("a record under another namespace's data key is an error", async (t) => {
  const { inner, store, first } = await tamperable();
  await store.commit({ ops: [put(['var', 'user:bob', 'x'], 'y')] });
  const value = Buffer.from(first.value);
  value.writeUInt32BE(3, 1);
  await inner.commit({ ops: [{ put: first.key, value }] });
  t.match(await errorOf(t, () => store.get(FIRST)), { code: 'internal' });
});

void t.test(
  'keyring and master key are made once, with mode 0600, and the data keys rest wrapped',
  async (t) => {
    const directory = temporaryDirectory(t);
    const files = keyringFiles(directory);
    const umask = process.umask(0);
    t.teardown(() => process.umask(umask));
    const first = Keyring.open(files, true);
    first.ensure(['user:ada'], ['var']);
    for (const file of [files.keyring, files.masterKey])
      t.equal((statSync(file).mode & 0o7777).toString(8), '600', file);
    t.strictSame(
      readdirSync(directory).sort(),
      ['keyring.json', 'master.key'],
      'no temporary file is left',
    );

    const content = readFileSync(files.keyring, 'utf8');
    const keys = dataKeysOf(files);
    t.strictSame(
      keys.map(({ id }) => id),
      [1, 2],
    );
    for (const { id, wrapped } of keys) {
      const dataKey = first.key(id)?.key;
      t.equal(dataKey?.length, 32);
      for (const form of ['hex', 'base64', 'base64url'] as const)
        t.notOk(content.includes(dataKey?.toString(form) ?? ''), `the data key as ${form}`);
      t.strictSame(unwrapped(masterOf(files), wrapped), dataKey, 'RFC 3394');
    }
    t.notMatch(content, /ada|user|system/, 'no namespace shows');

    for (const fresh of [true, false]) {
      const again = Keyring.open(files, fresh);
      t.strictSame(again.key(2)?.key, first.key(2)?.key, 'the same data key');
      t.strictSame(again.integrityKey, first.integrityKey);
      t.equal(again.hideNamespace('user:ada'), first.hideNamespace('user:ada'));
      const [one, two] = [first, again].map((k) => k.hide(k.find('user:ada'), 'x'));
      t.equal(one, two, 'and hides names the same way');
    }
    t.equal(readFileSync(files.keyring, 'utf8'), content, 'nothing was written again');
  },
);

void t.test(
  'names are hidden by a key: equal names alike, others not, and not by a plain hash',
  async (t) => {
    const keyring = Keyring.ephemeral();
    keyring.ensure(['user:ada', 'user:bob'], []);
    const [ada, bob] = [keyring.find('user:ada'), keyring.find('user:bob')];
    t.equal(keyring.hide(ada, 'a'), keyring.hide(ada, 'a'));
    t.not(keyring.hide(ada, 'a'), keyring.hide(ada, 'b'));
    t.not(keyring.hide(ada, 'a'), keyring.hide(bob, 'a'), 'each namespace has its own');
    t.not(keyring.hide(ada, 'a'), keyring.hideNamespace('a'));
    t.not(keyring.hideNamespace('a'), Keyring.ephemeral().hideNamespace('a'));
    t.match(keyring.hide(ada, ''), /^[A-Za-z0-9_-]{22}$/);
  },
);

void t.test('remembered names are bounded, and those in use stay', async (t) => {
  const cache = new NameCache(10);
  cache.set('used', 'x');
  for (let i = 0; i < 1000; i++) {
    cache.set(`${i}`, 'y');
    if (cache.get('used') === undefined) t.fail(`forgotten after ${i}`);
    if (cache.size > 20) t.fail(`${cache.size} names`);
  }
  t.equal(cache.get('0'), undefined);
});

void t.test('reading a namespace nobody has written to makes no key', async (t) => {
  const files = keyringFiles(temporaryDirectory(t));
  await using store = new EncryptedStore(new MemoryStore(), Keyring.open(files, true));
  const before = readFileSync(files.keyring, 'utf8');
  t.equal(await store.get(FIRST), undefined);
  t.strictSame(await store.getMany([FIRST, SECOND]), [undefined, undefined]);
  t.strictSame(await entriesOf(store, ['var', 'user:ada', 'x']), []);
  t.strictSame(await store.commit({ checks: [{ key: FIRST, version: 0 }], ops: [] }), {
    ok: true,
    version: 1,
  });
  t.strictSame(
    await store.commit({ checks: [{ key: FIRST, version: 1 }], ops: [{ del: SECOND }] }),
    {
      ok: false,
      conflicts: [FIRST],
    },
  );
  const heard: unknown[] = [];
  store.watch(FIRST, (change) => heard.push(change.version), 0);
  t.equal(readFileSync(files.keyring, 'utf8'), before);

  await store.commit({
    ops: [put(SECOND, 'x'), put(FIRST, 'y'), put(['var', 'user:bob', 'z'], '')],
  });
  t.strictSame(heard, [2], 'who waited for a name there hears of it');
  t.equal(dataKeysOf(files).length, 3, 'the first commit does, one for each namespace');
});

void t.test(
  'the keys of a new namespace are in the file before its first commit goes out',
  async (t) => {
    const files = keyringFiles(temporaryDirectory(t));
    const inner = new MemoryStore();
    const store = new EncryptedStore(inner, Keyring.open(files, true));
    const seen: number[] = [];
    const commit = inner.commit.bind(inner);
    inner.commit = async (one) => {
      if (existsSync(files.keyring)) seen.push(dataKeysOf(files).length);
      return await commit(one);
    };
    await store.commit({ ops: [put(FIRST, 'x'), put(['var', 'org:y', 'z'], 'x')] });
    await store.commit({ ops: [put(SECOND, 'x')] });
    t.strictSame(seen, [3, 3]);
    const again = new EncryptedStore(inner, Keyring.open(files, false));
    t.equal((await entriesOf(again, ['var'])).length, 3);

    // And when the file cannot be written, nothing was committed.
    const directory = join(files.keyring, '..');
    const away = `${directory}-away`;
    renameSync(directory, away);
    t.match(await errorOf(t, () => store.commit({ ops: [put(['var', 'org:new', 'z'], 'x')] })), {
      code: 'unavailable',
      message: /cannot write the keyring/,
    });
    t.equal((await store.commit({ ops: [put(FIRST, 'still')] })).ok, true, 'others go on');
    renameSync(away, directory);
    t.equal((await entriesOf(store, ['var', 'org:new'])).length, 0);
    t.equal((await store.commit({ ops: [put(['var', 'org:new', 'z'], 'x')] })).ok, true);
  },
);

void t.test('a wrong master key is refused in a sentence that names both files', async (t) => {
  const files = keyringFiles(temporaryDirectory(t));
  Keyring.open(files, true);
  const content = readFileSync(files.keyring);
  writeFileSync(files.masterKey, `${randomBytes(32).toString('base64url')}\n`);
  for (const fresh of [false, true]) {
    const error = await errorOf(t, () => Keyring.open(files, fresh));
    t.equal(error?.code, 'denied');
    t.ok(
      error?.message.includes(files.masterKey) && error.message.includes(files.keyring),
      error?.message ?? '',
    );
  }
  t.strictSame(readFileSync(files.keyring), content, 'and the keyring is as it was');
});

void t.test('a master key that is not 32 bytes is refused', async (t) => {
  const files = keyringFiles(temporaryDirectory(t));
  Keyring.open(files, true);
  for (const content of [
    '',
    '\n',
    'short',
    randomBytes(16).toString('base64url'),
    randomBytes(33).toString('base64url'),
  ]) {
    writeFileSync(files.masterKey, content);
    const error = await errorOf(t, () => Keyring.open(files, false));
    t.match(error, { code: 'denied', message: /32-byte key/ }, JSON.stringify(content));
  }
});

void t.test('a missing keyring of an existing store is not made anew', async (t) => {
  const files = keyringFiles(temporaryDirectory(t));
  Keyring.open(files, true);
  rmSync(files.keyring);
  const error = await errorOf(t, () => Keyring.open(files, false));
  t.match(error, { code: 'not_found', message: /keyring .* is missing.*backup/ });
  t.equal(existsSync(files.keyring), false);
});

void t.test('a missing master key is not made anew while there is a keyring', async (t) => {
  const files = keyringFiles(temporaryDirectory(t));
  Keyring.open(files, true);
  rmSync(files.masterKey);
  for (const fresh of [false, true]) {
    const error = await errorOf(t, () => Keyring.open(files, fresh));
    t.match(error, { code: 'not_found', message: /master key .* is missing.*backup/ });
    t.equal(existsSync(files.masterKey), false);
  }
});

void t.test('when both files of an existing store are missing, none is made', async (t) => {
  const directory = temporaryDirectory(t);
  t.match(await errorOf(t, () => Keyring.open(keyringFiles(directory), false)), {
    code: 'not_found',
  });
  t.strictSame(readdirSync(directory), []);
});

void t.test('a damaged keyring is a sentence, whatever the damage', async (t) => {
  const files = keyringFiles(temporaryDirectory(t));
  Keyring.open(files, true).ensure(['user:ada', 'user:bob'], ['var']);
  const good = readFileSync(files.keyring, 'utf8');
  const swapped = (text: string) => {
    const contents = JSON.parse(text) as Contents;
    const [one = '', two = ''] = Object.keys(contents.namespaces);
    const { [one]: a, [two]: b, ...others } = contents.namespaces;
    return JSON.stringify({ ...contents, namespaces: { ...others, [one]: b, [two]: a } });
  };
  const damaged = {
    empty: '',
    'cut short': good.slice(0, good.length / 2),
    'not JSON': 'keys',
    'JSON of another kind': '[]',
    'no keys': '{"format":2,"names":"","keys":[]}',
    'the old format': '{"format":1,"names":"","keys":[]}',
    'a format to come': good.replace('"format": 2', '"format": 3'),
    'names cut short': good.replace(/"names": "..../, '"names": "'),
    'a wrapped key changed': good.replace(/"wrapped": "..../, '"wrapped": "AAAA'),
    'a key number changed': good.replace(/"id": 2/, '"id": 3'),
    'a family taken out': good.replace(/"var"/, ''),
    'namespaces that changed places': swapped(good),
    'the tag changed': good.replace(/"tag": "..../, '"tag": "AAAA'),
  };
  for (const [what, content] of Object.entries(damaged)) {
    writeFileSync(files.keyring, content);
    t.not(content, good, what);
    try {
      Keyring.open(files, false);
      t.fail(`opened although ${what}`);
    } catch (error) {
      t.match(error, { name: 'BridgeError', message: new RegExp(files.keyring) }, what);
    }
  }
});

randomTest(
  'whatever is stored encrypted comes back, over restarts of the keyring',
  async (t, random) => {
    const files = keyringFiles(temporaryDirectory(t));
    const inner = new MemoryStore();
    const values = new Map<number, Buffer>();
    for (let round = 0; round < 20; round++) {
      const store = new EncryptedStore(inner, Keyring.open(files, round === 0));
      for (let i = 0; i < 10; i++) {
        const value = random.bytes(random.int(200));
        const n = random.int(50);
        values.set(n, value);
        await store.commit({ ops: [{ put: ['f', n, 'x'], value }] });
      }
      const found = (await entriesOf(store, ['f'])).map(({ key, value }): [unknown, Buffer] => [
        key[1],
        Buffer.from(value),
      ]);
      const wanted = [...values].sort(([a], [b]) => a - b);
      t.strictSame(found, wanted, `round ${round}`);
    }
  },
);
