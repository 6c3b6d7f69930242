import { constants, createPrivateKey, X509Certificate } from 'node:crypto';
import { chmodSync } from 'node:fs';
import type { IncomingMessage } from 'node:http';
import { createServer, type Server } from 'node:https';
import type { Socket } from 'node:net';
import type { Duplex } from 'node:stream';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Logger } from 'pino';
import { WebSocket, WebSocketServer } from 'ws';
import { asBridgeError, BridgeError, closeReason, errnoCode } from '#bridge/wire/errors.js';
import { CLOSE_MS, MESSAGE_BYTES_MAX } from '#bridge/wire/limits.js';
import type { Identity } from '#server/auth/identity.js';
import { answerHttp, type Health, type MetricsText, refusalStatus, text } from './endpoints.js';
import { peerIdentity } from './peer-identity.js';
import { type RefusedPeer, refusedPeer } from './refused-peer.js';
import { clearSocketPath } from './socket-path.js';

/** A peer that answers no ping within two periods is gone: a laptop lid, a cut cable, a stopped process. */
const PING_EVERY_MS = 15_000;

/** A refused client gets this long to read why. */
const REFUSED_MS = 2_000;

/** TLS handshake, and an HTTP request's headers or all of it: a second across any network, so this is ten of them. */
const HANDSHAKE_MS = 10_000;
/** How often unfinished requests are looked for. */
const HANDSHAKE_CHECK_MS = 2_000;

/** What a client hears that may come later: after a restart, or when others have gone. */
const SHUTDOWN_RETRY_MS = 500;
const FULL_RETRY_MS = 5_000;

/** How often the bytes that all connections together have unsent are looked at. */
const UNSENT_CHECK_MS = 1_000;

export interface ListenLimits {
  /** Connections open at once; a host has one. What each may have unsent and under way bounds the memory they cost. */
  readonly connectionsMax: number;
  /** Bytes one connection may have unsent before it counts as a slow consumer and is cut off; it will reconnect and catch up. */
  readonly unsentBytesMax: number;
  /** The same for all together: beyond it the slowest consumer is cut off. */
  readonly unsentBytesOfAllMax: number;
  /** How long calls in flight get to end at shutdown. */
  readonly drainMs: number;
}

export const LISTEN_LIMITS: ListenLimits = {
  connectionsMax: 2_000,
  unsentBytesMax: 64 * 1024 * 1024,
  unsentBytesOfAllMax: 512 * 1024 * 1024,
  drainMs: 3_000,
};

/** PEM texts. */
export interface ServerTls {
  readonly ca: string;
  readonly cert: string;
  readonly key: string;
}

export interface Connection {
  /** @throws BridgeError when the bytes are no message; the connection is closed then */
  receive(bytes: Uint8Array): void;
  /** Refuses calls from now on; resolves when those under way have been answered. */
  drain(reason: BridgeError): Promise<void>;
  /** At the end, or earlier to serve nothing more; may be called again. */
  close(reason: BridgeError): void;
}

export interface ListenOptions {
  readonly host: string;
  /** 0 = any free port. */
  readonly port: number;
  /** A unix socket besides, for peers on this machine: the same TLS, the same certificates. */
  readonly socketPath?: string | undefined;
  readonly tls: ServerTls;
  readonly log: Logger;
  /** Whether a certificate that is good in itself is welcome here. @throws BridgeError `denied`, in words the peer is told */
  readonly admit?: (identity: Identity) => void;
  /** Hears of every peer that was not let in, and what is known of it. */
  readonly refused?: (reason: BridgeError, peer: RefusedPeer) => void;
  readonly connect: (identity: Identity, send: (bytes: Uint8Array) => void) => Connection;
  readonly health: () => Health;
  readonly metrics: () => Promise<MetricsText>;
  readonly limits?: Partial<ListenLimits> | undefined;
}

interface Open {
  readonly identity: Identity;
  readonly connection: Connection;
}

/** TLS 1.3 with a certificate from our CA on both sides, then WebSocket; each connection is handed to `connect`. */
export class Listener implements AsyncDisposable {
  readonly #options: ListenOptions;
  readonly #limits: ListenLimits;
  readonly #log: Logger;
  readonly #servers: Server[] = [];
  readonly #webSockets: WebSocketServer;
  readonly #open = new Map<WebSocket, Open>();
  readonly #alive = new WeakSet<WebSocket>();
  /** Every socket, whatever has become of it. */
  readonly #raw = new Set<Socket>();
  readonly #pinger: NodeJS.Timeout;
  readonly #unsentCheck: NodeJS.Timeout;
  #draining = false;
  #tls: ServerTls;

  private constructor(options: ListenOptions) {
    this.#options = options;
    this.#limits = { ...LISTEN_LIMITS, ...options.limits };
    this.#log = options.log;
    this.#tls = options.tls;
    this.#webSockets = new WebSocketServer(WEBSOCKET_OPTIONS);
    this.#pinger = setInterval(() => this.#ping(), PING_EVERY_MS);
    this.#unsentCheck = setInterval(() => this.#cutSlowest(), UNSENT_CHECK_MS);
  }

  /** @throws BridgeError `unavailable` when the address or the socket cannot be listened on. */
  static async open(options: ListenOptions): Promise<Listener> {
    const listener = new Listener(options);
    const { host, port, socketPath } = options;
    try {
      await listener.#listen(`${host}:${port}`, { host, port });
      if (socketPath !== undefined) {
        await clearSocketPath(socketPath);
        await listener.#listen(socketPath, { path: socketPath });
        chmodSync(socketPath, 0o600);
      }
      return listener;
    } catch (error) {
      await listener[Symbol.asyncDispose]();
      throw error;
    }
  }

  get port(): number {
    const address = this.#servers[0]?.address();
    return typeof address === 'object' && address !== null ? address.port : 0;
  }

  get connections(): number {
    return this.#open.size;
  }

  /**
   * New connections see this certificate and are measured by this CA; those that are open go on under the old one.
   * @throws BridgeError `invalid` when these are no certificate of that authority and its key; the old one stays in use then
   */
  reloadCertificate(tls: ServerTls): void {
    try {
      // setSecureContext takes a certificate without its key and an authority that is none, and then nobody gets in.
      const certificate = new X509Certificate(tls.cert);
      const isWhole =
        certificate.checkPrivateKey(createPrivateKey(tls.key)) &&
        certificate.checkIssued(new X509Certificate(tls.ca));
      if (!isWhole) throw new TypeError('certificate, key and authority are of different makes');
    } catch (cause) {
      throw new BridgeError(
        'invalid',
        'the new server certificate, its key and its authority do not fit together; the old one stays in use',
        { cause },
      );
    }
    this.#tls = tls;
    for (const server of this.#servers) server.setSecureContext(this.#secureOptions);
  }

  /** Closes every connection of whom `isUnwelcome` says so. Returns how many. */
  disconnect(isUnwelcome: (identity: Identity) => boolean, reason: BridgeError): number {
    const unwelcome = [...this.#open].filter(([, { identity }]) => isUnwelcome(identity));
    for (const [ws, { connection }] of unwelcome) {
      connection.close(reason); // nothing more is served, whenever the peer agrees to the end
      ws.close(1008, closeReason(reason));
    }
    return unwelcome.length;
  }

  /** Answers the calls under way, at most for `drainMs`, and refuses others; then everything is closed. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#draining = true;
    clearInterval(this.#pinger);
    const closed = this.#servers.map(
      async (server) =>
        await new Promise<void>((resolve) => {
          if (server.listening) server.close(() => resolve());
          else resolve();
        }),
    );
    const reason = shuttingDown();
    const impatient = new AbortController();
    const { signal } = impatient;
    const patience = sleep(this.#limits.drainMs, undefined, { signal }).catch(() => {});
    await Promise.all(
      [...this.#open].map(async ([ws, { connection }]) => {
        const gone = new Promise<void>((resolve) => ws.once('close', () => resolve()));
        await Promise.race([connection.drain(reason), patience, gone]);
        ws.close(1001, closeReason(reason));
        await gone; // within CLOSE_MS, then it is cut
      }),
    );
    impatient.abort();
    clearInterval(this.#unsentCheck);
    for (const socket of this.#raw) socket.destroy();
    await Promise.all(closed);
  }

  async #listen(
    what: string,
    place: { host: string; port: number } | { path: string },
  ): Promise<void> {
    const server = createServer({
      ...this.#secureOptions,
      requestCert: true,
      // Checked at the upgrade instead, where a refusal can say why: Node would cut the connection without a word.
      rejectUnauthorized: false,
      handshakeTimeout: HANDSHAKE_MS,
      headersTimeout: HANDSHAKE_MS,
      requestTimeout: HANDSHAKE_MS,
      connectionsCheckingInterval: HANDSHAKE_CHECK_MS,
    });
    // Room to refuse as many again with a sentence; what comes on top of those is cut without one.
    server.maxConnections = 2 * this.#limits.connectionsMax;
    server.on('connection', (socket: Socket) => {
      this.#raw.add(socket);
      socket.once('close', () => this.#raw.delete(socket));
    });
    server.on('upgrade', (request, socket, head) => this.#upgrade(request, socket, head));
    server.on('request', (request, response) => {
      const endpoints = {
        health: () => (this.#draining ? 'draining' : this.#options.health()),
        metrics: this.#options.metrics,
        identify: ({ socket }: IncomingMessage) => this.#identify(socket),
      };
      answerHttp(endpoints, request, response).catch((error: unknown) => {
        this.#log.error({ err: error }, 'request failed');
        if (response.headersSent) response.destroy();
        else text(response, 500, 'the server could not tell: its log says why');
      });
    });
    server.on('tlsClientError', (error) => {
      this.#log.info({ code: 'code' in error ? error.code : undefined }, 'TLS handshake refused');
    });
    await new Promise<void>((resolve, reject) => {
      server.once('error', (cause) => {
        const why =
          errnoCode(cause) === 'EADDRINUSE'
            ? 'the port is taken; choose another with --listen'
            : cause.message;
        reject(new BridgeError('unavailable', `cannot listen on ${what}: ${why}`, { cause }));
      });
      server.listen(place, resolve);
    });
    this.#servers.push(server);
  }

  get #secureOptions() {
    return {
      ...this.#tls,
      minVersion: 'TLSv1.3',
      // No tickets: a resumed session would skip the certificate check.
      secureOptions: constants.SSL_OP_NO_TICKET,
    } as const;
  }

  #identify(socket: Duplex): Identity {
    const identity = peerIdentity(socket);
    // Here, and not in the handshake: a resumed TLS session would bring its certificate past that.
    this.#options.admit?.(identity);
    return identity;
  }

  #upgrade(request: IncomingMessage, socket: Duplex, head: Buffer): void {
    // Node has let go of it: without anybody who listens, a reset would end the process.
    socket.on('error', () => {});
    try {
      const identity = this.#identify(socket);
      if (this.#draining) throw shuttingDown();
      const { connectionsMax } = this.#limits;
      if (this.#open.size >= connectionsMax)
        throw new BridgeError(
          'rate_limited',
          `${connectionsMax} connections are open, which is the limit; try again later`,
          { retryAfterMs: FULL_RETRY_MS },
        );
      this.#webSockets.handleUpgrade(request, socket, head, (ws) => this.#accept(ws, identity));
    } catch (error) {
      this.#refuse(socket, asBridgeError(error));
    }
  }

  #accept(ws: WebSocket, identity: Identity): void {
    const log = this.#log.child({ role: identity.role, peer: identity.name });
    const connection = this.#options.connect(identity, (bytes) => {
      if (ws.readyState !== WebSocket.OPEN) return;
      if (ws.bufferedAmount > this.#limits.unsentBytesMax) {
        log.warn({ bytes: ws.bufferedAmount }, 'slow consumer cut off');
        ws.terminate();
        return;
      }
      ws.send(bytes);
    });
    this.#open.set(ws, { identity, connection });
    this.#alive.add(ws);
    ws.on('pong', () => this.#alive.add(ws));
    ws.on('message', (data) => {
      try {
        connection.receive(data as Buffer); // binaryType is nodebuffer
      } catch (error) {
        const reason = asBridgeError(error);
        log.warn({ reason: reason.message }, 'connection closed: bad message');
        connection.close(reason);
        ws.close(1002, closeReason(reason));
      }
    });
    ws.on('error', (error) => log.info({ reason: error.message }, 'connection error'));
    ws.on('close', () => {
      this.#open.delete(ws);
      connection.close(new BridgeError('unavailable', 'the connection was closed'));
      log.info('disconnected');
    });
    log.info('connected');
  }

  #refuse(socket: Duplex, error: BridgeError): void {
    this.#options.refused?.(error, refusedPeer(socket, this.#tls.ca));
    this.#log.info({ reason: error.message }, 'connection refused');
    const status = refusalStatus(error);
    const seconds = Math.ceil((error.retryAfterMs ?? 0) / 1000);
    const body = `${error.message}\n`;
    // Nobody reads from it any more: it must go by itself, whatever the other side does with its end.
    socket.once('finish', () => socket.destroy());
    const timer = setTimeout(() => socket.destroy(), REFUSED_MS);
    socket.once('close', () => clearTimeout(timer));
    socket.end(
      `HTTP/1.1 ${status} ${STATUS_TEXTS[status]}\r\nConnection: close\r\nContent-Type: text/plain; charset=utf-8\r\n${
        status === 503 ? `Retry-After: ${seconds}\r\n` : ''
      }Content-Length: ${Buffer.byteLength(body)}\r\n\r\n${body}`,
    );
  }

  #ping(): void {
    const now = Date.now();
    this.disconnect(
      ({ notAfter = Number.POSITIVE_INFINITY }) => now > notAfter,
      new BridgeError('denied', 'the client certificate has expired'),
    );
    for (const ws of this.#open.keys()) {
      if (!this.#alive.delete(ws)) ws.terminate();
      else if (ws.readyState === WebSocket.OPEN) ws.ping();
    }
  }

  #cutSlowest(): void {
    let all = 0;
    let most = 0;
    let slowest: WebSocket | undefined;
    for (const ws of this.#open.keys()) {
      const { bufferedAmount } = ws;
      all += bufferedAmount;
      if (bufferedAmount <= most) continue;
      most = bufferedAmount;
      slowest = ws;
    }
    if (all <= this.#limits.unsentBytesOfAllMax) return;
    this.#log.warn({ bytes: most, all }, 'slowest consumer cut off');
    slowest?.terminate();
  }
}

const WEBSOCKET_OPTIONS = {
  noServer: true,
  perMessageDeflate: false,
  clientTracking: false,
  skipUTF8Validation: true,
  maxPayload: MESSAGE_BYTES_MAX,
  closeTimeout: CLOSE_MS,
};

const STATUS_TEXTS = {
  401: 'Unauthorized',
  500: 'Internal Server Error',
  503: 'Service Unavailable',
} as const;

const shuttingDown = (): BridgeError =>
  new BridgeError('unavailable', 'the server is shutting down', {
    retryAfterMs: SHUTDOWN_RETRY_MS,
  });
