import { type ChildProcess, spawn } from 'node:child_process';
import type { Socket } from 'node:net';
import { EIO, type FsError } from './fs-error.js';

/**
 * Makes holes with fallocate(1) of util-linux, which every Debian has: Node cannot call fallocate(2). One shell does it for the
 * whole process, a line in and a line out, so that nothing is forked on the thread that answers the kernel.
 */
const SHELL_TEXT = `set -f # what fallocate says is put on one line, and nothing else is made of it
while read -r offset length path; do
  said=$(LC_ALL=C fallocate --punch-hole --offset "$offset" --length "$length" -- "$path" 2>&1)
  echo "$?" $said
done`;

interface Job {
  readonly line: string;
  readonly done: (isHole: boolean) => void;
  readonly failed: (error: FsError) => void;
}

/** Jobs are done one after the other; a file has one at a time, since Content.punch is awaited under the inode's lock. */
class HolePuncher {
  #shell: ChildProcess | undefined;
  readonly #jobs: Job[] = [];
  #said = '';

  /** Resolves to false where the host has no holes, or no fallocate(1). @throws FsError EIO */
  async punch(path: string, offset: number, length: number): Promise<boolean> {
    return await new Promise((resolve, reject) => {
      this.#jobs.push({ line: `${offset} ${length} ${path}\n`, done: resolve, failed: reject });
      if (this.#jobs.length === 1) this.#next();
    });
  }

  #next(): void {
    const [job] = this.#jobs;
    if (job === undefined) return;
    this.#shell ??= this.#start();
    hold(this.#shell, true);
    this.#shell.stdin?.write(job.line);
  }

  #start(): ChildProcess {
    const shell = spawn('/bin/sh', ['-c', SHELL_TEXT], { stdio: ['pipe', 'pipe', 'ignore'] });
    shell.stdout.setEncoding('utf8').on('data', (text: string) => {
      this.#said += text;
      const end = this.#said.indexOf('\n');
      if (end < 0) return;
      const answer = this.#said.slice(0, end);
      this.#said = this.#said.slice(end + 1);
      this.#settle(answer);
    });
    const gone = () => {
      if (this.#shell !== shell) return;
      this.#shell = undefined;
      this.#said = '';
      if (this.#jobs.length > 0) this.#settle('126 the shell is gone');
    };
    shell.stdin.on('error', gone);
    shell.on('error', gone);
    shell.on('exit', gone);
    return shell;
  }

  /** `answer`: the exit code, then what fallocate(1) said. */
  #settle(answer: string): void {
    const job = this.#jobs.shift();
    const code = Number.parseInt(answer, 10);
    if (code === 0) job?.done(true);
    else if (code === 127 || /not supported/i.test(answer)) job?.done(false);
    else job?.failed(EIO);
    if (this.#jobs.length > 0) this.#next();
    else if (this.#shell !== undefined) hold(this.#shell, false);
  }
}

/** Idle it must not keep the process from ending (its input then ends, and so does it); at work it must. */
function hold(shell: ChildProcess, atWork: boolean): void {
  // Both streams are sockets, which the types do not say.
  for (const one of [shell, shell.stdin, shell.stdout] as (Pick<Socket, 'ref' | 'unref'> | null)[])
    if (atWork) one?.ref();
    else one?.unref();
}

export const holePuncher = new HolePuncher();
