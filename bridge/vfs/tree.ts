import { mkdirSync } from 'node:fs';
import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import { ENOSPC } from './fs-error.js';
import type { Inode } from './inode.js';

/** Every inode of a mount by node id. Ids are never reused, so a late request cannot reach a stranger's file. */
export class InodeTable {
  readonly #inodes = new Map<number, Inode>();
  #next = 1; // FUSE_ROOT_ID, linux/fuse.h

  nextId(): number {
    return this.#next++;
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
}

export interface Quota {
  readonly bytesMax: number;
  readonly inodesMax: number;
}

/** What belongs to one execution (or to the mount's root): its inodes, its backing files, its quota. */
export class Tree {
  readonly inodes: InodeTable;
  readonly quota: Quota;
  /** Backing files live here, named by node id. */
  readonly #backing: string;
  readonly #members = new Set<Inode>();
  #bytes = 0;

  constructor(inodes: InodeTable, backing: string, quota: Quota) {
    this.inodes = inodes;
    this.quota = quota;
    this.#backing = backing;
    mkdirSync(backing, { recursive: true, mode: 0o700 });
  }

  get inodeCount(): number {
    return this.#members.size;
  }

  get bytes(): number {
    return this.#bytes;
  }

  backingPath(inode: Inode): string {
    return join(this.#backing, String(inode.id));
  }

  /** @throws FsError ENOSPC when the tree has its fill of inodes */
  add(inode: Inode): void {
    if (this.#members.size >= this.quota.inodesMax) throw ENOSPC;
    this.#members.add(inode);
    this.inodes.add(inode);
  }

  delete(inode: Inode): void {
    if (!this.#members.delete(inode)) return;
    this.inodes.delete(inode);
    inode.dispose();
  }

  /** Accounts for a file's growth or shrinkage. @throws FsError ENOSPC, and nothing is accounted then */
  charge(bytes: number): void {
    if (bytes > 0 && this.#bytes + bytes > this.quota.bytesMax) throw ENOSPC;
    this.#bytes += bytes;
  }

  /** Forgets every inode and removes the backing files. */
  async dispose(): Promise<void> {
    for (const inode of this.#members) this.delete(inode);
    await rm(this.#backing, { recursive: true, force: true });
  }
}
