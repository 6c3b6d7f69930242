import { copyFileSync, existsSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { basename, dirname, join } from 'node:path';
import { BridgeError } from '#bridge/wire/errors.js';
import { checkInChild, type StoreReport } from '#server/store/check-process.js';
import { syncDirectory, writeDurably } from '#server/store/durable-file.js';
import { Keyring } from '#server/store/keyring.js';
import { masterKeySource } from '#server/store/master-key.js';
import { type Restored, restore } from '#server/store/store-backup.js';
import { exclusively } from './exclusive.js';
import type { State } from './state.js';

/** Checks the database of a server that does not run. @throws BridgeError */
export async function verifyStore(
  state: State,
  progress: (records: number) => void,
): Promise<StoreReport> {
  return await exclusively(state.path('run', 'lock'), async () => {
    const directory = state.path('server', 'db');
    if (!existsSync(directory))
      throw new BridgeError('not_found', `there is no store in ${directory}; make one: cronium up`);
    const { integrityKey } = openKeyring(state, state.path('server', 'keyring.json'));
    const request = { directory, key: integrityKey.toString('base64'), hasHead: true };
    return await checkInChild(request, progress);
  });
}

/**
 * Puts a backup in the place of the database and the keyring; what was there is kept beside it. Nothing is replaced before
 * the whole backup was checked. @throws BridgeError
 */
export async function restoreStore(
  state: State,
  chunks: AsyncIterable<Uint8Array>,
  progress: (records: number) => void,
): Promise<Restored & { before: string | undefined }> {
  state.prepareDirectories();
  return await exclusively(state.path('run', 'lock'), async () => {
    const [db, keyring] = [state.path('server', 'db'), state.path('server', 'keyring.json')];
    const made = { db: `${db}.restored`, keyring: `${keyring}.restored` };
    const clean = () => {
      for (const path of [made.db, `${made.db}.head`, `${made.db}.sums`, made.keyring])
        rmSync(path, { recursive: true, force: true });
    };
    clean(); // of one that was interrupted
    // A rotation of the master key that was interrupted is judged by the present keyring, not by the backup's.
    settleRotation(state, keyring);
    try {
      const restored = await restore(
        made.db,
        chunks,
        (bytes) => {
          writeFileSync(made.keyring, bytes, { mode: 0o600 });
          return openKeyring(state, made.keyring).integrityKey;
        },
        progress,
      );
      writeDurably(made.keyring, readFileSync(made.keyring, 'utf8'));
      const time = new Date().toISOString().replace(/[:.]/g, '-');
      const isReplaced = existsSync(db);
      const beforeOf = (path: string) => beside(path, time);
      if (isReplaced) renameSync(db, beforeOf(db));
      // From here on there is a head without its database, which no server opens, whatever happens in between.
      if (existsSync(`${db}.head`)) copyFileSync(`${db}.head`, beforeOf(`${db}.head`));
      renameSync(`${made.db}.head`, `${db}.head`);
      for (const [path, next] of [
        [keyring, made.keyring],
        [`${db}.sums`, `${made.db}.sums`],
      ] as const) {
        if (existsSync(path)) renameSync(path, beforeOf(path));
        renameSync(next, path);
      }
      renameSync(made.db, db);
      syncDirectory(dirname(db));
      return { ...restored, before: isReplaced ? `${db}.before-${time}` : undefined };
    } catch (error) {
      clean();
      throw error;
    }
  });
}

/** A present keyring that cannot be opened is about to be replaced: then there is nothing to settle. */
function settleRotation(state: State, keyring: string): void {
  try {
    if (existsSync(keyring)) openKeyring(state, keyring);
  } catch (error) {
    if (!(error instanceof BridgeError)) throw error;
  }
}

/** `db.head` is then `db.before-TIME.head`, so that what belongs together can be put back together. */
function beside(path: string, time: string): string {
  const name = basename(path);
  const [, stem = name, rest = ''] = /^(db|keyring\.json)(.*)$/.exec(name) ?? [];
  return join(dirname(path), `${stem}.before-${time}${rest}`);
}

const openKeyring = (state: State, keyring: string): Keyring =>
  Keyring.open({ keyring, master: masterKeySource(state.masterKey) }, false);
