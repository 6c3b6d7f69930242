import { startsWith } from './key-bytes.js';
import type { Change, Entry, Key, Reader } from './store.js';

type Listener = (change: Change) => void;

interface Watch {
  readonly prefix: Key;
  readonly listener: Listener;
  /** Changes that came while the past was still being read; undefined once that is told. */
  held: Change[] | undefined;
  isStopped: boolean;
}

/**
 * Who watches which prefix. A listener that throws is a bug in a service; it must not undo a commit. Watches are found by
 * family and namespace: of a thousand executions only those that share a namespace look at a change.
 */
export class Watchers {
  readonly #byNamespace = new Map<string, Set<Watch>>();
  /** Prefixes shorter than that. */
  readonly #broad = new Set<Watch>();
  readonly #onError: (error: unknown) => void;

  constructor(onError: (error: unknown) => void) {
    this.#onError = onError;
  }

  /** With `since`, entries of `reader` that are newer are told first. */
  add(prefix: Key, listener: Listener, since?: { version: number; reader: Reader }): () => void {
    const watch: Watch = { prefix, listener, held: since && [], isStopped: false };
    const namespace = namespaceOf(prefix);
    const set = namespace === undefined ? this.#broad : this.#setOf(namespace);
    set.add(watch);
    if (since !== undefined) void this.#catchUp(watch, since.version, since.reader);
    return () => {
      watch.isStopped = true;
      set.delete(watch);
      if (namespace !== undefined && set.size === 0 && this.#byNamespace.get(namespace) === set)
        this.#byNamespace.delete(namespace);
    };
  }

  emit(version: number, entries: readonly Entry[]): void {
    for (const watch of this.#broad) this.#tell(watch, version, entries);
    if (this.#byNamespace.size === 0) return;
    for (const namespace of new Set(entries.map(({ key }) => namespaceOf(key)))) {
      const set = namespace === undefined ? undefined : this.#byNamespace.get(namespace);
      if (set !== undefined) for (const watch of set) this.#tell(watch, version, entries);
    }
  }

  #setOf(namespace: string): Set<Watch> {
    const set = this.#byNamespace.get(namespace) ?? new Set();
    this.#byNamespace.set(namespace, set);
    return set;
  }

  #tell(watch: Watch, version: number, entries: readonly Entry[]): void {
    const seen = entries.filter((entry) => startsWith(entry.key, watch.prefix));
    if (seen.length === 0) return;
    if (watch.held === undefined) this.#call(watch, { version, entries: seen });
    else watch.held.push({ version, entries: seen });
  }

  #call({ listener, isStopped }: Watch, change: Change): void {
    if (isStopped) return;
    try {
      listener(change);
    } catch (error) {
      this.#onError(error);
    }
  }

  async #catchUp(watch: Watch, version: number, reader: Reader): Promise<void> {
    const byVersion = new Map<number, Entry[]>();
    try {
      for await (const entry of reader.range(watch.prefix)) {
        if (entry.version <= version) continue;
        const entries = byVersion.get(entry.version) ?? [];
        entries.push(entry);
        byVersion.set(entry.version, entries);
      }
    } catch (error) {
      this.#onError(error);
    }
    let last = version;
    for (const missed of [...byVersion.keys()].sort((a, b) => a - b)) {
      this.#call(watch, { version: missed, entries: byVersion.get(missed) ?? [] });
      last = missed;
    }
    // What came meanwhile may have been read as well, or what replaced it: an entry is told once, and never an old one.
    for (const change of watch.held ?? []) if (change.version > last) this.#call(watch, change);
    watch.held = undefined;
  }
}

const namespaceOf = ([family, namespace]: Key): string | undefined =>
  namespace === undefined ? undefined : JSON.stringify([family, namespace]);
