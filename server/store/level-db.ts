import { copyFileSync, linkSync, mkdirSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import type { ClassicLevel } from 'classic-level';
import { Level } from 'level';
import { asBridgeError, BridgeError, errnoCode } from '#bridge/wire/errors.js';
import { WRITE_BUFFER_BYTES } from './commit-chain.js';

/** `level` is classic-level wherever this runs; its types tell only what browsers can do as well. */
export type Db = ClassicLevel<Buffer, Buffer>;

const CACHE_BYTES = 64 * 1024 * 1024;

/** @throws BridgeError `busy` when another process has it, `internal` when it is damaged, `unavailable` */
export async function openDb(directory: string, createIfMissing: boolean): Promise<Db> {
  const db = new Level<Buffer, Buffer>(directory, {
    keyEncoding: 'buffer',
    valueEncoding: 'buffer',
    createIfMissing,
    // Values are ciphertext, which does not compress.
    compression: false,
    cacheSize: CACHE_BYTES,
    writeBufferSize: WRITE_BUFFER_BYTES,
  }) as unknown as Db;
  try {
    await db.open();
    return db;
  } catch (error) {
    const failure = storeError(error, directory);
    const cause = errnoCode(error) ?? '';
    // One that was there, and cannot be read although nobody forbids it: a file is missing, or names one that never was.
    if (createIfMissing || failure.code !== 'unavailable' || /^E(ACCES|PERM|MFILE|IO)$/.test(cause))
      throw failure;
    throw damagedBy(failure.message, error);
  }
}

const damagedBy = (what: string, cause: unknown) =>
  new BridgeError(
    'internal',
    `${printable(what)}; the store is damaged: put a backup back with: cronium store restore FILE`,
    { cause },
  );

/** What stands in a damaged file may stand in a message about it. */
const printable = (text: string) => text.replace(/[^\x20-\x7e]+/g, '?').slice(0, 300);

/** What LevelDB writes to its LOG when it leaves something out: the only place where it says so. */
const COMPLAINT = /corruption|dropping \d+ bytes|ignoring error|checksum mismatch/i;

/** Complaints of the last open, at most ten. */
export function complaintsOf(directory: string): string[] {
  let log: string;
  try {
    log = readFileSync(join(directory, 'LOG'), 'utf8');
  } catch {
    return []; // no LOG, no complaint: what it would have told is found by the scan as well
  }
  const lines = log.split('\n').filter((line) => COMPLAINT.test(line));
  return lines.slice(0, 10).map((line) => line.replace(/^\S+ \S+ /, ''));
}

/** A table that vanished was merged into others meanwhile: then everything is begun anew. */
const COPY_TRIES_MAX = 10;

/**
 * A copy of a database that is in use, as of now: tables never change, so they are linked; the list of tables and the log
 * only grow, so a copy of them is an earlier state. On the same file system. @throws BridgeError `busy`, or of the system
 */
export function copyDatabase(directory: string, copy: string): void {
  for (let tries = 1; ; tries++) {
    rmSync(copy, { recursive: true, force: true });
    mkdirSync(copy, { mode: 0o700 });
    try {
      copyOnce(directory, copy);
      return;
    } catch (error) {
      if (errnoCode(error) !== 'ENOENT') throw error;
      if (tries >= COPY_TRIES_MAX)
        throw new BridgeError('busy', `${directory} keeps changing; try again`, { cause: error });
    }
  }
}

function copyOnce(directory: string, copy: string): void {
  const current = readFileSync(join(directory, 'CURRENT'), 'utf8').trim();
  const names = () => readdirSync(directory);
  // The list of tables first: what it names must be there afterwards, else a merge came between.
  copyFileSync(join(directory, current), join(copy, current));
  copyFileSync(join(directory, 'CURRENT'), join(copy, 'CURRENT'));
  for (const name of names().filter((one) => one.endsWith('.log')))
    copyFileSync(join(directory, name), join(copy, name));
  for (const name of names().filter((one) => one.endsWith('.ldb')))
    linkSync(join(directory, name), join(copy, name));
  const now = readFileSync(join(directory, 'CURRENT'), 'utf8').trim();
  const grown =
    readFileSync(join(directory, now)).length !== readFileSync(join(copy, current)).length;
  if (now !== current || grown)
    throw Object.assign(new Error('the tables have changed'), { code: 'ENOENT' });
}

/** The database, or an iterator or snapshot of it, was closed: with the store, or to open it again after a failed write. */
const isNotOpen = (error: unknown): boolean =>
  error instanceof Error &&
  'code' in error &&
  /^LEVEL_(DATABASE|ITERATOR|SNAPSHOT)_NOT_OPEN$/.test(String(error.code));

/** What LevelDB says of a table whose end or which itself is missing. */
const PART_IS_MISSING = /: (Invalid argument|No such file or directory)$/;

/** LevelDB met bytes it cannot make sense of, or none: while it opened, or as late as when they were read. */
export function isCorruption(error: unknown): error is Error {
  for (const one of [error, error instanceof Error ? error.cause : undefined]) {
    const code = levelCode(one);
    if (code === 'LEVEL_CORRUPTION') return true;
    if (code === 'LEVEL_IO_ERROR' && one instanceof Error && PART_IS_MISSING.test(one.message))
      return true;
  }
  return false;
}

const levelCode = (error: unknown) =>
  error instanceof Error && 'code' in error ? error.code : undefined;

/** What LevelDB said of it, fit to be shown. */
export const corruptionText = (error: Error) =>
  printable(error.cause instanceof Error ? error.cause.message : error.message);

export function storeError(error: unknown, directory?: string): BridgeError {
  if (error instanceof BridgeError) return error;
  const cause = error instanceof Error ? error.cause : undefined;
  const where = directory === undefined ? 'the store' : `the store in ${directory}`;
  if (levelCode(cause) === 'LEVEL_LOCKED')
    return new BridgeError('busy', `${where} is in use by another server; stop that one first`, {
      cause: error,
    });
  if (isNotOpen(error))
    return new BridgeError('unavailable', `${where} was closed meanwhile; try again`, {
      cause: error,
    });
  const text = cause instanceof Error ? cause.message : String(error);
  if (isCorruption(error)) {
    const what = directory === undefined ? 'cannot read' : 'cannot open';
    return damagedBy(`${what} ${where}: ${corruptionText(error)}`, error);
  }
  if (errnoCode(error) === 'ENOSPC')
    return new BridgeError(
      'no_space',
      `the disk under ${where} is full: free some space; nothing stored is lost`,
      { cause: error },
    );
  if (directory === undefined) return asBridgeError(error);
  return new BridgeError('unavailable', `cannot open ${where}: ${text}`, { cause: error });
}
