import { connect, createServer, type Server, type Socket } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';

interface Pair {
  readonly host: Socket;
  readonly server: Socket;
}

/**
 * Stands between mountd and the server, and takes the link away: by cutting it, by passing nothing on, by losing what comes back, or
 * all of it.
 */
export class LinkProxy implements AsyncDisposable {
  readonly #listener: Server;
  readonly #serverPort: number;
  readonly #pairs = new Set<Pair>();
  #state: 'open' | 'cut' | 'stalled' = 'open';

  private constructor(listener: Server, serverPort: number) {
    this.#listener = listener;
    this.#serverPort = serverPort;
  }

  static async open(serverPort: number): Promise<LinkProxy> {
    const listener = createServer((socket) => proxy.#accept(socket));
    const proxy = new LinkProxy(listener, serverPort);
    await new Promise<void>((resolve) => listener.listen(0, '127.0.0.1', resolve));
    return proxy;
  }

  get port(): number {
    const address = this.#listener.address();
    return typeof address === 'object' && address !== null ? address.port : 0;
  }

  /** Resets every connection, and each that is tried within `ms`. */
  async cut(ms: number): Promise<void> {
    this.#state = 'cut';
    for (const { host, server } of this.#pairs) {
      host.resetAndDestroy();
      server.resetAndDestroy();
    }
    await sleep(ms);
    this.#state = 'open';
  }

  /** Requests go through for `ms`, and no answer comes back; then every connection is reset: all of it was done and untold. */
  async loseAnswers(ms: number): Promise<void> {
    for (const { host, server } of this.#pairs) server.unpipe(host).resume();
    await sleep(ms);
    await this.cut(0);
  }

  /** Holds everything back for `ms`; nothing is lost. */
  async stall(ms: number): Promise<void> {
    this.#state = 'stalled';
    for (const { host, server } of this.#pairs) {
      host.unpipe(server).pause();
      server.unpipe(host).pause();
    }
    await sleep(ms);
    this.#state = 'open';
    for (const pair of this.#pairs) join(pair);
  }

  /** The cable is out for `ms`: what is sent is lost, nobody is told, and the connections that there were never come back. */
  async pull(ms: number): Promise<void> {
    this.#state = 'stalled';
    const dead = [...this.#pairs];
    for (const { host, server } of dead) {
      host.unpipe(server).resume();
      server.unpipe(host).resume();
    }
    await sleep(ms);
    this.#state = 'open';
    for (const pair of this.#pairs) if (!dead.includes(pair)) join(pair);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const closed = new Promise((resolve) => this.#listener.close(resolve));
    for (const { host, server } of this.#pairs) {
      host.destroy();
      server.destroy();
    }
    await closed;
  }

  #accept(host: Socket): void {
    host.on('error', () => {});
    if (this.#state === 'cut') {
      host.resetAndDestroy();
      return;
    }
    const server = connect(this.#serverPort, '127.0.0.1');
    server.on('error', () => {});
    const pair = { host, server };
    this.#pairs.add(pair);
    const ended = () => {
      this.#pairs.delete(pair);
      host.destroy();
      server.destroy();
    };
    host.once('close', ended);
    server.once('close', ended);
    host.pause();
    if (this.#state === 'open') join(pair);
  }
}

function join({ host, server }: Pair): void {
  host.pipe(server);
  server.pipe(host);
}
