import type { Directory, Inode } from './inode.js';
import { JournalFile, type JournalRecord } from './journal-file.js';
import { entryRecord, freedRecord, inodeRecord, xattrRecord } from './tree-records.js';

/** A journal is written anew when it has grown to this, or to twice what it held when it was last whole. */
const FILE_BYTES_MIN = 1024 * 1024;

/** Written at a time while a journal is written anew; in between others have their turn. */
const SLICE_RECORDS = 500;

/**
 * Answers that the kernel may not have: the last one, and those that were kept back so that other executions have their turn, a
 * few dozen.
 */
const ANSWERS_KEPT = 256;

/** What is held back is not to be written; while something is, the journal is not written anew. */
const HOLD_MS = 20;

/** A file that could not be written is tried again after this. */
const RETRY_MS = 1_000;

/** A request, as the kernel calls it, and what it was answered: struct fuse_out_header and more. */
export interface Answer {
  readonly low: number;
  readonly high: number;
  readonly bytes: Buffer;
  readonly length: number;
}

/** An answer that says nothing but "done" is not written out. */
const OUT_HEADER_BYTES = 16;

/** What changed and is not in the journal yet. */
interface Marks {
  readonly inodes: Set<Inode>;
  readonly xattrs: Set<Inode>;
  readonly entries: [Directory, string][];
}

const noMarks = (): Marks => ({ inodes: new Set(), xattrs: new Set(), entries: [] });

/**
 * What a tree is, outside the process that serves it. A change marks what it changed; before anybody hears of it, `flush` writes
 * what the marked things are now, as one group. Records say how something is, never how it changed, so it does not matter
 * whether one is read twice. Bytes of files are not in it: writing them again at their offset changes nothing.
 */
export class Journal {
  readonly #directory: string;
  readonly #dirty: Set<Journal>;
  #everything: () => Iterable<string> = () => [];
  readonly #onError: (error: unknown) => void;
  #file: JournalFile | undefined;
  #marks = noMarks();
  /** JSON texts. */
  #notes: string[] = [];
  /** They wait for the next flush: an inode without a name that is made again takes nothing but a little memory. */
  #freed: number[] = [];
  /** What the journal may still name until it is flushed. */
  #removals: (() => void)[] = [];
  #isFlushDue = false;
  /** JSON texts: an answer may be on its way to the kernel still, when the file that has it goes. */
  readonly #answers: string[] = [];
  #wholeBytes = 0;
  #isRewriting = false;
  #holds = 0;
  #isClosed = false;

  /** `dirty` holds every journal that has something to flush. */
  constructor(directory: string, dirty: Set<Journal>, onError: (error: unknown) => void) {
    this.#directory = directory;
    this.#dirty = dirty;
    this.#onError = onError;
  }

  /**
   * Writes all of it for the first time. `everything` gives all records that the tree is made from, as JSON texts, each as of
   * the moment it is asked for. @throws host errors
   */
  begin(everything: () => Iterable<string>): void {
    this.#everything = everything;
    this.#file = JournalFile.create(this.#directory);
    this.#appendAll([...everything()]);
    this.flush();
    this.#becomeWhole();
  }

  /** Goes on with the journal of an earlier process, whose `records` these are. What cannot be written now is tried again. */
  goOn(everything: () => Iterable<string>, records: readonly JournalRecord[]): void {
    // The kernel may not have had them: this process may die before it has told it again.
    this.#answers.push(...answerRecords(records).map((record) => JSON.stringify(record)));
    this.#everything = everything;
    try {
      this.#file = JournalFile.create(this.#directory);
      this.#appendAll(this.#answers);
      this.#appendAll([...everything()]);
      this.flush();
      this.#becomeWhole();
    } catch (error) {
      this.#failed(error);
    }
  }

  /** Its attributes changed, or it is new. */
  inode(inode: Inode): void {
    this.#marks.inodes.add(inode);
    this.#dirty.add(this);
  }

  /** Worth to know, but nobody is told of it: no flush for its sake. */
  inodeLater(inode: Inode): void {
    this.#marks.inodes.add(inode);
  }

  xattrs(inode: Inode): void {
    this.#marks.xattrs.add(inode);
    this.#dirty.add(this);
  }

  entry(directory: Directory, name: string): void {
    this.#marks.entries.push([directory, name]);
    this.#dirty.add(this);
  }

  freed(inode: Inode): void {
    this.#marks.inodes.delete(inode);
    this.#marks.xattrs.delete(inode);
    this.#freed.push(inode.id);
  }

  /** Does `remove` once no record leads to what it removes: until then somebody who takes over would look for it. */
  afterFlush(remove: () => void): void {
    this.#removals.push(remove);
    this.#flushSoon();
  }

  /** Something else about the tree. */
  note(record: JournalRecord): void {
    this.#notes.push(JSON.stringify(record));
    this.#dirty.add(this);
  }

  get isDirty(): boolean {
    return this.#dirty.has(this);
  }

  /** What is marked now is flushed only after `release`, as it is then: for a change that may be undone yet. */
  hold(): () => void {
    const held = this.#marks;
    this.#marks = noMarks();
    if (this.#notes.length === 0) this.#dirty.delete(this);
    this.#holds++;
    return () => {
      this.#holds--;
      for (const inode of held.inodes) this.inode(inode);
      for (const inode of held.xattrs) this.xattrs(inode);
      for (const [directory, name] of held.entries) this.entry(directory, name);
    };
  }

  /** Writes notes only: what is marked may be undone yet. */
  flushNotes(): void {
    const texts = this.#notes;
    this.#notes = [];
    const { inodes, xattrs, entries } = this.#marks;
    if (inodes.size + xattrs.size + entries.length === 0) this.#dirty.delete(this);
    if (!this.#isClosed && texts.length > 0) this.#append(texts.join(','), false);
  }

  /** Writes what is marked, with the answer of the request that changed it. Never throws. */
  flush(answer?: Answer): void {
    this.#dirty.delete(this);
    if (this.#isClosed) return;
    const texts = this.#notes;
    this.#notes = [];
    const { inodes, xattrs, entries } = this.#marks;
    for (const inode of inodes) texts.push(inodeRecord(inode));
    inodes.clear();
    for (const inode of xattrs) texts.push(xattrRecord(inode));
    xattrs.clear();
    for (const [directory, name] of entries) texts.push(entryRecord(directory, name));
    entries.length = 0;
    for (const id of this.#freed) texts.push(freedRecord(id));
    this.#freed.length = 0;
    if (answer !== undefined) {
      const text = answerRecord(answer);
      texts.push(text);
      this.#answers.push(text);
      if (this.#answers.length > 2 * ANSWERS_KEPT) this.#answers.splice(0, ANSWERS_KEPT);
    }
    if (texts.length > 0) this.#append(texts.join(','));
    this.#remove();
  }

  /** The tree is gone, and its directory soon. */
  close(): void {
    this.#isClosed = true;
    this.#dirty.delete(this);
    this.#file?.close();
    this.#remove();
  }

  #remove(): void {
    for (const remove of this.#removals.splice(0))
      try {
        remove();
      } catch (error) {
        this.#onError(error); // a file system that became read-only
      }
  }

  #flushSoon(): void {
    if (this.#isFlushDue) return;
    this.#isFlushDue = true;
    setImmediate(() => {
      this.#isFlushDue = false;
      if (this.#removals.length > 0) this.flush();
    });
  }

  /** `mayRewrite` false: not everything is as it should be noted. */
  #append(records: string, mayRewrite = true): void {
    if (this.#file === undefined) return;
    try {
      this.#file.append(records);
    } catch (error) {
      this.#failed(error);
      return;
    }
    if (!mayRewrite || this.#isRewriting || this.#holds > 0) return;
    if (this.#file.size > Math.max(FILE_BYTES_MIN, 2 * this.#wholeBytes)) this.#rewrite();
  }

  /**
   * Into a new file, in slices: what changes meanwhile is written there too, and is no older than what a later slice says of the
   * same thing.
   */
  #rewrite(): void {
    this.#isRewriting = true;
    try {
      this.#file?.close();
      this.#file = JournalFile.create(this.#directory);
      this.#appendAll(this.#answers);
    } catch (error) {
      this.#failed(error);
      return;
    }
    const left = this.#everything()[Symbol.iterator]();
    const file = this.#file;
    const step = () => {
      if (this.#isClosed || this.#file !== file) return;
      if (this.#holds > 0) {
        setTimeout(step, HOLD_MS).unref();
        return;
      }
      if (this.#notes.length > 0) this.flush(); // they tell of changes that what follows has in it already
      const slice: string[] = [];
      let next = left.next();
      for (; next.done !== true; next = left.next()) {
        slice.push(next.value);
        if (slice.length >= SLICE_RECORDS) break;
      }
      try {
        this.#appendAll(slice);
        if (this.#notes.length > 0) this.flush(); // what the records refer to
        if (next.done === true) this.#becomeWhole();
        else setImmediate(step);
      } catch (error) {
        this.#failed(error);
      }
    };
    step();
  }

  #appendAll(records: readonly string[]): void {
    if (records.length > 0) this.#file?.append(records.join(','));
  }

  #becomeWhole(): void {
    this.#file?.markWhole();
    this.#wholeBytes = this.#file?.size ?? 0;
    this.#isRewriting = false;
  }

  /** Serving goes on; what a death of this process would mean is as if there were no journal, until one is whole again. */
  #failed(error: unknown): void {
    this.#file?.close();
    this.#file = undefined;
    this.#isRewriting = false;
    this.#onError(error);
    try {
      JournalFile.removeAll(this.#directory); // it would tell of a tree that is not so any more
    } catch (cause) {
      this.#onError(cause);
    }
    setTimeout(() => {
      if (!this.#isClosed) this.#rewrite();
    }, RETRY_MS).unref();
  }
}

function answerRecord({ low, high, bytes, length }: Answer): string {
  const isPlain = length === OUT_HEADER_BYTES && bytes.readInt32LE(4) === 0;
  return isPlain
    ? `["R",${low},${high}]`
    : `["R",${low},${high},"${bytes.toString('base64', 0, length)}"]`;
}

const RESENT_BIT = 1n << 63n;

/** A request that is sent again has this bit set. */
export const uniqueOf = (low: number, high: number): bigint =>
  ((BigInt(high) << 32n) | BigInt(low)) & ~RESENT_BIT;

const answerRecords = (records: readonly JournalRecord[]): readonly JournalRecord[] =>
  records.filter(([kind]) => kind === 'R').slice(-2 * ANSWERS_KEPT);

/** The answers in a journal; undefined bytes stand for "done". */
export function answersIn(records: readonly JournalRecord[]): Map<bigint, Uint8Array | undefined> {
  const answers = new Map<bigint, Uint8Array | undefined>();
  for (const [, low, high, base64] of answerRecords(records))
    answers.set(
      uniqueOf(low as number, high as number),
      typeof base64 === 'string' ? Buffer.from(base64, 'base64') : undefined,
    );
  return answers;
}
