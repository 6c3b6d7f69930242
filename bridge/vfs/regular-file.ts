import {
  closeSync,
  constants,
  fsync,
  ftruncateSync,
  openSync,
  readSync,
  rmSync,
  writeSync,
} from 'node:fs';
import { promisify } from 'node:util';
import { EFBIG, EINVAL, ENOSPC } from './fs-error.js';
import { type Caller, Inode } from './inode.js';
import type { Tree } from './tree.js';

const { O_CREAT, O_RDWR, S_IFREG } = constants;
const fsyncAsync = promisify(fsync);

/** An inode whose bytes are in a backing file on the host; the file is made at the first byte and open while in use. */
export class RegularFile extends Inode {
  #size = 0;
  #fd: number | undefined;
  #backed = false;
  /** Grows with every change of content: tells a file that was written since a commit from one that was not. */
  contentVersion = 0;
  /** The contentVersion that was last committed as a document, or put there by the bridge. */
  committedVersion = 0;
  /** Set while one of the legacy names leads here, and kept when a push put a newer version in its place. */
  document: Document | undefined;

  constructor(tree: Tree, mode: number, owner: Pick<Caller, 'uid' | 'gid'>) {
    super(tree, S_IFREG | (mode & 0o7777), owner);
  }

  get size(): number {
    return this.#size;
  }

  override get blocks(): number {
    return Math.ceil(this.#size / 4096) * 8;
  }

  /** Reads into `target`; returns the count, 0 at the end. */
  read(target: Uint8Array, at: number, length: number, offset: number): number {
    const count = Math.min(length, this.#size - offset);
    if (count <= 0) return 0;
    if (!this.#backed) {
      target.fill(0, at, at + count);
      return count;
    }
    const read = readSync(this.#open(), target, at, count, offset);
    target.fill(0, at + read, at + count); // a hole at the end
    return count;
  }

  /**
   * Writes what the quota has room for, as a full disk would. Returns the count written, perhaps short.
   * @throws FsError ENOSPC when there is room for nothing, EFBIG; host errors (a full disk) as they come
   */
  write(data: Uint8Array, offset: number): number {
    const { quota, bytes } = this.tree;
    if (offset >= quota.bytesMax && data.byteLength > 0) throw EFBIG;
    const endMax = Math.max(this.#size, this.#size + quota.bytesMax - bytes);
    const length = Math.min(data.byteLength, endMax - offset);
    if (length <= 0 && data.byteLength > 0) throw ENOSPC;
    const growth = Math.max(0, offset + length - this.#size);
    this.tree.charge(growth);
    let written = 0;
    try {
      written = writeSync(this.#open(), data, 0, length, offset);
    } finally {
      const grown = Math.max(0, offset + written - this.#size);
      this.tree.charge(grown - growth);
      this.#size += grown;
      if (written > 0) {
        this.contentVersion++;
        this.touchMtime();
      }
    }
    return written;
  }

  truncate(size: number): void {
    if (size < 0) throw EINVAL;
    if (size > this.tree.quota.bytesMax) throw EFBIG;
    this.tree.charge(size - this.#size);
    if (this.#backed) {
      ftruncateSync(this.#open(), size);
      this.#closeIfIdle();
    }
    this.#size = size;
    this.contentVersion++;
    this.touchMtime();
  }

  /** The whole content. For documents, whose size is bounded. */
  readAll(): Uint8Array {
    const bytes = Buffer.allocUnsafe(this.#size);
    this.read(bytes, 0, bytes.length, 0);
    this.#closeIfIdle();
    return bytes;
  }

  /** Replaces the content; for files the bridge itself puts into a tree. */
  fill(bytes: Uint8Array): void {
    this.truncate(0);
    for (let at = 0; at < bytes.byteLength; ) at += this.write(bytes.subarray(at), at);
    this.#closeIfIdle();
    this.committedVersion = this.contentVersion;
  }

  async sync(): Promise<void> {
    if (this.#fd !== undefined) await fsyncAsync(this.#fd);
  }

  /** Called when the last handle was closed. */
  released(): void {
    this.#closeIfIdle();
  }

  override dispose(): void {
    if (this.#fd !== undefined) closeSync(this.#fd);
    this.#fd = undefined;
    // A backing file that somebody else removed is as gone as it should be.
    if (this.#backed) rmSync(this.tree.backingPath(this), { force: true });
    this.#backed = false;
    this.tree.charge(-this.#size);
    this.#size = 0;
  }

  #open(): number {
    if (this.#fd === undefined) {
      this.#fd = openSync(this.tree.backingPath(this), O_RDWR | O_CREAT, 0o600);
      if (!this.#backed) {
        this.#backed = true;
        if (this.#size > 0) ftruncateSync(this.#fd, this.#size);
      }
    }
    return this.#fd;
  }

  #closeIfIdle(): void {
    if (this.opens > 0 || this.#fd === undefined) return;
    closeSync(this.#fd);
    this.#fd = undefined;
  }
}

/** One open file description. */
export interface OpenFile {
  readonly id: number;
  readonly file: RegularFile;
  /** open(2) flags. */
  readonly flags: number;
  /** What a document remembers about this handle. */
  draft: Draft | undefined;
}

/** What a handle on a legacy file wrote. */
export interface Draft {
  /** Whether something was written through the handle since its last commit. */
  readonly dirty: boolean;
  wrote(data: Uint8Array, offset: number): void;
  truncated(size: number): void;
  /** The last descriptor of the handle is gone. */
  closed(): void;
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
}
