import { execFileSync } from 'node:child_process';
import { closeSync, mkdirSync, mkdtempSync, openSync, rmSync, writeSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { errnoCode } from '#bridge/wire/errors.js';

/** A file system of 128 MiB in memory, to be filled. Disposing unmounts it: dispose first of what uses it. */
export class SmallDisk implements Disposable {
  readonly #directory: string;
  readonly #ballast: string;
  /** An empty directory on it. */
  readonly state: string;

  constructor() {
    this.#directory = mkdtempSync(join(tmpdir(), 'cronium-disk-'));
    execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=128m', 'cronium-test', this.#directory]);
    this.#ballast = join(this.#directory, 'ballast');
    this.state = join(this.#directory, 'state');
    mkdirSync(this.state);
  }

  /** Until not a page is left. */
  fill(): void {
    const chunk = Buffer.alloc(16 * 1024);
    const file = openSync(this.#ballast, 'a');
    try {
      for (;;) writeSync(file, chunk);
    } catch (error) {
      if (errnoCode(error) !== 'ENOSPC') throw error;
    } finally {
      closeSync(file);
    }
  }

  /** Takes back what filled it. */
  empty(): void {
    rmSync(this.#ballast);
  }

  [Symbol.dispose](): void {
    execFileSync('umount', [this.#directory]);
    rmSync(this.#directory, { recursive: true });
  }
}
