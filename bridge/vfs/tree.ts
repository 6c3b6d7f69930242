import { closeSync, constants, mkdirSync, openSync } from 'node:fs';
import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import { ENOSPC } from './fs-error.js';
import type { Inode } from './inode.js';
import type { Journal } from './journal.js';
import { newCounts } from './operation-counts.js';

const { O_CREAT, O_RDWR } = constants;

/** Every inode of a mount by node id. Ids are never reused, so a late request cannot reach a stranger's file. */
export class InodeTable {
  readonly #inodes = new Map<number, Inode>();
  #next = 1; // FUSE_ROOT_ID, linux/fuse.h

  nextId(): number {
    return this.#next++;
  }

  /** The id that the next inode gets: of one that was there before, or beyond all that an earlier process gave out. */
  set next(id: number) {
    this.#next = id;
  }

  get(id: number): Inode | undefined {
    return this.#inodes.get(id);
  }

  add(inode: Inode): void {
    this.#inodes.set(inode.id, inode);
  }

  delete(inode: Inode): void {
    this.#inodes.delete(inode.id);
  }

  get size(): number {
    return this.#inodes.size;
  }

  [Symbol.iterator](): Iterator<Inode> {
    return this.#inodes.values();
  }
}

export interface Quota {
  readonly bytesMax: number;
  readonly inodesMax: number;
  /** For conformance suites: device nodes may be made. The mount is nodev, so they lead nowhere. */
  readonly devices?: boolean;
}

/** In a journal: room was refused. */
export const FULL_RECORD = ['q'] as const;

/**
 * Backing files one tree may have open: a script that opens thousands must not use up the descriptors of everybody. I/O is
 * positional, so closing one that is in use costs no more than opening it again.
 */
const OPEN_BACKINGS_MAX = 128;

/** What belongs to one execution (or to the mount's root): its inodes, its backing files, its quota. */
export class Tree {
  readonly inodes: InodeTable;
  readonly quota: Quota;
  /** Of requests, by COUNT; kept by the driver. */
  readonly counts = newCounts();
  /** Backing files live here, named by node id. */
  readonly #backing: string;
  readonly #members = new Set<Inode>();
  /** Open backing files, least recently used first. */
  readonly #open = new Map<Inode, number>();
  #bytes = 0;
  #names = 0;
  #isGone = false;
  #wasFull = false;
  /** Of what a process that takes over must know; undefined where none ever does. */
  journal: Journal | undefined;

  constructor(inodes: InodeTable, backing: string, quota: Quota) {
    this.inodes = inodes;
    this.quota = quota;
    this.#backing = backing;
    mkdirSync(backing, { recursive: true, mode: 0o700 });
  }

  /** Removed: what is still under way for it must not make anything new. */
  get isGone(): boolean {
    return this.#isGone;
  }

  /** Holds the backing files. */
  get directory(): string {
    return this.#backing;
  }

  get members(): Iterable<Inode> {
    return this.#members;
  }

  get inodeCount(): number {
    return this.#members.size;
  }

  /** Somebody was refused room: by the quota, or because the host's disk is full. */
  get wasFull(): boolean {
    return this.#wasFull;
  }

  roomRefused(): void {
    if (this.#wasFull) return;
    this.#wasFull = true;
    this.journal?.note(FULL_RECORD);
  }

  get bytes(): number {
    return this.#bytes;
  }

  backingPath(inode: Inode): string {
    return join(this.#backing, String(inode.id));
  }

  /** The backing file's descriptor, for use before anything else is called here. Created when missing. */
  backingFd(inode: Inode): number {
    const known = this.#open.get(inode);
    if (known !== undefined) {
      this.#open.delete(inode);
      this.#open.set(inode, known);
      return known;
    }
    const [oldest] = this.#open.keys();
    if (oldest !== undefined && this.#open.size >= OPEN_BACKINGS_MAX) this.closeBacking(oldest);
    const fd = openSync(this.backingPath(inode), O_RDWR | O_CREAT, 0o600);
    this.#open.set(inode, fd);
    return fd;
  }

  closeBacking(inode: Inode): void {
    const fd = this.#open.get(inode);
    if (fd === undefined) return;
    this.#open.delete(inode);
    closeSync(fd);
  }

  /** @throws FsError ENOSPC when the tree has its fill of inodes, unless the bridge itself needs one */
  add(inode: Inode, exempt: boolean): void {
    if (!exempt && this.#members.size >= this.quota.inodesMax) throw ENOSPC;
    this.#members.add(inode);
    this.inodes.add(inode);
  }

  delete(inode: Inode): void {
    if (!this.#members.delete(inode)) return;
    this.inodes.delete(inode);
    this.journal?.freed(inode);
    inode.dispose();
  }

  /** Hard links are names without inodes; they count like inodes. @throws FsError ENOSPC */
  assertRoomForName(): void {
    if (this.#names >= this.quota.inodesMax) throw ENOSPC;
  }

  countName(names: 1 | -1): void {
    this.#names += names;
  }

  /** Accounts for growth or shrinkage, of files and of what is kept in memory. @throws FsError ENOSPC, and nothing is accounted then */
  charge(bytes: number): void {
    if (bytes > 0 && this.#bytes + bytes > this.quota.bytesMax) throw ENOSPC;
    this.#bytes += bytes;
  }

  /** Accounts for what the bridge itself writes, which no quota may stop. */
  chargeExempt(bytes: number): void {
    this.#bytes += bytes;
  }

  /** Forgets every inode, and leaves everything on the host as it is. */
  abandon(): void {
    this.#isGone = true;
    for (const inode of this.#members) {
      this.inodes.delete(inode);
      this.closeBacking(inode);
    }
  }

  /** Forgets every inode and removes the backing files. */
  async dispose(): Promise<void> {
    this.#isGone = true;
    this.journal?.close();
    for (const inode of this.#members) this.delete(inode);
    await rm(this.#backing, { recursive: true, force: true });
  }
}
