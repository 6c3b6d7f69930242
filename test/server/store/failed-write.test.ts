import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import t from 'tap';
import { BridgeError } from '#bridge/wire/errors.js';
import { Audit } from '#server/services/audit.js';
import { EncryptedStore } from '#server/store/encrypted-store.js';
import { HeadFile } from '#server/store/head-file.js';
import { Keyring } from '#server/store/keyring.js';
import { LargeValues } from '#server/store/large-values.js';
import { LevelStore } from '#server/store/level-store.js';

const codeOf = async (body: Promise<unknown>) =>
  await body.then(
    () => 'no error',
    (error: unknown) => (error instanceof BridgeError ? error.code : String(error)),
  );

const directory = () => {
  const made = mkdtempSync(join(tmpdir(), 'cronium-failed-'));
  t.teardown(() => rmSync(made, { recursive: true, force: true }));
  return join(made, 'db');
};

const KEY = Buffer.alloc(32, 7);
const A = ['var', 'user:ada', 'a'] as const;
const B = ['var', 'user:ada', 'b'] as const;
const bytes = (text: string) => Buffer.from(text);

/** The next write fails after it has reached the disk: nobody can tell that from one that has not. */
function failAfterWriting(): void {
  const fail = () => {
    Object.defineProperty(HeadFile.prototype, 'write', original);
    throw Object.assign(new Error('EIO: i/o error, write'), { code: 'EIO' });
  };
  Object.defineProperty(HeadFile.prototype, 'write', { ...original, value: fail });
}

const original = Object.getOwnPropertyDescriptor(HeadFile.prototype, 'write') ?? {};

void t.test('a write that failed and comes to light is told to watchers', async (t) => {
  await using store = await LevelStore.open(directory(), { integrityKey: () => KEY });
  const told: string[] = [];
  store.watch(['var', 'user:ada'], ({ version, entries }) =>
    told.push(...entries.map(({ key, value }) => `${version} ${String(key[2])}=${String(value)}`)),
  );
  await store.commit({ ops: [{ put: A, value: bytes('1') }] });
  failAfterWriting();
  t.not(await codeOf(store.commit({ ops: [{ put: A, value: bytes('2') }] })), 'no error');
  await store.commit({ ops: [{ put: B, value: bytes('3') }] });
  t.equal(String((await store.get(A))?.value), '2', 'it was durable');
  t.same(told, ['1 a=1', '2 a=2', '3 b=3']);
});

void t.test('while the store is opened again after a failed write, readers wait', async (t) => {
  await using store = await LevelStore.open(directory(), { integrityKey: () => KEY });
  await store.commit({ ops: [{ put: A, value: bytes('1') }] });
  failAfterWriting();
  t.not(await codeOf(store.commit({ ops: [{ put: A, value: bytes('2') }] })), 'no error');
  const commit = store.commit({ ops: [{ put: B, value: bytes('3') }] });
  const codes = new Set<string>();
  let done = false;
  void commit.finally(() => {
    done = true;
  });
  while (!done) {
    await sleep(0);
    codes.add(await codeOf(store.get(A)));
    codes.add(
      await codeOf(
        (async () => {
          for await (const _ of store.range(['var'])) await sleep(0);
        })(),
      ),
    );
    codes.add(
      await codeOf(
        (async () => {
          await using snapshot = await store.snapshot();
          await snapshot.get(A);
        })(),
      ),
    );
  }
  await commit;
  for (const code of codes) t.ok(['no error', 'unavailable'].includes(code), code);
});

void t.test(
  'a large commit that failed and comes to light does not keep the others waiting forever',
  async (t) => {
    const level = await LevelStore.open(directory(), { integrityKey: () => KEY });
    await using store = await LargeValues.open(new EncryptedStore(level, Keyring.ephemeral()), {
      exclusive: true,
    });
    const audit = await Audit.open(store);
    const note = { who: 'operator:x', peer: '', op: 'variable.set' };
    await store.commit({ ops: [{ put: A, value: bytes('1') }], note });
    const ops = Array.from({ length: 20 }, (_, i) => ({
      put: ['var', 'user:ada', `k${i}`] as const,
      value: Buffer.alloc(60_000, i),
    }));
    const commit = level.commit.bind(level);
    level.commit = async (one) => {
      if (one.ops.some((op) => 'put' in op && op.put[0] === 'redo')) failAfterWriting();
      return await commit(one);
    };
    t.not(await codeOf(store.commit({ ops, note: { ...note } })), 'no error');
    const later = store.commit({ ops: [{ put: B, value: bytes('3') }], note: { ...note } });
    const outcome = await Promise.race([codeOf(later), sleep(5_000, 'it hangs')]);
    t.equal(outcome, 'no error');
    if (outcome === 'it hangs') process.exit(1);
    t.equal((await store.get(['var', 'user:ada', 'k7']))?.value.length, 60_000);
    await audit[Symbol.asyncDispose]();
  },
);
