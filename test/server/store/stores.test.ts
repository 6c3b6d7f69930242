import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { EncryptedStore } from '#server/store/encrypted-store.js';
import { Keyring } from '#server/store/keyring.js';
import { LevelStore } from '#server/store/level-store.js';
import { MemoryStore } from '#server/store/memory-store.js';
import { codeOf, type Opened, put, storeContract } from './contract.js';

const integrityKey = () => Buffer.alloc(32, 7);

function temporaryDirectory(t: Test): string {
  const directory = mkdtempSync(join(tmpdir(), 'cronium-store-'));
  t.teardown(() => rmSync(directory, { recursive: true }));
  return directory;
}

storeContract('MemoryStore', async () => ({ store: new MemoryStore() }), {
  ordersNames: true,
  durable: false,
});

storeContract(
  'LevelStore',
  async (t): Promise<Opened> => {
    const directory = temporaryDirectory(t);
    const again = () => LevelStore.open(join(directory, 'db'), { integrityKey });
    return { store: await again(), again };
  },
  { ordersNames: true, durable: true },
);

storeContract(
  'EncryptedStore over MemoryStore',
  async () => ({ store: new EncryptedStore(new MemoryStore(), Keyring.ephemeral()) }),
  { ordersNames: false, durable: false },
);

storeContract(
  'EncryptedStore over LevelStore',
  async (t): Promise<Opened> => {
    const directory = temporaryDirectory(t);
    const files = { keyring: join(directory, 'keyring'), masterKey: join(directory, 'master') };
    // Each opening reads the keyring anew, as a restarted server does.
    const again = async () => {
      const level = await LevelStore.open(join(directory, 'db'), { integrityKey });
      return new EncryptedStore(level, Keyring.open(files, level.version === 0));
    };
    return { store: await again(), again };
  },
  { ordersNames: false, durable: true },
);

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
