import { BridgeError } from '#bridge/wire/errors.js';
import { admit } from './admission.js';
import { StoreClock } from './clock.js';
import { encodeKey, lastPerKey, rangeBounds } from './key-bytes.js';
import {
  type Commit,
  type Committed,
  type Entry,
  IDEMPOTENCY_MS,
  type Key,
  type Limits,
  type Op,
  type RangeOptions,
  type Recorder,
  type Snapshot,
  STORE_LIMITS,
  type Store,
  VALUE_OVERHEAD_BYTES_MAX,
} from './store.js';
import { Watchers } from './watchers.js';

type Entries = ReadonlyMap<string, Entry>;

/** The store port in memory: what the contract suite checks the others against, and a fast store for unit tests. */
export class MemoryStore implements Store {
  readonly limits: Limits;
  readonly #entries = new Map<string, Entry>();
  readonly #watchers = new Watchers((error) => {
    throw error;
  });
  readonly #clock: StoreClock;
  /** By commit id, in order of time. */
  readonly #made = new Map<string, { version: number; at: number }>();
  #recorder: Recorder | undefined;
  #version = 0;
  #closed = false;

  constructor(clock = new StoreClock(), limits = STORE_LIMITS) {
    this.#clock = clock;
    this.limits = {
      ...limits,
      valueBytesMax: limits.valueBytesMax + VALUE_OVERHEAD_BYTES_MAX,
    };
  }

  get version(): number {
    return this.#version;
  }

  now(): number {
    return this.#clock.now();
  }

  async get(key: Key): Promise<Entry | undefined> {
    this.#check();
    return read(this.#entries, key);
  }

  async getMany(keys: readonly Key[]): Promise<(Entry | undefined)[]> {
    this.#check();
    return keys.map((key) => read(this.#entries, key));
  }

  async *range(prefix: Key, options: RangeOptions = {}): AsyncIterable<Entry> {
    this.#check();
    yield* readRange(new Map(this.#entries), prefix, options);
  }

  async snapshot(): Promise<Snapshot> {
    this.#check();
    const entries = new Map(this.#entries);
    return {
      version: this.#version,
      get: async (key) => read(entries, key),
      getMany: async (keys) => keys.map((key) => read(entries, key)),
      range: async function* (prefix, options = {}) {
        yield* readRange(entries, prefix, options);
      },
      [Symbol.asyncDispose]: async () => {},
    };
  }

  async commit(commit: Commit): Promise<Committed> {
    this.#check();
    admit(commit, this.limits);
    const { checks = [], ops, id, note } = commit;
    const before = this.#madeBefore(id);
    const conflicts = before === undefined ? checks.filter((c) => !this.#holds(c)) : [];
    const committed: Committed =
      before !== undefined
        ? { ok: true, version: before, repeated: true }
        : conflicts.length > 0
          ? { ok: false, conflicts: conflicts.map(({ key }) => key) }
          : { ok: true, version: this.#version + 1 };
    const isNew = before === undefined && committed.ok;
    const recorded =
      note === undefined ? [] : (this.#recorder?.record([{ note, committed }]) ?? []);
    const written: Entry[] = [];
    if (isNew || recorded.length > 0) this.#version++;
    if (isNew) {
      if (id !== undefined) this.#made.set(id, { version: this.#version, at: this.now() });
      for (const op of lastPerKey(ops)) this.#apply(op, written);
    }
    for (const op of lastPerKey(recorded)) this.#apply(op, written);
    this.#watchers.emit(this.#version, written);
    return committed;
  }

  watch(prefix: Key, listener: Parameters<Store['watch']>[1], since?: number): () => void {
    const past = since === undefined ? undefined : { version: since, reader: this };
    return this.#watchers.add(prefix, listener, past);
  }

  recordWith(recorder: Recorder): void {
    this.#recorder = recorder;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#closed = true;
  }

  #check(): void {
    if (this.#closed) throw new BridgeError('unavailable', 'the store is closed');
  }

  #holds({ key, version }: { key: Key; version: number }): boolean {
    return (this.#entries.get(sortable(key))?.version ?? 0) === version;
  }

  #madeBefore(id: string | undefined): number | undefined {
    const now = this.now();
    for (const [old, { at }] of this.#made) {
      if (at > now - IDEMPOTENCY_MS) break;
      this.#made.delete(old);
    }
    return id === undefined ? undefined : this.#made.get(id)?.version;
  }

  #apply(op: Op, written: Entry[]): void {
    if ('del' in op) {
      this.#entries.delete(sortable(op.del));
      return;
    }
    const entry: Entry = {
      key: op.put,
      value: Uint8Array.from(op.value),
      version: op.version ?? this.#version,
    };
    this.#entries.set(sortable(op.put), entry);
    if (op.version === undefined) written.push(entry);
  }
}

function read(entries: Entries, key: Key): Entry | undefined {
  const entry = entries.get(sortable(key));
  return entry && copyOf(entry);
}

function* readRange(entries: Entries, prefix: Key, options: RangeOptions): Generator<Entry> {
  const { gte, lt } = rangeBounds(prefix, options);
  const [from, to] = [gte.toString('latin1'), lt.toString('latin1')];
  const keys = [...entries.keys()].filter((key) => key >= from && key < to).sort();
  if (options.reverse === true) keys.reverse();
  for (const key of keys.slice(0, options.limit)) {
    const entry = entries.get(key);
    if (entry !== undefined) yield copyOf(entry);
  }
}

/** Latin-1 keeps byte order under JavaScript's string comparison. */
const sortable = (key: Key) => encodeKey(key).toString('latin1');

/** Nobody shares bytes with the store: what a reader does to its copy stays there. */
const copyOf = (entry: Entry): Entry => ({ ...entry, value: Uint8Array.from(entry.value) });
