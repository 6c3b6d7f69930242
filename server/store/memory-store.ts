import { BridgeError } from '#bridge/wire/errors.js';
import { afterPrefix, encodeKey, lastPerKey } from './key-bytes.js';
import {
  type Commit,
  type Committed,
  type Entry,
  type Key,
  STORE_VALUE_BYTES_MAX,
  type Store,
} from './store.js';
import { Watchers } from './watchers.js';

/** The store port in memory: what the contract suite checks the others against, and a fast store for unit tests. */
export class MemoryStore implements Store {
  readonly #entries = new Map<string, Entry>();
  readonly #watchers = new Watchers((error) => {
    throw error;
  });
  #version = 0;
  #closed = false;

  get version(): number {
    return this.#version;
  }

  async get(key: Key): Promise<Entry | undefined> {
    this.#check();
    const entry = this.#entries.get(sortable(key));
    return entry && copyOf(entry);
  }

  async *list(prefix: Key): AsyncIterable<Entry> {
    this.#check();
    const from = sortable(prefix);
    const to = afterPrefix(encodeKey(prefix)).toString('latin1');
    const keys = [...this.#entries.keys()].filter((key) => key >= from && key < to).sort();
    for (const entry of keys.map((key) => this.#entries.get(key)))
      if (entry !== undefined) yield copyOf(entry);
  }

  async commit({ checks = [], ops }: Commit): Promise<Committed> {
    this.#check();
    for (const op of ops)
      if ('put' in op && op.value.byteLength > STORE_VALUE_BYTES_MAX)
        throw new BridgeError('too_large', `a stored value of ${op.value.byteLength} bytes`);
    const last = [...lastPerKey(ops)]; // encodes every key before anything is changed
    const conflicts = checks.filter(
      ({ key, version }) => (this.#entries.get(sortable(key))?.version ?? 0) !== version,
    );
    if (conflicts.length > 0) return { ok: false, conflicts: conflicts.map(({ key }) => key) };
    const version = ++this.#version;
    const written: Entry[] = [];
    for (const op of last) {
      if ('put' in op) {
        const entry = { key: op.put, value: Uint8Array.from(op.value), version };
        this.#entries.set(sortable(op.put), entry);
        written.push(entry);
      } else this.#entries.delete(sortable(op.del));
    }
    this.#watchers.emit(version, written);
    return { ok: true, version };
  }

  watch(prefix: Key, listener: Parameters<Store['watch']>[1]): () => void {
    return this.#watchers.add(prefix, listener);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#closed = true;
  }

  #check(): void {
    if (this.#closed) throw new BridgeError('unavailable', 'the store is closed');
  }
}

/** Latin-1 keeps byte order under JavaScript's string comparison. */
const sortable = (key: Key) => encodeKey(key).toString('latin1');

/** Nobody shares bytes with the store: what a reader does to its copy stays there. */
const copyOf = (entry: Entry): Entry => ({ ...entry, value: Uint8Array.from(entry.value) });
