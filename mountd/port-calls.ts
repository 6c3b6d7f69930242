import { asBridgeError, BridgeError, type Code } from '#bridge/wire/errors.js';

/** Calls between the two threads of the serving process: structured clones, no parsing, both ends are ours. */
export type Methods<T> = {
  readonly [K in keyof T]: T[K] extends (...args: never[]) => Promise<unknown> ? T[K] : never;
};
/** A MessagePort, a Worker or parentPort. */
export interface Port {
  postMessage(message: unknown): void;
  on(event: 'message', listener: (message: Message) => void): unknown;
}

type AnyMethod = (...args: unknown[]) => Promise<unknown>;

type Message =
  | { kind: 'call'; id: number; method: string; args: unknown[] }
  | { kind: 'result'; id: number; value: unknown }
  | { kind: 'failure'; id: number; code: Code; message: string };

export interface Connected<Theirs> {
  /** The other end's methods. A method's rejection arrives as a BridgeError. */
  readonly calls: Theirs;
  /** The other end is gone: every call that waits, and every later one, is rejected with `error`. */
  fail(error: BridgeError): void;
}

/** Serves `served` on `port`. */
export function connectPort<Theirs extends Methods<Theirs>, Ours extends Methods<Ours>>(
  port: Port,
  served: Ours,
): Connected<Theirs> {
  const waiting = new Map<
    number,
    { resolve: (value: unknown) => void; reject: (error: BridgeError) => void }
  >();
  let nextId = 1;
  let gone: BridgeError | undefined;

  const serve = async ({ id, method, args }: Extract<Message, { kind: 'call' }>) => {
    let answer: Message;
    try {
      const handler = (served as Record<string, AnyMethod>)[method];
      if (handler === undefined) throw new BridgeError('internal', `no method ${method}`);
      answer = { kind: 'result', id, value: await handler.apply(served, args) };
    } catch (error) {
      const { code, message } = asBridgeError(error);
      answer = { kind: 'failure', id, code, message };
    }
    port.postMessage(answer);
  };

  port.on('message', (message: Message) => {
    if (message.kind === 'call') {
      void serve(message);
      return;
    }
    const call = waiting.get(message.id);
    waiting.delete(message.id);
    if (message.kind === 'result') call?.resolve(message.value);
    else call?.reject(new BridgeError(message.code, message.message));
  });

  const call = (method: string, args: unknown[]) =>
    new Promise<unknown>((resolve, reject) => {
      if (gone !== undefined) {
        reject(gone);
        return;
      }
      const id = nextId++;
      waiting.set(id, { resolve, reject });
      const message: Message = { kind: 'call', id, method, args };
      port.postMessage(message);
    });
  const calls = new Proxy({} as Theirs, {
    // A proxy with a `then` would be taken for a promise.
    get: (_target, method) =>
      typeof method === 'string' && method !== 'then'
        ? (...args: unknown[]) => call(method, args)
        : undefined,
  });
  return {
    calls,
    fail: (error) => {
      gone ??= error;
      for (const { reject } of waiting.values()) reject(error);
      waiting.clear();
    },
  };
}
