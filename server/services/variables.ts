import { BridgeError } from '#bridge/wire/errors.js';
import { NAMESPACE_BYTES_MAX, VARIABLE_OVERHEAD_BYTES } from '#bridge/wire/limits.js';
import { combine, type MergePolicy } from '#bridge/wire/merge-policy.js';
import { type Namespace, namespaceText, type VariableKey } from '#bridge/wire/names.js';
import type { Variable, VariableChange } from '#bridge/wire/protocol.js';
import type { Check, Entry, Key, Op, Store } from '#server/store/store.js';
import type { MergePolicies } from './merge-policies.js';
import { packRecord, unpackRecord } from './record.js';

/** `text` null = deleted: the tombstone lets watchers and late-comers see a deletion in version order. */
type VariableRecord = {
  readonly key: VariableKey;
  readonly text: string | null;
  /** Place in the rendered document: grows with every newly created variable. */
  readonly order: number;
  readonly updatedAt: number;
  /** The execution or operator that wrote it; its own channel is not told about it again. */
  readonly by: string;
};

/** A key that is both set and deleted is deleted; one that is merged is deleted first, and then set. */
export interface Edit {
  readonly set: readonly (readonly [VariableKey, string])[];
  readonly delete: readonly VariableKey[];
  /** An execution's, for the keys with a merge policy. An operator's edit is not merged. */
  readonly merge?: {
    /** Made again under the same id, an edit is not merged again. */
    readonly commitId: string;
    /** What the execution had read of the keys it sets; null = there was none. A key that is not here is not merged. */
    readonly bases: readonly (readonly [VariableKey, string | null])[];
  };
}

export interface Edited {
  readonly version: number;
  readonly changes: VariableChange[];
}

/** Bytes of a namespace's variables: in the store, and in commits under way. */
interface Size {
  stored: number;
  pending: number;
}

/** What a merging edit has made, for a caller whose answer got lost. */
interface Done {
  /** The edit's commit id. */
  readonly id: string;
  /** 0 = that of the record itself. */
  readonly version: number;
  readonly updatedAt: number;
  /** Key, order, and what the merge made of it; null = as the edit says. */
  readonly keys: readonly (readonly [VariableKey, number, string | null])[];
}

interface Merges {
  readonly version: number;
  readonly done: readonly Done[];
}

/** An execution has a few commits under way at once, and asks again for none that was answered. */
const DONE_MAX = 16;
const DONE_BYTES_MAX = 256 * 1024;

/** The newest of them, as many as may be kept; always the very last. */
function lastOf(done: readonly Done[]): Done[] {
  const kept: Done[] = [];
  let bytes = 0;
  for (const one of [...done].reverse()) {
    for (const [key, , text] of one.keys) bytes += bytesOf(key, text ?? '');
    if (kept.length > 0 && (kept.length >= DONE_MAX || bytes > DONE_BYTES_MAX)) break;
    kept.unshift(one);
  }
  return kept;
}

/** Keys that are merged: by which policy, and with what their writer had read. */
type Merged = ReadonlyMap<
  VariableKey,
  { readonly policy: MergePolicy; readonly base: string | null }
>;

/** Within one server merging edits take turns; only another server's can come between. */
const MERGE_TRIES_MAX = 100;

/** Variables of users and organisations. Values are JSON source text, interpreted by merge policies only. */
export class Variables {
  readonly #store: Store;
  readonly #policies: MergePolicies;
  readonly #now: () => number;
  #lastOrder = 0;
  /** Merging edits of a namespace follow each other: of a hundred at once each would otherwise lose against the others. */
  readonly #merging = new Map<string, Promise<unknown>>();
  /** Bytes of each namespace, counted at its first edit. Other servers' edits are missed: the limit is ours, not a promise. */
  readonly #sizes = new Map<string, Promise<Size>>();

  constructor(store: Store, policies: MergePolicies, now: () => number = Date.now) {
    this.#store = store;
    this.#policies = policies;
    this.#now = now;
  }

  /** In document order. */
  async list(namespace: Namespace): Promise<Variable[]> {
    const variables: Variable[] = [];
    for await (const entry of this.#store.range(['var', namespaceText(namespace)])) {
      const change = changeOf(entry);
      if (change.text !== null) variables.push({ ...change, text: change.text });
    }
    return variables.sort((a, b) => a.order - b.order || (a.key < b.key ? -1 : 1));
  }

  /** @throws BridgeError `not_found` */
  async get(namespace: Namespace, key: VariableKey): Promise<Variable> {
    const entry = await this.#store.get(keyOf(namespace, key));
    const change = entry && changeOf(entry);
    if (change === undefined || change.text === null)
      throw new BridgeError(
        'not_found',
        `no variable ${JSON.stringify(key)} for ${namespaceText(namespace)}; see: cronium var list`,
      );
    return { ...change, text: change.text };
  }

  /**
   * All of `edit` in one durable commit; per key the last commit wins, or the merge policy decides. Deleting what is not there
   * changes nothing. @throws BridgeError `invalid` when a policy does not fit what was written
   */
  async edit(namespace: Namespace, edit: Edit, by: string): Promise<Edited> {
    const policies = edit.merge === undefined ? new Map() : await this.#policies.of(namespace);
    const bases = new Map(edit.merge?.bases);
    const merged = new Map(
      edit.set.flatMap(([key]) => {
        const policy = policies.get(key);
        const base = bases.get(key);
        return policy === undefined || base === undefined ? [] : [[key, { policy, base }] as const];
      }),
    );
    if (merged.size === 0) return await this.#write(namespace, edit, by, merged);
    const id = namespaceText(namespace);
    const turn = (this.#merging.get(id) ?? Promise.resolve()).then(
      async () => await this.#write(namespace, edit, by, merged),
    );
    const settled = turn.catch(() => {}); // the next one's turn, however this one ends
    this.#merging.set(id, settled);
    try {
      return await turn;
    } finally {
      if (this.#merging.get(id) === settled) this.#merging.delete(id);
    }
  }

  async #write(namespace: Namespace, edit: Edit, by: string, merged: Merged): Promise<Edited> {
    for (let tries = 0; tries < MERGE_TRIES_MAX; tries++) {
      const made = merged.size === 0 ? undefined : await this.#merges(by);
      const done = made?.done.find(({ id }) => id === edit.merge?.commitId);
      if (done !== undefined) return doneAgain(done, edit);
      const edited = await this.#tryWrite(namespace, edit, by, merged, made);
      if (edited !== undefined) return edited;
    }
    throw new BridgeError('conflict', 'others keep changing the same variables; try again');
  }

  /** The merging edits of an execution that may be asked for again, and the version of their record. */
  async #merges(by: string): Promise<Merges> {
    const entry = await this.#store.get(mergesKeyOf(by));
    if (entry === undefined) return { version: 0, done: [] };
    const { done } = unpackRecord<{ done: readonly Done[] }>(entry.value);
    // The newest has not known its version when it was written: it is that of the record.
    return {
      version: entry.version,
      done: done.map((one) => (one.version === 0 ? { ...one, version: entry.version } : one)),
    };
  }

  /** Undefined: another server changed a variable that is merged, between its reading and the commit. */
  async #tryWrite(
    namespace: Namespace,
    edit: Edit,
    by: string,
    merged: Merged,
    made: Merges | undefined,
  ): Promise<Edited | undefined> {
    const wanted = new Map<VariableKey, string | null>();
    const deleted = new Set(edit.delete);
    for (const [key, text] of edit.set) wanted.set(key, text);
    for (const key of deleted) if (!merged.has(key)) wanted.set(key, null);
    const updatedAt = this.#now();
    const keys = [...wanted.keys()];
    const entries = await Promise.all(
      keys.map(async (key) => await this.#store.get(keyOf(namespace, key))),
    );
    // After all reads: new variables stand in the order of the edit, however the store answers.
    let growth = 0;
    const checks: Check[] = [];
    const records = keys.map((key, i): VariableRecord | undefined => {
      const written = wanted.get(key) ?? null;
      const entry = entries[i];
      const before = entry && unpackRecord<VariableRecord>(entry.value);
      const how = merged.get(key);
      let text = written;
      if (how !== undefined && written !== null) {
        const stored = deleted.has(key) ? null : (before?.text ?? null);
        text = combine(how.policy, key, { stored, base: how.base, written });
        checks.push({ key: keyOf(namespace, key), version: entry?.version ?? 0 });
      }
      const existed = before !== undefined && before.text !== null;
      if (text === null && !existed) return undefined;
      growth += bytesOf(key, text) - bytesOf(key, before?.text ?? null);
      return { key, text, order: existed ? before.order : this.#nextOrder(), updatedAt, by };
    });
    const written = records.filter((record) => record !== undefined);
    if (written.length === 0) return { version: this.#store.version, changes: [] };
    const ops = written.map(
      (record): Op => ({ put: keyOf(namespace, record.key), value: packRecord(record) }),
    );
    const changes = written.map(({ key, text, order }) => ({ key, text, order, updatedAt }));
    if (made !== undefined) {
      const done: Done = {
        id: edit.merge?.commitId ?? '',
        version: 0,
        updatedAt,
        keys: changes.map(({ key, text, order }) => [key, order, merged.has(key) ? text : null]),
      };
      ops.push({ put: mergesKeyOf(by), value: packRecord({ done: lastOf([...made.done, done]) }) });
      checks.push({ key: mergesKeyOf(by), version: made.version });
    }
    const size = await this.#reserve(namespace, growth);
    const committed = await this.#store.commit({ checks, ops }).finally(() => {
      size.pending -= growth;
    });
    if (!committed.ok) return undefined;
    size.stored += growth;
    return editedIn(committed.version, changes);
  }

  /** `listener` hears every change, with who made it, in commit order. Returns the stop. */
  watch(
    namespace: Namespace,
    listener: (changes: VariableChange[], by: string) => void,
  ): () => void {
    return this.#store.watch(['var', namespaceText(namespace)], ({ entries }) => {
      const first = entries[0];
      if (first === undefined) return;
      listener(entries.map(changeOf), unpackRecord<VariableRecord>(first.value).by);
    });
  }

  /** Takes room for an edit that is about to be made. @throws BridgeError `quota` when there is none */
  async #reserve(namespace: Namespace, growth: number): Promise<Size> {
    const id = namespaceText(namespace);
    let size = await this.#sizeOf(namespace);
    if (growth > 0 && size.stored + size.pending + growth > NAMESPACE_BYTES_MAX) {
      // Edits at once may have counted the same variable twice: before anyone is refused, it is counted again.
      size.stored = await this.#count(namespace);
      size = await this.#sizeOf(namespace);
      const bytes = size.stored + size.pending + growth;
      if (bytes > NAMESPACE_BYTES_MAX)
        throw new BridgeError(
          'quota',
          `the variables of ${id} would take ${bytes} bytes, of ${NAMESPACE_BYTES_MAX}: delete some first`,
        );
    }
    size.pending += growth;
    return size;
  }

  async #sizeOf(namespace: Namespace): Promise<Size> {
    const id = namespaceText(namespace);
    let size = this.#sizes.get(id);
    if (size === undefined) {
      size = this.#count(namespace).then((stored) => ({ stored, pending: 0 }));
      this.#sizes.set(id, size);
      size.catch(() => this.#sizes.delete(id));
    }
    return await size;
  }

  async #count(namespace: Namespace): Promise<number> {
    let bytes = 0;
    for (const { key, text } of await this.list(namespace)) bytes += bytesOf(key, text);
    return bytes;
  }

  /** Later calls give larger numbers, across restarts too: milliseconds, with room for 1024 in each. */
  #nextOrder(): number {
    this.#lastOrder = Math.max(this.#lastOrder + 1, this.#now() * 1024);
    return this.#lastOrder;
  }
}

const keyOf = (namespace: Namespace, key: VariableKey): Key => [
  'var',
  namespaceText(namespace),
  key,
];

/** Deleted in the commit that ends the execution. */
export const mergesKeyOf = (executionId: string): Key => ['merged', executionId];

function doneAgain({ version, updatedAt, keys }: Done, edit: Edit): Edited {
  const texts = new Map(edit.set);
  return editedIn(
    version,
    keys.map(([key, order, text]) => ({
      key,
      order,
      updatedAt,
      text: text ?? texts.get(key) ?? null,
    })),
  );
}

const editedIn = (
  version: number,
  changes: readonly Omit<VariableChange, 'version'>[],
): Edited => ({
  version,
  changes: changes.map((change) => ({ ...change, version })),
});

/** What a variable takes in a message; a deleted one takes nothing. */
function bytesOf(key: string, text: string | null): number {
  if (text === null) return 0;
  return Buffer.byteLength(key) + Buffer.byteLength(text) + VARIABLE_OVERHEAD_BYTES;
}

function changeOf({ value, version }: Entry): VariableChange {
  const { key, text, order, updatedAt } = unpackRecord<VariableRecord>(value);
  return { key, text, order, updatedAt, version };
}
