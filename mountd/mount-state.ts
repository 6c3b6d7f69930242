import { closeSync, constants, openSync, readFileSync, rmSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { z } from 'zod';

/** What a process that takes a mount over must know of it, beside its trees. */
const Kept = z.strictObject({
  format: z.literal(1),
  /** Serving processes so far. */
  generation: z.int(),
  /** Whether the kernel sends again what a dead process left unanswered: Linux 6.9. */
  canResend: z.boolean(),
});
type Kept = z.infer<typeof Kept>;

const FILE = 'mount.json';
const TEXT_BYTES = 128;

/** In a file among the backing files, from when the kernel was first answered until nothing is mounted any more. */
export class MountState {
  readonly #path: string;

  constructor(backing: string) {
    this.#path = join(backing, FILE);
  }

  /** Whether another process can go on where the one that served has stopped. */
  get canBeTakenOver(): boolean {
    return this.#read()?.canResend === true;
  }

  begin(canResend: boolean): void {
    this.#write({ format: 1, generation: 0, canResend });
  }

  /** Counts this process. @throws Error when there is nothing to take over */
  next(): number {
    const kept = this.#read();
    if (kept === undefined) throw new Error(`${this.#path} is missing or damaged`);
    const generation = kept.generation + 1;
    this.#write({ ...kept, generation });
    return generation;
  }

  /** Nothing is mounted any more. */
  end(): void {
    rmSync(this.#path, { force: true });
  }

  #read(): Kept | undefined {
    try {
      return Kept.parse(JSON.parse(readFileSync(this.#path, 'utf8')));
    } catch {
      return undefined;
    }
  }

  /** In place and always as long: also on a full disk. So short a text is written as a whole or not at all. */
  #write(kept: Kept): void {
    const fd = openSync(this.#path, constants.O_WRONLY | constants.O_CREAT, 0o600);
    try {
      writeSync(fd, JSON.stringify(kept).padEnd(TEXT_BYTES), 0);
    } finally {
      closeSync(fd);
    }
  }
}
