import { constants } from 'node:fs';
import { setImmediate as nextTurn } from 'node:timers/promises';
import { asBridgeError, BridgeError, CODES } from '#bridge/wire/errors.js';
import { isJson, JsonScan } from '#bridge/wire/json-source.js';
import { DocumentDraft, type DraftRecord, type OwnBytes } from './draft.js';
import type { Caller } from './inode.js';
import type { JournalRecord } from './journal-file.js';
import { DOCUMENT_BYTES_MAX, type Document, type Draft, type RegularFile } from './regular-file.js';
import type { Tree } from './tree.js';
import type { DocumentName } from './work-directory.js';

const { O_RDONLY, O_WRONLY, O_TRUNC } = constants;
const O_ACCMODE = 3; // asm-generic/fcntl.h

/** RELEASE and the end of the run carry no identity. */
export const NOBODY: Caller = { uid: 0, gid: 0, pid: 0 };

/** A larger document is scanned in pieces of this size, with a turn for other requests in between. */
export const SLICE_BYTES = 256 * 1024;

/** What is known of a file as a document; see BaseDocument's fields. */
export interface FileRecord {
  readonly committed?: number;
  readonly refused?: number;
  readonly invalid?: number;
  readonly isLastStored?: true;
}

/** Common to the documents that are stored: which content counts, and what is under way. */
export abstract class BaseDocument implements Document {
  readonly #underWay = new Set<Promise<void>>();
  /** Of writable handles that are open. */
  readonly #drafts = new Set<DocumentDraft>();
  readonly #ownBytes: OwnBytes = { used: 0 };
  /** The contentVersion of each file that was last committed as this document, or put there by the bridge. */
  readonly #committed = new WeakMap<RegularFile, number>();
  /** The contentVersion of each file that was refused for good: trying again would only be refused again. */
  readonly #refused = new WeakMap<RegularFile, number>();
  /** Among them those that are no valid document: strict. */
  readonly #invalid = new WeakMap<RegularFile, number>();
  /** The file that was stored last: another one at the name is news, whatever was stored of it before. */
  #lastStored: RegularFile | undefined;
  /** While a large document is scanned and stored: who closes later is stored later. */
  #tail: Promise<unknown> | undefined;
  readonly #isStrict: boolean;
  readonly name: DocumentName;
  readonly #tree: Tree;
  /** For the execution's warnings, in the words of the legacy executor. */
  protected readonly warn: (text: string) => void;

  /** `isStrict`: what is no valid document is refused at close(2). */
  constructor(name: DocumentName, tree: Tree, isStrict: boolean, warn: (text: string) => void) {
    this.name = name;
    this.#tree = tree;
    this.#isStrict = isStrict;
    this.warn = warn;
  }

  // --- what a process that takes over must know ---------------------------------------------------------------------

  /** A journal is begun anew. */
  startRecords(): void {}

  /** Everything but the files' and the handles' records. */
  abstract records(): Iterable<JournalRecord>;

  /** All that an earlier process left has been taken over. */
  restored(): void {}

  protected note(record: JournalRecord): void {
    this.#tree.journal?.note(record);
  }

  protected get isJournaled(): boolean {
    return this.#tree.journal !== undefined;
  }

  /** What is noted must be safe before something outside follows from it. */
  protected flushNotes(): void {
    this.#tree.journal?.flushNotes();
  }

  fileRecord(file: RegularFile): FileRecord {
    const committed = this.#committed.get(file);
    const refused = this.#refused.get(file);
    const invalid = this.#invalid.get(file);
    return {
      ...(committed !== undefined && { committed }),
      ...(refused !== undefined && { refused }),
      ...(invalid !== undefined && { invalid }),
      ...(this.#lastStored === file && { isLastStored: true }),
    };
  }

  restoreFile(file: RegularFile, record: FileRecord): void {
    file.document = this;
    const set = (map: WeakMap<RegularFile, number>, version: number | undefined) =>
      version === undefined ? map.delete(file) : map.set(file, version);
    set(this.#committed, record.committed);
    set(this.#refused, record.refused);
    set(this.#invalid, record.invalid);
    if (record.isLastStored === true) this.#lastStored = file;
  }

  protected fileChanged(file: RegularFile): void {
    if (this.isJournaled) this.note(['F', file.id, this.name, this.fileRecord(file)]);
  }

  draftRecord(draft: Draft): unknown {
    return draft instanceof DocumentDraft ? [draft.record, this.draftState(draft)] : null;
  }

  /** A handle of an earlier process. */
  restoreDraft(file: RegularFile, id: number, record: DraftRecord): DocumentDraft {
    const draft = DocumentDraft.restore(this, file, id, record, this.#ownBytes);
    if (draft.isWritable) this.#drafts.add(draft);
    return draft;
  }

  /** Counters and base changed; what was written through the handle is noted write by write. */
  protected draftChanged(draft: DocumentDraft): void {
    if (this.isJournaled && draft.id !== 0) this.note(['h', draft.id, ...this.draftState(draft)]);
  }

  protected draftState(draft: DocumentDraft): readonly unknown[] {
    return [draft.storedChanges];
  }

  restoreDraftState(draft: DocumentDraft, [stored]: readonly unknown[]): void {
    draft.storedUpTo(stored as number);
  }

  // --- what happens to its files ------------------------------------------------------------------------------------

  opened(file: RegularFile, flags: number, caller: Caller): Draft {
    const access = flags & O_ACCMODE;
    const draft = new DocumentDraft(this, file, access !== O_RDONLY, this.#ownBytes);
    this.noticed(file, draft, access !== O_WRONLY && (flags & O_TRUNC) === 0, caller);
    if (access !== O_RDONLY) this.#drafts.add(draft);
    return draft;
  }

  attached(file: RegularFile): void {
    this.markDirty(file);
  }

  closed(draft: Draft): void {
    if (!(draft instanceof DocumentDraft)) return;
    draft.closed();
    this.#drafts.delete(draft);
  }

  commit(file: RegularFile, draft: Draft | undefined, caller: Caller): Promise<void> | undefined {
    if (draft !== undefined && !(draft instanceof DocumentDraft)) return undefined;
    // Another close(2) of the same description may be committing these very writes: this one is not durable earlier.
    if (draft?.dirty === false) {
      this.readEnded(draft);
      return draft.underWay;
    }
    if (draft === undefined && !this.isDirty(file)) return undefined;
    const content = this.#candidate(file, draft);
    const version = file.contentVersion;
    const committing = draft?.committing();
    const takeBack = committing?.takeBack;
    const store = this.prepare(file, draft, caller);
    const document = new JsonScan(content, this.scanKind);
    let storing: Promise<boolean>;
    if (content.byteLength > SLICE_BYTES || this.#tail !== undefined) {
      const before = this.#tail;
      storing = inSlices(document).then(async () => {
        await before?.catch(() => {}); // whoever waits for that one hears of it
        return await this.#stored(store(document, content), content);
      });
      const tail = storing;
      this.#tail = tail;
      const ended = () => {
        if (this.#tail === tail) this.#tail = undefined;
      };
      tail.then(ended, ended);
    } else {
      document.step(SLICE_BYTES);
      const stored = store(document, content);
      if (stored === undefined && !this.#isStrict) {
        takeBack?.();
        return undefined;
      }
      storing = this.#stored(stored, content);
    }
    const done = storing.then(
      (isStored) => {
        if (!isStored) {
          takeBack?.();
          return;
        }
        const before = this.#lastStored;
        this.#lastStored = file;
        if (before !== undefined && before !== file) this.fileChanged(before);
        committing?.stored();
        if (draft !== undefined) this.draftChanged(draft);
        if (draft === undefined || draft.isAlone || !this.hasDirtyDrafts)
          this.markCommitted(file, version);
        else this.fileChanged(file);
      },
      (error: unknown) => {
        takeBack?.();
        if (!CODES[asBridgeError(error).code].retry) this.#refused.set(file, version);
        if (error instanceof NoDocument) this.#invalid.set(file, version);
        this.fileChanged(file);
        throw error;
      },
    );
    this.#underWay.add(done);
    if (draft !== undefined) draft.underWay = done;
    const forget = () => {
      this.#underWay.delete(done);
      if (draft?.underWay === done) draft.underWay = undefined;
    };
    done.then(forget, forget);
    return done;
  }

  /**
   * False = not a document (yet): a script may write it in several steps, so only the end of the run may complain, unless the
   * event is strict.
   */
  async #stored(storing: Promise<void> | undefined, content: Uint8Array): Promise<boolean> {
    if (storing !== undefined) {
      await storing;
      return true;
    }
    if (!this.#isStrict) return false;
    const complaint = this.complaint(content);
    this.warn(`Warning: ${complaint}`);
    throw new NoDocument('invalid', complaint);
  }

  /** What no close(2) committed, at the end of the run. False = it is no valid document, which has been said. */
  protected async commitAtEnd(file: RegularFile): Promise<boolean> {
    try {
      if (file.size <= DOCUMENT_BYTES_MAX) await this.commit(file, undefined, NOBODY);
    } catch (error) {
      if (error instanceof NoDocument) return false;
      throw error;
    }
    if (!this.isDirty(file)) return true;
    const isTooLarge = file.size > DOCUMENT_BYTES_MAX;
    this.warn(`Warning: ${this.complaint(isTooLarge ? new Uint8Array() : file.readAll())}`);
    return false;
  }

  /** Whether some open handle holds writes that were not committed: the file is not to be replaced under it. */
  get hasDirtyDrafts(): boolean {
    for (const draft of this.#drafts) if (draft.dirty) return true;
    return false;
  }

  /** Whether `file` holds what was not committed as this document, nor put there by the bridge. */
  protected isDirty(file: RegularFile): boolean {
    return this.#committed.get(file) !== file.contentVersion;
  }

  /** Whether `file` holds what no commit has taken and none has refused for good. */
  protected isPending(file: RegularFile): boolean {
    return this.isDirty(file) && this.#refused.get(file) !== file.contentVersion;
  }

  /** Whether `file` was refused because it is no valid document, and not changed since. */
  protected isInvalid(file: RegularFile): boolean {
    return this.#invalid.get(file) === file.contentVersion;
  }

  /** Whether another file than `file` was stored last, or none. */
  protected isNews(file: RegularFile): boolean {
    return this.#lastStored !== file;
  }

  /** The content of `file` counts as new. */
  protected markDirty(file: RegularFile): void {
    this.#committed.delete(file);
    this.fileChanged(file);
  }

  protected markCommitted(file: RegularFile, version = file.contentVersion): void {
    this.#committed.set(file, Math.max(this.#committed.get(file) ?? -1, version));
    this.fileChanged(file);
  }

  /** A handle was opened; `reads` when its process sees the content. */
  protected noticed(
    _file: RegularFile,
    _draft: DocumentDraft,
    _reads: boolean,
    _caller: Caller,
  ): void {}

  /** close(2) of a handle through which nothing is left to commit. */
  protected readEnded(_draft: DocumentDraft): void {}

  /** What of a document the scan is to find. */
  protected abstract readonly scanKind: 'members' | 'verdict';

  /**
   * Takes down who commits what, and returns what stores the scanned content. That returns undefined when it is no valid
   * document: nothing is stored then.
   */
  protected abstract prepare(
    file: RegularFile,
    draft: DocumentDraft | undefined,
    caller: Caller,
  ): (document: JsonScan, content: Uint8Array) => Promise<void> | undefined;

  /** Why `content` is no document, in the words of the legacy executor; called when `store` refused it. */
  protected abstract complaint(content: Uint8Array): string;

  protected async settled(): Promise<void> {
    await Promise.allSettled(this.#underWay);
  }

  /** The shared content, unless another handle wrote in between and this one's own writes make a document. */
  #candidate(file: RegularFile, draft: DocumentDraft | undefined): Uint8Array {
    if (draft !== undefined && !draft.isAlone && draft.own !== undefined) {
      if (isJson(draft.own)) return Uint8Array.from(draft.own); // it may be written to while this is stored
      // Not a document of its own: somebody else completes it.
    }
    return file.readAll();
  }
}

/** A strict document's refusal. */
class NoDocument extends BridgeError {}

async function inSlices(document: JsonScan): Promise<void> {
  while (!document.step(SLICE_BYTES)) await nextTurn();
}
