import { setTimeout as sleep } from 'node:timers/promises';
import { asBridgeError, BridgeError } from '#bridge/wire/errors.js';
import { Connection, type ConnectOptions } from './connection.js';

/** First retry at once-ish, then doubling, give or take half by chance. */
const RETRY_MS_MIN = 50;
/** While calls may wait for the server: one that is back is found within 300 ms, and asking costs next to nothing. */
const RETRY_MS_MAX_IN_BUDGET = 200;
/** Afterwards; nobody waits any more. */
const RETRY_MS_MAX = 5_000;

/** How long a call waits for a lost link before it fails: a server restart passes unseen, a dead server does not hang scripts. */
export const OUTAGE_BUDGET_MS = 30_000;

export interface LinkStatus {
  readonly connected: boolean;
  /** When the present state began, milliseconds since the epoch. */
  readonly since: number;
  /** Why there is no connection, when there is none. */
  readonly problem?: string;
}

/** One lasting link to the server: connects again whenever the connection is lost, until disposed. */
export class Link implements AsyncDisposable {
  readonly #options: ConnectOptions;
  readonly #closing = new AbortController();
  readonly #keeper: Promise<void>;
  #current: Connection | undefined;
  #present: LinkStatus = { connected: false, since: Date.now(), problem: 'connecting' };
  #waiting: { arrived: (connection: Connection) => void; ended: () => void }[] = [];

  #onConnect: (connection: Connection) => void = () => {};

  /** How long calls wait for a lost link. */
  readonly outageBudgetMs: number;

  constructor(options: ConnectOptions, outageBudgetMs = OUTAGE_BUDGET_MS) {
    this.outageBudgetMs = outageBudgetMs;
    this.#options = options;
    this.#keeper = this.#keep();
  }

  get status(): LinkStatus {
    return this.#present;
  }

  #onStatus: (status: LinkStatus) => void = () => {};

  /** Called when it comes or goes, and at once. */
  set onStatus(listener: (status: LinkStatus) => void) {
    this.#onStatus = listener;
    listener(this.#present);
  }

  /** Every try that fails has another reason; it has been gone since the first. */
  set #status(status: LinkStatus) {
    const isSame = !status.connected && !this.#present.connected;
    this.#present = isSame ? { ...status, since: this.#present.since } : status;
    if (!isSame || status.problem !== this.#before) this.#onStatus(this.#present);
    this.#before = status.problem;
  }

  #before: string | undefined;

  /** Called with every new connection before anyone else may use it, and at once with the present one. */
  set onConnect(listener: (connection: Connection) => void) {
    this.#onConnect = listener;
    if (this.#current !== undefined) listener(this.#current);
  }

  /** The connection, waiting for one up to `budgetMs`. @throws BridgeError `unavailable`, `interrupted` */
  async connection(budgetMs = this.outageBudgetMs, signal?: AbortSignal): Promise<Connection> {
    if (this.#current !== undefined) return this.#current;
    if (this.#closing.signal.aborted) throw linkClosed();
    if (signal?.aborted === true) throw new BridgeError('interrupted', 'interrupted');
    return await new Promise((resolve, reject) => {
      const finish = () => {
        clearTimeout(timer);
        signal?.removeEventListener('abort', interrupted);
        this.#waiting = this.#waiting.filter((waiting) => waiting !== mine);
      };
      const mine = {
        arrived: (connection: Connection) => {
          finish();
          resolve(connection);
        },
        ended: () => {
          finish();
          reject(linkClosed());
        },
      };
      const interrupted = () => {
        finish();
        reject(new BridgeError('interrupted', 'interrupted while the server was away'));
      };
      const timer = setTimeout(() => {
        finish();
        const problem = this.#present.problem ?? 'no connection';
        reject(
          new BridgeError(
            'unavailable',
            `the server was out of reach for ${budgetMs} ms: ${problem}`,
          ),
        );
      }, budgetMs);
      signal?.addEventListener('abort', interrupted, { once: true });
      this.#waiting.push(mine);
    });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#closing.abort();
    for (const { ended } of this.#waiting) ended();
    this.#current?.[Symbol.dispose]();
    this.#current = undefined;
    await this.#keeper;
  }

  async #keep(): Promise<void> {
    const { signal } = this.#closing;
    let retryMs = RETRY_MS_MIN;
    let lostAt = performance.now();
    while (!signal.aborted) {
      let reason: BridgeError;
      let hintMs = 0;
      try {
        const connection = await Connection.open({ ...this.#options, signal });
        retryMs = RETRY_MS_MIN;
        this.#arrive(connection);
        reason = await connection.closed;
        lostAt = performance.now();
      } catch (error) {
        reason = asBridgeError(error);
        hintMs = Math.min(reason.retryAfterMs ?? 0, RETRY_MS_MAX);
      }
      this.#current = undefined;
      this.#status = { connected: false, since: Date.now(), problem: reason.message };
      const pauseMs = hintMs + retryMs * (0.5 + Math.random());
      await sleep(pauseMs, undefined, { signal }).catch(() => {});
      const isAwaited = performance.now() - lostAt < this.outageBudgetMs;
      retryMs = Math.min(retryMs * 2, isAwaited ? RETRY_MS_MAX_IN_BUDGET : RETRY_MS_MAX);
    }
  }

  #arrive(connection: Connection): void {
    if (this.#closing.signal.aborted) {
      connection[Symbol.dispose]();
      return;
    }
    // Calls under way still get their answers on it; those to come wait for the next one.
    connection.onClosing = () => {
      this.#current = undefined;
      this.#status = {
        connected: false,
        since: Date.now(),
        problem: 'the server is shutting down',
      };
    };
    this.#onConnect(connection);
    this.#current = connection;
    this.#status = { connected: true, since: Date.now() };
    for (const { arrived } of this.#waiting) arrived(connection);
  }
}

const linkClosed = (): BridgeError =>
  new BridgeError('unavailable', 'the link to the server was closed here');
