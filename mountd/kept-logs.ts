import type { Log } from '#bridge/wire/control.js';
import { BridgeError } from '#bridge/wire/errors.js';
import type { ExecutionId } from '#bridge/wire/names.js';
import type { Status } from '#bridge/wire/protocol.js';
import type { Kept, LogsRequest, LogsResult, Received } from '#bridge/wire/watch.js';

/** What one execution may have kept: a few screens more than anybody scrolls back. */
const BYTES_MAX = 1024 * 1024;
/** What all together may: a machine full of executions that print a lot. */
const ALL_BYTES_MAX = 64 * 1024 * 1024;
/** For whoever looks when he hears that it has failed. */
const KEPT_MS = 10 * 60_000;

/** Output is kept, and dropped, in segments of this size: a thirty-second of what one execution may have. */
const SEGMENT_BYTES = 32 * 1024;
/** Of a script that prints single bytes, so that what describes them stays smaller than a segment, too. */
const SEGMENT_PIECES_MAX = 256;
/** An object of eight fields and its place in an array. */
const PIECE_BYTES = 128;
/** One that prints nothing is remembered for its status. */
const LOG_BYTES = 1024;
/** Output of one stream that comes within this time is one piece: nobody sees the difference in a time stamp. */
const SAME_MOMENT_MS = 10;

export interface KeptLogsOptions {
  readonly bytesMax?: number;
  readonly allBytesMax?: number;
  readonly keptMs?: number;
  /** For tests: Date.now */
  readonly now?: () => number;
}

/**
 * What executions have printed, masked, as long as they run and some minutes more: the last of it. Readers take it at their own
 * pace and hold nothing back: one that is too slow misses what was dropped meanwhile, and is told how much.
 */
export class KeptLogs {
  readonly #options: Required<KeptLogsOptions>;
  readonly #logs = new Map<ExecutionId, KeptLog>();
  /** Those of executions that have ended, in the order of their ends. */
  readonly #ended = new Set<ExecutionId>();
  #bytes = 0;

  constructor(options: KeptLogsOptions = {}) {
    this.#options = {
      bytesMax: BYTES_MAX,
      allBytesMax: ALL_BYTES_MAX,
      keptMs: KEPT_MS,
      now: Date.now,
      ...options,
    };
  }

  /** What is kept, with what it takes to describe it. */
  get bytes(): number {
    return this.#bytes;
  }

  begin(executionId: ExecutionId): void {
    this.forget(executionId);
    this.#logs.set(executionId, new KeptLog());
    this.#bytes += LOG_BYTES;
    this.#makeRoom();
  }

  /** Copies the data. Nothing when the execution was not begun, or has ended. */
  add(executionId: ExecutionId, log: Log): void {
    const kept = this.#logs.get(executionId);
    if (kept === undefined || kept.status !== undefined) return;
    const { bytesMax, now } = this.#options;
    const before = kept.bytes;
    kept.add(log, now());
    while (kept.bytes > bytesMax && kept.segments > 1) kept.drop();
    this.#bytes += kept.bytes - before;
    if (kept.bytes !== before) this.#makeRoom();
    kept.tell();
  }

  /** From now on its readers come to an end. */
  end(executionId: ExecutionId, status: Status): void {
    const kept = this.#logs.get(executionId);
    if (kept === undefined) return;
    const before = kept.bytes;
    kept.end(status);
    this.#bytes += kept.bytes - before;
    this.#ended.add(executionId);
    kept.tell();
    setTimeout(() => {
      if (this.#logs.get(executionId) === kept) this.forget(executionId);
    }, this.#options.keptMs).unref();
  }

  /** Nothing is kept of it any more. */
  forget(executionId: ExecutionId): void {
    const kept = this.#logs.get(executionId);
    if (kept === undefined) return;
    this.#logs.delete(executionId);
    this.#ended.delete(executionId);
    this.#bytes -= kept.bytes;
    // Whoever still reads it would keep it in memory.
    while (kept.segments > 0) kept.drop();
    kept.isForgotten = true;
    kept.tell();
  }

  /** Undefined: it runs. @throws BridgeError `not_found` when nothing is known of it */
  statusOf(executionId: ExecutionId): Status | undefined {
    return this.#of(executionId).status;
  }

  /** @throws BridgeError `not_found` when nothing is kept of it */
  reader({ executionId, ...from }: LogsRequest): LogReader {
    return new LogReader(this.#of(executionId), from);
  }

  #of(executionId: ExecutionId): KeptLog {
    const kept = this.#logs.get(executionId);
    if (kept === undefined) throw unknown();
    return kept;
  }

  /** Those that ended first go first; if all run, the largest loses its oldest. */
  #makeRoom(): void {
    while (this.#bytes > this.#options.allBytesMax) {
      const [oldest] = this.#ended;
      if (oldest !== undefined) {
        this.forget(oldest);
        continue;
      }
      let largest: KeptLog | undefined;
      for (const kept of this.#logs.values())
        if (kept.segments > (largest?.segments ?? 1)) largest = kept;
      if (largest === undefined) return; // a segment each: as many as there are executions
      const before = largest.bytes;
      largest.drop();
      this.#bytes += largest.bytes - before;
    }
  }
}

/** Only the server can say more. */
const unknown = (): BridgeError =>
  new BridgeError('not_found', 'nothing that this execution has printed is kept here');

/** Output of one stream that came at one moment. */
interface Piece {
  readonly stream: Log['stream'];
  readonly at: number;
  readonly isWarning: boolean;
  /** Bytes of its stream, and of the other one, that came before. */
  readonly offset: number;
  readonly otherOffset: number;
  /** How many pieces came before. */
  readonly number: number;
  /** Where it stands in its segment's data; the last piece may grow. */
  readonly start: number;
  end: number;
}

class Segment {
  data: Buffer = Buffer.allocUnsafeSlow(SEGMENT_BYTES);
  used = 0;
  readonly pieces: Piece[] = [];

  get isFull(): boolean {
    return this.used === SEGMENT_BYTES || this.pieces.length === SEGMENT_PIECES_MAX;
  }

  get bytes(): number {
    return this.data.byteLength + this.pieces.length * PIECE_BYTES;
  }
}

const other = (stream: Log['stream']): Log['stream'] => (stream === 'stdout' ? 'stderr' : 'stdout');

/** One execution's. */
class KeptLog {
  status: Status | undefined;
  isForgotten = false;
  /** Segments that were dropped: the number of the first one that is there. */
  first = 0;
  /** Bytes of each stream in those. */
  readonly dropped = { stdout: 0, stderr: 0 };
  /** Pieces that ever were. */
  pieces = 0;
  bytes = LOG_BYTES;
  readonly #segments: Segment[] = [];
  readonly #totals = { stdout: 0, stderr: 0 };
  readonly #waiting = new Set<() => void>();

  get segments(): number {
    return this.#segments.length;
  }

  /** By its number. */
  segment(number: number): Segment | undefined {
    return this.#segments[number - this.first];
  }

  add({ stream, data, ...log }: Log, at: number): void {
    const isWarning = log.isWarning === true;
    for (let rest = data; rest.byteLength > 0; ) {
      const segment = this.#room();
      const last = segment.pieces.at(-1);
      const size = Math.min(rest.byteLength, SEGMENT_BYTES - segment.used);
      const before = segment.bytes;
      segment.data.set(rest.subarray(0, size), segment.used);
      const isMore = last?.stream === stream && !last.isWarning && !isWarning;
      if (isMore && Math.abs(at - last.at) < SAME_MOMENT_MS) last.end += size;
      else
        segment.pieces.push({
          stream,
          at,
          isWarning,
          offset: this.#totals[stream],
          otherOffset: this.#totals[other(stream)],
          number: this.pieces++,
          start: segment.used,
          end: segment.used + size,
        });
      segment.used += size;
      if (!isWarning) this.#totals[stream] += size;
      this.bytes += segment.bytes - before;
      rest = rest.subarray(size);
    }
  }

  /** The oldest segment goes. */
  drop(): void {
    const segment = this.#segments.shift();
    if (segment === undefined) return;
    this.first++;
    this.bytes -= segment.bytes;
    for (const { stream, isWarning, offset, start, end } of segment.pieces)
      if (!isWarning) this.dropped[stream] = offset + end - start;
  }

  end(status: Status): void {
    this.status = status;
    const last = this.#segments.at(-1);
    if (last === undefined) return;
    this.bytes -= last.bytes;
    const exact = Buffer.allocUnsafeSlow(last.used);
    last.data.copy(exact);
    last.data = exact;
    this.bytes += last.bytes;
  }

  tell(): void {
    for (const told of this.#waiting) told();
    this.#waiting.clear();
  }

  /** Resolves when there is more, or the end, or when `signal` is aborted. */
  async changed(signal: AbortSignal): Promise<void> {
    if (signal.aborted) return;
    let told = () => {};
    await new Promise<void>((resolve) => {
      told = resolve;
      this.#waiting.add(told);
      signal.addEventListener('abort', told, { once: true });
    });
    this.#waiting.delete(told);
    signal.removeEventListener('abort', told);
  }

  /** Where the last `lines` lines begin; undefined when fewer are kept. */
  tail(lines: number): Place | undefined {
    let left = lines;
    let isLast = true;
    for (let number = this.first + this.segments - 1; number >= this.first; number--) {
      const { data, pieces } = this.segment(number) as Segment;
      for (let index = pieces.length - 1; index >= 0; index--) {
        const piece = pieces[index] as Piece;
        for (let at = piece.end; at > piece.start; at--) {
          // The end of the last line begins no other.
          const isBoundary = data[at - 1] === NEWLINE && !isLast;
          isLast = false;
          if (left === 0 || (isBoundary && --left === 0))
            return { segment: number, piece: index, at };
        }
      }
    }
    return undefined;
  }

  #room(): Segment {
    const last = this.#segments.at(-1);
    if (last !== undefined && !last.isFull) return last;
    const segment = new Segment();
    this.#segments.push(segment);
    this.bytes += segment.bytes;
    return segment;
  }
}

const NEWLINE = 0x0a;

/** A segment by its number, a piece by its index in it, and a byte in the segment's data. */
interface Place {
  segment: number;
  piece: number;
  at: number;
}

/** Someone who reads one execution's log, once, from its beginning or from where he was. */
export class LogReader {
  readonly #log: KeptLog;
  readonly #follow: boolean;
  /** Without `follow`: the first piece that is not read. */
  readonly #until: number;
  /** Warnings that came before are not told again. */
  readonly #before: Received;
  readonly #received: { stdout: number; stderr: number };
  #place: Place = { segment: 0, piece: 0, at: 0 };
  #omitted = 0;

  constructor(log: KeptLog, { follow, tail, received }: Omit<LogsRequest, 'executionId'>) {
    this.#log = log;
    this.#follow = follow;
    this.#until = log.pieces;
    this.#before = received ?? { stdout: 0, stderr: 0 };
    this.#received = { ...this.#before };
    const place = received === undefined && tail !== undefined ? log.tail(tail) : undefined;
    if (place !== undefined) this.#startAt(place);
  }

  /** What has come to be known so far; complete when `next` has said that there is no more. */
  get result(): LogsResult {
    return { status: this.#log.status ?? null, omitted: this.#omitted };
  }

  /** Where the reader is, before he has read anything. */
  get start(): Kept {
    return { received: { ...this.#received } };
  }

  /**
   * Undefined: there is no more, or `signal` was aborted. The data are to be used before it is called again.
   * @throws BridgeError `not_found` when it is not kept any more, and nobody here knows how it ended
   */
  async next(signal: AbortSignal): Promise<Kept | undefined> {
    for (;;) {
      const missed = this.#missed();
      if (missed > 0) {
        this.#omitted += missed;
        return { received: { ...this.#received }, omitted: missed };
      }
      const segment = this.#log.segment(this.#place.segment);
      const piece = segment?.pieces[this.#place.piece];
      if (segment !== undefined && piece !== undefined) {
        if (!this.#follow && piece.number >= this.#until) return undefined;
        const log = this.#read(segment, piece);
        if (log !== undefined) return { received: { ...this.#received }, log };
      }
      if (this.#advance()) continue;
      if (this.#log.isForgotten && this.#log.status === undefined) throw unknown();
      if (!this.#follow || this.#log.status !== undefined || signal.aborted) return undefined;
      await this.#log.changed(signal);
    }
  }

  #startAt(place: Place): void {
    this.#place = place;
    const found = this.#log.segment(place.segment)?.pieces[place.piece];
    if (found === undefined) return;
    const { stream, offset, otherOffset, start, isWarning } = found;
    this.#received[stream] = isWarning ? offset : offset + place.at - start;
    this.#received[other(stream)] = otherOffset;
  }

  /** Bytes that were dropped before they could be read. */
  #missed(): number {
    const { first, dropped } = this.#log;
    if (this.#place.segment >= first) return 0;
    this.#place = { segment: first, piece: 0, at: 0 };
    let missed = 0;
    for (const stream of ['stdout', 'stderr'] as const) {
      missed += Math.max(0, dropped[stream] - this.#received[stream]);
      this.#received[stream] = Math.max(dropped[stream], this.#received[stream]);
    }
    return missed;
  }

  #read({ data }: Segment, piece: Piece): Kept['log'] {
    const { stream, at, isWarning, offset, otherOffset, start, end } = piece;
    let from = Math.max(start, this.#place.at);
    if (isWarning) {
      const isOld = offset < this.#before[stream] || otherOffset < this.#before[other(stream)];
      if (isOld) return undefined;
    } else from = Math.max(from, start + this.#received[stream] - offset);
    if (from >= end) return undefined;
    this.#place.at = end;
    if (!isWarning) this.#received[stream] = offset + end - start;
    return { stream, data: data.subarray(from, end), at, ...(isWarning && { isWarning }) };
  }

  /** Whether there is another piece after this one. */
  #advance(): boolean {
    const { segment, piece } = this.#place;
    const here = this.#log.segment(segment);
    if (here === undefined) return false;
    if (piece + 1 < here.pieces.length) this.#place = { segment, piece: piece + 1, at: 0 };
    else if (this.#log.segment(segment + 1) !== undefined)
      this.#place = { segment: segment + 1, piece: 0, at: 0 };
    else return false;
    return true;
  }
}
