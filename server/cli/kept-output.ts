import { setImmediate as turn } from 'node:timers/promises';
import type { Connection, ControlConnection } from '#bridge/client/connection.js';
import type { ControlOperations } from '#bridge/wire/control.js';
import { asBridgeError, BridgeError } from '#bridge/wire/errors.js';
import { parse } from '#bridge/wire/frames.js';
import { CALL_DEADLINE_MS_MAX } from '#bridge/wire/limits.js';
import type { ExecutionId } from '#bridge/wire/names.js';
import {
  KEPT,
  Kept,
  type LogsRequest,
  type LogsResult,
  type Received,
} from '#bridge/wire/watch.js';
import type { Installation } from '#server/admin/installation.js';
import { LOST_WAIT_MS } from './run-command.js';

/** One call uses one channel; the number only ties the pushes to it. */
const LOGS_CHANNEL = 1;

/** What an execution has printed, as mountd keeps it: whichever process of it serves, every byte comes once. */
export class KeptOutput implements Disposable {
  readonly #target: Installation;
  readonly #request: LogsRequest;
  readonly #signal: AbortSignal;
  #mountd: ControlConnection<ControlOperations> | undefined;
  #isPaused = false;
  #received: Received | undefined;

  constructor(target: Installation, request: LogsRequest, signal: AbortSignal) {
    this.#target = target;
    this.#request = request;
    this.#signal = signal;
  }

  /** Stops reading until `resume`. mountd and the script go on; what is not kept for so long is missing then. */
  pause(): void {
    this.#isPaused = true;
    this.#mountd?.pause();
  }

  resume(): void {
    this.#isPaused = false;
    this.#mountd?.resume();
  }

  /**
   * Resolves when there is no more; undefined: nobody wants to know any more. Once.
   * @throws BridgeError `not_found` when mountd does not know the execution, or `unavailable`
   */
  async end(onKept: (kept: Kept) => void): Promise<LogsResult | undefined> {
    for (;;) {
      const mountd = await this.#target.control(LOST_WAIT_MS);
      this.#mountd?.[Symbol.dispose]();
      this.#mountd = mountd;
      if (this.#isPaused) mountd.pause();
      let isCut = false;
      void mountd.closed.then(() => {
        isCut = true;
      });
      try {
        return await this.#asked(mountd, onKept);
      } catch (error) {
        await turn(); // the end of the connection is told after that of its calls
        if (this.#signal.aborted) return undefined;
        if (!isCut) throw error;
      }
    }
  }

  async #asked(
    mountd: ControlConnection<ControlOperations>,
    onKept: (kept: Kept) => void,
  ): Promise<LogsResult> {
    mountd.onPush = (_channel, topic, value) => {
      if (topic !== KEPT) return;
      const kept = parse(Kept, value, 'a piece of output');
      this.#received = kept.received;
      onKept(kept);
    };
    const received = this.#received;
    return await mountd.call(
      'logs',
      { ...this.#request, ...(received !== undefined && { received }) },
      { channel: LOGS_CHANNEL, deadlineMs: CALL_DEADLINE_MS_MAX, signal: this.#signal },
    );
  }

  [Symbol.dispose](): void {
    this.#mountd?.[Symbol.dispose]();
  }
}

/** Why mountd here does not know an execution: the server knows. `kept`: what it would have had of one that has ended. */
export async function notHere(
  target: Installation,
  executionId: ExecutionId,
  kept: string,
  error: unknown,
): Promise<BridgeError> {
  const failure = asBridgeError(error);
  if (failure.code !== 'not_found') return failure;
  let server: Connection | undefined;
  try {
    server = await target.operator();
    const { record } = await server.call('execution.get', { executionId });
    const { status, host, finishedAt } = record;
    const at = typeof finishedAt === 'number' ? `, ${new Date(finishedAt).toISOString()}` : '';
    const sentence =
      typeof status === 'string'
        ? `execution ${executionId} has ended (${status}${at}, on ${String(host)}): ${kept}; what the server keeps: cronium exec show ${executionId}`
        : `execution ${executionId} runs on ${String(host)}, and not under the mountd of this machine: ask there`;
    return new BridgeError('not_found', sentence, { cause: error });
  } catch (cause) {
    // The server is away, or knows it no better.
    const other = asBridgeError(cause);
    return other.code === 'not_found' ? other : failure;
  } finally {
    server?.[Symbol.dispose]();
  }
}
