import { chmodSync, rmSync } from 'node:fs';
import { createServer, type Server } from 'node:http';
import { WebSocket, WebSocketServer } from 'ws';
import { servePeer } from '#bridge/client/connection.js';
import {
  CONTROL_OPERATIONS,
  type ControlOperations,
  CREATED,
  type FinishRequest,
  LOG,
  type Log,
  type MountdStatus,
  type Prepared,
  type PrepareRequest,
  type RunRequest,
  type RunResult,
} from '#bridge/wire/control.js';
import { BridgeError } from '#bridge/wire/errors.js';
import { CLOSE_MS, MESSAGE_BYTES_MAX } from '#bridge/wire/limits.js';
import type { ExecutionId } from '#bridge/wire/names.js';
import type { Params, Result } from '#bridge/wire/protocol.js';
import { KEPT, type Kept, type LogsRequest, type LogsResult } from '#bridge/wire/watch.js';

const WEBSOCKET_OPTIONS = {
  perMessageDeflate: false,
  skipUTF8Validation: true,
  maxPayload: MESSAGE_BYTES_MAX,
  closeTimeout: CLOSE_MS,
};

/** Output waiting for a slow reader before the script's pipe is left alone; it then waits too. */
const UNSENT_BYTES_MAX = 4 * 1024 * 1024;
const UNSENT_POLL_MS = 10;
/** Of kept output: whoever is slower than that is no longer waited for in memory, but in what is kept anyway. */
const FOLLOWER_BYTES_MAX = 256 * 1024;

/** Whoever asked for a run. */
export interface RunListener {
  /** Once, before anything else: it exists. */
  created(executionId: ExecutionId): void;
  /** Returns a promise to be waited for before more output is read. */
  log(log: Log): Promise<void>;
}

export interface ControlHandlers {
  run(request: RunRequest, listener: RunListener, signal: AbortSignal): Promise<RunResult>;
  create(request: PrepareRequest, signal: AbortSignal): Promise<Prepared>;
  finish(request: FinishRequest): Promise<RunResult>;
  status(): MountdStatus;
  upgrade(wanted: Upgrade): void;
  /** `pass` returns a promise to be waited for before more is passed. */
  logs(
    request: LogsRequest,
    signal: AbortSignal,
    pass: (kept: Kept) => Promise<void>,
  ): Promise<LogsResult>;
  stats(wanted: Params<ControlOperations, 'stats'>): Promise<Result<ControlOperations, 'stats'>>;
}

export type Upgrade = Params<ControlOperations, 'upgrade'>;

/** The unix socket the operator's command talks to. Mode 0600: whoever may connect may run scripts as any user. */
export class ControlServer implements AsyncDisposable {
  readonly #http: Server;
  readonly #path: string;
  readonly #open = new Set<WebSocket>();

  private constructor(path: string, handlers: ControlHandlers) {
    this.#path = path;
    this.#http = createServer();
    const sockets = new WebSocketServer({
      server: this.#http,
      ...WEBSOCKET_OPTIONS,
    });
    sockets.on('connection', (ws) => this.#accept(ws, handlers));
  }

  /** @throws BridgeError `unavailable` when it cannot be made */
  static async open(path: string, handlers: ControlHandlers): Promise<ControlServer> {
    rmSync(path, { force: true });
    const server = new ControlServer(path, handlers);
    await new Promise<void>((resolve, reject) => {
      server.#http.once('error', (cause) =>
        reject(
          new BridgeError('unavailable', `cannot listen on ${path}: ${cause.message}`, { cause }),
        ),
      );
      server.#http.listen(path, resolve);
    });
    chmodSync(path, 0o600);
    return server;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const closed = new Promise<void>((resolve) => this.#http.close(() => resolve()));
    // What was sent in this turn goes out at its end.
    await new Promise((resolve) => setImmediate(resolve));
    for (const ws of this.#open) ws.close(1001, 'mountd is shutting down');
    this.#http.closeAllConnections();
    setTimeout(() => {
      for (const ws of this.#open) ws.terminate();
    }, 1000).unref();
    await closed;
    rmSync(this.#path, { force: true });
  }

  #accept(ws: WebSocket, handlers: ControlHandlers): void {
    this.#open.add(ws);
    void servePeer(ws, CONTROL_OPERATIONS, (peer) => ({
      create: async ({ params, signal }) => await handlers.create(params, signal),
      finish: async ({ params }) => await handlers.finish(params),
      status: async () => handlers.status(),
      upgrade: async ({ params }) => {
        handlers.upgrade(params);
        return {};
      },
      logs: async ({ params, channel, signal }) =>
        await handlers.logs(params, signal, async (kept) => {
          peer.push(channel, KEPT, kept);
          await drained(ws, FOLLOWER_BYTES_MAX);
        }),
      stats: async ({ params }) => await handlers.stats(params),
      run: async ({ params, channel, signal }) => {
        const listener: RunListener = {
          created: (executionId) => peer.push(channel, CREATED, { executionId }),
          log: async (log) => {
            peer.push(channel, LOG, log);
            await drained(ws, UNSENT_BYTES_MAX);
          },
        };
        return await handlers.run(params, listener, signal);
      },
    })).then(() => this.#open.delete(ws));
  }
}

/** Resolves when fewer bytes than `bytesMax` wait for the other end, or it has gone. */
async function drained(ws: WebSocket, bytesMax: number): Promise<void> {
  while (ws.bufferedAmount > bytesMax && ws.readyState === WebSocket.OPEN)
    await new Promise((resolve) => setTimeout(resolve, UNSENT_POLL_MS));
}
