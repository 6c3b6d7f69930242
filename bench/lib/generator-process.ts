import { type ChildProcess, fork } from 'node:child_process';
import { join } from 'node:path';
import { CannotRun, ROOT } from './running.js';

/** A measurement takes seconds; one that takes this long hangs. */
const ANSWER_MS = 120_000;

/** The bench was told to stop; it stops what it started before it goes. */
export class Interrupted extends CannotRun {}

let interrupted = false;

/** From here SIGINT and SIGTERM make the next question fail with Interrupted. */
export function stopOnSignal(): void {
  for (const signal of ['SIGINT', 'SIGTERM'] as const)
    process.on(signal, () => {
      interrupted = true;
    });
}

type Answer<T> =
  | { readonly ok: true; readonly measured?: T }
  | { readonly ok: false; readonly why: string };

/** A load generator in a process of its own: one question, one answer, in turn. */
export class GeneratorProcess<Question extends object, Result> implements AsyncDisposable {
  readonly #child: ChildProcess;

  private constructor(child: ChildProcess) {
    this.#child = child;
  }

  /** Starts one of bench/peers and waits until it is connected to what it loads. @throws CannotRun */
  static async start<Question extends object, Result>(
    program: string,
    config: object,
  ): Promise<GeneratorProcess<Question, Result>> {
    const child = fork(join(ROOT, 'dist/bench/peers', program), [JSON.stringify(config)], {
      stdio: ['ignore', 'inherit', 'inherit', 'ipc'],
      execArgv: ['--enable-source-maps'],
    });
    const generator = new GeneratorProcess<Question, Result>(child);
    try {
      await generator.#answer();
      return generator;
    } catch (error) {
      await generator[Symbol.asyncDispose]();
      throw error;
    }
  }

  /** @throws CannotRun with what the first call that failed said; Interrupted */
  async ask(question: Question): Promise<Result> {
    if (interrupted) throw new Interrupted('interrupted');
    const answer = this.#answer();
    this.#child.send(question);
    try {
      return (await answer) as Result;
    } catch (error) {
      // The terminal's signal has reached the servers too: they did not fail by themselves.
      throw interrupted ? new Interrupted('interrupted') : error;
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const child = this.#child;
    if (child.exitCode !== null || child.signalCode !== null) return;
    const gone = new Promise<void>((resolve) => child.once('exit', () => resolve()));
    child.kill('SIGTERM');
    await gone;
  }

  async #answer(): Promise<Result | undefined> {
    const child = this.#child;
    return await new Promise((resolve, reject) => {
      const timer = setTimeout(() => child.kill('SIGKILL'), ANSWER_MS);
      const settle = () => {
        clearTimeout(timer);
        child.off('message', heard).off('exit', ended);
      };
      const heard = (answer: Answer<Result>) => {
        settle();
        if (answer.ok) resolve(answer.measured);
        else reject(new CannotRun(answer.why));
      };
      const ended = () => {
        settle();
        reject(new CannotRun('the load generator has ended'));
      };
      child.once('message', heard).once('exit', ended);
    });
  }
}

/** The generator's side: says that it is open, then answers; it ends when the bench has gone. */
export function answerQuestions<Question, Opened>(
  open: () => Promise<Opened>,
  measure: (opened: Opened, question: Question) => Promise<object>,
): void {
  const send = (answer: Answer<object>) => process.send?.(answer);
  const failed = (error: unknown) => send({ ok: false, why: String(error) });
  process.once('disconnect', () => process.exit(0));
  process.once('SIGTERM', () => process.exit(0));
  process.on('SIGINT', () => {}); // the terminal's: the bench hears it too, and hangs up
  void open().then((opened) => {
    process.on('message', (question: Question) => {
      measure(opened, question).then((measured) => send({ ok: true, measured }), failed);
    });
    send({ ok: true });
  }, failed);
}
