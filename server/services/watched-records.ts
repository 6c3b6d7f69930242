import { type Namespace, namespaceText } from '#bridge/wire/names.js';
import type { Store } from '#server/store/store.js';

/** Namespaces whose record is kept in memory; the one that was read longest ago goes first. */
const KEPT_MAX = 10_000;

interface Kept<T> {
  value: Promise<T>;
  readonly stop: () => void;
}

/**
 * One small record a namespace that every call needs (merge policies, sharing rules): read once, and again after the store
 * told of a change. The record is replaced, never deleted: deletions are not told.
 */
export class WatchedRecords<T> {
  readonly #store: Store;
  readonly #family: string;
  readonly #read: (value: Uint8Array | undefined) => T;
  readonly #kept = new Map<string, Kept<T>>();

  constructor(store: Store, family: string, read: (value: Uint8Array | undefined) => T) {
    this.#store = store;
    this.#family = family;
    this.#read = read;
  }

  async of(namespace: Namespace): Promise<T> {
    const id = namespaceText(namespace);
    const known = this.#kept.get(id);
    if (known !== undefined) return await known.value;
    const stop = this.#store.watch([this.#family, id], () => {
      kept.value = this.#load(id);
      kept.value.catch(() => {}); // nobody may be waiting for it: asked again, it is read again
    });
    const kept: Kept<T> = { value: this.#load(id), stop };
    this.#kept.set(id, kept);
    if (this.#kept.size > KEPT_MAX) this.#forgetOldest();
    return await kept.value;
  }

  /** After a namespace was erased, which no watch tells of. */
  drop(namespace: Namespace): void {
    this.#forget(namespaceText(namespace));
  }

  #forget(id: string): void {
    this.#kept.get(id)?.stop();
    this.#kept.delete(id);
  }

  #forgetOldest(): void {
    for (const id of this.#kept.keys()) {
      this.#forget(id);
      return;
    }
  }

  async #load(id: string): Promise<T> {
    try {
      return this.#read((await this.#store.get([this.#family, id]))?.value);
    } catch (error) {
      this.#forget(id); // asked again, it is read again
      throw error;
    }
  }
}
