import {
  closeSync,
  constants,
  fsync,
  ftruncateSync,
  openSync,
  readSync,
  type Stats,
  statSync,
  unlinkSync,
  writeSync,
} from 'node:fs';
import { setImmediate as nextTurn } from 'node:timers/promises';
import { promisify } from 'node:util';
import { errnoCode } from '#bridge/wire/errors.js';
import { Extents } from './extents.js';
import { EFBIG, EINVAL, ENOSPC, ENXIO } from './fs-error.js';
import { holePuncher } from './hole-puncher.js';
import type { Inode } from './inode.js';

const { O_RDWR } = constants;
const fsyncAsync = promisify(fsync);

/** What the kernel pages by and tmpfs accounts by: a file of one byte takes this much room. */
export const PAGE_BYTES = 4096;

/** The largest offset we take: a number below 2^53 with room to spare, and what ext4 below us can hold. */
export const FILE_BYTES_MAX = 8 * 1024 ** 4;

/** Zeroed at once: it takes no longer than a large write. */
const ZERO_BYTES_MAX = 1024 * 1024;

/** A file with more ranges than this is looked through when another process takes over, instead of noting them at every write. */
const BOUNDS_NOTED_MAX = 512;

/** Looking through more would take longer than anybody waits. */
const SCAN_BYTES_MAX = 2 * 1024 ** 3;

/** linux/fs.h */
const SEEK_DATA = 3;
const SEEK_HOLE = 4;

/** What cannot be told from the backing file. */
export interface ContentRecord {
  /** Whether there is a backing file; its size is the file's. */
  readonly backed: boolean;
  /** Without one. */
  readonly size?: number;
  /** Bounds of ranges in pages. Without `written` the backing file has no holes; `null`: too many to say. */
  readonly written?: readonly number[] | null;
  readonly reserved?: readonly number[];
}

/**
 * The bytes of one regular file: in a backing file on the host, made at the first byte, with holes where nothing was
 * written. Pages that hold something, or were reserved with fallocate(2), count against the tree's quota.
 */
export class Content {
  readonly #inode: Inode;
  #size = 0;
  #backed = false;
  readonly #written = new Extents();
  /** Reserved and not written since: room that is taken, but a hole to lseek(2). */
  #reserved: Extents | undefined;
  /** While a hole is being made: pages that were written meanwhile. */
  #rewritten: Extents | undefined;
  /** What was noted last about holes. */
  #noted: 'plain' | 'holes' | 'scan' = 'plain';

  /** `inode` names the backing file. */
  constructor(inode: Inode) {
    this.#inode = inode;
  }

  get size(): number {
    return this.#size;
  }

  get pages(): number {
    return this.#written.total + (this.#reserved?.total ?? 0);
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
   * Writes what the quota has room for, as a full disk would; `exempt`: whatever it says. Returns the count, perhaps short.
   * @throws FsError ENOSPC when there is room for nothing, EFBIG; host errors (a full disk) as they come
   */
  write(data: Uint8Array, offset: number, sizeMax: number, exempt = false): number {
    if (data.byteLength === 0) return 0;
    if (offset >= sizeMax) throw EFBIG;
    let end = Math.min(offset + data.byteLength, sizeMax);
    const first = Math.floor(offset / PAGE_BYTES);
    const last = Math.ceil(end / PAGE_BYTES);
    const room = exempt ? Number.POSITIVE_INFINITY : this.#roomPages;
    if (last - first > room && last - first - this.#covered(first, last) > room) {
      end = Math.min(end, this.#reach(first, room) * PAGE_BYTES);
      if (end <= offset) throw ENOSPC;
    }
    const length = end - offset;
    const part = length === data.byteLength ? data : data.subarray(0, length);
    const written = writeSync(this.#fd(), part, 0, length, offset);
    this.#size = Math.max(this.#size, offset + written);
    const until = Math.ceil((offset + written) / PAGE_BYTES);
    this.#take(this.#written, first, until);
    this.#rewritten?.add(first, until);
    this.#note();
    return written;
  }

  /** For the journal. */
  get record(): ContentRecord {
    const written = this.#written.bounds;
    const reserved = this.#reserved?.bounds ?? [];
    const isPlain = this.#holes === 'plain';
    return {
      backed: this.#backed,
      ...(!this.#backed && this.#size > 0 && { size: this.#size }),
      ...(!isPlain && { written: written.length > BOUNDS_NOTED_MAX ? null : written }),
      ...(reserved.length > 0 && { reserved }),
    };
  }

  /** Takes over what an earlier process left. Returns the backing file's state. @throws host errors: ENOENT when it is missing */
  restore({ backed, size = 0, written, reserved = [] }: ContentRecord): Stats | undefined {
    const path = this.#inode.tree.backingPath(this.#inode);
    // The first byte may have come after the last record.
    const stats = statSync(path, { throwIfNoEntry: backed });
    this.#backed = stats !== undefined;
    // Made, and not yet as long as it should be, when the process died.
    if (stats !== undefined && !backed && stats.size < size) ftruncateSync(this.#fd(), size);
    this.#size = Math.max(stats?.size ?? 0, backed ? 0 : size);
    const pages = Math.ceil(this.#size / PAGE_BYTES);
    if (written === null) this.#scan(pages);
    else
      for (const [from, to] of pairs(written ?? (this.#backed ? [0, pages] : [])))
        this.#take(this.#written, from, to);
    if (reserved.length > 0) this.#reserved = new Extents();
    for (const [from, to] of pairs(reserved))
      if (this.#reserved !== undefined) this.#take(this.#reserved, from, to);
    this.#noted = this.#holes;
    return stats;
  }

  /** @throws FsError EINVAL, EFBIG */
  truncate(size: number, sizeMax: number): void {
    if (size < 0) throw EINVAL;
    if (size > sizeMax) throw EFBIG;
    if (this.#backed) ftruncateSync(this.#fd(), size);
    if (size <= this.#size) this.#give(Math.ceil(size / PAGE_BYTES), Number.POSITIVE_INFINITY);
    this.#size = size;
    this.#note();
  }

  /** fallocate(2) without a hole: takes the room now. @throws FsError ENOSPC, EFBIG */
  reserve(offset: number, length: number, keepSize: boolean, sizeMax: number): void {
    const end = offset + length;
    if (end > sizeMax) throw EFBIG;
    const first = Math.floor(offset / PAGE_BYTES);
    const last = Math.ceil(end / PAGE_BYTES);
    if (last - first - this.#covered(first, last) > this.#roomPages) throw ENOSPC;
    this.#reserved ??= new Extents();
    this.#take(this.#reserved, first, last);
    if (!keepSize && end > this.#size) {
      if (this.#backed) ftruncateSync(this.#fd(), end);
      this.#size = end;
    }
    this.#note();
  }

  /**
   * fallocate(2) FALLOC_FL_PUNCH_HOLE: the range reads as zeros and its whole pages give their room back, once the host has
   * done it. The kernel holds the inode's lock until this resolves, so no write(2) or truncate(2) comes in between; a page of a
   * mapping may, and counts.
   */
  async punch(offset: number, length: number): Promise<void> {
    const end = offset + length;
    const first = Math.ceil(offset / PAGE_BYTES);
    const last = Math.floor(end / PAGE_BYTES);
    if (last < first) this.#zeroIn(offset, end);
    else {
      this.#zeroIn(offset, first * PAGE_BYTES);
      this.#zeroIn(last * PAGE_BYTES, end);
    }
    if (last <= first) return;
    this.#giveReserved(first, last);
    this.#note();
    if (this.#written.covered(first, last) === 0) return;
    const { tree } = this.#inode;
    const sizePages = Math.ceil(this.#size / PAGE_BYTES);
    const bytes = (Math.min(last, sizePages) - first) * PAGE_BYTES;
    const rewritten = new Extents();
    this.#rewritten = rewritten;
    try {
      const path = tree.backingPath(this.#inode);
      if (!(await holePuncher.punch(path, first * PAGE_BYTES, bytes))) {
        // The host has no holes: zeros, which keep their room.
        await this.#zeroSlowly(first, last);
        return;
      }
    } finally {
      this.#rewritten = undefined;
    }
    for (let page = first; page < last; ) {
      const kept = rewritten.nextCovered(page) ?? last;
      this.#give(page, Math.min(kept, last));
      page = rewritten.nextUncovered(kept);
    }
    this.#note();
  }

  /** lseek(2) SEEK_DATA and SEEK_HOLE, in pages as tmpfs has it. @throws FsError ENXIO, EINVAL */
  seek(offset: number, whence: number): number {
    if (whence !== SEEK_DATA && whence !== SEEK_HOLE) throw EINVAL;
    if (offset < 0 || offset >= this.#size) throw ENXIO;
    const page = Math.floor(offset / PAGE_BYTES);
    const found =
      whence === SEEK_DATA ? this.#written.nextCovered(page) : this.#written.nextUncovered(page);
    const at = found === undefined ? this.#size : Math.max(offset, found * PAGE_BYTES);
    if (at >= this.#size && whence === SEEK_DATA) throw ENXIO;
    return Math.min(at, this.#size); // the end of every file is a hole
  }

  /** On a descriptor of its own: the shared one may be closed while the disk works. */
  async sync(): Promise<void> {
    if (!this.#backed) return;
    const fd = openSync(this.#inode.tree.backingPath(this.#inode), O_RDWR);
    try {
      await fsyncAsync(fd);
    } finally {
      closeSync(fd);
    }
  }

  /** The backing file goes, and all room with it. */
  dispose(): void {
    const { tree } = this.#inode;
    tree.closeBacking(this.#inode);
    if (this.#backed) {
      const path = tree.backingPath(this.#inode);
      // That no name leads to it any more is noted, unless something waits to be.
      if (tree.journal?.isDirty === true) tree.journal.afterFlush(() => removeFile(path));
      else removeFile(path);
    }
    this.#backed = false;
    this.#give(0, Number.POSITIVE_INFINITY);
    this.#size = 0;
  }

  get #roomPages(): number {
    const { quota, bytes } = this.#inode.tree;
    return Math.max(0, Math.floor((quota.bytesMax - bytes) / PAGE_BYTES));
  }

  #covered(first: number, last: number): number {
    return this.#written.covered(first, last) + (this.#reserved?.covered(first, last) ?? 0);
  }

  /** The page that a write from `first` on comes to when it may take `room` new pages. */
  #reach(first: number, room: number): number {
    for (let page = first, left = room; ; page++)
      if (this.#covered(page, page + 1) === 0 && left-- <= 0) return page;
  }

  /** Marks pages in `kind`; what was in neither kind is charged. */
  #take(kind: Extents, first: number, last: number): void {
    const added = last - first - this.#covered(first, last);
    if (kind === this.#written) {
      this.#reserved?.remove(first, last);
      kind.add(first, last);
    } else {
      for (let page = first; page < last; ) {
        const hole = this.#written.nextUncovered(page);
        const data = Math.min(this.#written.nextCovered(hole) ?? last, last);
        if (hole < data) kind.add(hole, data);
        page = Math.max(data, hole);
      }
    }
    if (added > 0) this.#inode.tree.chargeExempt(added * PAGE_BYTES);
  }

  /** Unmarks pages; returns how many were marked. */
  #forget(first: number, last: number): number {
    const before = this.pages;
    this.#written.remove(first, last);
    this.#reserved?.remove(first, last);
    return before - this.pages;
  }

  #give(first: number, last: number): void {
    this.#inode.tree.charge(-this.#forget(first, last) * PAGE_BYTES);
  }

  #giveReserved(first: number, last: number): void {
    const reserved = this.#reserved;
    if (reserved === undefined) return;
    const before = reserved.total;
    reserved.remove(first, last);
    this.#inode.tree.charge((reserved.total - before) * PAGE_BYTES);
  }

  /** Zeros in a part of one page, if anything was written there. */
  #zeroIn(offset: number, end: number): void {
    const until = Math.min(end, this.#size);
    const page = Math.floor(offset / PAGE_BYTES);
    if (offset >= until || this.#written.covered(page, page + 1) === 0) return;
    this.#zero(offset, until);
  }

  #zero(offset: number, end: number): void {
    for (let at = offset; at < end; )
      at += writeSync(this.#fd(), ZEROS, 0, Math.min(ZEROS.length, end - at), at);
  }

  /** Zeros in the pages that hold something, with a turn for others in between. */
  async #zeroSlowly(first: number, last: number): Promise<void> {
    let page = this.#written.nextCovered(first);
    while (page !== undefined && page < last) {
      const run = Math.min(
        this.#written.nextUncovered(page),
        last,
        page + ZEROS.length / PAGE_BYTES,
      );
      this.#zero(page * PAGE_BYTES, Math.min(run * PAGE_BYTES, this.#size));
      await nextTurn();
      page = this.#written.nextCovered(run);
    }
  }

  get #holes(): 'plain' | 'holes' | 'scan' {
    const reserved = this.#reserved?.total ?? 0;
    if (reserved === 0 && this.#written.total === Math.ceil(this.#size / PAGE_BYTES))
      return 'plain';
    return this.#written.bounds.length > BOUNDS_NOTED_MAX ? 'scan' : 'holes';
  }

  /** Where the holes are can be seen by nobody else; a file without any is noted once. */
  #note(): void {
    const holes = this.#holes;
    if (holes === 'holes' || holes !== this.#noted) this.#inode.attributesChanged();
    this.#noted = holes;
  }

  /** A page of zeros counts as a hole: it reads the same. @throws FsError EFBIG */
  #scan(pages: number): void {
    if (this.#size > SCAN_BYTES_MAX) throw EFBIG;
    const buffer = Buffer.allocUnsafe(ZEROS.length);
    for (let page = 0; page < pages; page += buffer.length / PAGE_BYTES) {
      const read = readSync(this.#fd(), buffer, 0, buffer.length, page * PAGE_BYTES);
      for (let at = 0; at < read; at += PAGE_BYTES) {
        const end = Math.min(at + PAGE_BYTES, read);
        if (buffer.compare(ZEROS, 0, end - at, at, end) === 0) continue;
        const found = page + at / PAGE_BYTES;
        this.#take(this.#written, found, found + 1);
      }
    }
  }

  #fd(): number {
    const { tree } = this.#inode;
    const fd = tree.backingFd(this.#inode);
    if (!this.#backed) {
      this.#backed = true;
      tree.journal?.inodeLater(this.#inode);
      if (this.#size > 0) ftruncateSync(fd, this.#size);
    }
    return fd;
  }
}

function* pairs(bounds: readonly number[]): Iterable<readonly [number, number]> {
  for (let i = 0; i + 1 < bounds.length; i += 2) yield [bounds[i] ?? 0, bounds[i + 1] ?? 0];
}

const ZEROS = Buffer.alloc(ZERO_BYTES_MAX);

/** unlink(2); a backing file that somebody else removed is as gone as it should be. */
function removeFile(path: string): void {
  try {
    unlinkSync(path);
  } catch (error) {
    if (errnoCode(error) !== 'ENOENT') throw error;
  }
}
