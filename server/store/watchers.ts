import { startsWith } from './key-bytes.js';
import type { Change, Entry, Key } from './store.js';

type Listener = (change: Change) => void;

/** Who watches which prefix. A listener that throws is a bug in a service; it must not undo a commit. */
export class Watchers {
  readonly #watching = new Set<{ prefix: Key; listener: Listener }>();
  readonly #onError: (error: unknown) => void;

  constructor(onError: (error: unknown) => void) {
    this.#onError = onError;
  }

  add(prefix: Key, listener: Listener): () => void {
    const watch = { prefix, listener };
    this.#watching.add(watch);
    return () => {
      this.#watching.delete(watch);
    };
  }

  emit(version: number, entries: readonly Entry[]): void {
    for (const { prefix, listener } of this.#watching) {
      const seen = entries.filter((entry) => startsWith(entry.key, prefix));
      if (seen.length === 0) continue;
      try {
        listener({ version, entries: seen });
      } catch (error) {
        this.#onError(error);
      }
    }
  }
}
