import type { Inode } from '#bridge/vfs/inode.js';
import type { Usage } from '#bridge/vfs/volume.js';
import { ATTR_OUT_BYTES, ENTRY_OUT_BYTES, OPEN_OUT_BYTES, OUT_HEADER_BYTES } from './abi.js';

/**
 * How long the kernel may believe what it was told: scratch changes only through the kernel itself, and what others
 * change is invalidated by push. An hour is "for good" with a way back.
 */
const CACHE_SECONDS = 3600;

const BLOCK_BYTES = 4096;
const NAME_BYTES_MAX = 255;

/** The reply under construction: one buffer, used for every reply, sent from the same turn that filled it. */
export class Reply {
  readonly bytes: Buffer;
  readonly #words: Uint32Array;
  length = OUT_HEADER_BYTES;

  constructor(bytesMax: number) {
    this.bytes = Buffer.from(new ArrayBuffer(bytesMax + OUT_HEADER_BYTES));
    this.#words = new Uint32Array(this.bytes.buffer);
  }

  /** Starts an empty, successful reply to the request with this id. */
  begin(uniqueLow: number, uniqueHigh: number): void {
    this.length = OUT_HEADER_BYTES;
    this.#words[1] = 0;
    this.#words[2] = uniqueLow;
    this.#words[3] = uniqueHigh;
  }

  /** Says what `answer`, to another request, said. */
  copy(answer: Uint8Array): void {
    this.bytes.set(answer.subarray(4, 8), 4);
    this.bytes.set(answer.subarray(OUT_HEADER_BYTES), OUT_HEADER_BYTES);
    this.length = answer.byteLength;
  }

  /** Turns the reply into a failure; `errno` is positive. */
  fail(errno: number): void {
    this.length = OUT_HEADER_BYTES;
    this.#words[1] = -errno;
  }

  get isFailure(): boolean {
    return this.#words[1] !== 0;
  }

  /** Of an answer to WRITE, struct fuse_write_out { u32 size, padding }. */
  get writtenSize(): number {
    return this.#words[OUT_HEADER_BYTES / 4] ?? 0;
  }

  /** Writes the length; the bytes to send are `bytes[0, length)`. */
  end(): void {
    this.#words[0] = this.length;
  }

  /** struct fuse_entry_out. `cacheable`: whether the kernel may keep the name. */
  entry(inode: Inode, cacheable: boolean): void {
    this.#entryAt(this.length, inode, cacheable);
    this.length += ENTRY_OUT_BYTES;
  }

  /** "There is no such name", which the kernel may remember: node id 0. */
  negativeEntry(): void {
    const at = this.length;
    this.bytes.fill(0, at, at + ENTRY_OUT_BYTES);
    this.#u64(at + 16, CACHE_SECONDS);
    this.length += ENTRY_OUT_BYTES;
  }

  /** struct fuse_attr_out */
  attr(inode: Inode): void {
    const at = this.length;
    this.#u64(at, CACHE_SECONDS);
    this.#u64(at + 8, 0);
    this.#attrAt(at + 16, inode);
    this.length += ATTR_OUT_BYTES;
  }

  /** struct fuse_open_out { u64 fh; u32 open_flags; s32 backing_id } */
  open(handle: number, openFlags: number): void {
    const at = this.length;
    this.#u64(at, handle);
    this.#u32(at + 8, openFlags);
    this.#u32(at + 12, 0);
    this.length += OPEN_OUT_BYTES;
  }

  /** struct fuse_write_out, fuse_getxattr_out { u32 size, padding } */
  size(size: number): void {
    this.#u32(this.length, size);
    this.#u32(this.length + 4, 0);
    this.length += 8;
  }

  /** struct fuse_lseek_out { u64 offset } */
  offset(offset: number): void {
    this.#u64(this.length, offset);
    this.length += 8;
  }

  data(bytes: Uint8Array): void {
    this.bytes.set(bytes, this.length);
    this.length += bytes.byteLength;
  }

  /** struct fuse_kstatfs { u64 blocks, bfree, bavail, files, ffree; u32 bsize, namelen, frsize, … } */
  statfs({ bytesMax, bytes, inodesMax, inodes }: Usage): void {
    const at = this.length;
    const blocks = Math.floor(bytesMax / BLOCK_BYTES);
    const free = Math.floor(Math.max(0, bytesMax - bytes) / BLOCK_BYTES);
    this.bytes.fill(0, at, at + 80);
    this.#u64(at, blocks);
    this.#u64(at + 8, free);
    this.#u64(at + 16, free);
    this.#u64(at + 24, inodesMax);
    this.#u64(at + 32, Math.max(0, inodesMax - inodes));
    this.#u32(at + 40, BLOCK_BYTES);
    this.#u32(at + 44, NAME_BYTES_MAX);
    this.#u32(at + 48, BLOCK_BYTES);
    this.length += 80;
  }

  /**
   * struct fuse_dirent, or fuse_direntplus when `entry` is given ("." and ".." carry node id 0: the kernel must not count
   * a look-up). Returns false, and adds nothing, when it would pass `limit`.
   */
  dirent(
    name: string,
    inode: Inode,
    next: number,
    limit: number,
    plus: 'plain' | 'counted' | 'uncounted',
    cacheable: boolean,
  ): boolean {
    const head = plus === 'plain' ? 0 : ENTRY_OUT_BYTES;
    const bytes = (head + 24 + name.length + 7) & ~7;
    if (this.length + bytes > limit) return false;
    let at = this.length;
    if (plus === 'counted') this.#entryAt(at, inode, cacheable);
    else this.bytes.fill(0, at, at + head);
    at += head;
    this.#u64(at, inode.id);
    this.#u64(at + 8, next);
    this.#u32(at + 16, name.length);
    this.#u32(at + 20, inode.mode >>> 12); // DT_* is the file type of st_mode
    this.bytes.write(name, at + 24, 'latin1');
    this.bytes.fill(0, at + 24 + name.length, this.length + bytes);
    this.length += bytes;
    return true;
  }

  /** { u64 nodeid, generation, entry_valid, attr_valid; u32 entry_valid_nsec, attr_valid_nsec; attr } */
  #entryAt(at: number, inode: Inode, cacheable: boolean): void {
    this.#u64(at, inode.id);
    this.#u64(at + 8, 0);
    this.#u64(at + 16, cacheable ? CACHE_SECONDS : 0);
    this.#u64(at + 24, CACHE_SECONDS);
    this.#u64(at + 32, 0);
    this.#attrAt(at + 40, inode);
  }

  /**
   * struct fuse_attr { u64 ino, size, blocks, atime, mtime, ctime; u32 atimensec, mtimensec, ctimensec, mode, nlink,
   * uid, gid, rdev, blksize, flags }
   */
  #attrAt(at: number, inode: Inode): void {
    const words = this.#words;
    const { atime, mtime, ctime } = inode;
    this.#u64(at, inode.id);
    this.#u64(at + 8, inode.size);
    this.#u64(at + 16, inode.blocks);
    this.#s64(at + 24, atime.sec);
    this.#s64(at + 32, mtime.sec);
    this.#s64(at + 40, ctime.sec);
    const w = (at + 48) >> 2;
    words[w] = atime.nsec;
    words[w + 1] = mtime.nsec;
    words[w + 2] = ctime.nsec;
    words[w + 3] = inode.mode;
    words[w + 4] = inode.nlink;
    words[w + 5] = inode.uid;
    words[w + 6] = inode.gid;
    words[w + 7] = inode.rdev;
    words[w + 8] = BLOCK_BYTES;
    words[w + 9] = 0;
  }

  #u32(at: number, value: number): void {
    this.#words[at >> 2] = value;
  }

  #u64(at: number, value: number): void {
    this.#words[at >> 2] = value % 0x1_0000_0000;
    this.#words[(at >> 2) + 1] = Math.floor(value / 0x1_0000_0000);
  }

  #s64(at: number, value: number): void {
    this.#words[at >> 2] = value; // modulo 2^32, two's complement
    this.#words[(at >> 2) + 1] = Math.floor(value / 0x1_0000_0000);
  }
}
