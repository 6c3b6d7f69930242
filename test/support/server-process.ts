import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, openSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { Connection } from '#bridge/client/connection.js';
import { Installation, SOFTWARE } from '#server/admin/installation.js';
import { markOf } from '#server/admin/process-mark.js';
import { State } from '#server/admin/state.js';
import type { ServerConfig } from '#server/config.js';
import { type Finished, finished } from './installation.js';

const CRONIUM = fileURLToPath(new URL('../../../bin/cronium', import.meta.url));
const MAIN = fileURLToPath(new URL('../../server/main.js', import.meta.url));

/** The server as a process of its own, which can be killed and started again. Disposing leaves nothing. */
export class ServerProcess implements AsyncDisposable {
  readonly directory: string;
  readonly state: State;
  #child: ChildProcess | undefined;
  #port = 0;

  private constructor(directory: string, name: string) {
    this.directory = directory;
    this.state = new State(join(directory, name));
  }

  /** `name`: of the state directory, below one of its own. */
  static async make(name = 'state'): Promise<ServerProcess> {
    const server = new ServerProcess(mkdtempSync(join(tmpdir(), 'cronium-process-')), name);
    server.state.prepareDirectories();
    await server.state.prepareCertificates();
    return server;
  }

  get database(): string {
    return this.state.path('server', 'db');
  }

  get log(): string {
    return readFileSync(this.state.path('log', 'server.log'), 'utf8');
  }

  get port(): number {
    return this.#port;
  }

  /** What it is told at start; the port it had before, if it had one. */
  config(change: Partial<ServerConfig> = {}): ServerConfig {
    const { path } = this.state;
    return {
      software: SOFTWARE,
      listen: { host: '127.0.0.1', port: this.#port },
      socket: path('run', 'server.sock'),
      database: this.database,
      keyring: path('server', 'keyring.json'),
      masterKey: this.state.masterKey,
      damaged: false,
      tokenKey: path('server', 'token.key'),
      tls: { ca: this.state.certificate('ca').cert, ...this.state.certificate('server') },
      logLevel: 'info',
      processFile: path('run', 'server-process.json'),
      restarts: 0,
      ...change,
    };
  }

  /** Starts it and waits until it serves. @throws Error with its last words */
  async start(change: Partial<ServerConfig> = {}): Promise<void> {
    const { path } = this.state;
    const config = this.config(change);
    const log = openSync(path('log', 'server.log'), 'a', 0o600);
    const child = spawn(process.execPath, ['--enable-source-maps', MAIN, JSON.stringify(config)], {
      stdio: ['ignore', log, log, 'ipc'],
    });
    this.#child = child;
    const port = await new Promise<number>((resolve, reject) => {
      child.on('message', (message: { state: string; port?: number; message?: string }) => {
        if (message.state === 'ready') resolve(message.port ?? 0);
        if (message.state === 'failed') reject(new Error(message.message));
      });
      child.on('exit', (code, signal) => reject(new Error(`it ended: ${signal ?? code}`)));
    });
    this.listens(port);
    // So that commands find it, as they find one that `cronium up` has started.
    if (child.pid !== undefined)
      writeFileSync(path('run', 'server.json'), JSON.stringify(markOf(child.pid)));
  }

  /** Connections and commands find it there. */
  listens(port: number): void {
    this.#port = port;
    this.state.writeSettings({
      ...(this.state.exists && this.state.settings()),
      listen: { host: '127.0.0.1', port },
    });
  }

  /** Ends it and waits until it is gone. */
  async end(signal: 'SIGKILL' | 'SIGTERM'): Promise<void> {
    const child = this.#child;
    this.#child = undefined;
    if (child === undefined || child.exitCode !== null || child.signalCode !== null) return;
    const gone = once(child, 'exit');
    child.kill(signal);
    await gone;
  }

  /** Runs `cronium` on it to its end. */
  async cronium(...args: readonly string[]): Promise<Finished> {
    const env = { ...process.env, CRONIUM_STATE: this.state.directory };
    return await finished(
      spawn(process.execPath, [CRONIUM, ...args], { env, stdio: ['ignore', 'pipe', 'pipe'] }),
    );
  }

  async connect(as: 'host' | 'operator'): Promise<Connection> {
    const tls = new Installation(this.state).tls(as);
    const address = { host: '127.0.0.1', port: this.#port };
    return await Connection.open({ address, tls, software: 'test' });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.end('SIGKILL');
    rmSync(this.directory, { recursive: true, force: true });
  }
}
