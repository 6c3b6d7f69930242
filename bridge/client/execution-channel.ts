import { randomUUID } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import { asBridgeError, BridgeError } from '#bridge/wire/errors.js';
import { parse } from '#bridge/wire/frames.js';
import { ExecutionId } from '#bridge/wire/names.js';
import {
  EXECUTION_CANCELLED,
  ExecutionCancelled,
  type Params,
  type Result,
  type ServerOperations,
  VARIABLES_CHANGED,
  type Variable,
  type VariableChange,
  VariablesChanged,
} from '#bridge/wire/protocol.js';
import type { Connection } from './connection.js';
import type { Link } from './link.js';
import type { Runtime, VariablesEdit } from './runtime.js';

/** Renewed when this share of its life has passed, which leaves two more tries before it expires. */
const RENEW_AT = 0.6;
/** Whatever the server says of a token's life, it is not asked more often. */
const RENEW_MS_MIN = 500;
const RENEW_RETRY_MS = 10_000;

/** Pause before asking a server again that answered "unavailable". */
const SHUTDOWN_RETRY_MS = 200;

/** Shortest and longest pause before asking again, whatever the server says: a hint is what it knew then. */
const HINT_MS_MIN = 10;
const HINT_MS_MAX = 5_000;
/** What must be left of the budget after a pause, for the answer. */
const ANSWER_MS = 50;
/** Those who were refused together do not come back together. */
const JITTER = 0.25;

/** What the owner of a channel hears. */
export interface ChannelListener {
  /** Changes by others, in any order: the higher version wins. */
  changed(changes: readonly VariableChange[]): void;
  /** The whole document after a reconnection: what is not in it was deleted meanwhile. */
  refreshed(variables: readonly Variable[]): void;
  /** An operator wants the execution stopped; told again after every reconnection. */
  cancelled(reason: string): void;
}

/** One execution on the link: opened with its token, opened again after every reconnection, its token kept fresh. */
export class ExecutionChannel implements Runtime, Disposable {
  readonly #link: Link;
  readonly #channels: Channels;
  #token: string;
  #lifetimeMs: number;
  #disposed = false;
  /** The server has said that the token's time is over, or would say so soon. */
  #hasExpired = false;
  #opened: { connection: Connection; channel: Promise<number> } | undefined;
  #renewal: NodeJS.Timeout | undefined;
  readonly #listener: ChannelListener;
  readonly executionId: ExecutionId;
  /** The document as of the first opening, and the keys with a merge policy. */
  variables: readonly Variable[] = [];
  merged: readonly string[] = [];

  private constructor(
    link: Link,
    channels: Channels,
    created: Result<ServerOperations, 'execution.create'>,
    listener: ChannelListener,
  ) {
    this.#link = link;
    this.#channels = channels;
    this.#token = created.token;
    this.#lifetimeMs = created.lifetimeMs;
    this.executionId = created.executionId;
    this.#listener = listener;
  }

  /**
   * Creates the execution on the server and opens its channel. Asked for again on the next connection when one is lost, it is
   * the same execution, by its id.
   */
  static async create(
    link: Link,
    channels: Channels,
    params: Params<ServerOperations, 'execution.create'>,
    listener: ChannelListener,
    signal?: AbortSignal,
  ): Promise<ExecutionChannel> {
    const wanted = { executionId: ExecutionId.parse(randomUUID()), ...params };
    const created = await patiently(
      link,
      signal,
      async (connection) => await connection.call('execution.create', wanted, signal && { signal }),
    );
    const channel = new ExecutionChannel(link, channels, created, listener);
    try {
      await patiently(
        link,
        signal,
        async (connection) =>
          await channel.#channelOn(connection, ({ variables, merged }) => {
            channel.variables = variables;
            channel.merged = merged;
          }),
      );
      channel.#scheduleRenewal();
      return channel;
    } catch (error) {
      channel[Symbol.dispose]();
      throw error;
    }
  }

  async commitVariables(edit: VariablesEdit): Promise<readonly VariableChange[]> {
    const params = {
      set: edit.set.map(([key, text]) => [key, text] as [typeof key, string]),
      delete: [...edit.delete],
      commitId: edit.id,
      bases: edit.bases.map(([key, text]) => [key, text] as [typeof key, string | null]),
    };
    return (await this.#call('variables.commit', params)).changes;
  }

  async setOutput(text: string | null): Promise<void> {
    await this.#call('output.set', { text });
  }

  async setCondition(condition: boolean | null): Promise<void> {
    await this.#call('condition.set', { condition });
  }

  async finish(end: Params<ServerOperations, 'execution.finish'>): Promise<void> {
    await this.#call('execution.finish', end);
  }

  [Symbol.dispose](): void {
    this.#disposed = true;
    clearTimeout(this.#renewal);
    this.#channels.remove(this);
  }

  /** Opens the channel on a fresh connection, so that pushes go on before the script's next call. */
  reopen(connection: Connection): void {
    this.#channelOn(connection, ({ variables }) => this.#listener.refreshed(variables)).catch(
      () => {
        // The next call opens it again and reports the problem to the script.
      },
    );
  }

  deliver(tell: Tell): void {
    tell(this.#listener);
  }

  /**
   * A call whose connection dies under it is made again on the next one: every operation here sets a state, so doing it
   * twice is doing it once. (What a merge policy adds up is told apart by its commit id.) One that a busy server refused for
   * now is made again when it said: the script sees a slow close.
   */
  async #call<
    O extends
      | 'variables.commit'
      | 'output.set'
      | 'condition.set'
      | 'execution.finish'
      | 'token.renew',
  >(op: O, params: Params<ServerOperations, O>): Promise<Result<ServerOperations, O>> {
    const deadline = Date.now() + this.#link.outageBudgetMs;
    let lost = false;
    let expired = false;
    for (;;) {
      const leftMs = Math.max(1, deadline - Date.now());
      const connection = await this.#link.connection(leftMs);
      const opening = this.#channelOn(connection, ({ variables }) =>
        this.#listener.refreshed(variables),
      );
      try {
        const channel = await opening;
        return await connection.call(op, params, { channel, deadlineMs: leftMs });
      } catch (error) {
        const { code, retryAfterMs } = asBridgeError(error);
        // Nobody could renew it in time: this machine slept, or the server was away. Others may have heard so before us.
        if (code === 'token_expired' && !expired) {
          expired = true;
          if (this.#opened?.channel === opening) {
            this.#opened = undefined;
            this.#hasExpired = true;
          }
          continue;
        }
        // The answer was lost, not the call: an execution that has ended cannot be opened, let alone ended, again.
        if (lost && op === 'execution.finish' && code === 'denied')
          return {} as Result<ServerOperations, O>;
        if (code !== 'unavailable') {
          if (retryAfterMs === undefined) throw error;
          await pauseAsTold(error, retryAfterMs, deadline);
          continue;
        }
        if (Date.now() >= deadline) throw error;
        lost = true;
        // Either the connection is gone, or a server that is shutting down said so itself.
        await Promise.race([connection.closed, sleep(SHUTDOWN_RETRY_MS)]);
      }
    }
  }

  #channelOn(
    connection: Connection,
    opened: (answer: Result<ServerOperations, 'execution.open'>) => void,
  ): Promise<number> {
    if (this.#opened?.connection === connection) return this.#opened.channel;
    const channel = this.#open(connection).then((answer) => {
      if (!this.#disposed) this.#channels.add(this, connection, answer.channel);
      opened(answer);
      return answer.channel;
    });
    this.#opened = { connection, channel };
    channel.catch(() => {
      if (this.#opened?.channel === channel) this.#opened = undefined;
    });
    return channel;
  }

  /** With a new token where the present one has expired: the server gives it to the host that created the execution. */
  async #open(connection: Connection): Promise<Result<ServerOperations, 'execution.open'>> {
    if (!this.#hasExpired)
      try {
        return await connection.call('execution.open', { token: this.#token });
      } catch (error) {
        if (asBridgeError(error).code !== 'token_expired') throw error;
        this.#hasExpired = true;
      }
    const { executionId } = this;
    const { token, lifetimeMs } = await connection.call('execution.reopen', { executionId });
    this.#token = token;
    this.#lifetimeMs = lifetimeMs;
    this.#hasExpired = false;
    return await connection.call('execution.open', { token });
  }

  #scheduleRenewal(delayMs = Math.max(RENEW_MS_MIN, this.#lifetimeMs * RENEW_AT)): void {
    if (this.#disposed) return;
    this.#renewal = setTimeout(() => {
      this.#call('token.renew', {}).then(
        ({ token, lifetimeMs }) => {
          this.#token = token;
          this.#lifetimeMs = lifetimeMs;
          this.#scheduleRenewal();
        },
        () => this.#scheduleRenewal(RENEW_RETRY_MS),
      );
    }, delayMs).unref();
  }
}

/**
 * Does `body` on the link's connection, and on the next one when that is lost: again and again while the budget lasts, also when
 * it is refused with a hint.
 */
async function patiently<T>(
  link: Link,
  signal: AbortSignal | undefined,
  body: (connection: Connection) => Promise<T>,
): Promise<T> {
  const deadline = Date.now() + link.outageBudgetMs;
  for (;;) {
    const connection = await link.connection(Math.max(1, deadline - Date.now()), signal);
    try {
      return await body(connection);
    } catch (error) {
      const { code, retryAfterMs } = asBridgeError(error);
      if (code === 'unavailable' && Date.now() < deadline) {
        await Promise.race([connection.closed, sleep(SHUTDOWN_RETRY_MS)]);
        continue;
      }
      if (retryAfterMs === undefined) throw error;
      await pauseAsTold(error, retryAfterMs, deadline, signal);
    }
  }
}

/** @throws `error` when what the server asks for is beyond the deadline */
async function pauseAsTold(
  error: unknown,
  retryAfterMs: number,
  deadline: number,
  signal?: AbortSignal,
): Promise<void> {
  const hintMs = Math.min(Math.max(retryAfterMs, HINT_MS_MIN), HINT_MS_MAX);
  const pauseMs = hintMs * (1 + JITTER * Math.random());
  if (Date.now() + Math.max(retryAfterMs, pauseMs) + ANSWER_MS > deadline) throw error;
  await sleep(pauseMs, undefined, signal && { signal }).catch(() => {
    throw new BridgeError('interrupted', 'interrupted while the server was busy');
  });
}

/** Hands one push on. */
type Tell = (listener: ChannelListener) => void;

/** What a push means to a channel's owner; undefined = nothing, it is of a newer server. */
function tellOf(topic: string, value: unknown): Tell | undefined {
  if (topic === VARIABLES_CHANGED) {
    const { changes } = parse(VariablesChanged, value, topic);
    return (listener) => listener.changed(changes);
  }
  if (topic === EXECUTION_CANCELLED) {
    const { reason } = parse(ExecutionCancelled, value, topic);
    return (listener) => listener.cancelled(reason);
  }
  return undefined;
}

/** Which execution a push belongs to: channel numbers are per connection. */
export class Channels {
  readonly #all = new Set<ExecutionChannel>();
  #connection: Connection | undefined;
  #byNumber = new Map<number, ExecutionChannel>();
  /** The highest channel number named on this connection. */
  #highest = 0;
  /** Pushes that overtook the answer naming their channel; few, and only until that answer is handled. */
  #early: { channel: number; tell: Tell }[] = [];

  /** Routes `link`'s pushes. */
  constructor(link: Link) {
    link.onConnect = (connection) => {
      this.#connection = connection;
      this.#byNumber = new Map();
      this.#early = [];
      this.#highest = 0;
      connection.onPush = (channel, topic, value) => {
        const tell = tellOf(topic, value);
        if (tell !== undefined) this.#push(channel, tell);
      };
      for (const channel of this.#all) channel.reopen(connection);
    };
  }

  add(channel: ExecutionChannel, connection: Connection, number: number): void {
    this.#all.add(channel);
    if (connection !== this.#connection) return;
    this.#byNumber.set(number, channel);
    this.#highest = Math.max(this.#highest, number);
    const early = this.#early.filter((push) => push.channel === number);
    this.#early = this.#early.filter((push) => push.channel !== number);
    // After the caller has taken the document the answer carried.
    queueMicrotask(() => {
      for (const { tell } of early) channel.deliver(tell);
    });
  }

  remove(channel: ExecutionChannel): void {
    this.#all.delete(channel);
    for (const [number, owner] of this.#byNumber)
      if (owner === channel) this.#byNumber.delete(number);
  }

  #push(number: number, tell: Tell): void {
    const channel = this.#byNumber.get(number);
    if (channel !== undefined) channel.deliver(tell);
    // Numbers ascend: a lower one belongs to an execution that has ended here.
    else if (number > this.#highest && this.#early.length < EARLY_MAX)
      this.#early.push({ channel: number, tell });
  }
}

/** Pushes kept for channels whose number is not known yet; a longer list could only be a confused server. */
const EARLY_MAX = 1000;
