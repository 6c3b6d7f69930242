import { constants, createPrivateKey, X509Certificate } from 'node:crypto';
import { createServer, type Server } from 'node:https';
import type { AddressInfo } from 'node:net';
import type { Duplex } from 'node:stream';
import { type SecureContextOptions, TLSSocket } from 'node:tls';
import type { Logger } from 'pino';
import { WebSocket, WebSocketServer } from 'ws';
import { asBridgeError, BridgeError, errnoCode } from '#bridge/wire/errors.js';
import { MESSAGE_BYTES_MAX } from '#bridge/wire/limits.js';
import { type Identity, identityOf } from '#server/auth/identity.js';

/** A peer that answers no ping within two periods is gone: a laptop lid, a cut cable, a stopped process. */
const PING_EVERY_MS = 15_000;

/** Bytes one connection may have unsent before it counts as a slow consumer and is cut off; it will reconnect and catch up. */
const UNSENT_BYTES_MAX = 64 * 1024 * 1024;

/** A refused client gets this long to read why. */
const REFUSED_MS = 2_000;

/** How long calls in flight get to end at shutdown. */
const DRAIN_MS = 3_000;

export interface Connection {
  receive(bytes: Uint8Array): void;
  close(reason: BridgeError): void;
}

/** PEM texts. */
export interface TlsTexts {
  readonly ca: string;
  readonly cert: string;
  readonly key: string;
}

export interface ListenOptions {
  readonly host: string;
  /** 0 = any free port. */
  readonly port: number;
  readonly tls: TlsTexts;
  readonly log: Logger;
  /** Of a client certificate's thumbprint; asked at every upgrade. */
  readonly isRevoked?: (thumbprint: string) => boolean;
  readonly connect: (identity: Identity, send: (bytes: Uint8Array) => void) => Connection;
}

/** TLS 1.3 with a certificate from our CA on both sides, then WebSocket; each connection is handed to `connect`. */
export class Listener implements AsyncDisposable {
  readonly #http: Server;
  readonly #sockets: WebSocketServer;
  readonly #log: Logger;
  readonly #connect: ListenOptions['connect'];
  readonly #isRevoked: (thumbprint: string) => boolean;
  readonly #thumbprints = new WeakMap<WebSocket, string>();
  readonly #open = new Map<WebSocket, Connection>();
  readonly #pinger: NodeJS.Timeout;
  readonly #alive = new WeakSet<WebSocket>();
  readonly #refused = new Set<Duplex>();

  private constructor({ tls, log, connect, isRevoked = () => false }: ListenOptions) {
    this.#log = log;
    this.#connect = connect;
    this.#isRevoked = isRevoked;
    this.#http = createServer({
      ...contextOptions(tls),
      requestCert: true,
      // Checked at the upgrade instead, where a refusal can say why: Node would cut the connection without a word.
      rejectUnauthorized: false,
    });
    this.#sockets = new WebSocketServer({
      noServer: true,
      perMessageDeflate: false,
      clientTracking: false,
      skipUTF8Validation: true,
      maxPayload: MESSAGE_BYTES_MAX,
    });
    this.#http.on('upgrade', (request, socket, head) => {
      try {
        const identity = this.#identify(socket);
        this.#sockets.handleUpgrade(request, socket, head, (ws) => this.#accept(ws, identity));
      } catch (error) {
        this.#refuse(socket, error);
      }
    });
    this.#http.on('request', (_request, response) => {
      response.writeHead(426, { 'content-type': 'text/plain' }).end('this is a WebSocket server\n');
    });
    this.#http.on('tlsClientError', (error) => {
      log.info({ code: 'code' in error ? error.code : undefined }, 'TLS handshake refused');
    });
    this.#pinger = setInterval(() => this.#ping(), PING_EVERY_MS);
  }

  /** @throws BridgeError `unavailable` when the address cannot be listened on. */
  static async open(options: ListenOptions): Promise<Listener> {
    const listener = new Listener(options);
    const { host, port } = options;
    await new Promise<void>((resolve, reject) => {
      listener.#http.once('error', (cause) => {
        clearInterval(listener.#pinger);
        const why =
          errnoCode(cause) === 'EADDRINUSE'
            ? 'the port is taken; choose another with --listen'
            : cause.message;
        reject(
          new BridgeError('unavailable', `cannot listen on ${host}:${port}: ${why}`, { cause }),
        );
      });
      listener.#http.listen(port, host, resolve);
    });
    return listener;
  }

  get port(): number {
    return (this.#http.address() as AddressInfo).port;
  }

  get connections(): number {
    return this.#open.size;
  }

  /** Closes every connection of a certificate; what it had still asked for is not answered. Returns how many there were. */
  closeRevoked(thumbprint: string): number {
    const revoked = [...this.#open].filter(([ws]) => this.#thumbprints.get(ws) === thumbprint);
    for (const [ws, connection] of revoked) {
      // Nothing that arrives from now on is served, whether the other side minds the close or not.
      connection.close(new BridgeError('denied', REVOKED));
      ws.close(1008, REVOKED);
      setTimeout(() => ws.terminate(), REFUSED_MS).unref();
    }
    return revoked.length;
  }

  /**
   * Connections from now on are offered the new certificate; those that are open go on under the old one.
   * @throws BridgeError `invalid` when these are no certificate of that authority and its key; the old one stays in use then
   */
  reloadCertificate(tls: TlsTexts): void {
    try {
      // setSecureContext takes a certificate without its key and an authority that is none, and then nobody gets in.
      const certificate = new X509Certificate(tls.cert);
      const isWhole =
        certificate.checkPrivateKey(createPrivateKey(tls.key)) &&
        certificate.checkIssued(new X509Certificate(tls.ca));
      if (!isWhole) throw new TypeError('certificate, key and authority are of different makes');
      this.#http.setSecureContext(contextOptions(tls));
    } catch (cause) {
      throw new BridgeError(
        'invalid',
        'the new server certificate, its key and its authority do not fit together; the old one stays in use',
        { cause },
      );
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    clearInterval(this.#pinger);
    const closed = new Promise<void>((resolve) => this.#http.close(() => resolve()));
    for (const ws of this.#open.keys()) ws.close(1001, 'the server is shutting down');
    for (const socket of this.#refused) socket.destroy();
    const cut = setTimeout(() => {
      for (const ws of this.#open.keys()) ws.terminate();
      this.#http.closeAllConnections();
    }, DRAIN_MS);
    await closed;
    clearTimeout(cut);
  }

  /** @throws BridgeError `denied`, in words the other side is told */
  #identify(socket: Duplex): Identity {
    const identity = peerIdentity(socket);
    // Here, and not in the handshake: a resumed TLS session would bring its certificate past that.
    if (this.#isRevoked(identity.thumbprint)) throw new BridgeError('denied', REVOKED);
    return identity;
  }

  #accept(ws: WebSocket, identity: Identity): void {
    const log = this.#log.child({ role: identity.role, peer: identity.name });
    const connection = this.#connect(identity, (bytes) => {
      if (ws.readyState !== WebSocket.OPEN) return;
      if (ws.bufferedAmount > UNSENT_BYTES_MAX) {
        log.warn({ bytes: ws.bufferedAmount }, 'slow consumer cut off');
        ws.terminate();
        return;
      }
      ws.send(bytes);
    });
    this.#open.set(ws, connection);
    this.#thumbprints.set(ws, identity.thumbprint);
    this.#alive.add(ws);
    ws.on('pong', () => this.#alive.add(ws));
    ws.on('message', (data) => {
      try {
        connection.receive(data as Buffer); // binaryType is nodebuffer
      } catch (error) {
        const { message } = asBridgeError(error);
        log.warn({ reason: message }, 'connection closed: bad message');
        ws.close(1002, message.slice(0, 100));
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

  #refuse(socket: Duplex, error: unknown): void {
    const { message } = asBridgeError(error);
    this.#log.info({ reason: message }, 'connection refused');
    const body = `${message}\n`;
    // Nobody reads from it any more: it must go by itself, whatever the other side does with its end.
    socket.on('error', () => {});
    socket.once('finish', () => socket.destroy());
    const timer = setTimeout(() => socket.destroy(), REFUSED_MS);
    this.#refused.add(socket);
    socket.once('close', () => {
      clearTimeout(timer);
      this.#refused.delete(socket);
    });
    socket.end(
      `HTTP/1.1 401 Unauthorized\r\nConnection: close\r\nContent-Length: ${Buffer.byteLength(body)}\r\n\r\n${body}`,
    );
  }

  #ping(): void {
    for (const ws of this.#open.keys()) {
      if (!this.#alive.delete(ws)) ws.terminate();
      else ws.ping();
    }
  }
}

/** @throws BridgeError `denied`, in words the other side is told */
function peerIdentity(socket: Duplex): Identity {
  if (!(socket instanceof TLSSocket))
    throw new BridgeError('denied', 'this is not a TLS connection');
  const certificate = socket.getPeerX509Certificate();
  if (certificate === undefined) throw new BridgeError('denied', 'a client certificate is needed');
  if (!socket.authorized)
    throw new BridgeError(
      'denied',
      REFUSALS[String(socket.authorizationError)] ?? 'the client certificate is not valid',
    );
  return identityOf(certificate);
}

/** What is the same for the first certificate and for those that come later. */
const contextOptions = ({ ca, cert, key }: TlsTexts): SecureContextOptions => ({
  ca,
  cert,
  key,
  minVersion: 'TLSv1.3',
  // No tickets: a resumed session would skip the certificate check.
  secureOptions: constants.SSL_OP_NO_TICKET,
});

const REVOKED = 'the client certificate was revoked';
const UNKNOWN_ISSUER = 'the client certificate comes from another CA';

/** OpenSSL's verdicts, X509_STORE_CTX_get_error(3). */
const REFUSALS: Readonly<Record<string, string>> = {
  CERT_HAS_EXPIRED: 'the client certificate has expired',
  CERT_NOT_YET_VALID: 'the client certificate is not valid yet: check the clocks',
  UNABLE_TO_GET_ISSUER_CERT: UNKNOWN_ISSUER,
  UNABLE_TO_GET_ISSUER_CERT_LOCALLY: UNKNOWN_ISSUER,
  UNABLE_TO_VERIFY_LEAF_SIGNATURE: UNKNOWN_ISSUER,
  SELF_SIGNED_CERT_IN_CHAIN: UNKNOWN_ISSUER,
  DEPTH_ZERO_SELF_SIGNED_CERT: UNKNOWN_ISSUER,
};
