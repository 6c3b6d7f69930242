/**
 * The store port: everything the services need from a database, and nothing a distributed ordered key-value engine
 * could not give. Every method may reject with BridgeError `unavailable`, `no_space`, `read_only` or `internal`.
 */

/** Strings are names (an encrypting store hides them); numbers are integers from 0 to 2^53-1, in the clear and ordered. */
export type Part = string | number;

/**
 * A path. The first part is the family, always in the clear. The second names the namespace the record belongs to, whose
 * data key an encrypting store uses: `user:…`, `org:…`, or `system` for the server's own.
 */
export type Key = readonly [family: string, ...parts: Part[]];

/** Second part of keys that belong to the server itself. */
export const SYSTEM = 'system';

export interface Entry {
  readonly key: Key;
  readonly value: Uint8Array;
  /** Of the commit that wrote it; commits are numbered from 1 in one total order per store. */
  readonly version: number;
}

/** The commit happens only if `key` is still at `version`; 0 = does not exist. */
export interface Check {
  readonly key: Key;
  readonly version: number;
}

/**
 * A put with a `version` is the same record in other bytes: it keeps that version, which an earlier commit gave, and no
 * watcher hears of it. Whoever writes one adds a check on the key.
 */
export type Op =
  | { readonly put: Key; readonly value: Uint8Array; readonly version?: number }
  | { readonly del: Key };

export interface Commit {
  readonly checks?: readonly Check[];
  /** Two for one key: the last wins. */
  readonly ops: readonly Op[];
  /**
   * Idempotency key, 1-128 characters: a second commit under the same id within IDEMPOTENCY_MS does nothing and is answered
   * with the first one's version. One that met a conflict has not happened, and may be made again under its id.
   */
  readonly id?: string;
  /** For the recorder; the store does not look at it. */
  readonly note?: unknown;
}

export type Committed =
  | { readonly ok: true; readonly version: number; readonly repeated?: true }
  | { readonly ok: false; readonly conflicts: readonly Key[] };

/** How long a commit's id is remembered at least: longer than anybody waits for an answer before asking again. */
export const IDEMPOTENCY_MS = 2 * 60 * 1000;
export const COMMIT_ID_LENGTH_MAX = 128;

/** The puts of one commit under a watched prefix. Deletions are not reported: services that need them write a tombstone. */
export interface Change {
  readonly version: number;
  readonly entries: readonly Entry[];
}

/** Bounds are for the part that follows the prefix. An encrypting store can only honour bounds that are numbers. */
export interface RangeOptions {
  /** Inclusive. */
  readonly from?: Part;
  /** Exclusive. */
  readonly to?: Part;
  readonly reverse?: boolean;
  readonly limit?: number;
}

/** One moment of the store, or, on the store itself, the present at each call. */
export interface Reader {
  get(key: Key): Promise<Entry | undefined>;
  /** In the order asked for, all as of one moment. */
  getMany(keys: readonly Key[]): Promise<(Entry | undefined)[]>;
  /** Entries whose key starts with `prefix`, in key order, as of the call. */
  range(prefix: Key, options?: RangeOptions): AsyncIterable<Entry>;
}

/** Holds on to what it shows: dispose it soon. */
export interface Snapshot extends Reader, AsyncDisposable {
  readonly version: number;
}

/** What one commit may be. Every engine we know of can do as much; LargeValues makes more of it. */
export interface Limits {
  readonly valueBytesMax: number;
  /** Keys, values and checks of one commit together. */
  readonly commitBytesMax: number;
  readonly commitOpsMax: number;
}

/** A commit that carried a note, and what became of it. */
export interface Noted {
  readonly note: unknown;
  readonly committed: Committed;
}

/** Adds records of its own to what is committed: atomically with it, in commit order. For the audit log. */
export interface Recorder {
  /**
   * Called once for every group of commits that is about to be written, after their checks were decided. Must not throw.
   * The ops are written even if every commit of the group met a conflict.
   */
  record(group: readonly Noted[]): readonly Op[];
  /**
   * The last group could not be written, or nobody knows whether it was: called before the next `record`. What is stored it
   * reads from `reader`: a call on the store itself may wait for a commit, and that one for this.
   */
  reset(reader: Reader): Promise<void>;
}

export interface Store extends Reader, AsyncDisposable {
  /** The highest version that is durable. */
  readonly version: number;
  readonly limits: Limits;
  /** Milliseconds since the epoch; never goes back, across restarts either. The only clock for leases and expiry. */
  now(): number;
  /** Applies every op or none; resolves once durable (fsync). @throws BridgeError `too_large` over the limits */
  commit(commit: Commit): Promise<Committed>;
  /**
   * Calls `listener` after each commit, in commit order, before that commit's own promise resolves. With `since` it first
   * hears, as changes in version order, the present entries that were written after that version. Returns the stop.
   */
  watch(prefix: Key, listener: (change: Change) => void, since?: number): () => void;
  snapshot(): Promise<Snapshot>;
  /** At most one; before the first commit that carries a note. */
  recordWith(recorder: Recorder): void;
}

/** What every engine takes; FoundationDB, the strictest, has 100 KB and 10 MB. */
export const STORE_LIMITS: Limits = {
  valueBytesMax: 64 * 1024,
  commitBytesMax: 1024 * 1024,
  commitOpsMax: 10_000,
};

/** A decorator that adds to values (a seal, a header) asks for this much more than it grants. */
export const VALUE_OVERHEAD_BYTES_MAX = 4096;
