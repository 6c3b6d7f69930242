import { once } from 'node:events';
import { type TLSSocket, connect as tlsConnect } from 'node:tls';
import { WebSocket } from 'ws';
import { asBridgeError, BridgeError } from '#bridge/wire/errors.js';
import { decodeFrames, type FailureFrame, type ResultFrame } from '#bridge/wire/frames.js';
import { Peer } from '#bridge/wire/peer.js';
import { SERVER_OPERATIONS, type ServerOperations } from '#bridge/wire/protocol.js';
import type { InProcessServer } from './in-process-server.js';

export interface ClientTls {
  readonly ca: string;
  readonly cert?: string;
  readonly key?: string;
}

/** A TLS connection to the server, with whatever certificate; nothing was said on it yet. */
export async function tlsTo(
  { address: { host, port } }: InProcessServer,
  { ca, cert, key }: ClientTls,
): Promise<TLSSocket> {
  const options = { ca, cert, key, host, port, servername: 'localhost' };
  const socket = tlsConnect({ ...options, ALPNProtocols: ['http/1.1'] });
  await once(socket, 'secureConnect');
  return socket;
}

/** A peer that says no hello and checks nothing of what it sends; bytes of its own making can be sent besides. */
export class RawClient implements Disposable {
  readonly #ws: WebSocket;
  readonly peer: Peer<ServerOperations, Record<never, never>>;
  readonly #waiting = new Map<number, (answer: ResultFrame | FailureFrame) => void>();
  /** Code and reason of the close. */
  readonly closed: Promise<{ code: number; reason: string }>;

  private constructor(ws: WebSocket) {
    this.#ws = ws;
    this.peer = new Peer((bytes) => ws.send(bytes), SERVER_OPERATIONS, {});
    ws.on('message', (data) => {
      this.peer.receive(data as Buffer); // binaryType is nodebuffer
      for (const frame of decodeFrames(data as Buffer))
        if (frame[0] === 1 || frame[0] === 2) this.#waiting.get(frame[1])?.(frame);
    });
    ws.on('error', () => {}); // and then it closes
    this.closed = new Promise((resolve) => {
      ws.on('close', (code, reason) => {
        this.peer.close(new BridgeError('unavailable', `closed: ${code} ${reason.toString()}`));
        resolve({ code, reason: reason.toString() });
      });
    });
  }

  static async open(server: InProcessServer, tls: ClientTls): Promise<RawClient> {
    const { host, port } = server.address;
    const socket = await tlsTo(server, tls);
    const ws = new WebSocket(`wss://${host}:${port}/`, {
      perMessageDeflate: false,
      createConnection: () => socket,
    });
    await once(ws, 'open');
    return new RawClient(ws);
  }

  /** What a call with any parameters ended with: `ok` and its result, or a code and its sentence. */
  async outcome(op: string, params: unknown, channel = 0): Promise<Outcome> {
    return await outcomeOf(this.peer.call(op as 'hello', params as never, { channel }));
  }

  /** The answer to a call that is sent as bytes, if there will be one. Its number must not be one that `peer` gives. */
  async answerTo(id: number): Promise<ResultFrame | FailureFrame> {
    return await new Promise((resolve) => {
      this.#waiting.set(id, (answer) => {
        this.#waiting.delete(id);
        resolve(answer);
      });
    });
  }

  send(bytes: Uint8Array): void {
    this.#ws.send(bytes);
  }

  [Symbol.dispose](): void {
    this.#ws.terminate();
  }
}

export interface Outcome {
  readonly code: string;
  readonly message: string;
  readonly result?: unknown;
}

export async function outcomeOf(call: Promise<unknown>): Promise<Outcome> {
  try {
    return { code: 'ok', message: '', result: await call };
  } catch (error) {
    const { code, message } = asBridgeError(error);
    return { code, message };
  }
}
