import { BridgeError } from '#bridge/wire/errors.js';
import type { Revocation } from '#bridge/wire/protocol/credentials.js';
import { type Entry, type Key, type Store, SYSTEM } from '#server/store/store.js';
import { packRecord, unpackRecord } from './record.js';
import type { Grant } from './tokens.js';

const PREFIX: Key = ['revoked', SYSTEM];

type Listener = (revocation: Revocation) => void;

/**
 * What is refused although its signature is good: certificates by thumbprint; tokens by their id, the id of the token they
 * were renewed from, or their execution's. Asked without waiting, from a set that follows the store: another server process'
 * revocations count as well.
 */
export class Revocations implements Disposable {
  readonly #store: Store;
  readonly #revoked = new Map<string, Revocation>();
  readonly #listeners = new Set<Listener>();
  readonly #unwatch: () => void;

  private constructor(store: Store) {
    this.#store = store;
    this.#unwatch = store.watch(PREFIX, ({ entries }) => {
      for (const entry of entries) this.#take(entry);
    });
  }

  /** Knows all that is revoked when it resolves. @throws BridgeError when the store cannot be read: serve nobody then */
  static async open(store: Store): Promise<Revocations> {
    const revocations = new Revocations(store);
    try {
      // Watched already: what comes while this reads is taken twice, which changes nothing.
      for await (const entry of store.range(PREFIX)) revocations.#take(entry);
    } catch (error) {
      revocations[Symbol.dispose]();
      throw error;
    }
    return revocations;
  }

  /** Of a certificate. */
  isRevoked(thumbprint: string): boolean {
    return this.#revoked.has(name('certificate', thumbprint));
  }

  isTokenRevoked({
    jti,
    family,
    executionId,
  }: Pick<Grant, 'jti' | 'family' | 'executionId'>): boolean {
    return [jti, family, executionId].some((id) => this.#revoked.has(name('token', id)));
  }

  /** Calls `listener` once for everything revoked from now on, here or elsewhere. Must not throw. Returns the stop. */
  onRevoked(listener: Listener): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  /**
   * Resolves once durable; listeners have been called by then. What is revoked already stays as it was.
   * `note` goes with the commit, for its recorder.
   */
  async revokeCertificate(
    thumbprint: string,
    reason: string,
    by: string,
    note?: unknown,
  ): Promise<Revocation> {
    return await this.#revoke('certificate', thumbprint, reason, by, note);
  }

  /** A token's id or an execution's. */
  async revokeToken(id: string, reason: string, by: string, note?: unknown): Promise<Revocation> {
    return await this.#revoke('token', id, reason, by, note);
  }

  /** The oldest first. */
  list(): Revocation[] {
    return [...this.#revoked.values()].sort((a, b) => a.revokedAt - b.revokedAt);
  }

  [Symbol.dispose](): void {
    this.#unwatch();
    this.#listeners.clear();
  }

  async #revoke(
    kind: Revocation['kind'],
    id: string,
    reason: string,
    by: string,
    note: unknown,
  ): Promise<Revocation> {
    const key: Key = [...PREFIX, kind, id];
    const revokedAt = this.#store.now();
    const committed = await this.#store.commit({
      checks: [{ key, version: 0 }],
      ops: [{ put: key, value: packRecord({ reason, by, revokedAt }) }],
      ...(note !== undefined && { note }),
    });
    if (!committed.ok) {
      const entry = await this.#store.get(key);
      if (entry !== undefined) this.#take(entry);
    }
    const revocation = this.#revoked.get(name(kind, id));
    if (revocation === undefined)
      throw new BridgeError('unavailable', 'whether it was revoked is not known; try again');
    return revocation;
  }

  #take({ key, value }: Entry): void {
    const [, , kind, id] = key;
    if ((kind !== 'certificate' && kind !== 'token') || typeof id !== 'string') return;
    if (this.#revoked.has(name(kind, id))) return;
    const record = unpackRecord<Omit<Revocation, 'kind' | 'id'>>(value);
    const revocation: Revocation = { kind, id, ...record };
    this.#revoked.set(name(kind, id), revocation);
    for (const listener of this.#listeners) listener(revocation);
  }
}

const name = (kind: Revocation['kind'], id: string) => `${kind}:${id}`;
