import { constants } from 'node:fs';
import { VALUE_BYTES_MAX } from '#bridge/wire/limits.js';
import { Content, type ContentRecord, FILE_BYTES_MAX, PAGE_BYTES } from './content.js';
import { EFBIG } from './fs-error.js';
import { type Caller, Inode, msOf, timeOf } from './inode.js';
import type { Tree } from './tree.js';

const { S_IFREG } = constants;

/**
 * The largest document: what the legacy runner took, and what the server takes as one value. A file at a legacy name is
 * refused to grow beyond it, because committing means reading and parsing it whole.
 */
export const DOCUMENT_BYTES_MAX = VALUE_BYTES_MAX;

/** A file with content, and perhaps with a meaning: a document. */
export class RegularFile extends Inode {
  readonly #content = new Content(this);
  /** Grows with every change of content: tells a file that was written since a commit from one that was not. */
  contentVersion = 0;
  /** Set while one of the legacy names leads here, and kept when a push put a newer version in its place. */
  document: Document | undefined;
  /** Made by O_TMPFILE and not linked since: link(2) may give it its first name. */
  isTemporary = false;

  /** `exempt`: made by the bridge itself, which no quota may stop. */
  constructor(tree: Tree, mode: number, owner: Pick<Caller, 'uid' | 'gid'>, exempt = false) {
    super(tree, S_IFREG | (mode & 0o7777), owner, 0, exempt);
  }

  get size(): number {
    return this.#content.size;
  }

  override get blocks(): number {
    return this.#content.pages * (PAGE_BYTES / 512);
  }

  /** As Content.read. */
  read(target: Uint8Array, at: number, length: number, offset: number): number {
    return this.#content.read(target, at, length, offset);
  }

  /** As Content.write: perhaps short. @throws FsError ENOSPC, EFBIG */
  write(data: Uint8Array, offset: number): number {
    const written = this.#content.write(data, offset, this.#sizeMax);
    if (written > 0) this.#changed();
    return written;
  }

  /** @throws FsError EINVAL, EFBIG */
  truncate(size: number): void {
    this.#content.truncate(size, this.#sizeMax);
    this.#changed();
  }

  /** As Content.reserve. @throws FsError ENOSPC, EFBIG */
  reserve(offset: number, length: number, keepSize: boolean): void {
    const { size } = this;
    this.#content.reserve(offset, length, keepSize, this.#sizeMax);
    if (this.size === size) this.touchMtime();
    else this.#changed();
  }

  /** As Content.punch. */
  async punch(offset: number, length: number): Promise<void> {
    await this.#content.punch(offset, length);
    this.#changed();
  }

  /** As Content.seek. @throws FsError ENXIO, EINVAL */
  seek(offset: number, whence: number): number {
    return this.#content.seek(offset, whence);
  }

  /** The whole content. For documents, whose size is bounded. @throws FsError EFBIG */
  readAll(): Uint8Array {
    if (this.size > DOCUMENT_BYTES_MAX) throw EFBIG;
    const bytes = Buffer.allocUnsafe(this.size);
    this.read(bytes, 0, bytes.length, 0);
    this.#closeIfIdle();
    return bytes;
  }

  /** The content of a new file that the bridge itself puts into a tree, whatever the quota says. */
  fill(bytes: Uint8Array): void {
    for (let at = 0; at < bytes.byteLength; )
      at += this.#content.write(bytes.subarray(at), at, FILE_BYTES_MAX, true);
    this.#closeIfIdle();
    this.#changed();
  }

  get contentRecord(): ContentRecord {
    return this.#content.record;
  }

  /** As Content.restore; the times are those of the last write, if that was later. */
  restoreContent(record: ContentRecord): void {
    const stats = this.#content.restore(record);
    this.#closeIfIdle();
    if (stats === undefined || Math.floor(stats.mtimeMs) <= msOf(this.ctime)) return;
    Object.assign(this.mtime, timeOf(stats.mtimeMs));
    Object.assign(this.ctime, timeOf(stats.mtimeMs));
  }

  async sync(): Promise<void> {
    await this.#content.sync();
  }

  /** Called when the last handle was closed. */
  released(): void {
    this.#closeIfIdle();
  }

  override dispose(): void {
    super.dispose();
    this.#content.dispose();
  }

  get #sizeMax(): number {
    return this.document === undefined ? FILE_BYTES_MAX : DOCUMENT_BYTES_MAX;
  }

  #changed(): void {
    this.contentVersion++;
    this.touchMtime();
    // Of a document it must be known which version was committed.
    if (this.document !== undefined) this.attributesChanged();
  }

  #closeIfIdle(): void {
    if (this.opens === 0) this.tree.closeBacking(this);
  }
}

/** One open file description. */
export interface OpenFile {
  readonly id: number;
  readonly file: RegularFile;
  /** open(2) flags. */
  readonly flags: number;
  /** What a document remembers about this handle; undefined when it was no document's at open(2). */
  readonly draft: Draft | undefined;
  /** Written through since the last flush. */
  wrote: boolean;
}

/** What a handle on a legacy file wrote. */
export interface Draft {
  /** Whether something was written through the handle since a commit of it was last tried. */
  readonly untried: boolean;
  /** The handle's number. */
  id: number;
  readonly document: Document;
  wrote(data: Uint8Array, offset: number): void;
  truncated(size: number): void;
}

/** The meaning of a legacy name. The file system tells it what happens to the file that stands there. */
export interface Document {
  readonly name: string;
  /** A handle was opened; the draft follows what is done through it. */
  opened(file: RegularFile, flags: number, caller: Caller): Draft;
  /**
   * close(2), fsync(2) or the last release of a handle (`draft`), or rename(2) and link(2) onto the name (no draft):
   * makes the content durable. Undefined = nothing to do. A rejection is what the call fails with; the commit goes on
   * even if its caller stops waiting.
   */
  commit(file: RegularFile, draft: Draft | undefined, caller: Caller): Promise<void> | undefined;
  /** The last descriptor of the handle is gone. */
  closed(draft: Draft): void;
  /** `file` came to stand at the name: its content counts as new, whatever it was before. */
  attached(file: RegularFile): void;
  /** What a process that takes over must know of a handle, as JSON. */
  draftRecord(draft: Draft): unknown;
  fileRecord(file: RegularFile): unknown;
}
