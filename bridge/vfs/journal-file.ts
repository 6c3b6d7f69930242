import {
  closeSync,
  constants,
  openSync,
  readdirSync,
  readFileSync,
  unlinkSync,
  writeSync,
} from 'node:fs';
import { join } from 'node:path';
import { crc32 } from 'node:zlib';
import { JOURNAL_FORMAT } from '#bridge/wire/control.js';
import { errnoCode } from '#bridge/wire/errors.js';

const { O_APPEND, O_CREAT, O_EXCL, O_WRONLY } = constants;

/** A record: its kind, then what the kind says. The later one about the same thing counts. */
export type JournalRecord = readonly [string, ...unknown[]];

/** First of every file. */
const HEADER = 'V';
const HEADER_BYTES_MAX = 32;
/** From here on a file needs no older one: it holds everything. */
const WHOLE = 'C';

const FILE_NAME = /^journal\.(\d+)$/;

/** Journals of so many trees are kept open. */
const OPEN_MAX = 128;
const open = new Map<JournalFile, number>();

/**
 * One file of a tree's journal: a line for every group of records that belong together, `CRC-32 JSON`, where a group that
 * is torn at the end never happened. It lies in the page cache: that survives every process, and a machine that stops ends
 * the executions anyway.
 */
export class JournalFile {
  readonly #path: string;
  /** Bytes. */
  size = 0;

  private constructor(path: string) {
    this.#path = path;
  }

  /** The first, or the next, file in `directory`. */
  static create(directory: string): JournalFile {
    const last = filesIn(directory).at(-1)?.[0] ?? 0;
    const file = new JournalFile(join(directory, `journal.${last + 1}`));
    file.append(`["${HEADER}",${JOURNAL_FORMAT}]`);
    return file;
  }

  /** `records`: JSON texts, with commas in between. @throws host errors; what was written in part is cut off by its CRC */
  append(records: string): void {
    const json = `[${records}]`;
    const line = `${crc32(json).toString(36)} ${json}\n`;
    const written = writeSync(this.#fd(), line);
    this.size += written;
    // The common case first: counting bytes takes as long as writing them.
    if (written !== line.length && written !== Buffer.byteLength(line))
      throw Object.assign(new Error('ENOSPC: a journal was written in part'), { code: 'ENOSPC' });
  }

  /** All that was known before is in this file now: older ones go. */
  markWhole(): void {
    this.append(`["${WHOLE}"]`);
    const directory = join(this.#path, '..');
    for (const [, name] of filesIn(directory))
      if (join(directory, name) !== this.#path) unlinkSync(join(directory, name));
  }

  static removeAll(directory: string): void {
    for (const [, name] of filesIn(directory)) unlinkSync(join(directory, name));
  }

  close(): void {
    const fd = open.get(this);
    if (fd === undefined) return;
    open.delete(this);
    closeSync(fd);
  }

  #fd(): number {
    const known = open.get(this);
    if (known !== undefined) {
      if (open.size >= OPEN_MAX) {
        open.delete(this);
        open.set(this, known);
      }
      return known;
    }
    const [oldest] = open.keys();
    if (oldest !== undefined && open.size >= OPEN_MAX) oldest.close();
    const isNew = this.size === 0 ? O_CREAT | O_EXCL : 0;
    const fd = openSync(this.#path, O_WRONLY | O_APPEND | isNew, 0o600);
    open.set(this, fd);
    return fd;
  }
}

/** Why a journal cannot be used. */
export class JournalDamaged extends Error {}

/**
 * The records of a tree's journal, oldest first, from the newest file that is whole. Undefined when `directory` has none.
 * @throws JournalDamaged
 */
export function readJournal(directory: string): JournalRecord[] | undefined {
  const files = filesIn(directory);
  if (files.length === 0) return undefined;
  let records: JournalRecord[] = [];
  let isWhole = false;
  for (const [, name] of files) {
    const read = readFile(join(directory, name));
    if (read.some(([kind]) => kind === WHOLE)) {
      records = read;
      isWhole = true;
    } else records.push(...read);
  }
  // It was being made, and nobody had heard of the tree.
  if (!isWhole && files.length === 1) return undefined;
  if (!isWhole) throw new JournalDamaged('no part of its journal is whole');
  return records;
}

function readFile(path: string): JournalRecord[] {
  const records: JournalRecord[] = [];
  const lines = readFileSync(path, 'utf8').split('\n');
  const torn = lines.pop() ?? ''; // whoever asked for it has had no answer
  for (const [i, line] of lines.entries()) {
    const group = groupIn(line);
    if (group === undefined) {
      throw new JournalDamaged(`group ${i + 1} of its journal is damaged`);
    }
    records.push(...group);
  }
  const [header] = records;
  if (header?.[0] !== HEADER) {
    if (records.length === 0 && torn.length < HEADER_BYTES_MAX) return [];
    throw new JournalDamaged('its journal has no beginning');
  }
  if (header[1] !== JOURNAL_FORMAT)
    throw new JournalDamaged(
      `its journal has format ${String(header[1])}, and this program reads ${JOURNAL_FORMAT}`,
    );
  return records;
}

/** Undefined when the line is not what was written. */
function groupIn(line: string): JournalRecord[] | undefined {
  const space = line.indexOf(' ');
  const json = line.slice(space + 1);
  if (space < 0 || crc32(json).toString(36) !== line.slice(0, space)) return undefined;
  return JSON.parse(json) as JournalRecord[]; // ours, by its CRC
}

/** Number and name, ascending. */
function filesIn(directory: string): [number, string][] {
  let names: string[];
  try {
    names = readdirSync(directory);
  } catch (error) {
    if (errnoCode(error) === 'ENOENT') return [];
    throw error;
  }
  const files = names.flatMap((name): [number, string][] => {
    const number = FILE_NAME.exec(name)?.[1];
    return number === undefined ? [] : [[Number(number), name]];
  });
  return files.sort(([a], [b]) => a - b);
}
