import { encodeKey } from './key-bytes.js';
import type { Change, Entry, Key, Reader, Store } from './store.js';
import { Watchers } from './watchers.js';

/** One watch of the store below, for all watches of ours that share family and namespace. */
interface Feed {
  readonly watchers: Watchers;
  readonly stop: () => void;
  watches: number;
  /** Changes that wait until a value is read, in order; undefined = none, the next one is told at once. */
  tail: Promise<void> | undefined;
}

/** An entry of the store below as callers see it; a promise when its value must be read first, and undefined when it is gone. */
export type Load = (entry: Entry) => Entry | Promise<Entry | undefined>;

/** The watches of a store that shows other entries than the store below: in the same order, each change once. */
export class Feeds {
  readonly #inner: Store;
  readonly #load: Load;
  readonly #onError: (error: unknown) => void;
  readonly #feeds = new Map<string, Feed>();
  #waiting = 0;

  constructor(inner: Store, load: Load, onError: (error: unknown) => void) {
    this.#inner = inner;
    this.#load = load;
    this.#onError = onError;
  }

  add(
    prefix: Key,
    listener: (change: Change) => void,
    since: { version: number; reader: Reader } | undefined,
  ): () => void {
    const shared: Key = prefix.length < 2 ? prefix : [prefix[0], prefix[1] ?? 0];
    const name = encodeKey(shared).toString('latin1');
    const feed = this.#feeds.get(name) ?? this.#open(name, shared);
    feed.watches++;
    let told = since?.version ?? 0;
    const stop = feed.watchers.add(
      prefix,
      (change) => {
        // A change that waited may have been read already by a watch that began meanwhile.
        if (change.version <= told) return;
        told = change.version;
        listener(change);
      },
      since,
    );
    let isStopped = false;
    return () => {
      stop();
      if (!isStopped && --feed.watches === 0) {
        feed.stop();
        this.#feeds.delete(name);
      }
      isStopped = true;
    };
  }

  /** Tells all watches of a change that the store below does not report as one. */
  tell(version: number, entries: readonly Entry[] | Promise<readonly Entry[]>): void {
    for (const feed of this.#feeds.values()) this.#tell(feed, version, entries);
  }

  get isEmpty(): boolean {
    return this.#feeds.size === 0;
  }

  /** False while changes wait for a value. */
  get isQuiet(): boolean {
    return this.#waiting === 0;
  }

  async quiet(): Promise<void> {
    await Promise.all([...this.#feeds.values()].map(async ({ tail }) => await tail));
  }

  stop(): void {
    for (const { stop } of this.#feeds.values()) stop();
    this.#feeds.clear();
  }

  #open(name: string, prefix: Key): Feed {
    const feed: Feed = {
      watchers: new Watchers(this.#onError),
      stop: this.#inner.watch(prefix, ({ version, entries }) => {
        const loaded = entries.map(this.#load);
        const ready = loaded.filter((entry): entry is Entry => !(entry instanceof Promise));
        this.#tell(feed, version, ready.length === loaded.length ? ready : settled(loaded));
      }),
      watches: 0,
      tail: undefined,
    };
    this.#feeds.set(name, feed);
    return feed;
  }

  #tell(feed: Feed, version: number, entries: readonly Entry[] | Promise<readonly Entry[]>): void {
    if (feed.tail === undefined && !(entries instanceof Promise)) {
      feed.watchers.emit(version, entries);
      return;
    }
    const tail = this.#tellLater(feed, feed.tail, version, entries);
    feed.tail = tail;
    void tail.then(() => {
      if (feed.tail === tail) feed.tail = undefined;
    });
  }

  async #tellLater(
    feed: Feed,
    before: Promise<void> | undefined,
    version: number,
    entries: readonly Entry[] | Promise<readonly Entry[]>,
  ): Promise<void> {
    this.#waiting++;
    try {
      // Both at once: nobody else hears if the entries cannot be read.
      const [ready] = await Promise.all([entries, before]);
      feed.watchers.emit(version, ready);
    } catch (error) {
      await before;
      this.#onError(error);
    } finally {
      this.#waiting--;
    }
  }
}

const settled = async (
  loaded: readonly (Entry | Promise<Entry | undefined>)[],
): Promise<readonly Entry[]> =>
  (await Promise.all(loaded.map(async (entry) => await entry))).filter(
    (entry): entry is Entry => entry !== undefined,
  );
