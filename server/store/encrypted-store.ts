import { BridgeError } from '#bridge/wire/errors.js';
import { Flights } from './flights.js';
import { encodeKey, keyOfOp, namespaceOfKey, startsWith } from './key-bytes.js';
import type { Keyring } from './keyring.js';
import { KEY_BYTES_MAX, keyIdOf, RECORD_OVERHEAD_BYTES, Sealer } from './sealer.js';
import {
  type Change,
  type Check,
  COMMIT_ID_LENGTH_MAX,
  type Commit,
  type Committed,
  type Entry,
  type Key,
  type Limits,
  type Noted,
  type Op,
  type RangeOptions,
  type Reader,
  type Recorder,
  type Snapshot,
  type Store,
} from './store.js';

/**
 * What a record and its stored key take besides value and real key, for keys of up to five parts: the limits we grant
 * leave room for so much per operation.
 */
const OP_OVERHEAD_BYTES = 160;

/** Encrypted anew in one commit: a few milliseconds, so that others hardly notice. */
const REENCRYPT_RECORDS = 100;
const REENCRYPT_BYTES = 256 * 1024;
/** Deleted in one commit when a namespace is erased. */
const SHRED_RECORDS = 200;

export interface ReencryptProgress {
  /** Records looked at and sealed anew so far; a second pass looks at all of them again. */
  readonly seen: number;
  readonly sealed: number;
}

interface Watch {
  readonly prefix: Key;
  readonly told: (change: Change) => void;
  stop: () => void;
  isStopped: boolean;
}

/** What a note travels as: conflicts are reported under the real keys. */
interface SealedNote {
  readonly note: unknown;
  readonly checks: readonly Check[];
  readonly hidden: readonly Check[];
}

/** Encrypts every value and hides every name of a key but its family, over any store. */
export class EncryptedStore implements Store {
  /** An inner commit of sealed records is up to twice as large. */
  readonly limits: Limits;
  readonly #inner: Store;
  readonly #keyring: Keyring;
  readonly #sealer: Sealer;
  readonly #reader: SealedReader;
  readonly #flights = new Flights();
  readonly #watches = new Set<Watch>();
  /** What was sealed, by the sealed bytes: a store that tells of the very bytes it was given spares watchers the opening. */
  readonly #plain = new WeakMap<Uint8Array, Extract<Op, { put: Key }>>();
  /** Opened once for all watchers that hear of it. */
  readonly #opened = new WeakMap<Entry, Entry>();

  /** Takes over `inner`: closing this closes it. Call `finishShredding` before anything else. */
  constructor(inner: Store, keyring: Keyring) {
    this.#inner = inner;
    this.#keyring = keyring;
    this.#sealer = new Sealer(keyring);
    this.#reader = new SealedReader(inner, this.#sealer, keyring);
    const { valueBytesMax, commitBytesMax, commitOpsMax } = inner.limits;
    const half = Math.floor(commitBytesMax / 2);
    this.limits = {
      valueBytesMax: valueBytesMax - RECORD_OVERHEAD_BYTES - KEY_BYTES_MAX,
      commitBytesMax: half,
      commitOpsMax: Math.min(commitOpsMax, Math.floor(half / OP_OVERHEAD_BYTES)),
    };
  }

  get version(): number {
    return this.#inner.version;
  }

  now(): number {
    return this.#inner.now();
  }

  async get(key: Key): Promise<Entry | undefined> {
    return await this.#reader.get(key);
  }

  async getMany(keys: readonly Key[]): Promise<(Entry | undefined)[]> {
    return await this.#reader.getMany(keys);
  }

  range(prefix: Key, options?: RangeOptions): AsyncIterable<Entry> {
    return this.#reader.range(prefix, options);
  }

  async snapshot(): Promise<Snapshot> {
    const snapshot = await this.#inner.snapshot();
    const reader = new SealedReader(snapshot, this.#sealer, this.#keyring);
    return {
      version: snapshot.version,
      get: async (key) => await reader.get(key),
      getMany: async (keys) => await reader.getMany(keys),
      range: (prefix, options) => reader.range(prefix, options),
      [Symbol.asyncDispose]: async () => await snapshot[Symbol.asyncDispose](),
    };
  }

  // No await before the inner commit: commits are made in the order they are asked for.
  async commit(commit: Commit): Promise<Committed> {
    this.#admit(commit);
    const { checks = [], ops, id, note } = commit;
    this.#ensureKeys(ops);
    const hidden = checks.map(({ key, version }) => ({ key: this.#sealer.hide(key), version }));
    const sealed: SealedNote | undefined =
      note === undefined ? undefined : { note, checks, hidden };
    const committed = await this.#commitInner({
      checks: hidden,
      ops: this.#sealOps(ops),
      ...(id !== undefined && { id: this.#keyring.hideCommitId(id) }),
      ...(sealed !== undefined && { note: sealed }),
    });
    return revealed(committed, checks, hidden);
  }

  watch(prefix: Key, listener: (change: Change) => void, since?: number): () => void {
    const watch: Watch = {
      prefix,
      told: (change) => this.#tell(watch, listener, change),
      stop: () => {},
      isStopped: false,
    };
    this.#watches.add(watch);
    watch.stop = this.#inner.watch(this.#watchable(prefix), watch.told, since);
    return () => {
      watch.isStopped = true;
      watch.stop();
      this.#watches.delete(watch);
    };
  }

  recordWith(recorder: Recorder): void {
    this.#inner.recordWith({
      record: (group) => {
        const ops = recorder.record(group.map(revealedNote));
        this.#ensureKeys(ops);
        return this.#sealOps(ops);
      },
      reset: async (reader) =>
        await recorder.reset(new SealedReader(reader, this.#sealer, this.#keyring)),
    });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#inner[Symbol.asyncDispose]();
  }

  /**
   * Seals every record anew that is not under its namespace's newest data key, then drops the older keys. Others read and
   * write meanwhile. May be stopped (throws the signal's reason) and called again: what is done stays done.
   */
  async reencrypt(
    signal?: AbortSignal,
    onProgress: (progress: ReencryptProgress) => void = () => {},
  ): Promise<ReencryptProgress & { readonly droppedKeys: number }> {
    const currentIds = this.#keyring.currentKeyIds();
    // A commit that was sealed before the rotation may still be on its way.
    await this.#flights.landed();
    let progress: ReencryptProgress = { seen: 0, sealed: 0 };
    // Until a whole pass meets nothing old: only then no record needs an older key.
    for (let found = -1; found !== 0; ) {
      found = 0;
      for (const family of this.#keyring.families) {
        let batch: Entry[] = [];
        let bytes = 0;
        const flush = async () => {
          const sealed = await this.#sealAnew(batch);
          progress = { ...progress, sealed: progress.sealed + sealed };
          onProgress(progress);
          batch = [];
          bytes = 0;
        };
        for await (const entry of this.#inner.range([family])) {
          signal?.throwIfAborted();
          progress = { ...progress, seen: progress.seen + 1 };
          if (!this.#sealer.isOld(entry.value, currentIds)) continue;
          found++;
          batch.push(entry);
          bytes += entry.value.byteLength;
          if (batch.length >= this.#reencryptRecords || bytes >= this.#reencryptBytes)
            await flush();
        }
        if (batch.length > 0) await flush();
      }
    }
    return { ...progress, droppedKeys: this.#keyring.dropKeysBefore(currentIds) };
  }

  /**
   * Erases a namespace: its keys first, which makes every copy of its records unreadable, then the records. Until it
   * resolves, whoever uses the namespace gets `unavailable`. If it is interrupted, `finishShredding` goes on.
   */
  async shred(namespace: string): Promise<void> {
    const id = this.#keyring.shred(namespace);
    await this.#deleteShredded(id);
  }

  /** Deletes what erased namespaces have left. Call it at open, before anyone reads. */
  async finishShredding(): Promise<void> {
    for (const id of this.#keyring.shredding) await this.#deleteShredded(id);
  }

  get #reencryptRecords(): number {
    return Math.min(REENCRYPT_RECORDS, Math.max(1, Math.floor(this.limits.commitOpsMax / 4)));
  }

  get #reencryptBytes(): number {
    const { valueBytesMax, commitBytesMax } = this.#inner.limits;
    return Math.min(REENCRYPT_BYTES, Math.max(1, commitBytesMax - valueBytesMax) / 2);
  }

  async #sealAnew(entries: readonly Entry[]): Promise<number> {
    let left = entries;
    while (left.length > 0) {
      const ops: Op[] = [];
      const checks: Check[] = [];
      for (const entry of left) {
        if (this.#keyring.isShredded(keyIdOf(entry.value))) continue;
        const { key, value } = this.#sealer.open(entry);
        const { stored, record } = this.#sealer.seal(key, value);
        ops.push({ put: stored, value: record, version: entry.version });
        checks.push({ key: stored, version: entry.version });
      }
      const committed = await this.#commitInner({ checks, ops });
      if (committed.ok) return ops.length;
      // Who wrote it meanwhile sealed it with the newest key.
      const gone = new Set(committed.conflicts.map(nameOf));
      left = left.filter(({ key }) => !gone.has(nameOf(key)));
    }
    return 0;
  }

  async #deleteShredded(id: string): Promise<void> {
    // What was sealed before the keys went may still be on its way.
    await this.#flights.landed();
    for (const family of this.#keyring.families) {
      let ops: Op[] = [];
      const flush = async () => {
        if (ops.length > 0) await this.#commitInner({ ops });
        ops = [];
      };
      const countMax = Math.min(SHRED_RECORDS, this.limits.commitOpsMax);
      for await (const { key } of this.#inner.range([family, id])) {
        ops.push({ del: key });
        if (ops.length >= countMax) await flush();
      }
      await flush();
    }
    this.#keyring.shredded(id);
  }

  async #commitInner(commit: Commit): Promise<Committed> {
    const flight = this.#flights.start();
    try {
      return await this.#inner.commit(commit);
    } finally {
      this.#flights.land(flight);
    }
  }

  #admit({ checks = [], ops, id }: Commit): void {
    if (id !== undefined && (id === '' || id.length > COMMIT_ID_LENGTH_MAX))
      throw new BridgeError('invalid', `a commit id has 1-${COMMIT_ID_LENGTH_MAX} characters`);
    const count = checks.length + ops.length;
    const { commitOpsMax, commitBytesMax, valueBytesMax } = this.limits;
    if (count > commitOpsMax) throw tooLarge(`a commit of ${count} operations`, commitOpsMax);
    let bytes = 0;
    for (const { key } of checks) bytes += bytesAtMost(key);
    for (const op of ops) {
      bytes += bytesAtMost(keyOfOp(op));
      if (!('put' in op)) continue;
      const { byteLength } = op.value;
      if (byteLength > valueBytesMax)
        throw tooLarge(`a stored value of ${byteLength} bytes`, valueBytesMax);
      bytes += byteLength;
    }
    if (bytes <= commitBytesMax) return;
    bytes = 0;
    for (const { key } of checks) bytes += encodeKey(key).length;
    for (const op of ops)
      bytes += encodeKey(keyOfOp(op)).length + ('put' in op ? op.value.byteLength : 0);
    if (bytes > commitBytesMax) throw tooLarge(`a commit of ${bytes} bytes`, commitBytesMax);
  }

  /** Keys for namespaces that are new, in the file before the commit goes out. */
  #ensureKeys(ops: readonly Op[]): void {
    let missing = false;
    for (const op of ops) {
      if (!('put' in op)) continue;
      if (
        this.#keyring.find(namespaceOfKey(op.put)) === undefined ||
        !this.#keyring.families.has(op.put[0])
      )
        missing = true;
      // A key that cannot be must not leave a namespace behind.
      if (missing) encodeKey(op.put);
    }
    if (!missing) return;
    const puts = ops.flatMap((op) => ('put' in op ? [op.put] : []));
    const namespaces = new Set(puts.map(namespaceOfKey));
    const fresh = [...namespaces].filter((one) => this.#keyring.find(one) === undefined);
    this.#keyring.ensure(
      fresh,
      puts.map(([family]) => family),
    );
    // Watches in them could not name what they wait for.
    for (const watch of this.#watches)
      if (watch.prefix.length > 2 && fresh.includes(namespaceOfKey(watch.prefix))) {
        watch.stop();
        watch.stop = this.#inner.watch(this.#watchable(watch.prefix), watch.told);
      }
  }

  #sealOps(ops: readonly Op[]): Op[] {
    return ops.map((op): Op => {
      if ('del' in op) return { del: this.#sealer.hide(op.del) };
      const { stored, record } = this.#sealer.seal(op.put, op.value);
      this.#plain.set(record, op);
      return op.version === undefined
        ? { put: stored, value: record }
        : { put: stored, value: record, version: op.version };
    });
  }

  #watchable(prefix: Key): Key {
    const [family, ...parts] = prefix;
    const [namespace] = parts;
    const id = typeof namespace === 'string' ? this.#keyring.hideNamespace(namespace) : namespace;
    if (id === undefined) return prefix;
    if (parts.length === 1) return [family, id];
    try {
      return this.#sealer.hide(prefix);
    } catch (error) {
      if (!(error instanceof BridgeError) || error.code !== 'unavailable') throw error;
      // Being erased: no record has such a name, and the first commit into the namespace begins the watch anew.
      return [family, id, 'erased'];
    }
  }

  #tell(watch: Watch, listener: (change: Change) => void, { version, entries }: Change): void {
    const opened: Entry[] = [];
    let failure: unknown;
    for (const entry of entries)
      try {
        const one = this.#openOnce(entry);
        if (startsWith(one.key, watch.prefix)) opened.push(one);
      } catch (error) {
        // Erased since; or damaged, which must not keep the others from being heard.
        if (!this.#keyring.isShredded(keyIdOf(entry.value))) failure = error;
      }
    if (opened.length > 0 && !watch.isStopped) listener({ version, entries: opened });
    if (failure !== undefined) throw failure as BridgeError;
  }

  #openOnce(entry: Entry): Entry {
    let opened = this.#opened.get(entry);
    if (opened === undefined) {
      const plain = this.#plain.get(entry.value);
      opened =
        plain === undefined
          ? this.#sealer.open(entry)
          : { key: plain.put, value: plain.value, version: entry.version };
      this.#opened.set(entry, opened);
    }
    return opened;
  }
}

/** Reads sealed records: of the store, or of one moment of it. */
class SealedReader implements Reader {
  readonly #inner: Reader;
  readonly #sealer: Sealer;
  readonly #keyring: Keyring;

  constructor(inner: Reader, sealer: Sealer, keyring: Keyring) {
    this.#inner = inner;
    this.#sealer = sealer;
    this.#keyring = keyring;
  }

  async get(key: Key): Promise<Entry | undefined> {
    const entry = await this.#inner.get(this.#sealer.hide(key));
    return entry && this.#sealer.open(entry, key);
  }

  async getMany(keys: readonly Key[]): Promise<(Entry | undefined)[]> {
    const entries = await this.#inner.getMany(keys.map((key) => this.#sealer.hide(key)));
    return entries.map((entry, i) => entry && this.#sealer.open(entry, keys[i]));
  }

  async *range(prefix: Key, options: RangeOptions = {}): AsyncIterable<Entry> {
    if (typeof options.from === 'string' || typeof options.to === 'string')
      throw new BridgeError('internal', 'a range of an encrypted store has numbers as bounds');
    const isBroad = prefix.length === 1;
    let { limit } = options;
    // Records of an erased namespace lie among the others until they are deleted: a list of the whole family passes over them.
    const { limit: _, ...bounds } = options;
    const passed = isBroad && limit !== undefined ? bounds : options;
    if (limit === 0) return;
    for await (const entry of this.#inner.range(this.#sealer.hide(prefix), passed)) {
      if (isBroad && this.#keyring.isShredded(keyIdOf(entry.value))) continue;
      yield this.#sealer.open(entry);
      if (isBroad && limit !== undefined && --limit <= 0) return;
    }
  }
}

function revealed(
  committed: Committed,
  checks: readonly Check[],
  hidden: readonly Check[],
): Committed {
  if (committed.ok) return committed;
  const real = new Map(hidden.map(({ key }, i) => [nameOf(key), checks[i]?.key]));
  return { ok: false, conflicts: committed.conflicts.map((key) => real.get(nameOf(key)) ?? key) };
}

function revealedNote({ note: sealed, committed }: Noted): Noted {
  const { note, checks, hidden } = sealed as SealedNote; // commit made it
  return { note, committed: revealed(committed, checks, hidden) };
}

const nameOf = (key: Key): string => encodeKey(key).toString('latin1');

/** Never less than encodeKey makes of it, and cheaper: a UTF-16 unit takes at most three bytes. */
function bytesAtMost(key: Key): number {
  let bytes = 0;
  for (const part of key) bytes += typeof part === 'number' ? 9 : part.length * 3 + 2;
  return bytes;
}

const tooLarge = (what: string, most: number) =>
  new BridgeError('too_large', `${what}; at most ${most} are possible`);
