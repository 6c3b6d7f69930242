import { existsSync, mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { EncryptedStore } from '#server/store/encrypted-store.js';
import { Keyring } from '#server/store/keyring.js';
import { LargeValues } from '#server/store/large-values.js';
import { LevelStore } from '#server/store/level-store.js';
import { masterKeyFile } from '#server/store/master-key.js';
import type { Store } from '#server/store/store.js';

/** The store as server/main.ts composes it, for a peer that is to differ in everything else. */
export async function openSameStore(directory: string): Promise<Store> {
  mkdirSync(directory, { recursive: true, mode: 0o700 });
  const database = join(directory, 'db');
  const fresh = !existsSync(join(database, 'CURRENT'));
  const files = {
    keyring: join(directory, 'keyring.json'),
    master: masterKeyFile(join(directory, 'master.key')),
  };
  const keyring = Keyring.open(files, fresh);
  const level = await LevelStore.open(database, { integrityKey: () => keyring.integrityKey });
  return await LargeValues.open(new EncryptedStore(level, keyring), { exclusive: true });
}
