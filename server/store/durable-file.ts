import { randomUUID } from 'node:crypto';
import { closeSync, fsyncSync, openSync, renameSync, unlinkSync, writeFileSync } from 'node:fs';
import { dirname } from 'node:path';

/**
 * Replaces `path` so that after a crash it holds the old or the new text, never a mixture: write beside, fsync, rename,
 * fsync the directory (rename(2), fsync(2)). Mode 0600 unless told otherwise.
 */
export function writeDurably(path: string, text: string, mode = 0o600): void {
  const temporary = `${path}.${randomUUID()}.new`; // never one that a crash left behind
  const fd = openSync(temporary, 'wx', mode);
  try {
    writeFileSync(fd, text);
    fsyncSync(fd);
    renameSync(temporary, path);
  } catch (error) {
    unlinkSync(temporary);
    throw error;
  } finally {
    closeSync(fd);
  }
  syncDirectory(dirname(path));
}

/** Makes what was created in, renamed in or removed from `path` survive a crash: fsync(2) says why. */
export function syncDirectory(path: string): void {
  const directory = openSync(path, 'r');
  try {
    fsyncSync(directory);
  } finally {
    closeSync(directory);
  }
}
