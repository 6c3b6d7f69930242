import type { Namespace, VariableKey } from '#bridge/wire/names.js';
import { namespaceText } from '#bridge/wire/names.js';
import type { Store } from '#server/store/store.js';
import { bytesOf, type Versioned, versioned } from './variable-records.js';

/** Every namespace in use by the executions of a busy server; beyond it the one that was used least lately is read again. */
const CACHE_BYTES_MAX = 256 * 1024 * 1024;

/** Beyond as many, empty ones too: each has watches in the store. */
const NAMESPACES_MAX = 10_000;

/** What an entry takes besides its texts. */
const ENTRY_BYTES = 256;

/** The store tells of every change; should one get lost on the way, it is seen after this long all the same. */
const CACHE_TTL_MS = 5 * 60 * 1000;

/** All variables of a namespace, tombstones included, as new as the store's last commit. */
export class CachedNamespace {
  readonly #records = new Map<string, Versioned>();
  /** Deleted ones, the oldest first. */
  readonly #tombstones = new Map<string, Versioned>();
  /** Of the variables that are there, as a message would carry them. */
  variableBytes = 0;
  variableCount = 0;
  memoryBytes = 0;
  #ordered: readonly Versioned[] | undefined;

  get(key: VariableKey): Versioned | undefined {
    return this.#records.get(key);
  }

  /** Those with a value, in document order. */
  ordered(): readonly Versioned[] {
    this.#ordered ??= [...this.#records.values()]
      .filter(({ record }) => record.text !== null)
      .sort(({ record: a }, { record: b }) => a.order - b.order || (a.key < b.key ? -1 : 1));
    return this.#ordered;
  }

  /** Unless a newer one is known: the past and the present may come in any order. */
  take(entry: Versioned): void {
    const before = this.#records.get(entry.record.key);
    if (before !== undefined && before.version > entry.version) return;
    if (before !== undefined) this.#count(before, -1);
    this.#count(entry, 1);
    this.#records.set(entry.record.key, entry);
    this.#tombstones.delete(entry.record.key);
    if (entry.record.text === null) this.#tombstones.set(entry.record.key, entry);
    this.#ordered = undefined;
  }

  /** The oldest deleted ones, when there are more than `most`; at most `atOnce`. */
  surplus(most: number, atOnce: number): Versioned[] {
    const count = Math.min(this.#tombstones.size - most, atOnce);
    const oldest: Versioned[] = [];
    if (count <= 0) return oldest;
    for (const entry of this.#tombstones.values()) {
      if (oldest.length >= count) break;
      oldest.push(entry);
    }
    return oldest;
  }

  /** What was removed from the store altogether. */
  forget({ record: { key }, version }: Versioned): void {
    const entry = this.#records.get(key);
    if (entry === undefined || entry.version !== version) return;
    this.#count(entry, -1);
    this.#records.delete(key);
    this.#tombstones.delete(key);
  }

  #count({ record: { key, text, schema } }: Versioned, sign: 1 | -1): void {
    this.variableBytes += sign * bytesOf(key, text);
    if (text !== null) this.variableCount += sign;
    this.memoryBytes +=
      sign * (ENTRY_BYTES + 2 * (key.length + (text?.length ?? 0) + (schema?.length ?? 0)));
  }
}

interface Slot {
  readonly loaded: Promise<CachedNamespace>;
  /** Set once loaded, for readers that need not wait. */
  ready: CachedNamespace | undefined;
  readonly loadedAt: number;
  readonly stop: () => void;
}

/** The server's cache of variables (L2): whole namespaces, written through by the store's own changes. */
export class VariableCache {
  readonly #store: Store;
  readonly #bytesMax: number;
  readonly #namespacesMax: number;
  /** Least lately used first. */
  readonly #slots = new Map<string, Slot>();
  /** Hears of every reading: whether it was answered from memory. */
  looked: (hit: boolean) => void = () => {};

  constructor(store: Store, bytesMax = CACHE_BYTES_MAX, namespacesMax = NAMESPACES_MAX) {
    this.#store = store;
    this.#bytesMax = bytesMax;
    this.#namespacesMax = namespacesMax;
  }

  /** For a reader: counted as hit or miss. */
  async read(namespace: Namespace): Promise<CachedNamespace> {
    const id = namespaceText(namespace);
    const ready = this.#ready(id);
    if (ready !== undefined) {
      this.looked(true);
      return ready;
    }
    this.looked(false);
    return await this.#load(id);
  }

  async of(namespace: Namespace): Promise<CachedNamespace> {
    const id = namespaceText(namespace);
    return this.#ready(id) ?? (await this.#load(id));
  }

  #ready(id: string): CachedNamespace | undefined {
    const slot = this.#slots.get(id);
    if (slot?.ready === undefined) return undefined;
    if (this.#store.now() - slot.loadedAt > CACHE_TTL_MS) {
      this.#drop(id, slot);
      return undefined;
    }
    this.#slots.delete(id);
    this.#slots.set(id, slot);
    return slot.ready;
  }

  /** After a namespace was erased. */
  drop(namespace: Namespace): void {
    const id = namespaceText(namespace);
    const slot = this.#slots.get(id);
    if (slot !== undefined) this.#drop(id, slot);
  }

  async #load(id: string): Promise<CachedNamespace> {
    const under = this.#slots.get(id);
    if (under !== undefined) return await under.loaded;
    const cached = new CachedNamespace();
    // Watched before it is read: what comes in between is taken twice, which versions make harmless.
    const stop = this.#store.watch(['var', id], ({ entries }) => {
      for (const entry of entries) cached.take(versioned(entry));
    });
    const slot: Slot = {
      loaded: this.#read(id, cached),
      ready: undefined,
      loadedAt: this.#store.now(),
      stop,
    };
    this.#slots.set(id, slot);
    try {
      slot.ready = await slot.loaded;
    } catch (error) {
      this.#drop(id, slot);
      throw error;
    }
    this.#evict();
    return slot.ready;
  }

  async #read(id: string, cached: CachedNamespace): Promise<CachedNamespace> {
    for await (const entry of this.#store.range(['var', id])) cached.take(versioned(entry));
    return cached;
  }

  #drop(id: string, slot: Slot): void {
    slot.stop();
    if (this.#slots.get(id) === slot) this.#slots.delete(id);
  }

  #evict(): void {
    let bytes = 0;
    for (const { ready } of this.#slots.values()) bytes += ready?.memoryBytes ?? 0;
    for (const [id, slot] of this.#slots) {
      const isFull = bytes > this.#bytesMax || this.#slots.size > this.#namespacesMax;
      if (!isFull || this.#slots.size === 1) return;
      if (slot.ready === undefined) continue;
      bytes -= slot.ready.memoryBytes;
      this.#drop(id, slot);
    }
  }
}
