import { existsSync } from 'node:fs';
import { connect, type Socket } from 'node:net';
import { connect as tlsConnect } from 'node:tls';
import { WebSocket } from 'ws';
import { asBridgeError, BridgeError, closeReason, errnoCode } from '#bridge/wire/errors.js';
import { CLOSE_MS, MESSAGE_BYTES_MAX } from '#bridge/wire/limits.js';
import {
  type CallOptions,
  type Handlers,
  Peer,
  type Serve,
  serveTable,
} from '#bridge/wire/peer.js';
import {
  type Operations,
  type Params,
  PROTOCOL_VERSION,
  type Result,
  SERVER_OPERATIONS,
  type ServerOperations,
} from '#bridge/wire/protocol.js';

/** A server on this machine answers in milliseconds, one across a bad network within seconds. */
const HANDSHAKE_MS = 10_000;

/** The server pings every 15 s; silence for three periods means that it, or the path to it, is gone. */
const SILENCE_MS = 45_000;

/**
 * While calls wait for answers silence is looked for more often: after one period without a byte the server is pinged, after a
 * second one the connection is given up. That leaves most of the 30 s a call may wait to another one; a server that is merely busy
 * does not keep quiet for so long.
 */
const PROBE_MS = 4_000;

/** Of both kinds of connection. */
const WEBSOCKET_OPTIONS = {
  perMessageDeflate: false, // costs 40 times what it saves
  skipUTF8Validation: true, // of text messages, which there are none
  maxPayload: MESSAGE_BYTES_MAX,
  handshakeTimeout: HANDSHAKE_MS,
  closeTimeout: CLOSE_MS,
};

export interface ServerAddress {
  readonly host: string;
  readonly port: number;
  /** The server's unix socket, if it may be on this machine: tried first, with the same TLS, when it is there. */
  readonly socketPath?: string | undefined;
}

export interface TlsFiles {
  /** PEM texts, and the certificate's path for messages about it. */
  readonly ca: string;
  readonly cert: string;
  readonly key: string;
  readonly certPath: string;
}

export interface ConnectOptions {
  readonly address: ServerAddress;
  readonly tls: TlsFiles;
  /** Sent in hello: program name and version. */
  readonly software: string;
  readonly signal?: AbortSignal;
}

/** One authenticated connection to the runtime server. It does not reconnect: `Link` does. */
export class Connection implements Disposable {
  readonly #ws: WebSocket;
  readonly #peer: Peer<ServerOperations, Record<never, never>>;
  /** Resolves with the reason when the connection has ended. */
  readonly closed: Promise<BridgeError>;
  #probing: NodeJS.Timeout | undefined;

  private constructor(ws: WebSocket) {
    this.#ws = ws;
    this.#peer = new Peer((bytes) => ws.send(bytes), SERVER_OPERATIONS, {});
    this.closed = attach(ws, this.#peer, SILENCE_MS);
    void this.closed.then(() => clearInterval(this.#probing));
  }

  /**
   * @throws BridgeError `unavailable` when nobody answers or there is no room, perhaps with a hint; `denied` when either side
   * refuses the other.
   */
  static async open(options: ConnectOptions): Promise<Connection> {
    const { host, port, socketPath } = options.address;
    if (socketPath !== undefined && existsSync(socketPath))
      try {
        return await Connection.#openAt({ path: socketPath }, socketPath, options);
      } catch (error) {
        if (!NOBODY_THERE.has(errnoCode(error) ?? '')) throw error;
      }
    return await Connection.#openAt({ host, port }, `${host}:${port}`, options);
  }

  static async #openAt(
    place: { path: string } | { host: string; port: number },
    address: string,
    { tls, software, signal }: ConnectOptions,
  ): Promise<Connection> {
    const { certPath, ...credentials } = tls;
    const socket = tlsConnect({
      ...credentials,
      ...place,
      servername: 'localhost',
      minVersion: 'TLSv1.3',
      ALPNProtocols: ['http/1.1'],
    }).setNoDelay(true);
    // The URL names nobody: the connection is made above.
    const ws = new WebSocket('wss://localhost/', {
      ...WEBSOCKET_OPTIONS,
      createConnection: () => socket,
    });
    const connection = new Connection(ws);
    try {
      await opened(ws, signal);
      connection.#probe(socket);
      await connection.call('hello', { protocol: PROTOCOL_VERSION, software });
      return connection;
    } catch (error) {
      connection[Symbol.dispose]();
      throw connectError(error, address, certPath);
    }
  }

  /** Called for every push. */
  set onPush(listener: (channel: number, topic: string, value: unknown) => void) {
    this.#peer.onPush = listener;
  }

  /** Called when the server refuses calls from now on: it answers those under way, then closes. */
  set onClosing(listener: () => void) {
    this.#peer.onClosing = listener;
  }

  async call<O extends keyof ServerOperations>(
    op: O,
    params: Params<ServerOperations, O>,
    options?: CallOptions,
  ): Promise<Result<ServerOperations, O>> {
    return await this.#peer.call(op, params, options);
  }

  /** A cable that was pulled sends no reset. */
  #probe(socket: Socket): void {
    let bytesBefore = -1;
    let isProbed = false;
    this.#probing = setInterval(() => {
      const { bytesRead } = socket;
      const isSilent = this.#peer.isWaiting && bytesRead === bytesBefore;
      bytesBefore = bytesRead;
      if (isSilent && isProbed)
        socket.destroy(new Error(`the server was silent for ${(2 * PROBE_MS) / 1000} s`));
      else if (isSilent) this.#ws.ping();
      isProbed = isSilent;
    }, PROBE_MS).unref();
  }

  [Symbol.dispose](): void {
    this.#peer.close(new BridgeError('unavailable', 'the connection was closed here'));
    this.#ws.terminate();
  }
}

/** A client of mountd's control socket: the same frames over a unix socket that only root can open. */
export class ControlConnection<Calls extends Operations> implements Disposable {
  readonly #ws: WebSocket;
  readonly #peer: Peer<Calls, Record<never, never>>;
  readonly closed: Promise<BridgeError>;

  private constructor(ws: WebSocket, calls: Calls) {
    this.#ws = ws;
    this.#peer = new Peer((bytes) => ws.send(bytes), calls, {});
    this.closed = attach(ws, this.#peer);
  }

  /** @throws BridgeError `unavailable` */
  static async open<Calls extends Operations>(
    socketPath: string,
    calls: Calls,
  ): Promise<ControlConnection<Calls>> {
    // Not ws+unix: a path is no URL, and may hold spaces and colons.
    const ws = new WebSocket('ws://localhost/', {
      ...WEBSOCKET_OPTIONS,
      createConnection: () => connect(socketPath),
    });
    const connection = new ControlConnection(ws, calls);
    try {
      await opened(ws);
      return connection;
    } catch (cause) {
      throw new BridgeError(
        'unavailable',
        `mountd does not answer on ${socketPath}; start it with: cronium up`,
        {
          cause,
        },
      );
    }
  }

  set onPush(listener: (channel: number, topic: string, value: unknown) => void) {
    this.#peer.onPush = listener;
  }

  /** Stops reading, and with it the other end, until `resume`. */
  pause(): void {
    this.#ws.pause();
  }

  resume(): void {
    this.#ws.resume();
  }

  async call<O extends keyof Calls & string>(
    op: O,
    params: Params<Calls, O>,
    options?: CallOptions,
  ): Promise<Result<Calls, O>> {
    return await this.#peer.call(op, params, options);
  }

  [Symbol.dispose](): void {
    this.#peer.close(new BridgeError('unavailable', 'the connection was closed here'));
    this.#ws.terminate();
  }
}

/** Serves `operations` on an accepted socket; resolves when it has ended. */
export function servePeer<Serves extends Operations>(
  ws: WebSocket,
  operations: Serves,
  handlers: (peer: Peer<Record<never, never>, Serves>) => Handlers<Serves>,
): Promise<BridgeError> {
  const serve: Serve = async (op, call) => await served(op, call);
  const peer = new Peer<Record<never, never>, Serves>(
    (bytes) => ws.send(bytes),
    {},
    operations,
    serve,
  );
  const served = serveTable(handlers(peer));
  return attach(ws, peer);
}

/** Feeds `peer` from `ws`; resolves with the reason when the socket has closed. `silenceMs` cuts a link without pings. */
async function attach<C extends Operations, S extends Operations>(
  ws: WebSocket,
  peer: Peer<C, S>,
  silenceMs?: number,
): Promise<BridgeError> {
  const silence =
    silenceMs === undefined ? undefined : setTimeout(() => ws.terminate(), silenceMs).unref();
  ws.on('ping', () => silence?.refresh());
  let failure: Error | undefined;
  ws.on('error', (error) => {
    failure = error;
  });
  ws.on('message', (data) => {
    silence?.refresh();
    try {
      peer.receive(data as Buffer); // binaryType is nodebuffer
    } catch (error) {
      const bad = asBridgeError(error);
      failure = bad;
      peer.close(new BridgeError('unavailable', `the connection was closed: ${bad.message}`));
      ws.close(1002, closeReason(bad));
    }
  });
  return await new Promise<BridgeError>((resolve) => {
    ws.on('close', (code, reason) => {
      clearTimeout(silence);
      const why = failure?.message ?? (reason.toString() || `code ${code}`);
      const error = new BridgeError('unavailable', `the connection was lost: ${why}`, {
        cause: failure,
      });
      peer.close(error);
      resolve(error);
    });
  });
}

/** Of a refusal's text: the server's own are one line. */
const REFUSAL_CHARACTERS_MAX = 1000;

/** connect(2) on a unix socket nobody listens on, whose file has just gone, that is not ours, or that has a full queue. */
const NOBODY_THERE: ReadonlySet<string> = new Set([
  'ECONNREFUSED',
  'ENOENT',
  'EACCES',
  'EPERM',
  'EAGAIN',
]);

async function opened(ws: WebSocket, signal?: AbortSignal): Promise<void> {
  let interrupted = () => {};
  const opening = new Promise<void>((resolve, reject) => {
    interrupted = () => reject(new BridgeError('interrupted', 'interrupted'));
    if (signal?.aborted === true) interrupted();
    ws.once('open', resolve);
    ws.once('error', reject);
    ws.once('unexpected-response', (_request, response) => {
      let body = '';
      response.on('data', (chunk: Buffer) => {
        if (body.length < REFUSAL_CHARACTERS_MAX) body += chunk.toString();
      });
      response.on('error', reject);
      response.on('end', () => {
        const { statusCode = 0, headers } = response;
        const message = body.slice(0, REFUSAL_CHARACTERS_MAX).trim() || `HTTP ${statusCode}`;
        const retryAfterMs = Number(headers['retry-after'] ?? Number.NaN) * 1000;
        reject(
          statusCode === 503
            ? new BridgeError('unavailable', message, { retryAfterMs })
            : new BridgeError('denied', message),
        );
      });
    });
  });
  signal?.addEventListener('abort', interrupted, { once: true });
  try {
    await opening;
  } finally {
    signal?.removeEventListener('abort', interrupted); // it outlives thousands of connections
  }
}

/** The TLS stack's codes as sentences with a next step. */
function connectError(error: unknown, address: string, certPath: string): BridgeError {
  const server = `the server at ${address}`;
  const texts: string[] = [];
  for (let e = error; e instanceof Error; e = e.cause) {
    if ('code' in e && typeof e.code === 'string' && !(e instanceof BridgeError))
      texts.push(e.code);
    texts.push(e.message);
  }
  const text = texts.join(' ');
  const because = (sentence: string) => new BridgeError('denied', sentence, { cause: error });
  if (/client certificate has expired/.test(text))
    return because(
      `${server} refused ${certPath}: the certificate has expired; renew it with: cronium up`,
    );
  if (/client certificate/.test(text))
    return because(`${server} refused ${certPath}: ${texts[0]}; use one that its own CA issued`);
  if (/CERT_HAS_EXPIRED/.test(text))
    return because(
      `the certificate of ${server} has expired; renew it with: cronium down, then cronium up`,
    );
  if (/SELF_SIGNED|UNABLE_TO_(VERIFY|GET)|CERT_SIGNATURE_FAILURE|ERR_TLS_CERT/.test(text))
    return because(
      `${server} shows a certificate that our CA did not issue: is it the right server?`,
    );
  if (error instanceof BridgeError && error.code !== 'unavailable') return error;
  const options =
    error instanceof BridgeError && error.retryAfterMs !== undefined
      ? { cause: error, retryAfterMs: error.retryAfterMs }
      : { cause: error };
  const what =
    errnoCode(error) === 'ECONNREFUSED'
      ? `no server answers at ${address}; start it with: cronium up`
      : `cannot reach ${server}: ${texts[0] ?? String(error)}`;
  return new BridgeError('unavailable', what, options);
}
