import { BridgeError } from '#bridge/wire/errors.js';
import type { MergePolicy } from '#bridge/wire/merge-policy.js';
import { type Namespace, namespaceText, type VariableKey } from '#bridge/wire/names.js';
import type { Key, Store } from '#server/store/store.js';
import { packRecord, unpackRecord } from './record.js';
import { WatchedRecords } from './watched-records.js';

/** Policies one namespace may have: they are kept in one record, which every commit of an execution reads. */
const POLICIES_MAX = 10_000;

/** Two operators at once are two tries; more only a loop could need. */
const TRIES_MAX = 10;

/** Pairs, since a map of MessagePack cannot have the key `__proto__`. */
type PolicyRecord = { readonly policies: readonly (readonly [VariableKey, MergePolicy])[] };

/** How what executions commit is merged into a variable that others change too: by namespace and key, `last` unless set. */
export class MergePolicies {
  readonly #store: Store;
  readonly #records: WatchedRecords<ReadonlyMap<VariableKey, MergePolicy>>;

  constructor(store: Store) {
    this.#store = store;
    this.#records = new WatchedRecords(store, 'policy', policiesIn);
  }

  /** Those that are not `last`. */
  async of(namespace: Namespace): Promise<ReadonlyMap<VariableKey, MergePolicy>> {
    return await this.#records.of(namespace);
  }

  /** After a namespace was erased. */
  drop(namespace: Namespace): void {
    this.#records.drop(namespace);
  }

  /** For the commits to come, whether the variable exists or not. @throws BridgeError `quota`, `conflict` */
  async set(
    namespace: Namespace,
    key: VariableKey,
    policy: MergePolicy,
    note?: unknown,
  ): Promise<void> {
    const record = keyOf(namespace);
    for (let tries = 0; tries < TRIES_MAX; tries++) {
      const entry = await this.#store.get(record);
      const policies = new Map(policiesIn(entry?.value));
      if (policy === 'last') policies.delete(key);
      else policies.set(key, policy);
      if (policies.size > POLICIES_MAX)
        throw new BridgeError(
          'quota',
          `${namespaceText(namespace)} has ${POLICIES_MAX} policies already`,
        );
      const committed = await this.#store.commit({
        checks: [{ key: record, version: entry?.version ?? 0 }],
        ops: [{ put: record, value: packRecord({ policies: [...policies] }) }],
        note,
      });
      if (committed.ok) return;
    }
    throw new BridgeError(
      'conflict',
      `the policies of ${namespaceText(namespace)} keep changing; try again`,
    );
  }
}

const keyOf = (namespace: Namespace): Key => ['policy', namespaceText(namespace)];

const policiesIn = (value: Uint8Array | undefined): ReadonlyMap<VariableKey, MergePolicy> =>
  new Map(value && unpackRecord<PolicyRecord>(value).policies);
