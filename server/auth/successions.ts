import { BridgeError } from '#bridge/wire/errors.js';
import { type Entry, type Key, type Store, SYSTEM } from '#server/store/store.js';
import { packRecord, unpackRecord } from './record.js';

const PREFIX: Key = ['succeeded', SYSTEM];

/** A token outlives a few rotations at most; whoever rotates faster than tokens expire asks for new executions. */
const STEPS_MAX = 8;

/**
 * Which certificate took over from which at the same host: a token that is bound to the old one is good on a connection of
 * the new one. Only an operator says so; a name in common is not enough.
 */
export class Successions implements Disposable {
  readonly #store: Store;
  readonly #isRevoked: (thumbprint: string) => boolean;
  readonly #predecessors = new Map<string, string>();
  readonly #unwatch: () => void;

  private constructor(store: Store, isRevoked: (thumbprint: string) => boolean) {
    this.#store = store;
    this.#isRevoked = isRevoked;
    this.#unwatch = store.watch(PREFIX, ({ entries }) => {
      for (const entry of entries) this.#take(entry);
    });
  }

  static async open(
    store: Store,
    isRevoked: (thumbprint: string) => boolean,
  ): Promise<Successions> {
    const successions = new Successions(store, isRevoked);
    try {
      for await (const entry of store.range(PREFIX)) successions.#take(entry);
    } catch (error) {
      successions[Symbol.dispose]();
      throw error;
    }
    return successions;
  }

  /** The certificate itself and those it took over from, up to one that is revoked: whose tokens it may use. */
  lineOf(thumbprint: string): string[] {
    const line = [thumbprint];
    for (let at = this.#predecessors.get(thumbprint); at !== undefined; ) {
      if (line.length > STEPS_MAX || line.includes(at) || this.#isRevoked(at)) break;
      line.push(at);
      at = this.#predecessors.get(at);
    }
    return line;
  }

  /** @throws BridgeError `conflict` when it has taken over from another one already */
  async succeed(thumbprint: string, successor: string, by: string, note?: unknown): Promise<void> {
    const key: Key = [...PREFIX, successor];
    const committed = await this.#store.commit({
      checks: [{ key, version: 0 }],
      ops: [{ put: key, value: packRecord({ thumbprint, by, at: this.#store.now() }) }],
      ...(note !== undefined && { note }),
    });
    if (!committed.ok && this.#predecessors.get(successor) !== thumbprint)
      throw new BridgeError('conflict', 'that certificate has taken over from another one already');
  }

  [Symbol.dispose](): void {
    this.#unwatch();
  }

  #take({ key: [, , successor], value }: Entry): void {
    if (typeof successor === 'string')
      this.#predecessors.set(successor, unpackRecord<{ thumbprint: string }>(value).thumbprint);
  }
}
