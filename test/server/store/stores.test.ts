import { existsSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { EncryptedStore } from '#server/store/encrypted-store.js';
import { Keyring } from '#server/store/keyring.js';
import { LargeValues } from '#server/store/large-values.js';
import { LevelStore } from '#server/store/level-store.js';
import { masterKeyFile } from '#server/store/master-key.js';
import { MemoryStore } from '#server/store/memory-store.js';
import { keptTagOf, RecordTags, tagOf } from '#server/store/record-tags.js';
import type { Store } from '#server/store/store.js';
import { codeOf, type Opened, put, storeContract, type Traits } from './contract.js';

function temporaryDirectory(t: Test): string {
  const directory = mkdtempSync(join(tmpdir(), 'cronium-store-'));
  t.teardown(() => rmSync(directory, { recursive: true }));
  return directory;
}

/** `open` opens a keyring and a store over it in the directory, anew each time as a restarted server does. */
const durably =
  (open: (directory: string) => Promise<Store>) =>
  async (t: Test): Promise<Opened> => {
    const directory = temporaryDirectory(t);
    const again = () => open(directory);
    return { store: await again(), again };
  };

// Eight stores, three of them on a disk that others use too.
t.setTimeout(180_000);

const integrityKey = () => Buffer.alloc(32, 7);

const openLevel = (directory: string) => LevelStore.open(join(directory, 'db'), { integrityKey });

async function openEncrypted(directory: string): Promise<EncryptedStore> {
  const { level, keyring } = await openWithKeyring(directory);
  const store = new EncryptedStore(level, keyring);
  await store.finishShredding();
  return store;
}

/** As the server does it: the keyring is made by whoever has the database. */
async function openWithKeyring(
  directory: string,
): Promise<{ level: LevelStore; keyring: Keyring }> {
  const files = {
    keyring: join(directory, 'keyring'),
    master: masterKeyFile(join(directory, 'master')),
  };
  const fresh = !existsSync(join(directory, 'db', 'CURRENT'));
  let keyring: Keyring | undefined;
  const level = await LevelStore.open(join(directory, 'db'), {
    integrityKey: () => {
      keyring ??= Keyring.open(files, fresh);
      return keyring.integrityKey;
    },
  });
  return { level, keyring: keyring ?? Keyring.open(files, false) };
}

const SUITES: readonly (readonly [string, (t: Test) => Promise<Opened>, Traits])[] = [
  [
    'MemoryStore',
    async () => ({ store: new MemoryStore() }),
    { ordersNames: true, durable: false },
  ],
  [
    'EncryptedStore over MemoryStore',
    async () => ({ store: new EncryptedStore(new MemoryStore(), Keyring.ephemeral()) }),
    { ordersNames: false, durable: false },
  ],
  [
    'LargeValues over MemoryStore',
    async () => ({ store: await LargeValues.open(new MemoryStore()) }),
    { ordersNames: true, durable: false },
  ],
  [
    'LargeValues over EncryptedStore over MemoryStore',
    async () => ({
      store: await LargeValues.open(new EncryptedStore(new MemoryStore(), Keyring.ephemeral())),
    }),
    { ordersNames: false, durable: false },
  ],
  [
    'LargeValues, alone over EncryptedStore over MemoryStore',
    async () => ({
      store: await LargeValues.open(new EncryptedStore(new MemoryStore(), Keyring.ephemeral()), {
        exclusive: true,
      }),
    }),
    { ordersNames: false, durable: false },
  ],
  ['LevelStore', durably(openLevel), { ordersNames: true, durable: true }],
  ['EncryptedStore over LevelStore', durably(openEncrypted), { ordersNames: false, durable: true }],
  [
    'LargeValues over EncryptedStore over LevelStore',
    durably(
      async (directory) =>
        await LargeValues.open(await openEncrypted(directory), { exclusive: true }),
    ),
    { ordersNames: false, durable: true },
  ],
];

for (const suite of SUITES) storeContract(...suite);

void t.test(
  'a watcher that throws is reported, undoes nothing and keeps nobody else from hearing',
  async (t) => {
    const errors: unknown[] = [];
    await using store = await LevelStore.open(join(temporaryDirectory(t), 'db'), {
      integrityKey,
      onError: (error) => errors.push(error),
    });
    const heard: number[] = [];
    store.watch(['f'], () => {
      throw new Error('a bug in a service');
    });
    store.watch(['f'], ({ version }) => heard.push(version));
    const commits = ['a', 'b'].map((name) => store.commit({ ops: [put(['f', name], name)] }));
    t.strictSame(await Promise.all(commits), [
      { ok: true, version: 1 },
      { ok: true, version: 2 },
    ]);
    t.strictSame(heard, [1, 2]);
    t.match(errors, [{ message: 'a bug in a service' }, { message: 'a bug in a service' }]);
  },
);

void t.test('a directory that cannot hold a store is a sentence, not a stack trace', async (t) => {
  const directory = temporaryDirectory(t);
  t.equal(await codeOf(LevelStore.open('/dev/null/store', { integrityKey })), 'unavailable');
  await LevelStore.open(join(directory, 'a', 'b'), { integrityKey }).then(
    (store) => store[Symbol.asyncDispose](),
    (error: unknown) =>
      t.match(error, { code: 'unavailable', message: /^cannot open the store in / }),
  );
});

void t.test('a tag that is kept keeps nothing else in memory', async (t) => {
  // One from Buffer's pool kept 8 KiB, and a busy server half a gigabyte.
  const record = new RecordTags(Buffer.alloc(32, 7)).seal(
    Buffer.from('key'),
    1,
    Buffer.alloc(5000),
  );
  const tag = keptTagOf(record);
  t.same(tag, tagOf(record));
  t.equal(tag.buffer.byteLength, tag.byteLength);
});
