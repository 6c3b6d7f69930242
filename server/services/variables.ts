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

export interface Edit {
  readonly set: readonly (readonly [VariableKey, string])[];
  readonly delete: readonly VariableKey[];
  /** An execution's, for the keys with a merge policy. An operator's edit is not merged. */
  readonly merge?: {
    /** Made again under the same id, an edit is not merged again. */
    readonly commitId: string;
    /** What the execution had read of the keys it sets. */
    readonly bases: readonly (readonly [VariableKey, string])[];
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

/** What a merging edit has made, kept until its execution ends. */
type MergeRecord = { readonly changes: readonly Omit<VariableChange, 'version'>[] };

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
    for await (const entry of this.#store.list(['var', namespaceText(namespace)])) {
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
        return policy === undefined
          ? []
          : [[key, { policy, base: bases.get(key) ?? null }] as const];
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
    const done = merged.size === 0 ? undefined : await this.#store.get(mergeKeyOf(by, edit));
    if (done !== undefined)
      return editedIn(done.version, unpackRecord<MergeRecord>(done.value).changes);
    for (let tries = 0; tries < MERGE_TRIES_MAX; tries++) {
      const edited = await this.#tryWrite(namespace, edit, by, merged);
      if (edited !== undefined) return edited;
    }
    throw new BridgeError('conflict', 'others keep changing the same variables; try again');
  }

  /** Undefined: another server changed a variable that is merged, between its reading and the commit. */
  async #tryWrite(
    namespace: Namespace,
    edit: Edit,
    by: string,
    merged: Merged,
  ): Promise<Edited | undefined> {
    const wanted = new Map<VariableKey, string | null>();
    for (const [key, text] of edit.set) wanted.set(key, text);
    for (const key of edit.delete) wanted.set(key, null);
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
        text = combine(how.policy, key, { stored: before?.text ?? null, base: how.base, written });
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
    // For a caller whose answer gets lost: the record is of this commit, and so has its version.
    if (merged.size > 0) ops.push({ put: mergeKeyOf(by, edit), value: packRecord({ changes }) });
    const size = await this.#reserve(namespace, growth);
    const committed = await this.#store.commit({ checks, ops }).finally(() => {
      size.pending -= growth;
    });
    if (!committed.ok) return undefined;
    size.stored += growth;
    return editedIn(committed.version, changes);
  }

  /** Forgets what was kept for an execution that has ended and makes no edit again. */
  async executionEnded(by: string): Promise<void> {
    const ops: Op[] = [];
    for await (const { key } of this.#store.list(['merged', by])) ops.push({ del: key });
    if (ops.length > 0) await this.#store.commit({ ops });
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

const mergeKeyOf = (by: string, { merge }: Edit): Key => ['merged', by, merge?.commitId ?? ''];

const editedIn = (version: number, changes: MergeRecord['changes']): Edited => ({
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
