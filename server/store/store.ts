/**
 * The store port: everything the services need from a database, and nothing a distributed ordered key-value engine
 * could not give. Every method may reject with BridgeError `unavailable`, `no_space` or `internal`.
 */

/**
 * A path. Strings are names (an encrypting store hides them, so order among sibling names is unspecified); numbers are
 * integers from 0 to 2^53-1, kept in the clear and ordered. The first part is the family, always in the clear.
 */
export type Key = readonly [family: string, ...parts: (string | number)[]];

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

export type Op = { readonly put: Key; readonly value: Uint8Array } | { readonly del: Key };

export interface Commit {
  readonly checks?: readonly Check[];
  /** Two for one key: the last wins. */
  readonly ops: readonly Op[];
}

export type Committed =
  | { readonly ok: true; readonly version: number }
  | { readonly ok: false; readonly conflicts: readonly Key[] };

/** The puts of one commit under a watched prefix. Deletions are not reported: services that need them write a tombstone. */
export interface Change {
  readonly version: number;
  readonly entries: readonly Entry[];
}

export interface Store extends AsyncDisposable {
  /** The highest version that is durable. */
  readonly version: number;
  get(key: Key): Promise<Entry | undefined>;
  /** Entries whose key starts with `prefix`, in key order, as of the call. */
  list(prefix: Key): AsyncIterable<Entry>;
  /** Applies every op or none; resolves once durable (fsync). */
  commit(commit: Commit): Promise<Committed>;
  /** Calls `listener` after each commit, in commit order, before that commit's own promise resolves. Returns the stop. */
  watch(prefix: Key, listener: (change: Change) => void): () => void;
}

/** Bytes one value may have; the link's message limit keeps services below it. */
export const STORE_VALUE_BYTES_MAX = 16 * 1024 * 1024;
