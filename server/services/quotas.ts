import { BridgeError } from '#bridge/wire/errors.js';
import { type Namespace, namespaceText } from '#bridge/wire/names.js';
import {
  QUOTA_CEILINGS,
  QUOTA_KINDS,
  type QuotaKind,
  type QuotaLimits,
  type QuotaOverrides,
} from '#bridge/wire/protocol/quotas.js';
import { type Entry, type Key, type Store, SYSTEM } from '#server/store/store.js';
import { packRecord, unpackRecord } from './record.js';

export const QUOTA_DEFAULTS: QuotaLimits = {
  // A legacy document of 100,000 members is the largest seen in the field.
  variables: 100_000,
  // What one message can carry: an execution is given all variables when it starts.
  bytes: QUOTA_CEILINGS.bytes,
  // What a few large hosts can run together.
  executions: 2_000,
  // Twice the executions: while a host comes back after a lost connection, both its old channels and its new ones are open.
  connections: 4_000,
};

/** Namespaces with limits of their own. All are kept in memory, and all fit in the one answer that lists them. */
const OVERRIDDEN_MAX = 100_000;

/** Two operators at once are two tries; more only a loop could need. */
const TRIES_MAX = 10;

/** The key may be hidden by an encrypting store, so the record names its namespace. No overrides: it was reset. */
interface QuotaRecord {
  readonly namespace: Namespace;
  readonly overrides: QuotaOverrides;
}

interface Kept extends QuotaRecord {
  readonly version: number;
}

/**
 * What every namespace may have. Overrides are stored, and kept in memory by watching the store, so that asking costs nothing
 * and what another server sets counts here too, once its commit is seen. Who has how much is counted by others.
 */
export class Quotas implements Disposable {
  readonly #store: Store;
  readonly #kept = new Map<string, Kept>();
  readonly #unwatch: () => void;

  private constructor(store: Store) {
    this.#store = store;
    this.#unwatch = store.watch(PREFIX, ({ entries }) => {
      for (const entry of entries) this.#keep(entry);
    });
  }

  static async open(store: Store): Promise<Quotas> {
    const quotas = new Quotas(store);
    try {
      // Watched already: what is set meanwhile arrives twice, and the version says which is newer.
      for await (const entry of store.range(PREFIX)) quotas.#keep(entry);
    } catch (error) {
      quotas[Symbol.dispose]();
      throw error;
    }
    return quotas;
  }

  limitsOf(namespace: Namespace): QuotaLimits {
    const overrides = this.#kept.get(namespaceText(namespace))?.overrides;
    return overrides === undefined ? QUOTA_DEFAULTS : merged(QUOTA_DEFAULTS, overrides);
  }

  overridesOf(namespace: Namespace): QuotaOverrides {
    return this.#kept.get(namespaceText(namespace))?.overrides ?? {};
  }

  /** Namespaces with limits of their own, by name. */
  list(): QuotaRecord[] {
    return [...this.#kept]
      .filter(([, { overrides }]) => hasAny(overrides))
      .sort(([a], [b]) => (a < b ? -1 : 1))
      .map(([, { namespace, overrides }]) => ({ namespace, overrides }));
  }

  /**
   * That `namespace` may have `more` in addition to the `used` it has. Whoever is over, because the limit was lowered, keeps
   * what there is and gets nothing more. @throws BridgeError `quota`
   */
  assertRoom(namespace: Namespace, kind: QuotaKind, used: number, more = 1): void {
    if (more <= 0) return;
    const allowed = this.#kept.get(namespaceText(namespace))?.overrides[kind];
    const limit = allowed ?? QUOTA_DEFAULTS[kind];
    if (used + more > limit) throw refusal(namespace, kind, used, more, limit);
  }

  /** Resolves once it is stored and counts here. @throws BridgeError `quota`, `conflict` */
  async set(namespace: Namespace, overrides: QuotaOverrides, note?: unknown): Promise<QuotaLimits> {
    await this.#change(namespace, note, (before) => merged(before, overrides));
    return this.limitsOf(namespace);
  }

  /** Everything by default again. @throws BridgeError `conflict` */
  async reset(namespace: Namespace, note?: unknown): Promise<QuotaLimits> {
    await this.#change(namespace, note, () => ({}));
    return this.limitsOf(namespace);
  }

  [Symbol.dispose](): void {
    this.#unwatch();
  }

  async #change(
    namespace: Namespace,
    note: unknown,
    changed: (before: QuotaOverrides) => QuotaOverrides,
  ): Promise<void> {
    const name = namespaceText(namespace);
    const key: Key = ['quota', SYSTEM, name];
    for (let tries = 0; tries < TRIES_MAX; tries++) {
      const entry = await this.#store.get(key);
      const before = entry && unpackRecord<QuotaRecord>(entry.value);
      const overrides = changed(before?.overrides ?? {});
      if (!hasAny(overrides) && entry === undefined) return;
      if (entry === undefined && this.#kept.size >= OVERRIDDEN_MAX)
        throw new BridgeError(
          'quota',
          `${OVERRIDDEN_MAX} users and organisations have had quotas of their own; no more can`,
        );
      const value = packRecord({ namespace, overrides });
      const committed = await this.#store.commit({
        checks: [{ key, version: entry?.version ?? 0 }],
        ops: [{ put: key, value }],
        note,
      });
      if (!committed.ok) continue;
      // The watcher heard of it before the commit resolved; a store in a cluster may be later.
      this.#keep({ key, value, version: committed.version });
      return;
    }
    throw new BridgeError('conflict', `the quotas of ${name} keep changing; try again`);
  }

  #keep({ value, version }: Entry): void {
    const { namespace, overrides } = unpackRecord<QuotaRecord>(value);
    const name = namespaceText(namespace);
    if (version > (this.#kept.get(name)?.version ?? 0))
      this.#kept.set(name, { namespace, overrides, version });
  }
}

const PREFIX: Key = ['quota', SYSTEM];

function merged<T extends QuotaOverrides>(base: T, overrides: QuotaOverrides): T {
  const result = { ...base };
  for (const kind of QUOTA_KINDS) {
    const value = overrides[kind];
    if (value !== undefined) result[kind] = value;
  }
  return result;
}

const hasAny = (overrides: QuotaOverrides): boolean =>
  QUOTA_KINDS.some((kind) => overrides[kind] !== undefined);

/** What each counts, and what makes room. */
const WORDS: Readonly<Record<QuotaKind, { readonly has: string; readonly less: string }>> = {
  variables: { has: 'variables', less: 'delete some' },
  bytes: { has: 'bytes of variables', less: 'delete some variables' },
  executions: { has: 'running executions', less: 'wait until some have ended' },
  connections: { has: 'open channels', less: 'wait until some are closed' },
};

function refusal(
  namespace: Namespace,
  kind: QuotaKind,
  used: number,
  more: number,
  limit: number,
): BridgeError {
  const { has, less } = WORDS[kind];
  const wants = more === 1 ? 'one more was' : `${more} more were`;
  const owner = 'user' in namespace ? `--user ${namespace.user}` : `--org ${namespace.org}`;
  const how =
    limit < QUOTA_CEILINGS[kind]
      ? `${less}, or allow more with: cronium quota set ${owner} --${kind} N`
      : `${less}; more than ${limit} cannot be allowed`;
  return new BridgeError(
    'quota',
    `${namespaceText(namespace)} has ${used} of ${limit} ${has}, and ${wants} asked for: ${how}`,
  );
}
