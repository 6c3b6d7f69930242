import { asBridgeError, BridgeError } from './errors.js';
import {
  type CallFrame,
  decodeFrame,
  encodeFrame,
  type Frame,
  failureOf,
  parse,
} from './frames.js';
import { CALL_DEADLINE_MS, PENDING_CALLS_MAX } from './limits.js';
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

type Waiting = { settle: (frame: Frame | BridgeError) => void };

/**
 * One end of a link: matches results to calls, enforces deadlines, serves what the other end calls. It moves bytes only
 * through `send` and `receive`, so TLS, a unix socket or two arrays in a test all do.
 */
export class Peer<Calls extends Operations, Serves extends Operations> {
  readonly #send: (bytes: Uint8Array) => void;
  readonly #calls: Calls;
  readonly #serves: Serves;
  readonly #serve: Serve | undefined;
  readonly #waiting = new Map<number, Waiting>();
  readonly #closing = new AbortController();
  /** Of the calls being served. */
  readonly #served = new Set<AbortController>();
  #nextId = 1;

  /** Called for every push. Assign before bytes arrive. */
  onPush: (channel: number, topic: string, value: unknown) => void = () => {};

  constructor(send: (bytes: Uint8Array) => void, calls: Calls, serves: Serves, serve?: Serve) {
    this.#send = send;
    this.#calls = calls;
    this.#serves = serves;
    this.#serve = serve;
  }

  /** @throws BridgeError what the other end threw, or `timeout`, `unavailable`, `interrupted`, `rate_limited`. */
  async call<O extends keyof Calls & string>(
    op: O,
    params: Params<Calls, O>,
    options: CallOptions = {},
  ): Promise<Result<Calls, O>> {
    const { channel = 0, deadlineMs = CALL_DEADLINE_MS, signal } = options;
    if (this.#closing.signal.aborted) throw asBridgeError(this.#closing.signal.reason);
    if (signal?.aborted === true) throw new BridgeError('interrupted', `${op} was interrupted`);
    if (this.#waiting.size >= PENDING_CALLS_MAX)
      throw new BridgeError('rate_limited', `${this.#waiting.size} calls are waiting; try again`);
    const operation = this.#calls[op];
    if (operation === undefined) throw new BridgeError('internal', `no operation ${op}`);
    const id = this.#nextId++;
    const frame = await new Promise<Frame>((resolve, reject) => {
      const stop = () => {
        clearTimeout(timer);
        signal?.removeEventListener('abort', interrupted);
        this.#waiting.delete(id);
      };
      const settle = (answer: Frame | BridgeError) => {
        stop();
        if (answer instanceof BridgeError) reject(answer);
        else resolve(answer);
      };
      const interrupted = () => settle(new BridgeError('interrupted', `${op} was interrupted`));
      const timer = setTimeout(
        () => settle(new BridgeError('timeout', `${op} had no answer within ${deadlineMs} ms`)),
        deadlineMs,
      );
      signal?.addEventListener('abort', interrupted, { once: true });
      this.#waiting.set(id, { settle });
      try {
        this.#send(encodeFrame([0, id, op, channel, deadlineMs, params]));
      } catch (error) {
        settle(asBridgeError(error));
      }
    });
    if (frame[0] === 1)
      return parse(operation.result, frame[2], `the answer to ${op}`) as Result<Calls, O>;
    if (frame[0] === 2) throw failureOf(frame[2], frame[3]);
    throw new BridgeError('internal', `no answer to ${op}`);
  }

  /** @throws BridgeError when `value` cannot be sent; a link that is gone is no error */
  push(channel: number, topic: string, value: unknown): void {
    if (this.#closing.signal.aborted) return;
    const bytes = encodeFrame([3, channel, topic, value]);
    try {
      this.#send(bytes);
    } catch {
      // As with answers: the other end catches up when it is back.
    }
  }

  /** @throws BridgeError when the bytes are not a frame: close the link then. */
  receive(bytes: Uint8Array): void {
    if (this.#closing.signal.aborted) return;
    const frame = decodeFrame(bytes);
    switch (frame[0]) {
      case 0:
        void this.#answer(frame);
        return;
      case 1:
      case 2:
        this.#waiting.get(frame[1])?.settle(frame); // nobody waits: its deadline passed
        return;
      case 3:
        this.onPush(frame[1], frame[2], frame[3]);
        return;
      default:
        frame satisfies never;
    }
  }

  /** Fails every waiting call with `error` and aborts what is being served. Idempotent. */
  close(error: BridgeError): void {
    if (this.#closing.signal.aborted) return;
    this.#closing.abort(error);
    for (const { settle } of this.#waiting.values()) settle(error);
    for (const aborted of this.#served) aborted.abort(error);
  }

  async #answer([, id, op, channel, deadlineMs, rawParams]: CallFrame): Promise<void> {
    let answer: Uint8Array;
    const aborted = new AbortController();
    this.#served.add(aborted);
    const timer = setTimeout(() => aborted.abort(), deadlineMs).unref();
    try {
      const operation = Object.hasOwn(this.#serves, op) ? this.#serves[op] : undefined;
      if (operation === undefined || this.#serve === undefined)
        throw new BridgeError('invalid', `unknown operation ${JSON.stringify(op)}`);
      if (this.#served.size > PENDING_CALLS_MAX)
        throw new BridgeError('rate_limited', 'too many calls at once; try again');
      const params = parse(operation.params, rawParams, op);
      const { signal } = aborted;
      answer = encodeFrame([1, id, await this.#serve(op, { params, channel, signal })]);
    } catch (error) {
      const { code, message } = asBridgeError(error);
      answer = encodeFrame([2, id, code, message.slice(0, 8192)]);
    } finally {
      clearTimeout(timer);
      this.#served.delete(aborted);
    }
    if (this.#closing.signal.aborted) return;
    try {
      this.#send(answer);
    } catch {
      // The link is going; whoever waits at the other end hears that from its own side of it.
    }
  }
}
