import { createCipheriv, createDecipheriv, randomFillSync } from 'node:crypto';
import { BridgeError } from '#bridge/wire/errors.js';
import { encodeKey } from './key-bytes.js';
import type { Keyring } from './keyring.js';
import type { Commit, Committed, Entry, Key, Limits, Op, Store } from './store.js';

/**
 * Record: format (1 byte), data key number (4, big-endian), nonce (12), ciphertext, tag (16). The ciphertext holds the
 * real key and the value, and the stored key is authenticated with it, so records cannot be swapped or renamed.
 */
const FORMAT = 1;
const NONCE_AT = 5;
const NONCE_BYTES = 12;
const BODY_AT = NONCE_AT + NONCE_BYTES;
const TAG_BYTES = 16;

/** Drawn from the kernel 512 nonces at a time: one call per nonce costs more than the encryption. */
const NONCE_POOL_BYTES = NONCE_BYTES * 512;

/** Encrypts every value (AES-256-GCM) and hides every name of a key but its family, over any store. */
export class EncryptedStore implements Store {
  readonly #inner: Store;
  readonly #keyring: Keyring;
  readonly #nonces = Buffer.alloc(NONCE_POOL_BYTES);
  #nonceAt = NONCE_POOL_BYTES;

  /** Takes over `inner`: closing this closes it. */
  constructor(inner: Store, keyring: Keyring) {
    this.#inner = inner;
    this.#keyring = keyring;
  }

  get version(): number {
    return this.#inner.version;
  }

  async get(key: Key): Promise<Entry | undefined> {
    const entry = await this.#inner.get(this.#hide(key));
    return entry && this.#open(entry);
  }

  get limits(): Limits {
    return this.#inner.limits;
  }
  now(): number {
    return this.#inner.now();
  }
  async getMany(keys: readonly Key[]): Promise<(Entry | undefined)[]> {
    return await Promise.all(keys.map(async (key) => await this.get(key)));
  }
  async snapshot(): Promise<never> {
    throw new Error('being rewritten');
  }
  recordWith(): void {}

  async *range(prefix: Key): AsyncIterable<Entry> {
    for await (const entry of this.#inner.range(this.#hide(prefix))) yield this.#open(entry);
  }

  async commit({ checks, ops }: Commit): Promise<Committed> {
    const plainKeys = new Map<string, Key>();
    const hidden: Commit = {
      ...(checks && {
        checks: checks.map(({ key, version }) => {
          const stored = this.#hide(key);
          plainKeys.set(JSON.stringify(stored), key);
          return { key: stored, version };
        }),
      }),
      ops: ops.map((op): Op => {
        if ('del' in op) return { del: this.#hide(op.del) };
        const stored = this.#hide(op.put);
        return { put: stored, value: this.#seal(stored, op.put, op.value) };
      }),
    };
    const committed = await this.#inner.commit(hidden);
    if (committed.ok) return committed;
    return {
      ok: false,
      conflicts: committed.conflicts.map((key) => plainKeys.get(JSON.stringify(key)) ?? key),
    };
  }

  watch(prefix: Key, listener: Parameters<Store['watch']>[1]): () => void {
    return this.#inner.watch(this.#hide(prefix), ({ version, entries }) => {
      listener({ version, entries: entries.map((entry) => this.#open(entry)) });
    });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#inner[Symbol.asyncDispose]();
  }

  #hide([family, ...parts]: Key): Key {
    return [
      family,
      ...parts.map((part) => (typeof part === 'string' ? this.#keyring.hide(part) : part)),
    ];
  }

  #seal(stored: Key, key: Key, value: Uint8Array): Buffer {
    const id = this.#keyring.currentId;
    const dataKey = this.#keyring.key(id);
    if (dataKey === undefined) throw new BridgeError('internal', `no data key ${id}`);
    const header = Buffer.alloc(BODY_AT);
    header[0] = FORMAT;
    header.writeUInt32BE(id, 1);
    this.#nonce().copy(header, NONCE_AT);
    const cipher = createCipheriv('aes-256-gcm', dataKey, header.subarray(NONCE_AT));
    cipher.setAAD(Buffer.concat([header.subarray(0, NONCE_AT), encodeKey(stored)]));
    const name = Buffer.from(JSON.stringify(key));
    const length = Buffer.alloc(4);
    length.writeUInt32BE(name.length);
    return Buffer.concat([
      header,
      cipher.update(length),
      cipher.update(name),
      cipher.update(value),
      cipher.final(),
      cipher.getAuthTag(),
    ]);
  }

  #open({ key: stored, value: record, version }: Entry): Entry {
    const bytes = Buffer.from(record.buffer, record.byteOffset, record.byteLength);
    if (bytes.length < BODY_AT + TAG_BYTES || bytes[0] !== FORMAT) throw damaged(stored);
    const dataKey = this.#keyring.key(bytes.readUInt32BE(1));
    if (dataKey === undefined) throw damaged(stored);
    const decipher = createDecipheriv('aes-256-gcm', dataKey, bytes.subarray(NONCE_AT, BODY_AT));
    decipher.setAAD(Buffer.concat([bytes.subarray(0, NONCE_AT), encodeKey(stored)]));
    decipher.setAuthTag(bytes.subarray(-TAG_BYTES));
    let plain: Buffer;
    try {
      plain = Buffer.concat([
        decipher.update(bytes.subarray(BODY_AT, -TAG_BYTES)),
        decipher.final(),
      ]);
    } catch (cause) {
      throw damaged(stored, cause);
    }
    const valueAt = 4 + plain.readUInt32BE(0);
    const key = JSON.parse(plain.subarray(4, valueAt).toString()) as Key; // authenticated: we wrote it
    return { key, value: plain.subarray(valueAt), version };
  }

  #nonce(): Buffer {
    if (this.#nonceAt >= NONCE_POOL_BYTES) {
      randomFillSync(this.#nonces);
      this.#nonceAt = 0;
    }
    const at = this.#nonceAt;
    this.#nonceAt += NONCE_BYTES;
    return this.#nonces.subarray(at, at + NONCE_BYTES);
  }
}

const damaged = (stored: Key, cause?: unknown) =>
  new BridgeError(
    'internal',
    `a record of family ${stored[0]} is damaged or was encrypted with another key: restore a backup`,
    { cause },
  );
