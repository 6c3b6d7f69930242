import type { Admitted } from './admission.js';
import type { Link } from './commit-chain.js';
import { keptTagOf, type RecordTags, type TagSum } from './record-tags.js';
import type { Committed, Entry } from './store.js';

export type BatchOp = { type: 'put'; key: Buffer; value: Buffer } | { type: 'del'; key: Buffer };

/** What LevelDB holds under a key; version 0 and no tag = nothing. */
export interface Known {
  readonly version: number;
  readonly tag: Buffer | undefined;
}
const NOTHING: readonly Entry[] = [];
export const ABSENT: Known = { version: 0, tag: undefined };

/** What one group is about to do: checks are decided and changes collected against what is known. */
export class GroupDraft {
  readonly batch: BatchOp[] = [];
  readonly sum: TagSum;
  readonly #made = new Map<string, number>();
  readonly #madeBefore: (id: string) => number | undefined;
  /** The recorder's puts, for watchers. */
  readonly recorded: Entry[] = [];
  readonly #tags: RecordTags;
  readonly #known: Map<string, Known>;
  readonly #before: number;
  #version: number;

  constructor(
    tags: RecordTags,
    known: Map<string, Known>,
    last: Link,
    madeBefore: (id: string) => number | undefined,
  ) {
    this.#madeBefore = madeBefore;
    this.#tags = tags;
    this.#known = known;
    this.#version = last.version;
    this.#before = last.version;
    this.sum = last.sum.copy();
  }

  get version(): number {
    return this.#version;
  }

  /** Ids under which commits of this group were made. */
  get made(): [string, number][] {
    return [...this.#made];
  }

  /** No commit went through and nothing was recorded: there is nothing to write. */
  get isEmpty(): boolean {
    return this.#version === this.#before;
  }

  commit(
    admitted: Admitted,
    id: string | undefined,
  ): { committed: Committed; entries: readonly Entry[] } {
    const before = id === undefined ? undefined : (this.#made.get(id) ?? this.#madeBefore(id));
    if (before !== undefined)
      return { committed: { ok: true, version: before, repeated: true }, entries: NOTHING };
    const conflicts = admitted.checks.filter((c) => this.#versionOf(c.name) !== c.version);
    if (conflicts.length > 0)
      return { committed: { ok: false, conflicts: conflicts.map((c) => c.key) }, entries: NOTHING };
    const version = ++this.#version;
    const entries: Entry[] = [];
    this.#apply(admitted.ops, entries);
    if (id !== undefined) this.#made.set(id, version);
    return { committed: { ok: true, version }, entries };
  }

  /** In the last commit of the group, or in one of their own when there is none. */
  record(ops: Admitted['ops']): void {
    if (ops.length === 0) return;
    if (this.isEmpty) this.#version++;
    this.#apply(ops, this.recorded);
  }

  #apply(ops: Admitted['ops'], entries: Entry[]): void {
    for (const { name, bytes, op } of ops) {
      if ('put' in op) {
        const version = op.version ?? this.#version;
        this.#put(name, bytes, version, op.value);
        if (op.version === undefined) entries.push({ key: op.put, value: op.value, version });
      } else {
        this.#delete(name, bytes);
      }
    }
  }

  #delete(name: string, key: Buffer): void {
    const { tag } = this.#known.get(name) ?? ABSENT;
    if (tag !== undefined) this.sum.remove(tag);
    this.#remember(name, ABSENT);
    this.batch.push({ type: 'del', key });
  }

  #put(name: string, key: Buffer, version: number, value: Uint8Array): void {
    const { tag: before } = this.#known.get(name) ?? ABSENT;
    if (before !== undefined) this.sum.remove(before);
    const record = this.#tags.seal(key, version, value);
    const tag = keptTagOf(record);
    this.sum.add(tag);
    this.#remember(name, { version, tag });
    this.batch.push({ type: 'put', key, value: record });
  }

  /** Newest last, so that the oldest is forgotten first. */
  #remember(name: string, known: Known): void {
    this.#known.delete(name);
    this.#known.set(name, known);
  }

  #versionOf(name: string): number {
    return (this.#known.get(name) ?? ABSENT).version;
  }
}
