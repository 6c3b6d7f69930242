import { constants } from 'node:fs';
import { EEXIST, ENOENT } from './fs-error.js';
import type { Tree } from './tree.js';

const { S_IFMT, S_IFREG, S_IFDIR, S_IFLNK } = constants;

/** Who makes a call. Ids are the host's; `pid` is the host's thread id, 0 when it cannot be seen. */
export interface Caller {
  readonly uid: number;
  readonly gid: number;
  readonly pid: number;
}

/** 2020-01-01 is second 1577836800; file times are kept as the kernel passes them, seconds and nanoseconds. */
export interface Time {
  sec: number;
  nsec: number;
}

/** stat(2) of one file, directory, link or special file, shared by all its names. */
export abstract class Inode {
  readonly id: number;
  readonly tree: Tree;
  /** File type and permission bits, as st_mode. */
  mode: number;
  uid: number;
  gid: number;
  nlink = 1;
  readonly rdev: number;
  readonly atime: Time;
  readonly mtime: Time;
  readonly ctime: Time;
  /** References the kernel holds by node id; forgotten ones may be reused only by an inode that still has a name. */
  lookups = 0;
  /** Open handles. */
  opens = 0;
  xattrs: Map<string, Uint8Array> | undefined;

  /** `exempt`: made by the bridge itself, which no quota may stop. */
  constructor(
    tree: Tree,
    mode: number,
    owner: { uid: number; gid: number },
    rdev = 0,
    exempt = false,
  ) {
    this.id = tree.inodes.nextId();
    this.tree = tree;
    this.mode = mode;
    this.uid = owner.uid;
    this.gid = owner.gid;
    this.rdev = rdev;
    const now = currentTime();
    this.atime = { ...now };
    this.mtime = { ...now };
    this.ctime = now;
    tree.add(this, exempt);
    tree.journal?.inode(this);
  }

  abstract get size(): number;

  /** In units of 512 bytes. */
  get blocks(): number {
    return 0;
  }

  get type(): number {
    return this.mode & S_IFMT;
  }

  get isDirectory(): boolean {
    return this.type === S_IFDIR;
  }

  /** Attributes were set: what takes over from this process must know. */
  attributesChanged(): void {
    this.tree.journal?.inode(this);
  }

  touchCtime(): void {
    setNow(this.ctime);
  }

  touchMtime(): void {
    setNow(this.mtime);
    setNow(this.ctime);
  }

  /** Called when neither a name, nor a handle, nor the kernel leads here any more. */
  dispose(): void {
    for (const [name, value] of this.xattrs ?? [])
      this.tree.charge(-name.length - value.byteLength);
    this.xattrs = undefined;
  }
}

export class Symlink extends Inode {
  readonly target: Uint8Array;

  constructor(tree: Tree, owner: Pick<Caller, 'uid' | 'gid'>, target: Uint8Array) {
    super(tree, S_IFLNK | 0o777, owner);
    this.target = target;
  }

  get size(): number {
    return this.target.byteLength;
  }

  override dispose(): void {
    super.dispose();
    this.tree.charge(-this.target.byteLength);
  }
}

/** FIFO or unix socket: the kernel does the work, we only hold the name. */
export class SpecialFile extends Inode {
  get size(): number {
    return 0;
  }
}

/** A name in a directory. */
export interface Entry {
  readonly name: string;
  readonly inode: Inode;
  /** Where it stands in a listing: ascending in the order the names were made, never used twice in one directory. */
  readonly cookie: number;
}

/** "." and ".." come before every name. */
export const COOKIES_FROM = 3;

/** Names are byte strings, held as Latin-1 so that every byte survives (a script may use any encoding). */
export class Directory extends Inode {
  readonly #entries = new Map<string, Entry>();
  /** Entries as of now, shared by all who list the directory; dropped at the next change. */
  #listing: readonly Entry[] | undefined;
  #nextCookie = COOKIES_FROM;
  parent: Directory;
  /** Whether the kernel may remember what names here lead to, until told otherwise. */
  readonly cacheable: boolean = true;

  constructor(tree: Tree, mode: number, owner: { uid: number; gid: number }, parent?: Directory) {
    super(tree, S_IFDIR | mode, owner);
    this.parent = parent ?? this;
    this.nlink = 2;
  }

  get size(): number {
    return 4096;
  }

  get isEmpty(): boolean {
    return this.#entries.size === 0;
  }

  get(name: string): Inode | undefined {
    return this.#entries.get(name)?.inode;
  }

  /** What is in it, in the order it was made. */
  entries(): Iterable<Entry> {
    return this.#entries.values();
  }

  /** Without those that another directory lends. */
  ownEntries(): Iterable<Entry> {
    return this.#entries.values();
  }

  /** Undefined when the name is somebody else's, or nobody's. */
  ownEntry(name: string): Entry | undefined {
    return this.#entries.get(name);
  }

  /** The entries at this moment. */
  listing(): readonly Entry[] {
    this.#listing ??= [...this.entries()];
    return this.#listing;
  }

  /** Refuses what may not be made here. @throws FsError */
  assertMayAdd(_name: string, _isDirectory: boolean): void {}

  /** Whether a file at this name is a document, bounded in size. */
  hasDocument(_name: string): boolean {
    return false;
  }

  /** Refuses what may not be removed. @throws FsError */
  assertMayRemove(_name: string): void {}

  /** Adds a name; does not count links. @throws FsError EEXIST */
  add(name: string, inode: Inode): void {
    if (this.#entries.has(name)) throw EEXIST;
    this.#entries.set(name, { name, inode, cookie: this.#nextCookie++ });
    this.#changed(name, inode, 1);
  }

  /** @throws FsError ENOENT */
  remove(name: string): Inode {
    const inode = this.#entries.get(name)?.inode;
    if (inode === undefined) throw ENOENT;
    this.#entries.delete(name);
    this.#changed(name, inode, -1);
    return inode;
  }

  /** Puts back what stood here in an earlier life; times and links are the caller's to set. */
  restore(entry: Entry): void {
    const { name, inode, cookie } = entry;
    this.#entries.set(name, entry);
    this.#nextCookie = Math.max(this.#nextCookie, cookie + 1);
    this.tree.countName(1);
    if (inode instanceof Directory) inode.parent = this;
  }

  #changed(name: string, inode: Inode, links: 1 | -1): void {
    this.touchMtime();
    this.#listing = undefined;
    this.tree.countName(links);
    this.tree.journal?.entry(this, name);
    if (!inode.isDirectory) return;
    this.nlink += links;
    if (inode instanceof Directory && links > 0) inode.parent = this;
  }
}

export const isRegular = (mode: number): boolean => (mode & S_IFMT) === S_IFREG;

/** Milliseconds are finer than the 4 ms clock that local file systems stamp files with. */
export function currentTime(): Time {
  const time = { sec: 0, nsec: 0 };
  setNow(time);
  return time;
}

export function setNow(time: Time): void {
  const ms = Date.now();
  time.sec = Math.floor(ms / 1000);
  time.nsec = (ms % 1000) * 1_000_000;
}

export const msOf = ({ sec, nsec }: Time): number => sec * 1000 + Math.floor(nsec / 1_000_000);

export const timeOf = (ms: number): Time => ({
  sec: Math.floor(ms / 1000),
  nsec: Math.floor((ms % 1000) * 1_000_000),
});
