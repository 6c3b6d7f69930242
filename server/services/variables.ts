import { addDecimals, decimalText, parseDecimal } from '#bridge/wire/decimal.js';
import { BridgeError } from '#bridge/wire/errors.js';
import { NAMESPACE_BYTES_MAX } from '#bridge/wire/limits.js';
import { combine, type MergePolicy } from '#bridge/wire/merge-policy.js';
import { type Namespace, namespaceText, type VariableKey } from '#bridge/wire/names.js';
import type { Variable, VariableChange, VariableDetails } from '#bridge/wire/protocol.js';
import type { Check, Op, Store } from '#server/store/store.js';
import { SYSTEM } from '#server/store/store.js';
import { type Done, doneAgain, lastOf, type Merges } from './done-edits.js';
import type { MergePolicies } from './merge-policies.js';
import { NamespaceTurns } from './namespace-turns.js';
import type { Origin } from './origin.js';
import { packRecord, unpackRecord } from './record.js';
import { type CachedNamespace, VariableCache } from './variable-cache.js';
import { Constraints } from './variable-constraints.js';
import {
  type Attributes,
  attributesOf,
  bytesOf,
  changeOf,
  defined,
  detailsOf,
  historyKeyOf,
  isLive,
  keyOf,
  mergesKeyOf,
  type VariableRecord,
  type Versioned,
  withoutHistory,
} from './variable-records.js';
import { type VariableQuota, VariableRoom } from './variable-room.js';

/** A key that is both set and deleted is deleted; one that is merged is deleted first, and then set. */
export interface Edit {
  readonly set: readonly (readonly [VariableKey, string])[];
  readonly delete: readonly VariableKey[];
  /** Made again under the same id, an edit is not made again. */
  readonly commitId?: string;
  /**
   * An execution's: what it had read of the keys it sets that have a merge policy; null = there was none. A key that is not
   * here is not merged, nor is an operator's edit.
   */
  readonly bases?: readonly (readonly [VariableKey, string | null])[];
}

export interface Edited {
  readonly version: number;
  readonly changes: VariableChange[];
}

/** One variable, with what is said about it. What is not given stays; null takes it away. */
export interface Setting {
  readonly text: string;
  /** Only if the variable is at this version; 0 = only if there is none. */
  readonly ifVersion?: number | undefined;
  readonly commitId?: string | undefined;
  readonly attributes?: { readonly [A in keyof Attributes]?: Attributes[A] | null | undefined };
}

export interface HistoryEntry {
  readonly version: number;
  readonly text: string;
  /** The variable was secret when it had this value. */
  readonly secret?: true;
  readonly updatedAt: number;
  readonly by: string;
}

/** One secret: the largest keys and certificate chains are a tenth of it, and a run can mask two of them. */
export const SECRET_BYTES_MAX = 64 * 1024;

/** Values kept of a variable besides the present one. */
const HISTORY_MAX = 10;
/** Larger values are not kept: history is not counted against a quota, so what it can take is bounded by this. */
const HISTORY_BYTES_MAX = 64 * 1024;
/** Deleted variables that are remembered, with their history, and how many more go with one commit. */
const TOMBSTONES_MAX = 1000;
const TOMBSTONES_REMOVED_MAX = 50;
/** A value that stood for less than this is not kept: counters would push out everything else. */
const HISTORY_AFTER_MS = 1000;

/** Keys that are merged: by which policy, and with what their writer had read. */
type Merged = ReadonlyMap<
  VariableKey,
  { readonly policy: MergePolicy; readonly base: string | null }
>;

/** No commit has this number. */
const NEVER = Number.MAX_SAFE_INTEGER;

/** Within one server changes that read first take turns; only another server's can come between. */
const TRIES_MAX = 100;

/** What a change makes of the present records: the new ones, and on what it depends. */
interface Plan {
  readonly records: readonly VariableRecord[];
  readonly checks: readonly Check[];
  readonly ops?: readonly Op[];
  /** Why its checks will not hold. A change that was made before is told so all the same: the store knows. */
  readonly refusal?: BridgeError | undefined;
}

/** A variable as it is now. */
type Present = (key: VariableKey) => Versioned | undefined;

interface Changed {
  readonly version: number;
  readonly records: readonly VariableRecord[];
  /** It had been made before, under its commit id: these may be other records. */
  readonly isRepeated: boolean;
}

/** Variables of users and organisations. Values are JSON source text, interpreted by merge policies and schemas only. */
export class Variables {
  readonly cache: VariableCache;
  readonly #store: Store;
  readonly #policies: MergePolicies;
  readonly #now: () => number;
  readonly #room: VariableRoom;
  readonly #constraints = new Constraints();
  #lastOrder = 0;
  readonly #turns = new NamespaceTurns();
  /** Namespaces whose deleted variables are being removed. */
  readonly #purging = new Set<string>();

  constructor(
    store: Store,
    policies: MergePolicies,
    now: () => number = () => store.now(),
    quotaOf: (namespace: Namespace) => VariableQuota = () => QUOTA,
  ) {
    this.#store = store;
    this.#policies = policies;
    this.#now = now;
    this.#room = new VariableRoom(quotaOf);
    this.cache = new VariableCache(store);
  }

  /** In document order. */
  async list(namespace: Namespace, prefix = ''): Promise<Variable[]> {
    const now = this.#now();
    const variables: Variable[] = [];
    for (const entry of (await this.cache.read(namespace)).ordered()) {
      if (!isLive(entry.record, now) || !entry.record.key.startsWith(prefix)) continue;
      variables.push(variableOf(entry));
    }
    return variables;
  }

  /** @throws BridgeError `not_found` */
  async get(namespace: Namespace, key: VariableKey): Promise<VariableDetails> {
    const entry = (await this.cache.read(namespace)).get(key);
    if (entry === undefined || !isLive(entry.record, this.#now())) throw notThere(namespace, key);
    return detailsOf(entry);
  }

  /** How much of its quota a namespace uses. */
  async usage(namespace: Namespace): Promise<VariableQuota> {
    const { variableBytes, variableCount } = await this.cache.of(namespace);
    return { bytes: variableBytes, variables: variableCount };
  }

  /**
   * All of `edit` in one durable commit; per key the last commit wins, or the merge policy decides. Deleting what is not there
   * changes nothing. @throws BridgeError `invalid` when a policy or a schema does not fit what was written, `quota`
   */
  async edit(namespace: Namespace, edit: Edit, origin: Origin): Promise<Edited> {
    const bases = new Map(edit.bases);
    const policies = bases.size === 0 ? NO_POLICIES : await this.#policies.of(namespace);
    const merged = new Map(
      edit.set.flatMap(([key]) => {
        const policy = policies.get(key);
        const base = bases.get(key);
        return policy === undefined || base === undefined ? [] : [[key, { policy, base }] as const];
      }),
    );
    if (merged.size > 0)
      return await this.#turns.inTurn(
        namespace,
        async () =>
          await this.#turns.beside(
            namespace,
            false,
            async () => await this.#merge(namespace, edit, merged, origin),
          ),
      );
    const edited = await this.#change(namespace, origin, edit.commitId, async (present) =>
      this.#planOf(namespace, edit, merged, origin, present),
    );
    const { version, records } = edited;
    if (edited.isRepeated) return { version, changes: await this.#present(namespace, edit) };
    return { version, changes: changesOf(records, version) };
  }

  /** @throws BridgeError `conflict` when it is not at `ifVersion`, `invalid`, `quota` */
  async set(
    namespace: Namespace,
    key: VariableKey,
    { text, ifVersion, commitId, attributes = {} }: Setting,
    origin: Origin,
  ): Promise<VariableDetails> {
    if (typeof attributes.schema === 'string') this.#constraints.checkSchema(attributes.schema);
    if (attributes.secret === true && Buffer.byteLength(text) > SECRET_BYTES_MAX)
      throw new BridgeError(
        'too_large',
        `a secret has at most ${SECRET_BYTES_MAX} bytes: more cannot be masked in what scripts print`,
      );
    return await this.#changeOne(namespace, key, origin, commitId, ifVersion, {
      text,
      ...withAttributes(attributes),
    });
  }

  /** Deleting what is not there changes nothing. @throws BridgeError `conflict` when it is not at `ifVersion` */
  async delete(
    namespace: Namespace,
    key: VariableKey,
    { ifVersion, commitId }: Pick<Setting, 'ifVersion' | 'commitId'>,
    origin: Origin,
  ): Promise<{ version: number }> {
    const { version } = await this.#change(namespace, origin, commitId, async (present) => {
      const guard = this.#guardOf(namespace, key, present(key), ifVersion);
      if (this.#live(present(key)) === undefined) return { records: [], ...guard };
      return { records: [this.#successor(key, present(key), { text: null }, origin)], ...guard };
    });
    return { version };
  }

  /**
   * The number plus `by`, both exact decimals; what is not there counts from 0. The text is what this addition has made, also
   * when it is asked for again, so that no two are told the same. @throws BridgeError `invalid`
   */
  async add(
    namespace: Namespace,
    key: VariableKey,
    by: string,
    commitId: string | undefined,
    origin: Origin,
  ): Promise<{ version: number; text: string }> {
    return await this.#update(namespace, key, commitId, origin, true, (text) => {
      const [to, step] = [parseDecimal(text ?? '0'), parseDecimal(by)];
      if (to === undefined || step === undefined)
        throw new BridgeError('invalid', `variable ${JSON.stringify(key)} is not a number`);
      return decimalText(addDecimals(to, step));
    });
  }

  /** Elements to an array, or characters to a string; what is not there is made. @throws BridgeError `invalid` */
  async append(
    namespace: Namespace,
    key: VariableKey,
    more: string,
    commitId: string | undefined,
    origin: Origin,
  ): Promise<{ version: number; text: string }> {
    return await this.#update(namespace, key, commitId, origin, false, (text) =>
      text === null ? more : joined(key, text, more),
    );
  }

  /** Earlier values that are kept, newest first. */
  async history(namespace: Namespace, key: VariableKey): Promise<HistoryEntry[]> {
    const entry = (await this.cache.of(namespace)).get(key);
    const versions = [...(entry?.record.history ?? [])].reverse();
    const entries = await this.#store.getMany(versions.map((v) => historyKeyOf(namespace, key, v)));
    return entries.flatMap((found, i) => {
      if (found === undefined) return [];
      const { text, updatedAt, by, secret } = unpackRecord<VariableRecord>(found.value);
      const entry = { version: versions[i] ?? 0, text: text ?? 'null', updatedAt, by };
      return [secret === true ? { ...entry, secret } : entry];
    });
  }

  /** Makes a kept value the present one again. @throws BridgeError `not_found` */
  async restore(
    namespace: Namespace,
    key: VariableKey,
    version: number,
    commitId: string | undefined,
    origin: Origin,
  ): Promise<VariableDetails> {
    const found = await this.#store.get(historyKeyOf(namespace, key, version));
    if (found === undefined)
      throw new BridgeError(
        'not_found',
        `no version ${version} of variable ${JSON.stringify(key)} is kept; see: cronium var history ${key}`,
      );
    const { text, secret } = unpackRecord<VariableRecord>(found.value);
    // What was a secret is one, whatever the variable has become since: it may have been deleted.
    return await this.#changeOne(namespace, key, origin, commitId, undefined, {
      text,
      ...(secret === true && { secret }),
    });
  }

  /** `listener` hears every change, with who made it, in commit order. Returns the stop. */
  watch(
    namespace: Namespace,
    listener: (changes: VariableChange[], by: string) => void,
  ): () => void {
    return this.#store.watch(['var', namespaceText(namespace)], ({ entries }) => {
      const changes: VariableChange[] = [];
      let by = '';
      for (const { value, version } of entries) {
        const record = unpackRecord<VariableRecord>(value);
        by = record.by;
        changes.push(changeOf({ record, version }));
      }
      listener(changes, by);
    });
  }

  /** Removes what has expired; as many as one commit takes. Returns how many it was. */
  async sweep(
    noteOf: (key: VariableKey, namespace: Namespace) => unknown = () => undefined,
  ): Promise<number> {
    const now = this.#now();
    let swept = 0;
    for await (const entry of this.#store.range(['expiry', SYSTEM], {
      to: now,
      limit: SWEPT_MAX,
    })) {
      const { namespace, key } = unpackRecord<{ namespace: Namespace; key: VariableKey }>(
        entry.value,
      );
      const ops: Op[] = [{ del: entry.key }];
      const present = (await this.cache.of(namespace)).get(key);
      const checks: Check[] = [];
      if (present !== undefined && present.record.text !== null && !isLive(present.record, now)) {
        const origin = { by: 'expiry' };
        checks.push({ key: keyOf(namespace, key), version: present.version });
        const record = this.#successor(key, present, { text: null }, origin);
        ops.push({ put: keyOf(namespace, key), value: packRecord({ ...record }) });
        ops.push(...this.#historyOps(namespace, present, record));
      }
      const note = checks.length > 0 ? noteOf(key, namespace) : undefined;
      if ((await this.#store.commit({ checks, ops, note })).ok) swept++;
    }
    return swept;
  }

  // -------------------------------------------------------------------- changes

  async #changeOne(
    namespace: Namespace,
    key: VariableKey,
    origin: Origin,
    commitId: string | undefined,
    ifVersion: number | undefined,
    said: Partial<VariableRecord>,
  ): Promise<VariableDetails> {
    const plan = async (present: Present): Promise<Plan> => {
      const guard = this.#guardOf(namespace, key, present(key), ifVersion);
      return { records: [this.#successor(key, present(key), said, origin)], ...guard };
    };
    // More than the text: attributes are changed.
    const isAlone = Object.keys(said).length > 1;
    const edited = await this.#change(namespace, origin, commitId, plan, isAlone);
    // Of the commit itself: by now others may have changed it again, and their version would pass for this one's.
    const [record] = edited.records as [VariableRecord];
    return detailsOf({ record, version: edited.version });
  }

  /**
   * A change that depends on the present value: in turn, and again when another server came between. `isTold`: what it has
   * made is kept beside it, for a caller whose answer got lost.
   */
  async #update(
    namespace: Namespace,
    key: VariableKey,
    commitId: string | undefined,
    origin: Origin,
    isTold: boolean,
    make: (text: string | null) => string,
  ): Promise<{ version: number; text: string }> {
    const work = async () => {
      const id = commitIdOf(origin, commitId);
      for (let tries = 0; tries < TRIES_MAX; tries++) {
        const made =
          isTold && commitId !== undefined ? await this.#merges(namespace, origin.by) : undefined;
        const before = made?.done.find((done) => done.id === commitId);
        const [told] = before?.keys ?? [];
        if (before !== undefined && told !== undefined)
          return { version: before.version, text: told[2] ?? 'null' };
        const present = (await this.cache.of(namespace)).get(key);
        const text = make(this.#live(present)?.record.text ?? null);
        const record = this.#successor(key, present, { text }, origin);
        const checks = [{ key: keyOf(namespace, key), version: present?.version ?? 0 }];
        const kept =
          made && this.#keptWith(namespace, origin.by, made, commitId, [record], () => text);
        const plan = {
          records: [record],
          checks: [...checks, ...(kept?.checks ?? [])],
          ops: kept?.ops ?? [],
        };
        const committed = await this.#commit(namespace, plan, id, origin);
        if (!committed.ok) continue;
        // So many others ago that it is not kept: what stands now, under the version that made that.
        const isForgotten = isTold && committed.repeated === true && present !== undefined;
        return isForgotten
          ? { version: present.version, text: present.record.text ?? 'null' }
          : { version: committed.version, text };
      }
      throw tooManyConflicts();
    };
    return await this.#turns.inTurn(
      namespace,
      async () => await this.#turns.beside(namespace, false, work),
    );
  }

  /**
   * `isAlone`: who plans while it is under way would put back what it changes (attributes).
   * @throws BridgeError `conflict` when a check fails
   */
  async #change(
    namespace: Namespace,
    origin: Origin,
    commitId: string | undefined,
    make: (present: Present) => Promise<Plan>,
    isAlone = false,
  ): Promise<Changed> {
    return await this.#turns.beside(
      namespace,
      isAlone,
      async () => await this.#planAndCommit(namespace, origin, commitId, make),
    );
  }

  async #planAndCommit(
    namespace: Namespace,
    origin: Origin,
    commitId: string | undefined,
    make: (present: Present) => Promise<Plan>,
  ): Promise<Changed> {
    for (let tries = 0; tries < TRIES_MAX; tries++) {
      const cached = await this.cache.of(namespace);
      const plan = await make((key) => cached.get(key));
      const { refusal, records } = plan;
      if (refusal !== undefined && commitId === undefined) throw refusal;
      const committed = await this.#commit(namespace, plan, commitIdOf(origin, commitId), origin);
      if (committed.ok)
        return { version: committed.version, records, isRepeated: committed.repeated === true };
      // Else somebody came between, who may have deleted again what was deleted: that is no other version.
      if (refusal !== undefined) throw refusal;
    }
    throw tooManyConflicts();
  }

  async #commit(
    namespace: Namespace,
    plan: Plan,
    id: string | undefined,
    { note }: Origin,
  ): ReturnType<Store['commit']> {
    const { records, checks, ops: more = [] } = plan;
    const cached = await this.cache.of(namespace);
    // With an id even nothing is committed: made again, it must not become something.
    const isNothing = records.length === 0 && checks.length === 0 && more.length === 0;
    if (isNothing && id === undefined) return { ok: true, version: this.#store.version };
    let bytes = 0;
    let variables = 0;
    const ops: Op[] = [...more];
    for (const record of records) {
      const before = cached.get(record.key);
      this.#constraints.check(record);
      bytes += bytesOf(record.key, record.text) - bytesOf(record.key, before?.record.text ?? null);
      variables += Number(record.text !== null) - Number((before?.record.text ?? null) !== null);
      ops.push({ put: keyOf(namespace, record.key), value: packRecord({ ...record }) });
      if (before !== undefined) ops.push(...this.#historyOps(namespace, before, record));
      if (record.expiresAt !== undefined)
        ops.push({
          put: ['expiry', SYSTEM, record.expiresAt, namespaceText(namespace), record.key],
          value: packRecord({ namespace, key: record.key }),
        });
    }
    const release = this.#room.reserve(namespace, bytes, variables, cached);
    try {
      return await this.#store.commit({ checks, ops, note, ...(id !== undefined && { id }) });
    } finally {
      release();
      if (cached.surplus(TOMBSTONES_MAX, 1).length > 0) this.#purge(namespace, cached);
    }
  }

  /** Removes the oldest deleted variables, which nobody needs to hear of any more, with their history. */
  #purge(namespace: Namespace, cached: CachedNamespace): void {
    const id = namespaceText(namespace);
    if (this.#purging.has(id)) return;
    this.#purging.add(id);
    const gone = cached.surplus(TOMBSTONES_MAX, TOMBSTONES_REMOVED_MAX);
    const commit = {
      // One that is set again meanwhile stays.
      checks: gone.map(({ record: { key }, version }) => ({ key: keyOf(namespace, key), version })),
      ops: gone.flatMap(({ record: { key, history = [] } }): Op[] => [
        { del: keyOf(namespace, key) },
        ...history.map((version): Op => ({ del: historyKeyOf(namespace, key, version) })),
      ]),
    };
    this.#store
      .commit(commit)
      .then(
        ({ ok }) => {
          if (ok) for (const entry of gone) cached.forget(entry);
        },
        () => {}, // the next deletion tries again
      )
      .finally(() => this.#purging.delete(id));
  }

  /** The record that follows on `before`: what is not said anew stays, of a variable that is there. */
  #successor(
    key: VariableKey,
    before: Versioned | undefined,
    said: Partial<VariableRecord>,
    origin: Origin,
  ): VariableRecord {
    const now = this.#now();
    const live = this.#live(before);
    const history = this.#historyAfter(before, now);
    return defined({
      ...(live !== undefined && said.text !== null && attributesOf(live.record)),
      text: null,
      ...said,
      key,
      order: live?.record.order ?? this.#nextOrder(),
      updatedAt: now,
      by: origin.by,
      ...(history.length > 0 && { history }),
    });
  }

  #historyAfter(before: Versioned | undefined, now: number): readonly number[] {
    if (before === undefined) return [];
    const { text, updatedAt, history = [] } = before.record;
    if (text === null || now - updatedAt < HISTORY_AFTER_MS) return history;
    if (text.length > HISTORY_BYTES_MAX) return history;
    return [...history, before.version].slice(-HISTORY_MAX);
  }

  /** Keeps the value that `record` replaces, if it is to be kept, and drops the oldest. */
  #historyOps(namespace: Namespace, before: Versioned, record: VariableRecord): Op[] {
    const { key } = record;
    const kept = new Set(record.history);
    const ops: Op[] = [];
    if (kept.has(before.version))
      ops.push({
        put: historyKeyOf(namespace, key, before.version),
        value: packRecord(withoutHistory(before.record)),
      });
    for (const version of before.record.history ?? [])
      if (!kept.has(version)) ops.push({ del: historyKeyOf(namespace, key, version) });
    return ops;
  }

  #live(entry: Versioned | undefined): Versioned | undefined {
    return entry !== undefined && isLive(entry.record, this.#now()) ? entry : undefined;
  }

  #guardOf(
    namespace: Namespace,
    key: VariableKey,
    present: Versioned | undefined,
    ifVersion: number | undefined,
  ): Pick<Plan, 'checks' | 'refusal'> {
    if (ifVersion === undefined) return { checks: [] };
    const at = this.#live(present)?.version ?? 0;
    if (at === ifVersion)
      return { checks: [{ key: keyOf(namespace, key), version: present?.version ?? 0 }] };
    const refusal = new BridgeError(
      'conflict',
      `variable ${JSON.stringify(key)} is at version ${at}, not ${ifVersion}; read it and try again`,
    );
    return { checks: [{ key: keyOf(namespace, key), version: NEVER }], refusal };
  }

  // -------------------------------------------------------------------- edits of many

  #planOf(
    namespace: Namespace,
    edit: Edit,
    merged: Merged,
    origin: Origin,
    present: (key: VariableKey) => Versioned | undefined,
  ): Plan {
    const wanted = new Map<VariableKey, string | null>();
    const deleted = new Set(edit.delete);
    for (const [key, text] of edit.set) wanted.set(key, text);
    for (const key of deleted) if (!merged.has(key)) wanted.set(key, null);
    const records: VariableRecord[] = [];
    const checks: Check[] = [];
    for (const [key, written] of wanted) {
      const entry = present(key);
      const how = merged.get(key);
      let text = written;
      if (how !== undefined && written !== null) {
        const stored = deleted.has(key) ? null : (this.#live(entry)?.record.text ?? null);
        text = combine(how.policy, key, { stored, base: how.base, written });
        checks.push({ key: keyOf(namespace, key), version: entry?.version ?? 0 });
      }
      if (text === null && this.#live(entry) === undefined) continue;
      records.push(this.#successor(key, entry, { text }, origin));
    }
    return { records, checks };
  }

  async #merge(namespace: Namespace, edit: Edit, merged: Merged, origin: Origin): Promise<Edited> {
    for (let tries = 0; tries < TRIES_MAX; tries++) {
      const made = await this.#merges(namespace, origin.by);
      const done = made.done.find(({ id }) => id === edit.commitId);
      if (done !== undefined) return doneAgain(done, edit);
      const cached = await this.cache.of(namespace);
      const plan = this.#planOf(namespace, edit, merged, origin, (key) => cached.get(key));
      const kept = this.#keptWith(
        namespace,
        origin.by,
        made,
        edit.commitId,
        plan.records,
        (record) => (merged.has(record.key) ? record.text : null),
      );
      const committed = await this.#commit(
        namespace,
        { records: plan.records, checks: [...plan.checks, ...kept.checks], ops: kept.ops },
        undefined,
        origin,
      );
      if (committed.ok)
        return { version: committed.version, changes: changesOf(plan.records, committed.version) };
    }
    throw tooManyConflicts();
  }

  /** The merging edits of an execution that may be asked for again, and the version of their record. */
  async #merges(namespace: Namespace, by: string): Promise<Merges> {
    const entry = await this.#store.get(mergesKeyOf(namespace, by));
    if (entry === undefined) return { version: 0, done: [] };
    const { done } = unpackRecord<{ done: readonly Done[] }>(entry.value);
    // The newest has not known its version when it was written: it is that of the record.
    return {
      version: entry.version,
      done: done.map((one) => (one.version === 0 ? { ...one, version: entry.version } : one)),
    };
  }

  /** Puts what a change makes beside it: `textOf` is what the caller cannot know, or null. */
  #keptWith(
    namespace: Namespace,
    by: string,
    { version, done }: Merges,
    commitId: string | undefined,
    records: readonly VariableRecord[],
    textOf: (record: VariableRecord) => string | null,
  ): { readonly checks: readonly Check[]; readonly ops: readonly Op[] } {
    const now: Done = {
      id: commitId ?? '',
      version: 0,
      updatedAt: this.#now(),
      keys: records.map((record) => [record.key, record.order, textOf(record)]),
    };
    const key = mergesKeyOf(namespace, by);
    const value = packRecord({ done: lastOf([...done, now]) });
    return { checks: [{ key, version }], ops: [{ put: key, value }] };
  }

  /** What has become of the variables of an edit that was made before. */
  async #present(namespace: Namespace, edit: Edit): Promise<VariableChange[]> {
    const cached = await this.cache.of(namespace);
    const keys = new Set([...edit.set.map(([key]) => key), ...edit.delete]);
    return [...keys].flatMap((key) => {
      const entry = cached.get(key);
      return entry === undefined ? [] : [changeOf(entry)];
    });
  }

  /** Later calls give larger numbers, across restarts too: milliseconds, with room for 1024 in each. */
  #nextOrder(): number {
    this.#lastOrder = Math.max(this.#lastOrder + 1, this.#now() * 1024);
    return this.#lastOrder;
  }
}

const QUOTA: VariableQuota = { variables: Number.POSITIVE_INFINITY, bytes: NAMESPACE_BYTES_MAX };
const NO_POLICIES: ReadonlyMap<VariableKey, MergePolicy> = new Map();

/** Removed by one sweep: the next one comes within a second. */
const SWEPT_MAX = 200;

const commitIdOf = ({ by }: Origin, commitId: string | undefined): string | undefined =>
  commitId === undefined ? undefined : `${by}/${commitId}`;

const tooManyConflicts = () =>
  new BridgeError('conflict', 'others keep changing the same variables; try again');

const notThere = (namespace: Namespace, key: VariableKey) =>
  new BridgeError(
    'not_found',
    `no variable ${JSON.stringify(key)} for ${namespaceText(namespace)}; see: cronium var list`,
  );

const variableOf = (entry: Versioned): Variable => ({
  ...changeOf(entry),
  text: entry.record.text ?? 'null',
});

const changesOf = (records: readonly VariableRecord[], version: number): VariableChange[] =>
  records.map((record) => changeOf({ record, version }));

/** What `said` takes away must be named with undefined, or it would be kept. */
function withAttributes(said: NonNullable<Setting['attributes']>): Partial<VariableRecord> {
  const entries = Object.entries(said).filter(([, value]) => value !== undefined);
  return Object.fromEntries(entries.map(([name, value]) => [name, value ?? undefined]));
}

function joined(key: VariableKey, text: string, more: string): string {
  const misfit = () =>
    new BridgeError(
      'invalid',
      `variable ${JSON.stringify(key)}: only elements can be appended to an array, and text to a string`,
    );
  const [first, last] = [text.trim(), more.trim()];
  if (first.startsWith('"') && last.startsWith('"')) return `${first.slice(0, -1)}${last.slice(1)}`;
  if (!first.startsWith('[') || !last.startsWith('[')) throw misfit();
  const [start, end] = [first.slice(0, -1).trimEnd(), last.slice(1).trimStart()];
  if (start === '[') return last;
  return end === ']' ? first : `${start},${end}`;
}
