import type { Draft, RegularFile } from './regular-file.js';

/** A legacy file larger than this is no longer followed write by write; its shared content counts then. */
const OWN_BYTES_MAX = 16 * 1024 * 1024;

/**
 * What one handle wrote, kept apart from what others write to the same file meanwhile: of two scripts that rewrite
 * variables.json at once, each commits its own document, although the bytes on the shared file get mixed.
 */
export class DocumentDraft implements Draft {
  readonly #file: RegularFile;
  /** What this handle alone would have made of the file; undefined when it did not start from an empty file. */
  #own: Buffer | undefined;
  #ownSize = 0;
  readonly #startVersion: number;
  #changes = 0;
  #committedChanges = 0;
  isOpen = true;

  constructor(file: RegularFile, writable: boolean) {
    this.#file = file;
    this.#startVersion = file.contentVersion;
    if (writable && file.size === 0) this.#own = Buffer.alloc(0);
  }

  get dirty(): boolean {
    return this.#changes > this.#committedChanges;
  }

  /** Whether nobody else changed the file since this handle was opened. */
  get isAlone(): boolean {
    return this.#file.contentVersion === this.#startVersion + this.#changes;
  }

  /** The handle's own document, when it can be told from the shared content. */
  get own(): Uint8Array | undefined {
    return this.#own?.subarray(0, this.#ownSize);
  }

  wrote(data: Uint8Array, offset: number): void {
    if (data.byteLength === 0) return;
    this.#changes++;
    if (this.#own === undefined) return;
    const end = offset + data.byteLength;
    if (end > OWN_BYTES_MAX) {
      this.#own = undefined;
      return;
    }
    this.#reserve(end);
    this.#own.set(data, offset);
    this.#ownSize = Math.max(this.#ownSize, end);
  }

  truncated(size: number): void {
    this.#changes++;
    if (size === 0) this.#own ??= Buffer.alloc(0);
    if (this.#own === undefined || size > OWN_BYTES_MAX) {
      this.#own = undefined;
      return;
    }
    this.#reserve(size);
    if (size < this.#ownSize) this.#own.fill(0, size, this.#ownSize);
    this.#ownSize = size;
  }

  closed(): void {
    this.isOpen = false;
  }

  /** Marks what was written so far as committed; the returned function takes that back after a failure. */
  committing(): () => void {
    const before = this.#committedChanges;
    this.#committedChanges = this.#changes;
    return () => {
      this.#committedChanges = Math.min(before, this.#committedChanges);
    };
  }

  #reserve(size: number): void {
    const own = this.#own;
    if (own === undefined || own.length >= size) return;
    const grown = Buffer.alloc(Math.max(size, own.length * 2, 4096));
    own.copy(grown);
    this.#own = grown;
  }
}
