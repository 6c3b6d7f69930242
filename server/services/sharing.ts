import { BridgeError } from '#bridge/wire/errors.js';
import { type Namespace, namespaceText } from '#bridge/wire/names.js';
import type { Share } from '#bridge/wire/protocol.js';
import type { Key, Store } from '#server/store/store.js';
import { packRecord, unpackRecord } from './record.js';
import { WatchedRecords } from './watched-records.js';

/** Rules of one namespace: they are kept in one record, which every call on a foreign namespace reads. */
const SHARES_MAX = 1000;

/** Two operators at once are two tries; more only a loop could need. */
const TRIES_MAX = 10;

/** Which variables of a namespace the executions of another one may use. */
export class Sharing {
  readonly #store: Store;
  readonly #records: WatchedRecords<readonly Share[]>;

  constructor(store: Store) {
    this.#store = store;
    this.#records = new WatchedRecords(store, 'share', sharesIn);
  }

  async list(namespace: Namespace): Promise<readonly Share[]> {
    return await this.#records.of(namespace);
  }

  /** The prefixes of `owner`'s keys that `user`'s executions may use so. Empty = none. */
  async prefixes(owner: Namespace, user: Namespace, want: 'r' | 'w'): Promise<string[]> {
    const name = namespaceText(user);
    return (await this.#records.of(owner))
      .filter((share) => namespaceText(share.with) === name)
      .filter(({ access }) => want === 'r' || access === 'rw')
      .map(({ prefix }) => prefix);
  }

  /** After a namespace was erased. */
  drop(namespace: Namespace): void {
    this.#records.drop(namespace);
  }

  /** Replaces what was shared with the same namespace under the same prefix. @throws BridgeError `quota`, `conflict` */
  async set(owner: Namespace, share: Share, note?: unknown): Promise<void> {
    if (namespaceText(owner) === namespaceText(share.with))
      throw new BridgeError('invalid', 'a namespace need not be shared with itself');
    await this.#change(owner, note, (shares) => [...without(shares, share), share]);
  }

  /** @throws BridgeError `not_found` */
  async remove(
    owner: Namespace,
    share: Pick<Share, 'with' | 'prefix'>,
    note?: unknown,
  ): Promise<void> {
    await this.#change(owner, note, (shares) => {
      const left = without(shares, share);
      if (left.length === shares.length)
        throw new BridgeError('not_found', 'that is not shared; see: cronium var share');
      return left;
    });
  }

  async #change(
    owner: Namespace,
    note: unknown,
    make: (shares: readonly Share[]) => readonly Share[],
  ): Promise<void> {
    const record: Key = ['share', namespaceText(owner)];
    for (let tries = 0; tries < TRIES_MAX; tries++) {
      const entry = await this.#store.get(record);
      const shares = make(sharesIn(entry?.value));
      if (shares.length > SHARES_MAX)
        throw new BridgeError('quota', `${namespaceText(owner)} has ${SHARES_MAX} rules already`);
      const committed = await this.#store.commit({
        checks: [{ key: record, version: entry?.version ?? 0 }],
        ops: [{ put: record, value: packRecord({ shares }) }],
        note,
      });
      if (committed.ok) return;
    }
    throw new BridgeError(
      'conflict',
      `the rules of ${namespaceText(owner)} keep changing; try again`,
    );
  }
}

const sharesIn = (value: Uint8Array | undefined): readonly Share[] =>
  value === undefined ? [] : unpackRecord<{ shares: readonly Share[] }>(value).shares;

const without = (shares: readonly Share[], gone: Pick<Share, 'with' | 'prefix'>): Share[] =>
  shares.filter(
    (share) =>
      share.prefix !== gone.prefix || namespaceText(share.with) !== namespaceText(gone.with),
  );
