import {
  type AuditEvent,
  type AuditLink,
  lineAt,
  nextHash,
  type Unplaced,
} from '#bridge/wire/audit-chain.js';
import { type Entry, type Key, type Op, SYSTEM } from '#server/store/store.js';
import { packRecord, unpackRecord } from '../record.js';

/** A record of the log: below the limit of every store, and small enough that reading one event is cheap. */
export const BATCH_BYTES_MAX = 32 * 1024;

/** The record's own members, with room. */
const BATCH_OVERHEAD_BYTES = 512;

/** First digits of each event's hash: they tell which event of a batch was changed. */
export const MARK_LENGTH = 8;

/** Chains that one event names: about 13 KB, so that it fits into a record. */
export const LINKS_MAX = 100;

/** Events of one run, one after the other. The first record of a run holds event 0, `audit.start`, alone, and is kept. */
export type BatchRecord = {
  readonly first: number;
  readonly count: number;
  /** Of the first and of the last event. */
  readonly at: number;
  readonly until: number;
  /** Hash before the first event, and of the last one. */
  readonly prev: string;
  readonly hash: string;
  readonly marks: string;
  /** Lines as they were hashed, with a line feed between them. */
  readonly events: Uint8Array;
  /** On event 0's record: the last event that was pruned. */
  readonly anchor?: AuditLink;
};

export type HeadRecord = { readonly seq: number; readonly hash: string; readonly at: number };

export const AUDIT: Key = ['audit', SYSTEM];
export const HEADS: Key = ['audit-head', SYSTEM];
export const chainKey = (writer: number): Key => ['audit', SYSTEM, writer];
export const batchKey = (writer: number, first: number): Key => ['audit', SYSTEM, writer, first];
export const headKey = (writer: number): Key => ['audit-head', SYSTEM, writer];

export const lastOf = ({ first, count }: BatchRecord): number => first + count - 1;
export const readBatch = ({ value }: Entry): BatchRecord => unpackRecord<BatchRecord>(value);
export const readHead = ({ value }: Entry): HeadRecord => unpackRecord<HeadRecord>(value);
export const linesOf = ({ events }: BatchRecord): string[] =>
  Buffer.from(events.buffer, events.byteOffset, events.byteLength).toString().split('\n');

/** The events of a record, or nothing when it holds something else. */
export function eventsOf(record: BatchRecord): AuditEvent[] | undefined {
  try {
    const events = linesOf(record).map((line) => JSON.parse(line) as AuditEvent);
    return events.every(isEvent) ? events : undefined;
  } catch {
    return undefined;
  }
}

/** Heads of earlier chains that a start record names. */
export const linksOf = (record: BatchRecord): readonly AuditLink[] =>
  eventsOf(record)?.[0]?.links ?? [];

const isEvent = (event: Partial<AuditEvent> | null): boolean =>
  Number.isInteger(event?.writer) && Number.isInteger(event?.seq) && Number.isInteger(event?.at);

/** Continues a chain from `head`: what is pushed becomes records, and a new head. */
export class BatchWriter {
  readonly #writer: number;
  readonly #ops: Op[] = [];
  #head: HeadRecord;
  #lines: string[] = [];
  #marks = '';
  #bytes = 0;
  #first = 0;
  #at = 0;
  #prev = '';

  constructor(writer: number, head: HeadRecord) {
    this.#writer = writer;
    this.#head = head;
  }

  get head(): HeadRecord {
    return this.#head;
  }

  /** Returns the bytes it takes. */
  push(event: Unplaced, time: number): number {
    const before = this.#head;
    const seq = before.seq + 1;
    const at = Math.max(time, before.at); // one that waited in the queue takes the place it gets
    const line = lineAt(event, at, this.#writer, seq);
    const bytes = Buffer.byteLength(line) + 1 + MARK_LENGTH;
    if (this.#lines.length > 0 && this.#bytes + bytes > BATCH_BYTES_MAX - BATCH_OVERHEAD_BYTES)
      this.#close();
    if (this.#lines.length === 0) {
      this.#first = seq;
      this.#at = at;
      this.#prev = before.hash;
    }
    const hash = nextHash(before.hash, line);
    this.#lines.push(line);
    this.#marks += hash.slice(0, MARK_LENGTH);
    this.#bytes += bytes;
    this.#head = { seq, hash, at };
    return bytes;
  }

  /** The records and the head, or nothing when nothing was pushed. */
  finish(): Op[] {
    if (this.#lines.length === 0) return this.#ops;
    this.#close();
    this.#ops.push({ put: headKey(this.#writer), value: packRecord(this.#head) });
    return this.#ops;
  }

  #close(): void {
    const record: BatchRecord = {
      first: this.#first,
      count: this.#lines.length,
      at: this.#at,
      until: this.#head.at,
      prev: this.#prev,
      hash: this.#head.hash,
      marks: this.#marks,
      events: Buffer.from(this.#lines.join('\n')),
    };
    this.#ops.push({ put: batchKey(this.#writer, record.first), value: packRecord(record) });
    this.#lines = [];
    this.#marks = '';
    this.#bytes = 0;
  }
}
