import type { AuditLink } from '#bridge/wire/audit-chain.js';
import { asBridgeError, BridgeError } from '#bridge/wire/errors.js';
import type { Noted, Op, Reader, Recorder, Store } from '#server/store/store.js';
import { BatchWriter, type HeadRecord, headKey, readHead } from './audit/batches.js';
import {
  type AuditAdded,
  type AuditNote,
  failureOf,
  isNote,
  type Pending,
  resultOf,
  unplaced,
} from './audit/note.js';
import { type Pruned, pruneAudit } from './audit/pruner.js';
import { AuditReader, type ReadPage, type ReadQuery } from './audit/reader.js';
import { startChain } from './audit/start.js';
import { type Verified, verifyAudit } from './audit/verifier.js';

/** Events that wait to be written: about 5 MB, and a second or two of reads at full speed. Over it, whoever adds waits. */
export const AUDIT_QUEUE_MAX = 20_000;

/** A queue this long is written at once. */
const FLUSH_EVENTS = AUDIT_QUEUE_MAX / 8;

/** What a crash may lose of reads and refusals; changes are on record with themselves. */
const FLUSH_MS = 50;

/** After a write that failed: a full disk does not get free faster. */
const RETRY_MS = 1000;

/** Queued events that one group of commits carries besides its own; the rest goes with the next one. */
const RECORD_BYTES_MAX = 256 * 1024;

interface Waiting {
  readonly pending: Pending;
  readonly resolve: () => void;
  readonly reject: (error: BridgeError) => void;
}

/** What the last group took along, until the next one shows that it was written. */
interface Flight {
  readonly before: HeadRecord;
  readonly taken: readonly Pending[];
  readonly flush: Flush | undefined;
}

/** The note of a commit that is there only to have the queue written. */
class Flush {
  /** How many events the queue had given away when its group was recorded. */
  reached: number | undefined;
}

/**
 * The audit log of one server process: what is committed with a note is on record in the same commit, all else within
 * FLUSH_MS. Other processes on the same store have chains of their own.
 */
export class Audit implements Recorder, AsyncDisposable {
  readonly writer: number;
  readonly #store: Store;
  readonly #onError: (error: BridgeError) => void;
  readonly #reader: AuditReader;
  #head: HeadRecord;
  #queue: Pending[] = [];
  #waiting: Waiting[] = [];
  /** Events that ever entered the queue, and that left it for good as far as is known. */
  #queuedCount = 0;
  #takenCount = 0;
  #flight: Flight | undefined;
  #timer: NodeJS.Timeout | undefined;
  #draining: Promise<void> | undefined;
  /** Refusals and reads that found the queue full while nothing could be written: their callers were refused. */
  #lost = 0;
  #verifying = false;
  #closed = false;

  private constructor(
    store: Store,
    writer: number,
    head: HeadRecord,
    onError: (error: BridgeError) => void,
    readable: Store,
  ) {
    this.#store = store;
    this.writer = writer;
    this.#head = head;
    this.#onError = onError;
    this.#reader = new AuditReader(readable);
  }

  /**
   * Begins a chain, linked to the ones before it, and becomes the store's recorder. `onError` hears what keeps the queue
   * from being written; it is tried again. `readable`: where the log is read, if it cannot be written there.
   * @throws BridgeError `conflict` when others begin one all the time
   */
  static async open(
    store: Store,
    onError: (error: BridgeError) => void = () => {},
    readable: Store = store,
  ): Promise<Audit> {
    const { writer, head } = await startChain(store);
    const audit = new Audit(store, writer, head, onError, readable);
    store.recordWith(audit);
    return audit;
  }

  /**
   * Queues an event. Returns nothing, or, when the queue is full, a promise for its place there: await it before answering.
   * It rejects with `unavailable` when the log cannot be written.
   */
  add({ outcome, version, ...note }: AuditAdded): Promise<void> | undefined {
    return this.#enqueue(note, outcome, note.detail, version);
  }

  /** The operation of `note` has succeeded. Adds nothing when a commit has it on record. */
  done(note: AuditNote): Promise<void> | undefined {
    return note.recorded === true ? undefined : this.#enqueue(note, 'ok', note.detail, undefined);
  }

  /** The operation of `note` was refused or has failed. */
  failed(note: AuditNote, error: unknown): Promise<void> | undefined {
    const { outcome, detail } = failureOf(error);
    return this.#enqueue(note, outcome, detail, undefined);
  }

  /** Resolves when all that was added is durable. @throws BridgeError what the store says */
  async flush(): Promise<void> {
    if (!this.#isPending) return;
    const wanted = this.#queuedCount + this.#waiting.length;
    for (;;) {
      const flush = new Flush();
      await this.#store.commit({ ops: [], note: flush });
      if (flush.reached === undefined)
        throw new BridgeError('internal', 'this store does not record: the audit log is not kept');
      // Our group was written, so those before it were, or what they carried came with ours.
      if (this.#flight?.flush === flush) this.#flight = undefined;
      this.#admit();
      if (!this.#isPending || flush.reached >= wanted) return; // others may go on adding
    }
  }

  /** Writes what is queued. Before the store is closed. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#closed = true;
    clearTimeout(this.#timer);
    await this.#draining;
    await this.flush().catch((error: unknown) => this.#fail(error));
  }

  record(group: readonly Noted[]): readonly Op[] {
    const batches = new BatchWriter(this.writer, this.#head);
    const taken = this.#take(batches);
    let flush: Flush | undefined;
    const at = this.#store.now();
    for (const { note, committed } of group) {
      if (note instanceof Flush) {
        flush = note;
        flush.reached = this.#takenCount;
      } else if (isNote(note)) {
        batches.push(unplaced({ note, ...resultOf(committed), detail: note.detail }), at);
        if (committed.ok) note.recorded = true;
      }
    }
    this.#flight = { before: this.#head, taken, flush };
    this.#head = batches.head;
    this.#admit();
    // Nobody tells us whether this group is written; when none follows, a flush finds out.
    if (taken.length > 0) this.#schedule();
    return batches.finish();
  }

  async reset(reader: Reader): Promise<void> {
    const entry = await reader.get(headKey(this.writer));
    const stored = entry && readHead(entry);
    const flight = this.#flight;
    const isWritten = stored?.hash === this.#head.hash;
    if (!isWritten && (flight === undefined || stored?.hash !== flight.before.hash))
      throw new BridgeError(
        'internal',
        `the audit log of run ${this.writer} was changed by somebody else; see: cronium audit verify`,
      );
    this.#flight = undefined;
    if (isWritten || flight === undefined) return;
    this.#head = flight.before;
    this.#queue = flight.taken.concat(this.#queue);
    this.#takenCount -= flight.taken.length;
    if (this.#queue.length > 0) this.#schedule();
  }

  /** Events of all chains by time; what is queued here is not among them yet. @throws BridgeError `invalid` for the cursor */
  async read(query: ReadQuery): Promise<ReadPage> {
    return await this.#reader.read(query);
  }

  /** Where each chain ends. */
  async heads(): Promise<AuditLink[]> {
    return await this.#reader.heads();
  }

  /**
   * Checks every chain from its beginning to its head. `heads`: hashes somebody kept, which must be in it.
   * @throws BridgeError `busy` when one is under way, `interrupted`
   */
  async verify(heads: readonly string[] = [], signal?: AbortSignal): Promise<Verified> {
    if (this.#verifying) throw new BridgeError('busy', 'the audit log is being verified already');
    this.#verifying = true;
    try {
      return await verifyAudit(this.#store, heads, signal);
    } finally {
      this.#verifying = false;
    }
  }

  /**
   * Takes away whole records that are older than `before`, and has that on record as `note`.
   * @throws BridgeError `invalid` for a time to come, `conflict` when they are not intact or another prune is under way
   */
  async prune(before: number, note: AuditNote, signal?: AbortSignal): Promise<Pruned> {
    return await pruneAudit(this.#store, before, note, signal);
  }

  /** Something is not known to be durable. */
  get #isPending(): boolean {
    return this.#room < AUDIT_QUEUE_MAX || this.#waiting.length > 0 || this.#lost > 0;
  }

  /** What the last group took may have to come back. */
  get #room(): number {
    return AUDIT_QUEUE_MAX - this.#queue.length - (this.#flight?.taken.length ?? 0);
  }

  #enqueue(
    note: AuditNote,
    outcome: string,
    detail: string | undefined,
    version: number | undefined,
  ): Promise<void> | undefined {
    const pending = { at: this.#store.now(), note, outcome, detail, version };
    if (this.#room > 0 && this.#waiting.length === 0) {
      this.#queuedCount++;
      if (this.#queue.push(pending) >= FLUSH_EVENTS) this.#drain();
      else this.#schedule();
      return undefined;
    }
    this.#schedule();
    return new Promise((resolve, reject) => this.#waiting.push({ pending, resolve, reject }));
  }

  /** Moves what one group may carry from the queue. */
  #take(batches: BatchWriter): readonly Pending[] {
    if (this.#lost > 0) {
      const note = { who: 'server', peer: '', op: 'audit.lost', targets: this.#lost };
      const detail = `${this.#lost} events are not on record: the log could not be written`;
      this.#lost = 0;
      const lost = { at: this.#store.now(), note, outcome: 'unavailable', detail };
      this.#queue.push({ ...lost, version: undefined });
      this.#queuedCount++;
    }
    let bytes = 0;
    let count = 0;
    for (const pending of this.#queue) {
      if (bytes > RECORD_BYTES_MAX) break;
      bytes += batches.push(unplaced(pending), pending.at);
      count++;
    }
    this.#takenCount += count;
    return count === 0 ? [] : this.#queue.splice(0, count);
  }

  /** Lets those in who wait for room. */
  #admit(): void {
    if (this.#waiting.length === 0) return;
    const admitted = this.#waiting.splice(0, Math.max(0, this.#room));
    for (const { pending, resolve } of admitted) {
      this.#queue.push(pending);
      this.#queuedCount++;
      resolve();
    }
  }

  #schedule(afterMs = FLUSH_MS): void {
    if (this.#timer !== undefined || this.#draining !== undefined || this.#closed) return;
    this.#timer = setTimeout(() => {
      this.#timer = undefined;
      if (this.#isPending) this.#drain();
    }, afterMs);
  }

  #drain(): void {
    if (this.#draining !== undefined || this.#closed) return;
    clearTimeout(this.#timer);
    this.#timer = undefined;
    this.#draining = this.flush().then(
      () => {
        this.#draining = undefined;
        if (this.#queue.length >= FLUSH_EVENTS) this.#drain();
        else if (this.#isPending) this.#schedule();
      },
      (error: unknown) => {
        this.#draining = undefined;
        this.#fail(error);
        this.#schedule(RETRY_MS);
      },
    );
  }

  /** Whoever waits for room is refused: what is not on record must not happen. */
  #fail(error: unknown): void {
    const cause = asBridgeError(error);
    const refusal = new BridgeError(
      'unavailable',
      `the audit log cannot be written: ${cause.message}`,
      { cause },
    );
    const waiting = this.#waiting;
    this.#waiting = [];
    this.#lost += waiting.length;
    for (const { reject } of waiting) reject(refusal);
    this.#onError(refusal);
  }
}
