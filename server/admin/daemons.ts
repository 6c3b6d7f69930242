import { spawn } from 'node:child_process';
import { closeSync, existsSync, openSync, rmSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { z } from 'zod';
import { BridgeError } from '#bridge/wire/errors.js';
import { writeDurably } from '#server/store/durable-file.js';
import { isRunning, markOf, readMark } from './process-mark.js';
import type { State } from './state.js';

/** Opening a large store and removing old containers takes seconds at most. */
const START_MS = 30_000;
/** mountd ends running scripts first: their grace, then its own. */
const STOP_MS = 30_000;
const POLL_MS = 20;
/** What a server whose supervisor was killed may take to answer the calls under way and to close its store. */
const ORPHAN_MS = 10_000;

export type DaemonName = 'server' | 'mountd';

const Report = z.discriminatedUnion('state', [
  z.object({ state: z.literal('ready'), port: z.int().optional() }),
  z.object({ state: z.literal('failed'), message: z.string() }),
  /** It is busy with what takes its time: the clock starts anew. */
  z.object({ state: z.literal('starting') }),
]);
type Ready = Extract<z.infer<typeof Report>, { state: 'ready' }>;

export const PROGRAMS: { readonly [D in DaemonName]: string } = {
  server: fileURLToPath(new URL('../supervisor.js', import.meta.url)),
  mountd: fileURLToPath(new URL('../../mountd/supervisor.js', import.meta.url)),
};

/** The two supervisors of an installation: started, found again and stopped through files in run/. */
export class Daemon {
  readonly #name: DaemonName;
  readonly #runFile: string;
  /** Where the supervisor marks the process it watches. */
  readonly processFile: string;
  readonly logFile: string;

  constructor(state: State, name: DaemonName) {
    this.#name = name;
    this.#runFile = state.path('run', `${name}.json`);
    this.processFile = state.path('run', `${name}-process.json`);
    this.logFile = state.path('log', `${name}.log`);
  }

  /** Process id of the supervisor while it runs. */
  get pid(): number | undefined {
    const mark = readMark(this.#runFile);
    return mark !== undefined && isRunning(mark) ? mark.pid : undefined;
  }

  /** It was started, and nobody has stopped it: if it does not run it may be back in a moment. */
  get isWanted(): boolean {
    return existsSync(this.#runFile);
  }

  /** Starts it in the background and waits until it serves. @throws BridgeError with its own last words */
  async start(config: object): Promise<Ready> {
    await this.#orphanGone();
    const log = openSync(this.logFile, 'a', 0o600);
    try {
      const child = spawn(
        process.execPath,
        ['--enable-source-maps', PROGRAMS[this.#name], JSON.stringify(config)],
        { detached: true, stdio: ['ignore', log, log, 'ipc'], cwd: '/' },
      );
      // Before it is ready: if this process is killed now, `down` still finds what it started.
      if (child.pid !== undefined)
        writeDurably(this.#runFile, `${JSON.stringify(markOf(child.pid))}\n`);
      const ready = await new Promise<Ready>((resolve, reject) => {
        const fail = (message: string) => reject(new BridgeError('unavailable', message));
        const timer = setTimeout(() => {
          child.kill('SIGKILL');
          fail(`${this.#name} was not ready after ${START_MS} ms; see ${this.logFile}`);
        }, START_MS);
        child.on('message', (message) => {
          const report = Report.parse(message);
          if (report.state === 'starting') {
            timer.refresh();
            return;
          }
          clearTimeout(timer);
          if (report.state === 'ready') resolve(report);
          else fail(report.message);
        });
        child.on('exit', (code, signal) => {
          clearTimeout(timer);
          fail(`${this.#name} ended at once (${signal ?? code}); see ${this.logFile}`);
        });
        child.on('error', (error) => fail(`cannot start ${this.#name}: ${error.message}`));
      });
      child.removeAllListeners();
      child.disconnect();
      child.unref();
      return ready;
    } finally {
      closeSync(log);
    }
  }

  /** SIGTERM and wait. Returns false when it was not running. @throws BridgeError `timeout` */
  async stop(): Promise<boolean> {
    const { pid } = this;
    if (pid === undefined) return await this.#orphanGone();
    process.kill(pid, 'SIGTERM');
    for (const deadline = Date.now() + STOP_MS; this.pid !== undefined; await sleep(POLL_MS)) {
      if (Date.now() > deadline)
        throw new BridgeError(
          'timeout',
          `${this.#name} (process ${pid}) did not stop within ${STOP_MS} ms; see ${this.logFile}`,
        );
    }
    await this.#orphanGone();
    rmSync(this.#runFile, { force: true });
    return true;
  }

  /**
   * Waits for a process whose supervisor was killed: it ends by itself, but until then it has the port and the database. One
   * that cannot end (it was stopped, or hangs) is killed. Returns whether there was one.
   */
  async #orphanGone(): Promise<boolean> {
    const orphan = readMark(this.processFile);
    if (orphan === undefined || !isRunning(orphan)) return false;
    for (let waitedMs = 0; isRunning(orphan); waitedMs += POLL_MS) {
      if (waitedMs >= ORPHAN_MS) process.kill(orphan.pid, 'SIGKILL');
      await sleep(POLL_MS);
    }
    rmSync(this.processFile, { force: true });
    return true;
  }
}
