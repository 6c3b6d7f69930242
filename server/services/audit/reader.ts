import {
  type AuditEvent,
  type AuditLink,
  type AuditRow,
  nextHash,
} from '#bridge/wire/audit-chain.js';
import { BridgeError } from '#bridge/wire/errors.js';
import type { Entry, Reader, Store } from '#server/store/store.js';
import {
  AUDIT,
  type BatchRecord,
  batchKey,
  chainKey,
  eventsOf,
  HEADS,
  lastOf,
  linesOf,
  readBatch,
  readHead,
} from './batches.js';
import { cursorText, type ForwardCursor, parseCursor, type ReverseCursor } from './cursor.js';

/** Events one call looks at, wanted or not: a rare one among millions is found in several calls. */
const SCAN_EVENTS_MAX = 50_000;

/** Text of one answer, far below a message. */
const PAGE_BYTES_MAX = 8 * 1024 * 1024;

/** Start records read at once. */
const STARTS_AT_ONCE = 500;

/** A chain that is this far behind the reader is not being written: a queue is written within a second, or not at all. */
const LATE_MS = 10 * 60 * 1000;

export interface ReadQuery {
  /** The cursor of the answer before. */
  readonly after?: string | undefined;
  readonly limit: number;
  /** Inclusive. */
  readonly from?: number | undefined;
  /** Exclusive. */
  readonly to?: number | undefined;
  readonly execution?: string | undefined;
  /** As text: `user:…`. */
  readonly namespace?: string | undefined;
  readonly op?: string | undefined;
  readonly outcome?: string | undefined;
  readonly reverse: boolean;
}

export interface ReadPage {
  readonly events: AuditRow[];
  readonly cursor: string;
  readonly more: boolean;
  readonly end: string;
}

export interface Start {
  readonly version: number;
  readonly record: BatchRecord;
}

/** The first record of every chain, or of those named. */
export async function startsOf(
  reader: Reader,
  writers?: readonly number[],
): Promise<Map<number, Start>> {
  const wanted = writers ?? (await headsOf(reader)).map(({ writer }) => writer);
  const starts = new Map<number, Start>();
  for (let at = 0; at < wanted.length; at += STARTS_AT_ONCE) {
    const some = wanted.slice(at, at + STARTS_AT_ONCE);
    const entries = await reader.getMany(some.map((writer) => batchKey(writer, 0)));
    for (const [i, entry] of entries.entries()) {
      const writer = some[i];
      if (entry !== undefined && writer !== undefined)
        starts.set(writer, { version: entry.version, record: readBatch(entry) });
    }
  }
  return starts;
}

/** Where each chain ends, by number. */
export async function headsOf(reader: Reader): Promise<AuditLink[]> {
  const heads: AuditLink[] = [];
  for await (const entry of reader.range(HEADS)) {
    const { seq, hash, at } = readHead(entry);
    heads.push({ writer: Number(entry.key[2]), seq, hash, at });
  }
  return heads.sort((a, b) => a.writer - b.writer);
}

/** The highest number of a chain that has records: its head may be gone. */
export async function lastWriter(reader: Reader): Promise<number> {
  for await (const { key } of reader.range(AUDIT, { reverse: true, limit: 1 }))
    return Number(key[2]);
  return 0;
}

/** The rows of a record. Their hashes are computed, not looked up: the chain is all that is trusted. */
function rowsOf(record: BatchRecord): AuditRow[] {
  let { prev } = record;
  const events = eventsOf(record);
  if (events === undefined)
    throw new BridgeError(
      'internal',
      'a record of the audit log is damaged; see: cronium audit verify',
    );
  const lines = linesOf(record);
  return events.map((event, i) => {
    const row = { ...event, prev, hash: nextHash(prev, lines[i] ?? '') };
    prev = row.hash;
    return row;
  });
}

/** One chain while it is read: `bound` is the time of its next row, or, before that is loaded, one that is not behind it. */
interface Source {
  readonly writer: number;
  bound: number;
  readonly rows: () => AsyncIterator<AuditRow>;
  iterator?: AsyncIterator<AuditRow>;
  row?: AuditRow;
}

/** Reads the chains of all servers as one, by time. */
export class AuditReader {
  readonly #store: Store;

  constructor(store: Store) {
    this.#store = store;
  }

  async heads(): Promise<AuditLink[]> {
    return await headsOf(this.#store);
  }

  /** @throws BridgeError `invalid` for a cursor that is none, or of the other direction */
  async read(query: ReadQuery): Promise<ReadPage> {
    const heads = await headsOf(this.#store);
    const end = cursorText(endOf(heads));
    const cursor = query.after === undefined ? undefined : parseCursor(query.after);
    if (cursor !== undefined && 'before' in cursor !== query.reverse)
      throw new BridgeError('invalid', 'the cursor is of a reading in the other direction');
    return query.reverse
      ? await this.#readBack(query, heads, end, cursor as ReverseCursor | undefined)
      : await this.#readOn(query, heads, end, cursor as ForwardCursor | undefined);
  }

  async #readOn(
    query: ReadQuery,
    heads: readonly AuditLink[],
    end: string,
    cursor: ForwardCursor | undefined,
  ): Promise<ReadPage> {
    const { to = Number.POSITIVE_INFINITY } = query;
    const since = Math.max(query.from ?? 0, cursor === undefined ? 0 : cursor.at - LATE_MS);
    const next = new Map(cursor?.next);
    const live = heads.filter(
      ({ writer, seq, at }) => at >= since && seq >= (next.get(writer) ?? 0),
    );
    const unknown = live.flatMap(({ writer }) => (next.has(writer) ? [] : [writer]));
    const starts = await startsOf(this.#store, unknown);
    const sources = live.map(({ writer, seq: last }): Source => {
      const from = next.get(writer);
      const start = starts.get(writer)?.record;
      return {
        writer,
        // Before that there is nothing, so the chain need not be opened until the others have come so far.
        bound: Math.max(since, start?.at ?? 0),
        rows: () =>
          from === undefined
            ? this.#since(
                writer,
                since,
                start?.anchor === undefined ? 0 : start.anchor.seq + 1,
                last,
              )
            : this.#from(writer, from, last),
      };
    });
    const page = await collect(
      query,
      sources,
      (a, b) => a.bound < b.bound,
      (row) => row.at >= to,
    );
    let at = cursor?.at ?? 0;
    for (const row of page.scanned.values()) {
      next.set(row.writer, row.seq + 1);
      at = Math.max(at, row.at);
    }
    const kept = heads.filter((head) => next.has(head.writer) && head.at >= at - LATE_MS);
    const positions = kept.map(({ writer }) => [writer, next.get(writer) ?? 0] as const);
    const { events, more } = page;
    return { events, more, end, cursor: cursorText({ at, next: positions }) };
  }

  async #readBack(
    query: ReadQuery,
    heads: readonly AuditLink[],
    end: string,
    cursor: ReverseCursor | undefined,
  ): Promise<ReadPage> {
    const { from = 0, to = Number.POSITIVE_INFINITY } = query;
    const before = cursor?.before ?? [Number.MAX_SAFE_INTEGER, 0, 0];
    const until = Math.min(to, before[0] + 1);
    const sources = heads.map(
      ({ writer, seq, at }): Source => ({
        writer,
        bound: Math.min(at, until),
        rows: () => this.#until(writer, until, seq, (row) => isBefore(row, before)),
      }),
    );
    const page = await collect(
      query,
      sources,
      (a, b) => a.bound > b.bound || (a.bound === b.bound && a.writer > b.writer),
      (row) => row.at < from,
    );
    const { last, events, more } = page;
    const place = last === undefined ? before : ([last.at, last.writer, last.seq] as const);
    return { events, more, end, cursor: cursorText({ before: place }) };
  }

  /** Rows from event `seq` on. */
  async *#from(writer: number, seq: number, last: number): AsyncGenerator<AuditRow> {
    const options = { from: 0, to: seq + 1, reverse: true, limit: 1 };
    const [entry] = await all(this.#store.range(chainKey(writer), options));
    const first = entry === undefined ? seq : readBatch(entry).first;
    for await (const batch of this.#store.range(chainKey(writer), { from: first, to: last + 1 }))
      for (const row of rowsOf(readBatch(batch))) if (row.seq >= seq) yield row;
  }

  /** Rows from a time on. */
  async *#since(
    writer: number,
    since: number,
    first: number,
    last: number,
  ): AsyncGenerator<AuditRow> {
    const seq = await this.#seek(writer, first, last, ({ until }) => until >= since);
    for await (const row of this.#from(writer, seq, last)) if (row.at >= since) yield row;
  }

  /** Rows before a time, and of those the ones that are `wanted`; the newest first. */
  async *#until(
    writer: number,
    until: number,
    last: number,
    wanted: (row: AuditRow) => boolean,
  ): AsyncGenerator<AuditRow> {
    const start = (await startsOf(this.#store, [writer])).get(writer)?.record;
    const first = start?.anchor === undefined ? 0 : start.anchor.seq + 1;
    const to = await this.#seek(writer, first, last, ({ at }) => at >= until);
    const options = { from: first, to, reverse: true };
    for await (const batch of this.#store.range(chainKey(writer), options))
      for (const row of rowsOf(readBatch(batch)).reverse())
        if (row.at < until && row.seq >= first && wanted(row)) yield row;
  }

  /** First event of the first record that `is` what is looked for, as all behind it are; else the one after `last`. */
  async #seek(
    writer: number,
    first: number,
    last: number,
    is: (record: BatchRecord) => boolean,
  ): Promise<number> {
    let [low, high] = [first, last + 1];
    while (low < high) {
      const middle = Math.floor((low + high) / 2);
      const options = { from: middle, to: high, limit: 1 };
      const [entry] = await all(this.#store.range(chainKey(writer), options));
      const record = entry && readBatch(entry);
      if (record === undefined || is(record)) high = middle;
      else low = lastOf(record) + 1;
    }
    // The record that `low` is in begins before it, when it was the one that was found.
    return low;
  }
}

interface Collected {
  readonly events: AuditRow[];
  /** The last row that was looked at, of all and of each chain. */
  readonly last: AuditRow | undefined;
  readonly scanned: ReadonlyMap<number, AuditRow>;
  readonly more: boolean;
}

/** Merges `sources`; `isFirst` says which of two comes first, `isOver` where a chain has no more that is wanted. */
async function collect(
  query: ReadQuery,
  sources: Source[],
  isFirst: (a: Source, b: Source) => boolean,
  isOver: (row: AuditRow) => boolean,
): Promise<Collected> {
  const events: AuditRow[] = [];
  const scanned = new Map<number, AuditRow>();
  let last: AuditRow | undefined;
  let count = 0;
  let bytes = 0;
  const open = new Set(sources);
  try {
    while (open.size > 0) {
      let source: Source | undefined;
      for (const one of open) if (source === undefined || isFirst(one, source)) source = one;
      if (source === undefined) break;
      const { row } = source;
      if (row === undefined) {
        source.iterator ??= source.rows();
        const { value, done } = await source.iterator.next();
        if (done === true || isOver(value)) {
          open.delete(source);
          await source.iterator.return?.();
        } else {
          source.row = value;
          source.bound = value.at;
        }
        continue;
      }
      if (events.length >= query.limit || count >= SCAN_EVENTS_MAX || bytes >= PAGE_BYTES_MAX)
        break;
      delete source.row;
      count++;
      last = row;
      scanned.set(row.writer, row);
      if (!matches(row, query)) continue;
      events.push(row);
      bytes += sizeOf(row);
    }
  } finally {
    for (const { iterator } of open) await iterator?.return?.();
  }
  return { events, last, scanned, more: open.size > 0 };
}

const matches = (row: AuditEvent, { execution, namespace, op, outcome }: ReadQuery): boolean =>
  (execution === undefined || row.execution === execution) &&
  (namespace === undefined || row.namespace === namespace) &&
  (op === undefined || row.op === op) &&
  (outcome === undefined || row.outcome === outcome);

/** About: what is long in an event are its links. */
const sizeOf = ({ links, detail }: AuditRow): number =>
  512 + (detail?.length ?? 0) + 128 * (links?.length ?? 0);

function endOf(heads: readonly AuditLink[]): ForwardCursor {
  const at = heads.reduce((most, head) => Math.max(most, head.at), 0);
  const live = heads.filter((head) => head.at >= at - LATE_MS);
  return { at, next: live.map(({ writer, seq }) => [writer, seq + 1] as const) };
}

function isBefore(row: AuditRow, [at, writer, seq]: readonly [number, number, number]): boolean {
  if (row.at !== at) return row.at < at;
  return row.writer === writer ? row.seq < seq : row.writer < writer;
}

async function all(entries: AsyncIterable<Entry>): Promise<Entry[]> {
  const list: Entry[] = [];
  for await (const entry of entries) list.push(entry);
  return list;
}
