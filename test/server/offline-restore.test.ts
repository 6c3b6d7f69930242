import { existsSync, mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { restoreStore, verifyStore } from '#server/admin/offline-store.js';
import { State } from '#server/admin/state.js';
import { Maintenance } from '#server/services/maintenance.js';
import { EncryptedStore } from '#server/store/encrypted-store.js';
import { Keyring } from '#server/store/keyring.js';
import { LevelStore } from '#server/store/level-store.js';
import { masterKeySource } from '#server/store/master-key.js';

/** An installation in a directory whose own name looks like the database's. */
function installation(t: Test): State {
  const directory = mkdtempSync(join(tmpdir(), 'cronium-db-'));
  t.teardown(() => rmSync(directory, { recursive: true, force: true }));
  const state = new State(directory);
  state.prepareDirectories();
  return state;
}

const put = (n: number) => ({ put: ['f', 'user:ada', n] as const, value: Buffer.from(`${n}`) });

async function open(state: State) {
  const keyringFile = state.path('server', 'keyring.json');
  const fresh = !existsSync(state.path('server', 'db'));
  const files = { keyring: keyringFile, master: masterKeySource(state.masterKey) };
  let keyring: Keyring | undefined;
  const level = await LevelStore.open(state.path('server', 'db'), {
    integrityKey: () => (keyring ??= Keyring.open(files, fresh)).integrityKey,
  });
  keyring ??= Keyring.open(files, false);
  const store = new EncryptedStore(level, keyring);
  return {
    level,
    store,
    maintenance: new Maintenance({ level, encrypted: store, keyring, keyringFile }),
  };
}

async function* piecesOf(bytes: Buffer): AsyncGenerator<Buffer> {
  yield bytes;
}

async function madeWithBackup(state: State): Promise<Buffer> {
  const { store, maintenance } = await open(state);
  await store.commit({ ops: [put(1)] });
  const pieces: Buffer[] = [];
  for await (const piece of maintenance.backup()) pieces.push(piece);
  await store.commit({ ops: [put(2)] });
  await store[Symbol.asyncDispose]();
  return Buffer.concat(pieces);
}

void t.test(
  'what a restore replaces is kept beside it, wherever the installation lies',
  async (t) => {
    const state = installation(t);
    const bytes = await madeWithBackup(state);
    const { before } = await restoreStore(state, piecesOf(bytes), () => {});
    t.ok(before !== undefined && existsSync(join(before, 'CURRENT')), 'the old database');
    const names = readdirSync(state.path('server'));
    for (const kept of [/^db\.before-.*\.head$/, /^keyring\.json\.before-/])
      t.ok(
        names.some((name) => kept.test(name)),
        String(kept),
      );
    t.same((await verifyStore(state, () => {})).problems, []);
    const { store } = await open(state);
    t.equal((await store.get(put(1).put))?.version, 1);
    t.equal(await store.get(put(2).put), undefined);
    await store[Symbol.asyncDispose]();
  },
);

void t.test(
  'a verification does not keep the server from stopping, and leaves no copy',
  async (t) => {
    const state = installation(t);
    const { store, level, maintenance } = await open(state);
    await store.commit({ ops: [put(1)] });
    const verifying = maintenance.verify().then(
      () => 'whole',
      () => 'stopped',
    );
    await maintenance[Symbol.asyncDispose]();
    t.equal(await verifying, 'stopped');
    t.notOk(existsSync(`${level.directory}.check`));
    await store[Symbol.asyncDispose]();
  },
);
