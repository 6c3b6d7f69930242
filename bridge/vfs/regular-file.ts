import {
  closeSync,
  constants,
  fsync,
  ftruncateSync,
  openSync,
  readSync,
  unlinkSync,
  writeSync,
} from 'node:fs';
import { promisify } from 'node:util';
import { errnoCode } from '#bridge/wire/errors.js';
import { VALUE_BYTES_MAX } from '#bridge/wire/limits.js';
import { EFBIG, EINVAL, ENOSPC } from './fs-error.js';
import { type Caller, Inode } from './inode.js';
import type { Tree } from './tree.js';

const { O_RDWR, S_IFREG } = constants;
const fsyncAsync = promisify(fsync);

/**
 * The largest document: what the legacy runner took, and what the server takes as one value. A file at a legacy name is
 * refused to grow beyond it, because committing means reading and parsing it whole.
 */
export const DOCUMENT_BYTES_MAX = VALUE_BYTES_MAX;

/** An inode whose bytes are in a backing file on the host, made at the first byte. */
export class RegularFile extends Inode {
  #size = 0;
  #backed = false;
  /** Grows with every change of content: tells a file that was written since a commit from one that was not. */
  contentVersion = 0;
  /** The contentVersion that was last committed as a document, or put there by the bridge. */
  committedVersion = 0;
  /** The contentVersion that was refused for good: trying again would only be refused again. */
  refusedVersion = -1;
  /** Set while one of the legacy names leads here, and kept when a push put a newer version in its place. */
  document: Document | undefined;

  /** `exempt`: made by the bridge itself, which no quota may stop. */
  constructor(tree: Tree, mode: number, owner: Pick<Caller, 'uid' | 'gid'>, exempt = false) {
    super(tree, S_IFREG | (mode & 0o7777), owner, 0, exempt);
  }

  get size(): number {
    return this.#size;
  }

  override get blocks(): number {
    return Math.ceil(this.#size / 4096) * 8;
  }

  /** Whether its content was changed since it was last committed or put there by the bridge. */
  get isDirty(): boolean {
    return this.contentVersion !== this.committedVersion;
  }

  /** Reads into `target`; returns the count, 0 at the end. */
  read(target: Uint8Array, at: number, length: number, offset: number): number {
    const count = Math.min(length, this.#size - offset);
    if (count <= 0) return 0;
    const read = this.#backed ? readSync(this.#fd(), target, at, count, offset) : 0;
    if (read < count) target.fill(0, at + read, at + count); // a hole at the end
    return count;
  }

  /**
   * Writes what the quota has room for, as a full disk would. Returns the count written, perhaps short.
   * @throws FsError ENOSPC when there is room for nothing, EFBIG; host errors (a full disk) as they come
   */
  write(data: Uint8Array, offset: number): number {
    if (data.byteLength === 0) return 0;
    const { quota, bytes } = this.tree;
    if (offset >= this.#sizeMax) throw EFBIG;
    const room = Math.max(0, quota.bytesMax - bytes);
    const length = Math.min(data.byteLength, this.#size + room - offset, this.#sizeMax - offset);
    if (length <= 0) throw ENOSPC;
    return this.#store(length === data.byteLength ? data : data.subarray(0, length), offset);
  }

  /** @throws FsError EINVAL, EFBIG, ENOSPC */
  truncate(size: number): void {
    if (size < 0) throw EINVAL;
    if (size > this.#sizeMax) throw EFBIG;
    const growth = size - this.#size;
    this.tree.charge(growth);
    try {
      if (this.#backed) ftruncateSync(this.#fd(), size);
    } catch (error) {
      this.tree.charge(-growth);
      throw error;
    }
    this.#size = size;
    this.#contentChanged();
  }

  /** The whole content. For documents, whose size is bounded. @throws FsError EFBIG */
  readAll(): Uint8Array {
    if (this.#size > DOCUMENT_BYTES_MAX) throw EFBIG;
    const bytes = Buffer.allocUnsafe(this.#size);
    this.read(bytes, 0, bytes.length, 0);
    this.#closeIfIdle();
    return bytes;
  }

  /** The content of a new file that the bridge itself puts into a tree, whatever the quota says. */
  fill(bytes: Uint8Array): void {
    for (let at = 0; at < bytes.byteLength; ) at += this.#store(bytes.subarray(at), at);
    this.#closeIfIdle();
    this.committedVersion = this.contentVersion;
  }

  /** On a descriptor of its own: the shared one may be closed while the disk works. */
  async sync(): Promise<void> {
    if (!this.#backed) return;
    const fd = openSync(this.tree.backingPath(this), O_RDWR);
    try {
      await fsyncAsync(fd);
    } finally {
      closeSync(fd);
    }
  }

  /** Called when the last handle was closed. */
  released(): void {
    this.#closeIfIdle();
  }

  override dispose(): void {
    super.dispose();
    this.tree.closeBacking(this);
    if (this.#backed) removeFile(this.tree.backingPath(this));
    this.#backed = false;
    this.tree.charge(-this.#size);
    this.#size = 0;
  }

  get #sizeMax(): number {
    const { bytesMax } = this.tree.quota;
    return this.document === undefined ? bytesMax : Math.min(bytesMax, DOCUMENT_BYTES_MAX);
  }

  #store(data: Uint8Array, offset: number): number {
    const written = writeSync(this.#fd(), data, 0, data.byteLength, offset);
    const grown = Math.max(0, offset + written - this.#size);
    this.tree.chargeExempt(grown);
    this.#size += grown;
    if (written > 0) this.#contentChanged();
    return written;
  }

  #contentChanged(): void {
    this.contentVersion++;
    this.touchMtime();
  }

  #fd(): number {
    const fd = this.tree.backingFd(this);
    if (!this.#backed) {
      this.#backed = true;
      if (this.#size > 0) ftruncateSync(fd, this.#size);
    }
    return fd;
  }

  #closeIfIdle(): void {
    if (this.opens === 0) this.tree.closeBacking(this);
  }
}

/** unlink(2); a backing file that somebody else removed is as gone as it should be. */
function removeFile(path: string): void {
  try {
    unlinkSync(path);
  } catch (error) {
    if (errnoCode(error) !== 'ENOENT') throw error;
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
  wrote(data: Uint8Array, offset: number): void;
  truncated(size: number): void;
}

/** The meaning of a legacy name. The file system tells it what happens to the file that stands there. */
export interface Document {
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
}
