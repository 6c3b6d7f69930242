import { type ChildProcess, spawn } from 'node:child_process';
import { createInterface, type Interface } from 'node:readline';

/** The slowest batch takes a second; a script that takes this long hangs. */
const ANSWER_MS = 60_000;

export interface Obeyed {
  /** What the last call answered. */
  readonly answer: string;
  /** Of all calls together. */
  readonly nanoseconds: number;
}

/** A script that has loaded its helper and does what it is told, in a directory that this process never touches. */
export class Listener implements AsyncDisposable {
  readonly #child: ChildProcess;
  readonly #lines: AsyncIterator<string>;
  readonly #interface: Interface;
  readonly #closed: Promise<void>;
  #complaints = '';

  constructor(directory: string, program: string, script: string) {
    // chdir happens in the child: spawn's own cwd would make this process look at the mount.
    const args = ['-c', 'cd "$0" && exec "$@"', directory, program, script];
    const child = spawn('/bin/sh', args, { cwd: '/', stdio: ['pipe', 'pipe', 'pipe'] });
    child.stdin.on('error', () => {}); // it has ended: its answer is missing, which is said
    child.stderr.on('data', (chunk: Buffer) => {
      this.#complaints += chunk.toString();
    });
    this.#child = child;
    this.#interface = createInterface({ input: child.stdout });
    this.#lines = this.#interface[Symbol.asyncIterator]();
    this.#closed = new Promise((resolve) => {
      child.on('close', () => resolve());
      child.on('error', () => resolve());
    });
  }

  /** @throws Error when the script has ended, hangs, or complained */
  async obey(command: string): Promise<Obeyed> {
    const timer = setTimeout(() => this.#child.kill('SIGKILL'), ANSWER_MS);
    this.#child.stdin?.write(`${command}\n`);
    const answer = await this.#lines.next();
    const time = await this.#lines.next();
    clearTimeout(timer);
    if (answer.done === true || time.done === true || this.#complaints !== '')
      throw new Error(`"${command}" got no answer: ${this.#complaints.trim() || 'it has ended'}`);
    return { answer: answer.value, nanoseconds: Number(time.value) };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#child.stdin?.end();
    await this.#closed;
    this.#interface.close();
  }
}
