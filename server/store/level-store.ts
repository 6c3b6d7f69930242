import { Level } from 'level';
import { asBridgeError, BridgeError, errnoCode } from '#bridge/wire/errors.js';
import { afterPrefix, decodeKey, encodeKey, keyOfOp, lastPerKey } from './key-bytes.js';
import {
  type Commit,
  type Committed,
  type Entry,
  type Key,
  STORE_LIMITS,
  type Store,
} from './store.js';
import { Watchers } from './watchers.js';

/** Commits written by one fsync: enough to amortise it, small enough that one group stays a few milliseconds. */
const GROUP_COMMITS_MAX = 256;
const GROUP_BYTES_MAX = 1024 * 1024;

/** Holds the last commit's version; sorts before every tuple key. */
const VERSION_KEY = Buffer.from([0x00]);
/** Stored value = version, 8 bytes big-endian, then the caller's bytes. */
const VERSION_BYTES = 8;

type Db = Level<Uint8Array, Uint8Array>;
type BatchOp =
  | { type: 'put'; key: Uint8Array; value: Uint8Array }
  | { type: 'del'; key: Uint8Array };

interface Waiting {
  readonly commit: Commit;
  readonly resolve: (committed: Committed) => void;
  readonly reject: (error: BridgeError) => void;
}

/**
 * The store on LevelDB: a single committer takes everything that is queued, decides the checks, and writes one synced
 * batch (group commit), so durability costs one fdatasync per group instead of one per commit.
 */
export class LevelStore implements Store {
  readonly #directory: string;
  readonly #watchers: Watchers;
  #db: Db;
  #version: number;
  #queue: Waiting[] = [];
  #committing: Promise<void> | undefined;
  #closed = false;
  /** After a failed write LevelDB refuses all others until it is opened again. */
  #reopen = false;

  private constructor(directory: string, db: Db, version: number, onError: (e: unknown) => void) {
    this.#directory = directory;
    this.#db = db;
    this.#version = version;
    this.#watchers = new Watchers(onError);
  }

  /** @throws BridgeError `busy` when another process has the store, `unavailable` when it cannot be read. */
  static async open(
    directory: string,
    onError: (e: unknown) => void = () => {},
  ): Promise<LevelStore> {
    const db = await openDb(directory);
    return new LevelStore(directory, db, await storedVersion(db), onError);
  }

  get version(): number {
    return this.#version;
  }

  async get(key: Key): Promise<Entry | undefined> {
    const stored = await this.#open().get(encodeKey(key));
    return stored === undefined ? undefined : entryOf(key, stored);
  }

  readonly limits = STORE_LIMITS;
  now(): number {
    return Date.now();
  }
  async getMany(keys: readonly Key[]): Promise<(Entry | undefined)[]> {
    return await Promise.all(keys.map(async (key) => await this.get(key)));
  }
  async snapshot(): Promise<never> {
    throw new Error('being rewritten');
  }
  recordWith(): void {}

  async *range(prefix: Key): AsyncIterable<Entry> {
    const gte = encodeKey(prefix);
    const iterator = this.#open().iterator({
      gte,
      lt: afterPrefix(gte),
      highWaterMarkBytes: 1024 * 1024,
    });
    try {
      for (;;) {
        const batch = await iterator.nextv(1000);
        if (batch.length === 0) return;
        for (const [key, stored] of batch) yield entryOf(decodeKey(key), stored);
      }
    } finally {
      await iterator.close();
    }
  }

  async commit(commit: Commit): Promise<Committed> {
    this.#open();
    for (const op of commit.ops)
      if ('put' in op && op.value.byteLength > STORE_LIMITS.valueBytesMax)
        throw new BridgeError('too_large', `a stored value of ${op.value.byteLength} bytes`);
    // A key that cannot be encoded must fail its own commit only, not the group it would share.
    const keys = [...(commit.checks ?? []).map(({ key }) => key), ...commit.ops.map(keyOfOp)];
    keys.forEach(encodeKey);
    return await new Promise<Committed>((resolve, reject) => {
      this.#queue.push({ commit, resolve, reject });
      this.#committing ??= this.#drain();
    });
  }

  watch(prefix: Key, listener: Parameters<Store['watch']>[1]): () => void {
    return this.#watchers.add(prefix, listener);
  }

  /** Waits for queued commits, then closes. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#closed = true;
    await this.#committing;
    await this.#db.close();
  }

  #open(): Db {
    if (this.#closed) throw new BridgeError('unavailable', 'the store is closed');
    return this.#db;
  }

  async #drain(): Promise<void> {
    while (this.#queue.length > 0) {
      const group = this.#takeGroup();
      try {
        await this.#writeGroup(group);
      } catch (error) {
        this.#reopen = true;
        const failure = storeError(error);
        for (const waiting of group) waiting.reject(failure);
      }
    }
    // In the same turn as the look at the queue: a commit that comes next must start a new drain.
    this.#committing = undefined;
  }

  #takeGroup(): Waiting[] {
    let bytes = 0;
    let count = 0;
    for (const { commit } of this.#queue) {
      for (const op of commit.ops) if ('put' in op) bytes += op.value.byteLength;
      if (count > 0 && (bytes > GROUP_BYTES_MAX || count >= GROUP_COMMITS_MAX)) break;
      count++;
    }
    return this.#queue.splice(0, count);
  }

  async #writeGroup(group: readonly Waiting[]): Promise<void> {
    if (this.#reopen) await this.#openAgain();
    const versions = await this.#checkedVersions(group);
    const batch: BatchOp[] = [];
    const done: { waiting: Waiting; committed: Committed; entries: Entry[] }[] = [];
    let version = this.#version;
    for (const waiting of group) {
      const { checks = [], ops } = waiting.commit;
      const conflicts = checks.filter((c) => versions.get(hex(c.key)) !== c.version);
      if (conflicts.length > 0) {
        const committed: Committed = { ok: false, conflicts: conflicts.map((c) => c.key) };
        done.push({ waiting, committed, entries: [] });
        continue;
      }
      version++;
      const entries: Entry[] = [];
      for (const op of lastPerKey(ops)) {
        if ('put' in op) {
          batch.push({ type: 'put', key: encodeKey(op.put), value: stamped(version, op.value) });
          versions.set(hex(op.put), version);
          entries.push({ key: op.put, value: op.value, version });
        } else {
          batch.push({ type: 'del', key: encodeKey(op.del) });
          versions.set(hex(op.del), 0);
        }
      }
      done.push({ waiting, committed: { ok: true, version }, entries });
    }
    if (version > this.#version) {
      batch.push({ type: 'put', key: VERSION_KEY, value: stamped(version, new Uint8Array()) });
      await this.#db.batch(batch, { sync: true });
      this.#version = version;
    }
    for (const { waiting, committed, entries } of done) {
      if (committed.ok) this.#watchers.emit(committed.version, entries);
      waiting.resolve(committed);
    }
  }

  /** Current versions of every key some commit of the group checks. */
  async #checkedVersions(group: readonly Waiting[]): Promise<Map<string, number>> {
    const keys = group.flatMap(({ commit }) => (commit.checks ?? []).map((check) => check.key));
    const versions = new Map<string, number>();
    if (keys.length === 0) return versions;
    const stored = await this.#db.getMany(keys.map(encodeKey));
    keys.forEach((key, i) => {
      const value = stored[i];
      versions.set(hex(key), value === undefined ? 0 : versionOf(value));
    });
    return versions;
  }

  async #openAgain(): Promise<void> {
    await this.#db.close();
    this.#db = await openDb(this.#directory);
    // A write that failed may be on disk all the same: its version must not be given twice.
    this.#version = Math.max(this.#version, await storedVersion(this.#db));
    this.#reopen = false;
  }
}

async function storedVersion(db: Db): Promise<number> {
  const stored = await db.get(VERSION_KEY);
  return stored === undefined ? 0 : versionOf(stored);
}

async function openDb(directory: string): Promise<Db> {
  const db: Db = new Level(directory, {
    keyEncoding: 'view',
    valueEncoding: 'view',
    // Values are ciphertext, which does not compress.
    compression: false,
  });
  try {
    await db.open();
    return db;
  } catch (error) {
    throw storeError(error, directory);
  }
}

function storeError(error: unknown, directory?: string): BridgeError {
  if (error instanceof BridgeError) return error;
  const cause = error instanceof Error ? error.cause : undefined;
  const code = cause instanceof Error && 'code' in cause ? cause.code : undefined;
  const where = directory === undefined ? 'the store' : `the store in ${directory}`;
  if (code === 'LEVEL_LOCKED')
    return new BridgeError('busy', `${where} is in use by another server; stop that one first`, {
      cause: error,
    });
  if (code === 'LEVEL_CORRUPTION')
    return new BridgeError('internal', `${where} is damaged: restore a backup`, { cause: error });
  if (errnoCode(error) === 'ENOSPC')
    return new BridgeError(
      'no_space',
      `the disk under ${where} is full: free some space; nothing stored is lost`,
      {
        cause: error,
      },
    );
  if (directory === undefined) return asBridgeError(error);
  const text = cause instanceof Error ? cause.message : String(error);
  return new BridgeError('unavailable', `cannot open ${where}: ${text}`, { cause: error });
}

const hex = (key: Key) => encodeKey(key).toString('latin1');
const toBuffer = (b: Uint8Array) => Buffer.from(b.buffer, b.byteOffset, b.byteLength);
const versionOf = (stored: Uint8Array) => Number(toBuffer(stored).readBigUInt64BE(0));

const entryOf = (key: Key, stored: Uint8Array): Entry => ({
  key,
  value: stored.subarray(VERSION_BYTES),
  version: versionOf(stored),
});

function stamped(version: number, value: Uint8Array): Buffer {
  const out = Buffer.allocUnsafe(VERSION_BYTES + value.byteLength);
  out.writeBigUInt64BE(BigInt(version), 0);
  out.set(value, VERSION_BYTES);
  return out;
}
