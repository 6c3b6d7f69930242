import { createReadStream } from 'node:fs';
import {
  AUDIT_START,
  type AuditEvent,
  type AuditRow,
  lineOf,
  rowLineOf,
} from '#bridge/wire/audit-chain.js';
import { AuditCheck, type BrokenChain, type CheckedChain } from '#bridge/wire/audit-check.js';
import { AuditRowShape } from '#bridge/wire/protocol/audit.js';

/** Far longer than any event: what is longer is some other file. */
const LINE_LENGTH_MAX = 1024 * 1024;

export interface CheckedFile {
  readonly events: number;
  readonly chains: readonly CheckedChain[];
  readonly broken: readonly BrokenChain[];
  /** The first line that is no event, from 1. */
  readonly badLine: number | undefined;
}

/**
 * Checks an exported log without its server. `lines` is gone through twice: an event says only later what a chain had come
 * to. `heads`: hashes somebody kept, which must be in it; nothing else tells that the end was cut off.
 */
export async function checkLines(
  lines: () => AsyncIterable<string>,
  heads: readonly string[],
): Promise<CheckedFile> {
  const starts: AuditEvent[] = [];
  for await (const line of lines()) {
    if (!line.includes(AUDIT_START)) continue;
    const row = rowOf(line);
    if (row?.op === AUDIT_START) starts.push(row);
  }
  const check = new AuditCheck(starts, heads);
  let badLine: number | undefined;
  let number = 0;
  for await (const line of lines()) {
    number++;
    const row = rowOf(line);
    if (row === undefined) badLine ??= number;
    else check.accept(row, lineOf(row), row.prev, row.hash);
  }
  return { events: check.events, ...check.finish(false), badLine };
}

export const checkFile = async (path: string, heads: readonly string[]): Promise<CheckedFile> =>
  await checkLines(() => linesOf(path), heads);

async function* linesOf(path: string): AsyncGenerator<string> {
  let rest = '';
  for await (const chunk of createReadStream(path, 'utf8') as AsyncIterable<string>) {
    const lines = (rest + chunk).split('\n');
    rest = lines.pop() ?? '';
    yield* lines;
    if (rest.length <= LINE_LENGTH_MAX) continue;
    yield rest; // which is no event then
    rest = '';
  }
  if (rest !== '') yield rest;
}

/** Undefined unless it is a line just as it is exported: one that merely means the same could show a reader something else. */
function rowOf(line: string): AuditRow | undefined {
  try {
    const row = AuditRowShape.parse(JSON.parse(line));
    return rowLineOf(row) === line ? row : undefined;
  } catch {
    return undefined;
  }
}
