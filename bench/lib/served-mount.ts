import { type ChildProcess, fork } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import type { TreeFile } from '#bridge/vfs/waiting-tree.js';

/** What the bench asks the mount's process. Every one is answered. */
export type Question = { readonly id: number } & (
  | {
      readonly kind: 'tree';
      readonly variables: Readonly<Record<string, string>>;
      readonly files: readonly TreeFile[];
    }
  | { readonly kind: 'push'; readonly work: string; readonly key: string; readonly text: string }
  | { readonly kind: 'remove'; readonly work: string }
);
type Unnumbered<Q> = Q extends unknown ? Omit<Q, 'id'> : never;

export type Answer =
  | { readonly id: number; readonly text: string }
  | { readonly id: number; readonly failure: string };

/**
 * A mount with the tests' runtime, served by a process of its own, so that the bench's work and the mount's do not wait for
 * one another. Disposing ends the process; so does the end of the bench.
 */
export class ServedMount implements AsyncDisposable {
  readonly #child: ChildProcess;
  readonly #waiting = new Map<number, (answer: Answer) => void>();
  readonly #exited: Promise<void>;
  #next = 1;

  private constructor() {
    const program = fileURLToPath(new URL('./mount-process.js', import.meta.url));
    this.#child = fork(program, { cwd: '/', serialization: 'advanced' });
    this.#child.on('message', (answer: Answer) => {
      this.#waiting.get(answer.id)?.(answer);
      this.#waiting.delete(answer.id);
    });
    this.#exited = new Promise((resolve) => {
      this.#child.on('exit', (code, signal) => {
        const failure = `the process that serves the mount has ended: ${signal ?? code}`;
        for (const [id, settle] of this.#waiting) settle({ id, failure });
        this.#waiting.clear();
        resolve();
      });
    });
  }

  /** Where its process keeps the backing files is TMPDIR's to say. */
  static async start(): Promise<ServedMount> {
    const mount = new ServedMount();
    await mount.#answered(0);
    return mount;
  }

  /** The working directory of a new execution. Values are JSON source text. */
  async tree(
    variables: Readonly<Record<string, string>>,
    files: readonly TreeFile[],
  ): Promise<string> {
    return await this.#ask({ kind: 'tree', variables, files });
  }

  /** Somebody else sets a variable. Resolves when the mount's process has been told; the kernel hears a moment later. */
  async push(work: string, key: string, text: string): Promise<void> {
    await this.#ask({ kind: 'push', work, key, text });
  }

  async remove(work: string): Promise<void> {
    await this.#ask({ kind: 'remove', work });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#child.connected) this.#child.disconnect();
    await this.#exited;
  }

  async #ask(question: Unnumbered<Question>): Promise<string> {
    const id = this.#next++;
    const answered = this.#answered(id);
    this.#child.send({ ...question, id });
    return await answered;
  }

  async #answered(id: number): Promise<string> {
    const answer = await new Promise<Answer>((resolve) => this.#waiting.set(id, resolve));
    if ('failure' in answer) throw new Error(answer.failure);
    return answer.text;
  }
}
