import type { Log } from '#bridge/wire/control.js';
import type { ExecutionId } from '#bridge/wire/names.js';
import type { RunListener } from './control-server.js';

/** Bytes of each stream. */
export type Received = Readonly<Record<Log['stream'], number>>;

/** Whoever asked for a run comes back within a second; one that does not has gone with the process that died. */
const COMES_BACK_MS = 20_000;

/**
 * Stands for whoever asked for a run, after the process that had the connection died: nothing is passed on before they are
 * back, and what they have already is left out.
 */
export class AwaitedListener implements RunListener, Disposable {
  readonly #left = { stdout: 0, stderr: 0 };
  readonly #timer: NodeJS.Timeout;
  readonly #gone = new AbortController();
  readonly #back: Promise<RunListener>;
  #came: (listener: RunListener) => void = () => {};

  constructor(waitMs = COMES_BACK_MS) {
    this.#back = new Promise((resolve) => {
      this.#came = resolve;
    });
    this.#timer = setTimeout(() => {
      this.#gone.abort();
      this.#came(NOBODY);
    }, waitMs);
  }

  /** Aborted when whoever asked has gone for good: the script is stopped. */
  get signal(): AbortSignal {
    return this.#gone.signal;
  }

  /** They are back, and have had this much. `signal`: they go. */
  attach(listener: RunListener, received: Received, signal: AbortSignal): void {
    clearTimeout(this.#timer);
    Object.assign(this.#left, received);
    const go = () => this.#gone.abort();
    if (signal.aborted) go();
    signal.addEventListener('abort', go, { once: true });
    this.#came(listener);
  }

  /** They may have been told, or not. */
  created(executionId: ExecutionId): void {
    void this.#back.then((listener) => listener.created(executionId));
  }

  async log({ stream, data, ...log }: Log): Promise<void> {
    const listener = await this.#back;
    if (log.isWarning === true) {
      await listener.log({ stream, data, ...log });
      return;
    }
    const skipped = Math.min(this.#left[stream], data.byteLength);
    this.#left[stream] -= skipped;
    if (skipped < data.byteLength) await listener.log({ stream, data: data.subarray(skipped) });
  }

  [Symbol.dispose](): void {
    clearTimeout(this.#timer);
  }
}

const NOBODY: RunListener = { created: () => {}, log: async () => {} };
