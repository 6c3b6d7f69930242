import type { TokenRecord } from '#bridge/wire/protocol/credentials.js';
import { type Key, type Store, SYSTEM } from '#server/store/store.js';
import { packRecord, unpackRecord } from './record.js';

const PREFIX: Key = ['token', SYSTEM];

/** Records added between two sweeps: expired ones never outnumber the living by much more, and a sweep reads them all. */
const SWEEP_EVERY = 1000;
/** Deleted in one commit: far below what a commit may hold. */
const SWEPT_AT_ONCE = 500;

/** Which tokens were handed out: by `execution.create` and `token.mint`, not by renewal. The tokens themselves are not kept. */
export class TokenRecords {
  readonly #store: Store;
  #untilSweep = SWEEP_EVERY;

  constructor(store: Store) {
    this.#store = store;
  }

  async add({ jti, ...record }: TokenRecord, note?: unknown): Promise<void> {
    await this.#store.commit({
      ops: [{ put: [...PREFIX, jti], value: packRecord(record) }],
      ...(note !== undefined && { note }),
    });
    if (--this.#untilSweep > 0) return;
    // The record is kept, which is what was asked; what could not be swept now is swept next time.
    await this.list().catch(() => {});
  }

  async has(jti: string): Promise<boolean> {
    return (await this.#store.get([...PREFIX, jti])) !== undefined;
  }

  /** Those that have not expired, the first to expire first; removes the others. */
  async list(): Promise<TokenRecord[]> {
    this.#untilSweep = SWEEP_EVERY;
    const now = this.#store.now();
    const living: TokenRecord[] = [];
    const expired: Key[] = [];
    for await (const { key, value } of this.#store.range(PREFIX)) {
      const record = unpackRecord<Omit<TokenRecord, 'jti'>>(value);
      if (record.expiresAt > now) living.push({ jti: String(key[2]), ...record });
      else expired.push(key);
    }
    for (let at = 0; at < expired.length; at += SWEPT_AT_ONCE)
      await this.#store.commit({
        ops: expired.slice(at, at + SWEPT_AT_ONCE).map((del) => ({ del })),
      });
    return living.sort((a, b) => a.expiresAt - b.expiresAt);
  }
}
