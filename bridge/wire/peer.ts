import { asBridgeError, BridgeError } from './errors.js';
import {
  type CallFrame,
  decodeFrames,
  encodeFrame,
  type FailureFrame,
  failureFrame,
  failureOf,
  parse,
  plain,
  type ResultFrame,
} from './frames.js';
import {
  BATCH_BYTES,
  BUSY_RETRY_MS,
  CALL_DEADLINE_MS,
  MESSAGE_FRAMES_MAX,
  PENDING_CALLS_MAX,
  SERVED_BYTES_MAX,
} from './limits.js';
import { misplaced } from './misplaced.js';
import type { Operations, Params, Result } from './protocol.js';

export interface CallOptions {
  /** 0 = the connection itself. */
  readonly channel?: number;
  readonly deadlineMs?: number;
  readonly signal?: AbortSignal;
}

/** One call as its server sees it. `signal` aborts at the deadline and when the link is lost. */
export interface Call<P> {
  readonly params: P;
  readonly channel: number;
  readonly signal: AbortSignal;
  /** Of the message, roughly: what it costs. */
  readonly bytes?: number;
  /** For whoever serves: goes with what the call changes. */
  note?: unknown;
}

/** One function per operation of a table: a missing or mistyped one does not compile. */
export type Handlers<T extends Operations> = {
  readonly [O in keyof T]: (call: Call<Params<T, O>>) => Promise<Result<T, O>>;
};

/** What a peer does with a call whose operation exists and whose parameters were checked. */
export type Serve = (op: string, call: Call<unknown>) => Promise<unknown>;

export const serveTable =
  <T extends Operations>(handlers: Handlers<T>): Serve =>
  async (op, call) =>
    await (handlers[op] as (call: Call<unknown>) => Promise<unknown>)(call);

/** Pushed on channel 0 by an end that drains: it answers what it was asked, and refuses what it is asked from now on. */
const CLOSING = 'closing';

/**
 * One end of a link: matches results to calls, enforces deadlines, serves what the other end calls. It moves bytes only
 * through `send` and `receive`, so TLS, a unix socket or two arrays in a test all do. What it sends within one turn of the
 * event loop it sends as one message, in order.
 */
export class Peer<Calls extends Operations, Serves extends Operations> {
  readonly #send: (bytes: Uint8Array) => void;
  readonly #calls: Calls;
  readonly #serves: Serves;
  readonly #serve: Serve | undefined;
  readonly #waiting = new Map<number, Waiting>();
  readonly #serving = new Set<Serving>();
  #servingBytes = 0;
  #nextId = 1;
  #closed: BridgeError | undefined;
  /** Why calls are refused, and what hears that none is left. */
  #draining: { readonly error: BridgeError; readonly drained: () => void } | undefined;

  /** What this turn has sent so far, and the calls among it. */
  #batch: Uint8Array[] = [];
  #batchBytes = 0;
  #batchCalls: number[] = [];
  #flushing: NodeJS.Immediate | undefined;

  /** Called for every push. Assign before bytes arrive. */
  onPush: (channel: number, topic: string, value: unknown) => void = () => {};
  /** Called for every call that was refused before it came to be served: an unknown operation, bad parameters, too many. */
  onRefused: (op: string, channel: number, error: BridgeError) => void = () => {};
  /** Called once, when the other end will take no more calls. */
  onClosing: () => void = () => {};

  constructor(send: (bytes: Uint8Array) => void, calls: Calls, serves: Serves, serve?: Serve) {
    this.#send = send;
    this.#calls = calls;
    this.#serves = serves;
    this.#serve = serve;
  }

  /** Whether any call has not been answered. */
  get isWaiting(): boolean {
    return this.#waiting.size > 0;
  }

  /** @throws BridgeError what the other end threw, or `timeout`, `unavailable`, `interrupted`, `rate_limited`. */
  async call<O extends keyof Calls & string>(
    op: O,
    params: Params<Calls, O>,
    options: CallOptions = {},
  ): Promise<Result<Calls, O>> {
    const { channel = 0, deadlineMs = CALL_DEADLINE_MS, signal } = options;
    if (this.#closed !== undefined) throw this.#closed;
    if (signal?.aborted === true) throw new BridgeError('interrupted', `${op} was interrupted`);
    if (this.#waiting.size >= PENDING_CALLS_MAX)
      throw busy(`${this.#waiting.size} calls are waiting`);
    const operation = this.#calls[op];
    if (operation === undefined) throw new BridgeError('internal', `no operation ${op}`);
    const id = this.#nextId++;
    const bytes = encodeFrame([0, id, op, channel, deadlineMs, params]);
    const waiting = new Waiting(op, deadlineMs, signal);
    this.#waiting.set(id, waiting);
    this.#batchCalls.push(id);
    this.#post(bytes, this.#waiting.size === 1);
    try {
      const frame = await waiting.answer;
      if (frame[0] === 2) throw failureOf(frame);
      return parse(operation.result, frame[2], `the answer to ${op}`) as Result<Calls, O>;
    } finally {
      this.#waiting.delete(id);
    }
  }

  /** @throws BridgeError when `value` cannot be sent; a link that is gone is no error */
  push(channel: number, topic: string, value: unknown): void {
    if (this.#closed === undefined) this.#post(encodeFrame([3, channel, topic, value]));
  }

  /** @throws BridgeError when the bytes are not frames, or `onPush` threw: close the link then. */
  receive(bytes: Uint8Array): void {
    if (this.#closed !== undefined) return;
    const frames = decodeFrames(bytes);
    // The sender's batches are small, and what is large comes alone: shares of a message are near enough.
    const share = bytes.byteLength / frames.length;
    for (const frame of frames) {
      switch (frame[0]) {
        case 0:
          void this.#answer(frame, share);
          break;
        case 1:
        case 2:
          this.#waiting.get(frame[1])?.settle(frame); // nobody waits: its deadline passed
          break;
        case 3:
          if (frame[1] === 0 && frame[2] === CLOSING) this.onClosing();
          else this.onPush(frame[1], frame[2], frame[3]);
          break;
        default:
          frame satisfies never;
      }
      if (this.#isClosed()) return; // by what the frame made somebody do
    }
  }

  /**
   * Tells the other end that calls are refused from now on, `unavailable`, with `error`'s words. Resolves when those under
   * way have been answered and the answers were given to `send`. Once.
   */
  async drain(error: BridgeError): Promise<void> {
    if (this.#closed !== undefined) return;
    await new Promise<void>((drained) => {
      this.#draining = { error, drained };
      this.push(0, CLOSING, null);
      if (this.#serving.size === 0) drained();
    });
    this.#flush();
  }

  /** Fails every waiting call with `error` and aborts what is being served. Idempotent. */
  close(error: BridgeError): void {
    if (this.#closed !== undefined) return;
    this.#closed = error;
    this.#forgetBatch();
    for (const waiting of this.#waiting.values()) waiting.settle(error);
    for (const serving of this.#serving) serving.abort(error);
    this.#draining?.drained();
  }

  #isClosed(): boolean {
    return this.#closed !== undefined;
  }

  async #answer(
    [, id, op, channel, deadlineMs, rawParams]: CallFrame,
    size: number,
  ): Promise<void> {
    let answer: Uint8Array;
    let isServed = false;
    const serving = new Serving(channel, deadlineMs, size);
    const isOnly = this.#serving.size === 0;
    this.#serving.add(serving);
    this.#servingBytes += size;
    try {
      const operation = Object.hasOwn(this.#serves, op) ? this.#serves[op] : undefined;
      if (operation === undefined || this.#serve === undefined)
        throw new BridgeError('invalid', `unknown operation ${plain(JSON.stringify(op))}`);
      if (this.#draining !== undefined) throw this.#draining.error;
      if (this.#serving.size > PENDING_CALLS_MAX) throw busy('too many calls at once');
      if (this.#servingBytes > SERVED_BYTES_MAX && !isOnly)
        throw busy('too many bytes in calls at once');
      // Below that size there is nothing in it that could be large.
      if (size > BATCH_BYTES && misplaced(operation.params, rawParams))
        throw new BridgeError('invalid', `${op}: something in it is far larger than it may be`);
      serving.params = parse(operation.params, rawParams, op);
      isServed = true;
      answer = encodeFrame([1, id, await this.#serve(op, serving)]);
    } catch (error) {
      const failure = asBridgeError(error);
      if (!isServed) this.onRefused(op, channel, failure);
      answer = encodeFrame(failureFrame(id, failure));
    }
    serving.end();
    this.#serving.delete(serving);
    this.#servingBytes = this.#serving.size === 0 ? 0 : this.#servingBytes - size;
    if (this.#closed !== undefined) return;
    this.#post(answer, this.#serving.size === 0);
    if (this.#serving.size === 0) this.#draining?.drained();
  }

  /** Puts a frame behind those of this turn. `isLast`: nothing is under way that would soon add another; it need not wait. */
  #post(bytes: Uint8Array, isLast = false): void {
    // What is large does not wait for company, nor does it make a message that is over the limit.
    if (this.#batchBytes + bytes.byteLength > BATCH_BYTES) this.#flush();
    this.#batch.push(bytes);
    this.#batchBytes += bytes.byteLength;
    if (this.#batchBytes >= BATCH_BYTES || this.#batch.length === MESSAGE_FRAMES_MAX) this.#flush();
    else if (isLast) process.nextTick(this.#flush);
    else this.#flushing ??= setImmediate(this.#flush);
  }

  readonly #flush = (): void => {
    const { length } = this.#batch;
    const [first] = this.#batch;
    if (first === undefined) return;
    const message = length === 1 ? first : Buffer.concat(this.#batch, this.#batchBytes);
    const calls = this.#batchCalls;
    this.#forgetBatch();
    try {
      this.#send(message);
    } catch (error) {
      // Answers and pushes are lost with the link; whoever waits for them hears that from its own side of it.
      for (const id of calls) this.#waiting.get(id)?.settle(asBridgeError(error));
    }
  };

  #forgetBatch(): void {
    clearImmediate(this.#flushing);
    this.#flushing = undefined;
    this.#batch = [];
    this.#batchBytes = 0;
    this.#batchCalls = [];
  }
}

const busy = (what: string): BridgeError =>
  new BridgeError('rate_limited', `${what}; try again`, { retryAfterMs: BUSY_RETRY_MS });

type Answer = ResultFrame | FailureFrame;

/** A call that was made: settled once, by its answer, its deadline, its caller or the end of the link. */
class Waiting {
  readonly answer: Promise<Answer>;
  readonly #op: string;
  readonly #signal: AbortSignal | undefined;
  readonly #timer: NodeJS.Timeout;
  #resolve: (answer: Answer) => void = () => {};
  #reject: (error: BridgeError) => void = () => {};

  constructor(op: string, deadlineMs: number, signal: AbortSignal | undefined) {
    this.#op = op;
    this.#signal = signal;
    this.answer = new Promise((resolve, reject) => {
      this.#resolve = resolve;
      this.#reject = reject;
    });
    this.#timer = setTimeout(() => this.#late(deadlineMs), deadlineMs);
    signal?.addEventListener('abort', this.#interrupted, { once: true });
  }

  settle(answer: Answer | BridgeError): void {
    clearTimeout(this.#timer);
    this.#signal?.removeEventListener('abort', this.#interrupted);
    if (answer instanceof BridgeError) this.#reject(answer);
    else this.#resolve(answer);
  }

  #late(deadlineMs: number): void {
    this.settle(new BridgeError('timeout', `${this.#op} had no answer within ${deadlineMs} ms`));
  }

  readonly #interrupted = (): void =>
    this.settle(new BridgeError('interrupted', `${this.#op} was interrupted`));
}

/** A call that is being served. Few look at its signal, and one costs as much as all the rest of a small call. */
class Serving implements Call<unknown> {
  readonly channel: number;
  readonly bytes: number;
  params: unknown = undefined;
  note: unknown = undefined;
  readonly #timer: NodeJS.Timeout;
  #aborted = false;
  #reason: BridgeError | undefined;
  #controller: AbortController | undefined;

  constructor(channel: number, deadlineMs: number, bytes: number) {
    this.channel = channel;
    this.bytes = bytes;
    this.#timer = setTimeout(expire, deadlineMs, this).unref();
  }

  get signal(): AbortSignal {
    if (this.#controller === undefined) {
      this.#controller = new AbortController();
      if (this.#aborted) this.#controller.abort(this.#reason);
    }
    return this.#controller.signal;
  }

  abort(reason?: BridgeError): void {
    this.#aborted = true;
    this.#reason = reason;
    this.#controller?.abort(reason);
  }

  end(): void {
    clearTimeout(this.#timer);
  }
}

const expire = (serving: Serving): void => serving.abort();
