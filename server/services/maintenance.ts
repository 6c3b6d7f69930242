import { readFileSync } from 'node:fs';
import { asBridgeError, BridgeError } from '#bridge/wire/errors.js';
import { type Namespace, namespaceText } from '#bridge/wire/names.js';
import type { StoreOperations } from '#bridge/wire/protocol/store.js';
import type { Result } from '#bridge/wire/protocol.js';
import type { EncryptedStore } from '#server/store/encrypted-store.js';
import type { Keyring } from '#server/store/keyring.js';
import type { LevelStore } from '#server/store/level-store.js';
import { backup } from '#server/store/store-backup.js';

type Rotation = NonNullable<Result<StoreOperations, 'keys.status'>['rotation']>;

export interface MaintenanceParts {
  readonly level: LevelStore;
  readonly encrypted: EncryptedStore;
  readonly keyring: Keyring;
  readonly keyringFile: string;
}

/** What operators do with the database as a whole, and with its keys, while it is in use. */
export class Maintenance implements AsyncDisposable {
  readonly #parts: MaintenanceParts;
  readonly #closing = new AbortController();
  #verifying: Promise<Result<StoreOperations, 'store.verify'>> | undefined;
  #rotation: Rotation | undefined;
  #rotating: Promise<void> | undefined;

  constructor(parts: MaintenanceParts) {
    this.#parts = parts;
  }

  /** Two that ask at once share one reading. */
  async verify(): Promise<Result<StoreOperations, 'store.verify'>> {
    this.#verifying ??= this.#parts.level
      .verify(undefined, this.#closing.signal)
      .then(({ version, records, problems }) => ({ version, records, problems: [...problems] }))
      .finally(() => {
        this.#verifying = undefined;
      });
    return await this.#verifying;
  }

  async compact(): Promise<void> {
    await this.#parts.level.compact();
  }

  /** The keyring goes with it, wrapped by the master key, which does not. */
  backup(): AsyncGenerator<Buffer> {
    const { level, keyring, keyringFile } = this.#parts;
    return backup(level, () => readFileSync(keyringFile), keyring.integrityKey);
  }

  status(): Result<StoreOperations, 'keys.status'> {
    const { namespaces, dataKeys, oldestCurrentKeyAt, encryptions, encryptionsMax } =
      this.#parts.keyring.status();
    const rotation = this.#rotation ?? null;
    return {
      namespaces,
      dataKeys,
      oldestKeyAt: oldestCurrentKeyAt,
      encryptions,
      encryptionsMax,
      rotation,
    };
  }

  /** @throws BridgeError `busy` while another rotation runs, `not_found` when nothing is stored in the namespace */
  rotate(namespace: Namespace | undefined): void {
    this.#assertIntact();
    if (this.#rotating !== undefined)
      throw new BridgeError(
        'busy',
        'data keys are being rotated already; see: cronium keys status',
      );
    this.#parts.keyring.rotate(namespace && namespaceText(namespace));
    this.#rotating = this.#reencrypt().finally(() => {
      this.#rotating = undefined;
    });
  }

  rotateMaster(): void {
    this.#assertIntact();
    this.#parts.keyring.rotateMaster();
  }

  async erase(namespace: Namespace): Promise<void> {
    this.#assertIntact();
    await this.#parts.encrypted.shred(namespaceText(namespace));
  }

  /** A rotation that is interrupted goes on when it is asked for again: nothing is lost. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#closing.abort(new BridgeError('unavailable', 'the server is shutting down'));
    await this.#rotating;
    await this.#verifying?.catch(() => {});
  }

  /** Keys and records belong together: of a store that cannot be written, keys are not changed either. */
  #assertIntact(): void {
    if (this.#parts.level.problems.length > 0)
      throw new BridgeError('read_only', 'the store is damaged and can only be read');
  }

  async #reencrypt(): Promise<void> {
    let seen = 0;
    let sealed = 0;
    const tell = (state: Rotation['state'], droppedKeys = 0, problem?: string) => {
      this.#rotation = {
        state,
        seen,
        sealed,
        droppedKeys,
        ...(problem !== undefined && { problem }),
      };
    };
    tell('running');
    try {
      const { droppedKeys } = await this.#parts.encrypted.reencrypt(
        this.#closing.signal,
        (progress) => {
          ({ seen, sealed } = progress);
          tell('running');
        },
      );
      tell('done', droppedKeys);
    } catch (error) {
      tell('failed', 0, asBridgeError(error).message);
    }
  }
}
