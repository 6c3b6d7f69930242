import { createCipheriv, createDecipheriv, randomFillSync } from 'node:crypto';
import { BridgeError } from '#bridge/wire/errors.js';
import { decodeKey, encodeKey, namespaceOfKey } from './key-bytes.js';
import type { Keyring } from './keyring.js';
import type { Namespace } from './keyring-file.js';
import type { Entry, Key, Part } from './store.js';

/**
 * Record: format (1 byte), data key number (4, big-endian), nonce (12), ciphertext, tag (16). The ciphertext holds the
 * length of the real key (2), that key, and the value. Format, number and stored key are authenticated with it, so records
 * cannot be swapped or renamed.
 */
const FORMAT = 2;
const NONCE_AT = 5;
const NONCE_BYTES = 12;
const BODY_AT = NONCE_AT + NONCE_BYTES;
const TAG_BYTES = 16;
const LENGTH_BYTES = 2;

/** Nothing of ours comes near: a namespace and a path of a few names. It is sealed with every value. */
export const KEY_BYTES_MAX = 3072;
/** What a record is longer than its key and its value. */
export const RECORD_OVERHEAD_BYTES = BODY_AT + LENGTH_BYTES + TAG_BYTES;

/** Drawn from the kernel 512 nonces at a time: one call per nonce costs more than the encryption. */
const NONCE_POOL_BYTES = NONCE_BYTES * 512;

/** Plaintexts up to this size are put together in a buffer that is used again. */
const SCRATCH_BYTES = 128 * 1024;

/** Hides keys and seals values (AES-256-GCM) with the keys of a keyring. */
export class Sealer {
  readonly #keyring: Keyring;
  readonly #scratch = Buffer.allocUnsafe(SCRATCH_BYTES);
  readonly #nonces = Buffer.alloc(NONCE_POOL_BYTES);
  #nonceAt = NONCE_POOL_BYTES;

  constructor(keyring: Keyring) {
    this.#keyring = keyring;
  }

  /** The key under which `key` is stored. @throws BridgeError `unavailable` while its namespace is erased */
  hide(key: Key): Key {
    return this.#hideIn(this.#keyring.find(namespaceOfKey(key)), key);
  }

  /** @throws BridgeError `unavailable`, `too_large` for the key, `internal` for a namespace without keys: `ensure` them */
  seal(key: Key, value: Uint8Array): { stored: Key; record: Buffer } {
    const namespace = this.#keyring.find(namespaceOfKey(key));
    if (namespace === undefined)
      throw new BridgeError('internal', `no data key for a record of family ${key[0]}`);
    const keyBytes = encodeKey(key);
    if (keyBytes.length > KEY_BYTES_MAX)
      throw new BridgeError(
        'too_large',
        `a key of ${keyBytes.length} bytes; at most ${KEY_BYTES_MAX} are possible`,
      );
    const stored = this.#hideIn(namespace, key);
    return { stored, record: this.#sealed(namespace, stored, keyBytes, value) };
  }

  /** `known`: the real key, when the caller asked for just this record. @throws BridgeError `internal`, `unavailable` when its keys were erased */
  open({ key: stored, value: record, version }: Entry, known?: Key): Entry {
    const bytes = Buffer.from(record.buffer, record.byteOffset, record.byteLength);
    if (bytes.length < BODY_AT + LENGTH_BYTES + TAG_BYTES || bytes[0] !== FORMAT)
      throw damaged(stored);
    const id = bytes.readUInt32BE(1);
    const dataKey = this.#keyring.key(id);
    if (dataKey === undefined)
      throw this.#keyring.isShredded(id) ? erased(stored) : damaged(stored);
    let plain: Buffer;
    try {
      const nonce = bytes.subarray(NONCE_AT, BODY_AT);
      const decipher = createDecipheriv('aes-256-gcm', dataKey.key, nonce);
      decipher.setAAD(associated(bytes, stored));
      decipher.setAuthTag(bytes.subarray(-TAG_BYTES));
      plain = decipher.update(bytes.subarray(BODY_AT, -TAG_BYTES));
      decipher.final();
    } catch (cause) {
      throw damaged(stored, cause);
    }
    const valueAt = LENGTH_BYTES + plain.readUInt16BE(0);
    const keyBytes = plain.subarray(LENGTH_BYTES, valueAt);
    if (known !== undefined && !keyBytes.equals(encodeKey(known))) throw damaged(stored);
    return { key: known ?? decodeKey(keyBytes), value: plain.subarray(valueAt), version };
  }

  /** Whether the record was sealed with a data key that is not its namespace's newest. */
  isOld(record: Uint8Array, currentIds: ReadonlyMap<string, number>): boolean {
    const dataKey = this.#keyring.key(keyIdOf(record));
    return dataKey !== undefined && dataKey.id < (currentIds.get(dataKey.namespace) ?? 0);
  }

  #hideIn(namespace: Namespace | undefined, key: Key): Key {
    const hidden: [string, ...Part[]] = [key[0]];
    for (let i = 1; i < key.length; i++) {
      const part = key[i] ?? 0;
      if (typeof part === 'number') hidden.push(part);
      else if (i === 1) hidden.push(namespace?.id ?? this.#keyring.hideNamespace(part));
      else hidden.push(this.#keyring.hide(namespace, part));
    }
    return hidden;
  }

  #sealed(namespace: Namespace, stored: Key, keyBytes: Buffer, value: Uint8Array): Buffer {
    const dataKey = namespace.current;
    dataKey.encryptions++;
    const length = LENGTH_BYTES + keyBytes.length + value.byteLength;
    const plain =
      length <= SCRATCH_BYTES ? this.#scratch.subarray(0, length) : Buffer.allocUnsafe(length);
    plain.writeUInt16BE(keyBytes.length, 0);
    plain.set(keyBytes, LENGTH_BYTES);
    plain.set(value, LENGTH_BYTES + keyBytes.length);
    const record = Buffer.allocUnsafe(BODY_AT + length + TAG_BYTES);
    record[0] = FORMAT;
    record.writeUInt32BE(dataKey.id, 1);
    this.#drawNonce(record);
    const nonce = record.subarray(NONCE_AT, BODY_AT);
    const cipher = createCipheriv('aes-256-gcm', dataKey.key, nonce);
    cipher.setAAD(associated(record, stored));
    record.set(cipher.update(plain), BODY_AT);
    cipher.final(); // empty: a stream cipher
    record.set(cipher.getAuthTag(), BODY_AT + length);
    return record;
  }

  #drawNonce(record: Buffer): void {
    if (this.#nonceAt >= NONCE_POOL_BYTES) {
      randomFillSync(this.#nonces);
      this.#nonceAt = 0;
    }
    this.#nonces.copy(record, NONCE_AT, this.#nonceAt, this.#nonceAt + NONCE_BYTES);
    this.#nonceAt += NONCE_BYTES;
  }
}

export const keyIdOf = (record: Uint8Array): number =>
  record.byteLength < NONCE_AT
    ? 0
    : Buffer.from(record.buffer, record.byteOffset, record.byteLength).readUInt32BE(1);

function associated(record: Buffer, stored: Key): Buffer {
  const key = encodeKey(stored);
  const bytes = Buffer.allocUnsafe(NONCE_AT + key.length);
  record.copy(bytes, 0, 0, NONCE_AT);
  bytes.set(key, NONCE_AT);
  return bytes;
}

const damaged = ([family]: Key, cause?: unknown) =>
  new BridgeError(
    'internal',
    `a record of family ${family} is damaged or was encrypted with another key: restore a backup`,
    { cause },
  );

const erased = ([family]: Key) =>
  new BridgeError(
    'unavailable',
    `a record of family ${family} belongs to a namespace that was erased`,
  );
