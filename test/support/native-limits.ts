import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';

/** A program that the driver fuse-native runs differently, and how. */
export interface NativeLimit {
  /** First column of the table in docs/drivers.md that says so. */
  readonly row: string;
  /** What the program prints there (both streams), instead of what it prints on a local file system. */
  readonly prints: RegExp;
}

/** Whether the table in docs/drivers.md has this row. */
export function isDocumented(row: string): boolean {
  return TABLE.split('\n').some((line) => line.startsWith(`| ${row} |`));
}

const TABLE = readFileSync(
  fileURLToPath(new URL('../../../docs/drivers.md', import.meta.url)),
  'utf8',
);
