import { createHash, createHmac } from 'node:crypto';
import {
  closeSync,
  existsSync,
  openSync,
  readdirSync,
  readFileSync,
  readSync,
  rmSync,
} from 'node:fs';
import { join } from 'node:path';
import { z } from 'zod';
import { writeDurably } from './durable-file.js';

/** Read at a time. */
const CHUNK_BYTES = 1024 * 1024;

const Sums = z.strictObject({ files: z.record(z.string(), z.string()), mac: z.string() });

/**
 * The checksums of a database's files, written when it is closed: if they still hold at the next open, nobody has touched
 * a file since, and the records need not be read one by one. LevelDB does not check its own blocks.
 */
export class FileSums {
  readonly #directory: string;
  readonly #path: string;
  /** Of the files as they were found; undefined when no sums were left behind. */
  readonly #found: Record<string, string> | undefined;

  private constructor(directory: string, path: string) {
    this.#directory = directory;
    this.#path = path;
    this.#found = existsSync(path) ? compute(directory) : undefined;
  }

  /** Reads the files: before the database is opened. */
  static of(directory: string): FileSums {
    return new FileSums(directory, `${directory}.sums`);
  }

  /** Whether every file was as it had been when the database was closed. */
  hold(key: Buffer): boolean {
    if (this.#found === undefined) return false;
    try {
      const { files, mac } = Sums.parse(JSON.parse(readFileSync(this.#path, 'utf8')));
      return mac === macOf(key, files) && mac === macOf(key, this.#found);
    } catch {
      return false; // unreadable: then the records are read
    }
  }

  /** Only while no process has the database open. */
  write(key: Buffer): void {
    const files = compute(this.#directory);
    writeDurably(this.#path, `${JSON.stringify({ files, mac: macOf(key, files) }, null, 1)}\n`);
  }

  remove(): void {
    rmSync(this.#path, { force: true });
  }
}

function compute(directory: string): Record<string, string> {
  const names = readdirSync(directory).filter((name) => !/^LOG(\.old)?$|^LOCK$/.test(name));
  return Object.fromEntries(names.sort().map((name) => [name, sumOf(join(directory, name))]));
}

function macOf(key: Buffer, files: Readonly<Record<string, string>>): string {
  const text = JSON.stringify(Object.entries(files).sort(([a], [b]) => (a < b ? -1 : 1)));
  return createHmac('sha256', key).update('sums\n').update(text).digest('base64url');
}

function sumOf(path: string): string {
  const hash = createHash('sha256');
  const chunk = Buffer.allocUnsafe(CHUNK_BYTES);
  const fd = openSync(path, 'r');
  try {
    for (;;) {
      const read = readSync(fd, chunk, 0, CHUNK_BYTES, null);
      if (read === 0) return hash.digest('base64url');
      hash.update(chunk.subarray(0, read));
    }
  } finally {
    closeSync(fd);
  }
}
