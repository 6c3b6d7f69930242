import { type ChildProcess, spawn } from 'node:child_process';
import { createServer } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import { CannotRun } from './running.js';

/** A database makes its files within seconds. */
const READY_MS = 30_000;
const POLL_MS = 50;
/** Then it is killed. */
const STOP_MS = 10_000;
const OUTPUT_CHARS_MAX = 4_000;

export interface StartOptions {
  /** Asked until it says yes; without it the process sends a message over IPC when it serves, which `message` becomes. */
  readonly ready?: () => Promise<boolean>;
  /** Run as this system user. */
  readonly user?: string;
  /** What ends it in peace. */
  readonly stopSignal?: NodeJS.Signals;
}

/** A process of the bench's own; it ends when the bench does, however that happens. */
export class Started implements AsyncDisposable {
  readonly pid: number;
  /** The first message it sent. */
  readonly message: unknown;
  readonly #child: ChildProcess;
  readonly #stopSignal: NodeJS.Signals;

  private constructor(
    child: ChildProcess,
    pid: number,
    message: unknown,
    stopSignal: NodeJS.Signals,
  ) {
    this.#child = child;
    this.pid = pid;
    this.message = message;
    this.#stopSignal = stopSignal;
  }

  /** @throws CannotRun with its last words */
  static async start(
    command: string,
    args: readonly string[],
    { ready, user, stopSignal = 'SIGTERM' }: StartOptions = {},
  ): Promise<Started> {
    const as = user === undefined ? [] : ['--reuid', user, '--regid', user, '--init-groups'];
    // setpriv(1) becomes the program, and asks the kernel to end it when the bench is gone (PR_SET_PDEATHSIG).
    const wrapped = [...as, '--pdeathsig', stopSignal.slice(3), '--', command, ...args];
    const child = spawn('setpriv', wrapped, {
      cwd: '/',
      stdio: ['ignore', 'pipe', 'pipe', ready === undefined ? 'ipc' : 'ignore'],
    });
    let output = '';
    for (const stream of [child.stdout, child.stderr])
      stream?.on('data', (chunk: Buffer) => {
        output = (output + chunk.toString()).slice(-OUTPUT_CHARS_MAX);
      });
    let ended = false;
    const message = await new Promise<unknown>((resolve, reject) => {
      const fail = (why: string) => {
        child.kill('SIGKILL');
        reject(new CannotRun(`${command}: ${why}\n${output.trim()}`));
      };
      const timer = setTimeout(() => fail(`not ready within ${READY_MS} ms`), READY_MS);
      const settle = (value?: unknown) => {
        clearTimeout(timer);
        resolve(value);
      };
      child.once('error', (error) => fail(error.message));
      child.once('exit', (code, signal) => {
        ended = true;
        clearTimeout(timer);
        fail(`ended at once (${signal ?? code})`);
      });
      if (ready === undefined) child.once('message', settle);
      else
        void (async () => {
          while (!ended && !(await ready())) await sleep(POLL_MS);
          settle();
        })();
    });
    if (child.pid === undefined) throw new CannotRun(`${command} has no process id`);
    return new Started(child, child.pid, message, stopSignal);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const child = this.#child;
    if (child.exitCode !== null || child.signalCode !== null) return;
    const gone = new Promise<void>((resolve) => child.once('exit', () => resolve()));
    child.kill(this.#stopSignal);
    const timer = setTimeout(() => child.kill('SIGKILL'), STOP_MS);
    await gone;
    clearTimeout(timer);
  }
}

/** One that was free a moment ago. */
export async function freePort(): Promise<number> {
  return await new Promise((resolve, reject) => {
    const server = createServer();
    server.once('error', reject);
    server.listen(0, '127.0.0.1', () => {
      const address = server.address();
      server.close(() =>
        typeof address === 'object' && address !== null
          ? resolve(address.port)
          : reject(new Error('no port')),
      );
    });
  });
}
