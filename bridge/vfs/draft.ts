import { DOCUMENT_BYTES_MAX, type Document, type Draft, type RegularFile } from './regular-file.js';

/**
 * Memory that the drafts of one document may take together; a handle beyond it is no longer followed write by write, and the
 * shared content counts for it. Two writers of the largest document at once still fit.
 */
const OWN_BYTES_MAX = 2 * DOCUMENT_BYTES_MAX;

/** What a draft has come to, for whoever takes over from this process. */
export interface DraftRecord {
  readonly start: number;
  readonly changes: number;
  readonly stored: number;
  readonly isWritable: boolean;
  /** Base64. */
  readonly own?: string;
}

/** What the drafts of one document have taken so far. */
export interface OwnBytes {
  used: number;
}

/**
 * What one handle wrote, kept apart from what others write to the same file meanwhile: of two scripts that rewrite
 * variables.json at once, each commits its own document, although the bytes on the shared file get mixed.
 */
export class DocumentDraft implements Draft {
  readonly file: RegularFile;
  readonly document: Document;
  /** What this handle alone would have made of the file; undefined when it did not start from an empty file. */
  #own: Buffer | undefined;
  #ownSize = 0;
  #startVersion: number;
  #changes = 0;
  #committedChanges = 0;
  #triedChanges = 0;
  /** What a commit that has ended well took. */
  #storedChanges = 0;
  readonly isWritable: boolean;
  /** The handle's number. */
  id = 0;
  readonly #budget: OwnBytes;
  /** The commit that carries what was written last; undefined when none is under way. */
  underWay: Promise<void> | undefined;

  constructor(document: Document, file: RegularFile, writable: boolean, budget: OwnBytes) {
    this.document = document;
    this.file = file;
    this.#budget = budget;
    this.#startVersion = file.contentVersion;
    this.isWritable = writable;
    if (writable && file.size === 0) this.#own = Buffer.alloc(0);
  }

  /** Whether something was written that is not committed, nor on its way. */
  get dirty(): boolean {
    return this.#changes > this.#committedChanges;
  }

  get untried(): boolean {
    return this.#changes > this.#triedChanges;
  }

  /** Whether nobody else changed the file since this handle was opened. */
  get isAlone(): boolean {
    return this.file.contentVersion === this.#startVersion + this.#changes;
  }

  /** The handle's own document, when it can be told from the shared content. */
  get own(): Uint8Array | undefined {
    return this.#own?.subarray(0, this.#ownSize);
  }

  wrote(data: Uint8Array, offset: number): void {
    if (data.byteLength === 0) return;
    this.#changes++;
    const end = offset + data.byteLength;
    if (this.#own === undefined || !this.#reserve(end)) return;
    this.#own.set(data, offset);
    this.#ownSize = Math.max(this.#ownSize, end);
  }

  truncated(size: number): void {
    this.#changes++;
    // From an empty file on, what this handle makes of it can be told again.
    if (size === 0) this.#own ??= Buffer.alloc(0);
    if (this.#own === undefined || !this.#reserve(size)) return;
    if (size < this.#ownSize) this.#own.fill(0, size, this.#ownSize);
    this.#ownSize = size;
  }

  /** Gives the memory back. */
  closed(): void {
    this.#forget();
  }

  /** Marks what was written so far as committed, until it is known whether it is. */
  committing(): { readonly stored: () => void; readonly takeBack: () => void } {
    const before = this.#committedChanges;
    const changes = this.#changes;
    this.#committedChanges = changes;
    this.#triedChanges = changes;
    return {
      stored: () => {
        this.#storedChanges = Math.max(changes, this.#storedChanges);
      },
      takeBack: () => {
        this.#committedChanges = Math.min(before, this.#committedChanges);
      },
    };
  }

  get storedChanges(): number {
    return this.#storedChanges;
  }

  get record(): DraftRecord {
    const { own, isWritable } = this;
    return {
      start: this.#startVersion,
      changes: this.#changes,
      stored: this.#storedChanges,
      isWritable,
      ...(own !== undefined && { own: Buffer.from(own).toString('base64') }),
    };
  }

  /** A draft of an earlier process: a commit that was under way is tried again. */
  static restore(
    document: Document,
    file: RegularFile,
    id: number,
    record: DraftRecord,
    budget: OwnBytes,
  ): DocumentDraft {
    const draft = new DocumentDraft(document, file, record.isWritable, budget);
    draft.id = id;
    draft.#startVersion = record.start;
    draft.#changes = record.changes;
    draft.storedUpTo(record.stored);
    draft.#forget();
    if (record.own === undefined) return draft;
    const own = Buffer.from(record.own, 'base64');
    draft.#own = Buffer.alloc(0);
    if (draft.#reserve(own.length)) own.copy(draft.#own);
    draft.#ownSize = own.length;
    return draft;
  }

  storedUpTo(changes: number): void {
    this.#storedChanges = changes;
    this.#committedChanges = changes;
    this.#triedChanges = changes;
  }

  /** Makes room for `size` bytes, or stops following. */
  #reserve(size: number): boolean {
    const own = this.#own;
    if (own === undefined) return false;
    if (own.length >= size) return true;
    const length = Math.max(size, Math.min(own.length * 2, DOCUMENT_BYTES_MAX), 4096);
    if (this.#budget.used + length - own.length > OWN_BYTES_MAX) {
      this.#forget();
      return false;
    }
    this.#budget.used += length - own.length;
    this.#own = Buffer.alloc(length);
    own.copy(this.#own);
    return true;
  }

  #forget(): void {
    this.#budget.used -= this.#own?.length ?? 0;
    this.#own = undefined;
    this.#ownSize = 0;
  }
}
