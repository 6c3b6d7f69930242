import { setTimeout as sleep } from 'node:timers/promises';
import type { Logger } from 'pino';
import type { Link } from '#bridge/client/link.js';
import { asBridgeError } from '#bridge/wire/errors.js';
import { CALL_DEADLINE_MS } from '#bridge/wire/limits.js';
import type { ExecutionId } from '#bridge/wire/names.js';
import { LOST_MAX } from '#bridge/wire/protocol/executions.js';
import type { Life } from './life.js';

/** One small call: what nobody told us of (an answer that was lost, a creation that came too late) is found within this. */
const EVERY_MS = 60_000;
/** After a call that failed; waiting for the link has its own patience. */
const RETRY_MS = 5_000;

/** A creation whose caller has gone can still come about: so long the server is asked every `RETRY_MS`. */
const UNSURE_MS = CALL_DEADLINE_MS + RETRY_MS;

/** Reasons kept for what the server has not been told yet; without one it is told a plain one. */
const REASONS_MAX = 10_000;

export interface LostOptions {
  readonly link: Link;
  readonly life: Pick<Life, 'instance' | 'reason' | 'settled'>;
  /** Whether an execution runs here, or is about to. */
  readonly isOurs: (executionId: ExecutionId) => boolean;
  readonly log: Logger;
  readonly everyMs?: number;
  readonly retryMs?: number;
}

/**
 * Compares what the server thinks runs here with what does, at the start, after every `add` and once a minute, and has what
 * does not run ended as lost: else it would count against its owner's quota for ever.
 */
export class LostExecutions implements AsyncDisposable {
  readonly #options: LostOptions;
  readonly #reasons = new Map<ExecutionId, string>();
  readonly #closing = new AbortController();
  readonly #keeper: Promise<void>;
  #pause = new AbortController();
  #isSettled = false;
  #unsureUntil = 0;

  constructor(options: LostOptions) {
    this.#options = options;
    this.#keeper = this.#keep();
  }

  /** This one may not have ended for the server, and is not ours any more: it is looked for at once. */
  add(executionId: ExecutionId, reason: string): void {
    const [oldest] = this.#reasons.keys();
    if (this.#reasons.size >= REASONS_MAX && oldest !== undefined) this.#reasons.delete(oldest);
    this.#reasons.set(executionId, reason);
    this.#unsureUntil = performance.now() + UNSURE_MS;
    this.#pause.abort();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#closing.abort();
    await this.#keeper;
  }

  async #keep(): Promise<void> {
    const { log, everyMs = EVERY_MS, retryMs = RETRY_MS } = this.#options;
    const { signal } = this.#closing;
    while (!signal.aborted) {
      this.#pause = new AbortController();
      let pauseMs = everyMs;
      try {
        await this.#compare(signal);
        if (performance.now() < this.#unsureUntil) pauseMs = retryMs;
      } catch (error) {
        const { code, message } = asBridgeError(error);
        if (signal.aborted) return;
        if (code === 'unavailable' || code === 'timeout') pauseMs = retryMs;
        log.warn({ reason: message }, 'lost executions are not reported yet');
      }
      const until = AbortSignal.any([signal, this.#pause.signal]);
      await sleep(pauseMs, undefined, { signal: until, ref: false }).catch(() => {});
    }
  }

  async #compare(signal: AbortSignal): Promise<void> {
    const { link, life, isOurs, log } = this.#options;
    const { instance } = life;
    const connection = await link.connection(undefined, signal);
    const { executionIds } = await connection.call('execution.mine', { instance }, { signal });
    // An execution is ours from before its creation until after its end, so none can come in between.
    const byReason = new Map<string, ExecutionId[]>();
    for (const id of executionIds) {
      if (isOurs(id)) continue;
      const plain = this.#isSettled ? 'mountd does not run it' : life.reason;
      const reason = this.#reasons.get(id) ?? plain;
      byReason.set(reason, [...(byReason.get(reason) ?? []), id]);
    }
    for (const [reason, ids] of byReason)
      for (let at = 0; at < ids.length; at += LOST_MAX) {
        const some = ids.slice(at, at + LOST_MAX);
        const params = { executionIds: some, instance, reason: reason.slice(0, 1024) };
        await connection.call('execution.lose', params, { signal });
        for (const id of some) this.#reasons.delete(id);
        log.warn({ executions: some, reason }, 'executions were lost');
      }
    this.#isSettled = true;
    life.settled();
  }
}
