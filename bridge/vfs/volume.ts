import { constants } from 'node:fs';
import { copyRange, type FileAndHandle, truncated, wrote } from './file-ranges.js';
import {
  EACCES,
  EBADF,
  EEXIST,
  EINVAL,
  EISDIR,
  EMLINK,
  ENAMETOOLONG,
  ENOENT,
  ENOTDIR,
  ENOTEMPTY,
  ENXIO,
  EPERM,
  ESTALE,
  EXDEV,
} from './fs-error.js';
import {
  type Caller,
  COOKIES_FROM,
  Directory,
  type Entry,
  type Inode,
  isRegular,
  SpecialFile,
  Symlink,
  setNow,
  type Time,
} from './inode.js';
import type { Answer, Journal } from './journal.js';
import type { JournalRecord } from './journal-file.js';
import { assertFits, checkName } from './names.js';
import { type OpenFile, RegularFile } from './regular-file.js';
import { Rename } from './rename.js';
import type { OpenStream, StreamFile } from './stream-file.js';
import { InodeTable, type Quota, Tree } from './tree.js';
import { UNKNOWN_LOOKUPS } from './tree-restore.js';
import { ExecutionDirectory, WorkDirectory } from './work-directory.js';

const {
  O_ACCMODE,
  O_EXCL,
  O_TRUNC,
  O_RDONLY,
  S_IFMT,
  S_IFIFO,
  S_IFSOCK,
  S_ISUID,
  S_ISGID,
  S_IXGRP,
} = {
  ...constants,
  // Not exported by node:fs; asm-generic/fcntl.h and linux/stat.h.
  O_ACCMODE: 3,
  S_ISUID: 0o4000,
  S_ISGID: 0o2000,
};

/** Longest symbolic link target: PATH_MAX with its NUL. */
const TARGET_BYTES_MAX = 4095;
/** LINK_MAX as ext4 has it. */
const LINKS_MAX = 65_000;

/** RELEASE carries no identity. */
const NOBODY: Caller = { uid: 0, gid: 0, pid: 0 };

/** Inodes and handles of one serving process: two of each a microsecond for a week. A number stays below 2^53. */
const NUMBERS_PER_PROCESS = 2 ** 40;

/** The root holds one directory per execution and nothing else. */
const ROOT_QUOTA: Quota = { bytesMax: 0, inodesMax: 1_000_000 };

/** What setattr changes; absent = keep. */
export interface AttrChange {
  mode?: number;
  uid?: number;
  gid?: number;
  size?: number;
  atime?: Time | 'now';
  mtime?: Time | 'now';
  /** Clear the set-id bits: the kernel asks for it, or somebody called chown(2). */
  killSetId?: boolean;
}

/** An opened directory: its entries as of the last rewind, so that who renames what he lists comes to an end. */
export interface OpenDirectory {
  readonly id: number;
  readonly directory: Directory;
  listing: readonly Entry[];
}

/** What the kernel has cached and must be told about; calls resolve when the kernel has been told. */
export interface KernelCache {
  entryChanged(directory: Directory, name: string): Promise<void>;
  /** Whoever polls the file that the kernel calls `pollHandle` is to ask again. */
  pollChanged(pollHandle: number): Promise<void>;
}

export interface Usage {
  readonly bytesMax: number;
  readonly bytes: number;
  readonly inodesMax: number;
  readonly inodes: number;
}

/**
 * The file system behind one mount: inodes, names, handles. Calls answer at once or with a promise, and fail with
 * FsError or a host error. Permission bits are the kernel's to check (mount option default_permissions); what no bit
 * can express is checked here.
 */
export class Volume {
  readonly inodes = new InodeTable();
  readonly root: Directory;
  readonly #files = new Map<number, OpenFile>();
  readonly #directories = new Map<number, OpenDirectory>();
  readonly #streams = new Map<number, OpenStream>();
  #nextHandle = 1;
  /** Set by the driver; until then there is no kernel to tell. */
  kernel: KernelCache = { entryChanged: async () => {}, pollChanged: async () => {} };
  /** Journals that have something to flush. */
  readonly dirtyJournals = new Set<Journal>();
  /** Hears what fails when nobody waits for it. Set by the owner. */
  onError: (error: unknown) => void = () => {};

  /** `directory` holds the backing files, one sub-directory per tree. */
  constructor(directory: string) {
    const tree = new Tree(this.inodes, directory, ROOT_QUOTA);
    this.root = new Directory(tree, 0o711, { uid: 0, gid: 0 });
  }

  /** @throws FsError ESTALE when there is no such inode any more */
  inode(id: number): Inode {
    const inode = this.inodes.get(id);
    if (inode === undefined) throw ESTALE;
    return inode;
  }

  directory(id: number): Directory {
    const inode = this.inode(id);
    if (!(inode instanceof Directory)) throw ENOTDIR;
    return inode;
  }

  lookup(parent: Directory, name: string): Inode | undefined {
    checkName(name);
    if (name === '.') return parent;
    if (name === '..') return parent.parent;
    return parent.get(name);
  }

  /** The kernel drops `count` of its references. */
  forget(id: number, count: number): void {
    const inode = this.inodes.get(id);
    if (inode === undefined) return;
    // How many the kernel has of an earlier process's is not known; once no name is left it gives all back at once.
    if (inode.lookups !== UNKNOWN_LOOKUPS) inode.lookups = Math.max(0, inode.lookups - count);
    else if (!isLinked(inode)) inode.lookups = 0;
    this.#collect(inode);
  }

  setattr(inode: Inode, change: AttrChange, handle?: OpenFile): void {
    if (change.size !== undefined) {
      if (!(inode instanceof RegularFile)) throw inode.isDirectory ? EISDIR : EINVAL;
      inode.truncate(change.size);
      if (handle?.draft !== undefined) truncated(handle, handle.draft, change.size);
    }
    if (change.mode !== undefined) inode.mode = inode.type | (change.mode & 0o7777);
    if (change.uid !== undefined) inode.uid = change.uid;
    if (change.gid !== undefined) inode.gid = change.gid;
    if (change.killSetId === true) this.clearSetId(inode);
    setTime(inode.atime, change.atime);
    setTime(inode.mtime, change.mtime);
    inode.touchCtime();
    inode.attributesChanged();
  }

  readlink(inode: Inode): Uint8Array {
    if (!(inode instanceof Symlink)) throw EINVAL;
    return inode.target;
  }

  mkdir(parent: Directory, name: string, mode: number, caller: Caller): Inode {
    this.#checkNew(parent, name, true);
    const setgid = parent.mode & S_ISGID;
    const owner = ownerIn(parent, caller);
    return this.#add(
      parent,
      name,
      new Directory(parent.tree, (mode & 0o7777) | setgid, owner, parent),
    );
  }

  mknod(parent: Directory, name: string, mode: number, rdev: number, caller: Caller): Inode {
    const type = mode & S_IFMT;
    if (type === 0 || isRegular(mode)) return this.#create(parent, name, mode, caller);
    // Refused, although the mount is nodev: a script has no use for one.
    const isDevice = type !== S_IFIFO && type !== S_IFSOCK;
    if (isDevice && parent.tree.quota.devices !== true) throw EPERM;
    this.#checkNew(parent, name);
    return this.#add(
      parent,
      name,
      new SpecialFile(parent.tree, mode, ownerIn(parent, caller), rdev),
    );
  }

  symlink(parent: Directory, name: string, target: Uint8Array, caller: Caller): Inode {
    if (target.byteLength > TARGET_BYTES_MAX) throw ENAMETOOLONG;
    this.#checkNew(parent, name);
    const { tree } = parent;
    tree.charge(target.byteLength); // kept in memory: a hundred thousand long ones would be felt
    try {
      const link = new Symlink(tree, ownerIn(parent, caller), Uint8Array.from(target));
      return this.#add(parent, name, link);
    } catch (error) {
      tree.charge(-target.byteLength);
      throw error;
    }
  }

  /** A promise when the new name is one whose content must be committed first. */
  link(inode: Inode, parent: Directory, name: string, caller: Caller): Promise<void> | undefined {
    if (inode.isDirectory) throw EPERM;
    if (inode.tree !== parent.tree) throw EXDEV;
    if (inode.nlink >= LINKS_MAX) throw EMLINK;
    // The last name is gone; only a file of O_TMPFILE may still get its first.
    const isTemporary = inode instanceof RegularFile && inode.isTemporary;
    if (inode.nlink === 0 && !isTemporary) throw ENOENT;
    this.#checkNew(parent, name);
    assertFits(parent, name, inode);
    inode.nlink++;
    inode.touchCtime();
    parent.add(name, inode);
    if (isTemporary) inode.isTemporary = false;
    const committed = this.#settled(parent, name, caller);
    return (
      committed &&
      this.#orUndo(committed, [[parent, name]], () => {
        if (parent.get(name) !== inode) return;
        parent.remove(name);
        if (isTemporary) inode.isTemporary = true;
        this.#unlinked(inode);
      })
    );
  }

  unlink(parent: Directory, name: string): void {
    checkName(name);
    parent.assertMayRemove(name);
    const inode = parent.get(name);
    if (inode === undefined) throw ENOENT;
    if (inode.isDirectory) throw EISDIR;
    parent.remove(name);
    this.#unlinked(inode);
    this.#tellAlias(parent, name);
  }

  rmdir(parent: Directory, name: string): void {
    if (name === '.') throw EINVAL;
    checkName(name);
    parent.assertMayRemove(name);
    const inode = parent.get(name);
    if (inode === undefined) throw ENOENT;
    if (!(inode instanceof Directory)) throw ENOTDIR;
    if (!inode.isEmpty) throw ENOTEMPTY;
    parent.remove(name);
    inode.nlink = 1;
    this.#unlinked(inode);
  }

  /** rename(2) and renameat2(2). A promise when the new name is one whose content must be committed first. */
  rename(
    from: Directory,
    name: string,
    to: Directory,
    newName: string,
    flags: number,
    caller: Caller,
  ): Promise<void> | undefined {
    if (from === this.root || to === this.root) throw EACCES; // executions come and go through mountd only
    const rename = Rename.plan(from, name, to, newName, flags);
    if (rename === undefined) return undefined;
    rename.apply();
    this.#tellAlias(from, name);
    const back = rename.isExchange ? this.#settled(from, name, caller) : undefined;
    const there = this.#settled(to, newName, caller);
    const done = () => {
      const replaced = rename.letGo();
      if (replaced !== undefined) this.#collect(replaced);
    };
    if (back === undefined && there === undefined) {
      done();
      return undefined;
    }
    const committed = Promise.all([back, there]).then(() => {});
    const names: [Directory, string][] = [
      [from, name],
      [to, newName],
    ];
    return this.#orUndo(committed, names, () => rename.undo()).finally(done);
  }

  /**
   * A name that was changed for a commit is changed back when the commit fails: an error means that nothing happened. The
   * kernel, which does not know of either, or of a change whose caller died while waiting, is told to look again.
   */
  async #orUndo(
    committed: Promise<void>,
    names: readonly (readonly [Directory, string])[],
    undo: () => void,
  ): Promise<void> {
    try {
      await committed;
    } catch (error) {
      undo();
      throw error;
    } finally {
      // Not waited for: the caller's answer comes first, because it holds the locks the kernel needs for this.
      for (const [directory, name] of names)
        void this.background(async () => await this.kernel.entryChanged(directory, name));
    }
  }

  create(
    parent: Directory,
    name: string,
    mode: number,
    flags: number,
    caller: Caller,
  ): [Inode, OpenFile] {
    // The kernel asks to create what it believes absent; the other directory that shows the name may know better.
    const existing = (flags & O_EXCL) === 0 ? parent.get(name) : undefined;
    const file = existing ?? this.#create(parent, name, mode, caller);
    return [file, this.open(file, flags, caller)];
  }

  /** open(2) with O_TMPFILE: a file without a name, which link(2) may give one. */
  tmpfile(parent: Directory, mode: number, flags: number, caller: Caller): [Inode, OpenFile] {
    if (parent === this.root) throw EACCES;
    if (parent.nlink === 0) throw ENOENT;
    const file = new RegularFile(parent.tree, mode, ownerIn(parent, caller));
    file.nlink = 0;
    file.isTemporary = true;
    return [file, this.open(file, flags, caller)];
  }

  open(inode: Inode, flags: number, caller: Caller): OpenFile {
    if (!(inode instanceof RegularFile)) throw inode.isDirectory ? EISDIR : ENXIO;
    if ((flags & O_TRUNC) !== 0 && (inode.size > 0 || inode.blocks > 0)) inode.truncate(0);
    const draft = inode.document?.opened(inode, flags, caller);
    const handle: OpenFile = { id: this.#nextHandle++, file: inode, flags, draft, wrote: false };
    inode.opens++;
    this.#files.set(handle.id, handle);
    if (draft !== undefined) {
      draft.id = handle.id;
      inode.tree.journal?.note(handleRecord(handle));
    }
    return handle;
  }

  /** A handle of an earlier process. */
  reopened(handle: OpenFile): void {
    handle.file.opens++;
    this.#files.set(handle.id, handle);
  }

  /** Records of the handles in `tree` that a process that takes over must know; others are nothing but their file. */
  *handleRecords(tree: Tree): Iterable<JournalRecord> {
    for (const handle of this.#files.values())
      if (handle.draft !== undefined && handle.file.tree === tree) yield handleRecord(handle);
  }

  /**
   * This process is the `generation`-th that serves the mount: its numbers are none that an earlier one has given out.
   */
  set generation(generation: number) {
    const from = generation * NUMBERS_PER_PROCESS;
    this.#nextHandle = from + 1;
    this.inodes.next = from + 2;
  }

  /** open(2) of a stream: what it reads comes from now on. */
  openStream(file: StreamFile, flags: number, caller: Caller): OpenStream {
    if (!isReadOnlyOpen(flags)) throw EACCES;
    const opened: OpenStream = {
      id: this.#nextHandle++,
      file,
      stream: file.stream(flags, caller),
      closing: new AbortController(),
    };
    file.opens++;
    this.#streams.set(opened.id, opened);
    return opened;
  }

  /** @throws FsError EBADF for one of a life before this process: what it was waiting for is gone */
  stream(id: number): OpenStream {
    const opened = this.#streams.get(id);
    if (opened === undefined) throw EBADF;
    return opened;
  }

  /** A handle by its number; undefined for one of a life before this process. */
  handle(id: number): OpenFile | undefined {
    return this.#files.get(id);
  }

  /**
   * Returns the count written. O_APPEND needs nothing here: the kernel has put the end of the file into `offset`, and no
   * other writer exists; pages of a mapping come through such a handle too, with their own offsets.
   */
  write(file: RegularFile, handle: OpenFile | undefined, data: Uint8Array, offset: number): number {
    const written = file.write(data, offset);
    if (handle !== undefined) {
      handle.wrote = true;
      if (handle.draft !== undefined)
        wrote(handle, handle.draft, data.subarray(0, written), offset);
    }
    return written;
  }

  /** copy_file_range(2). Returns the count, perhaps short. @throws FsError EXDEV between two trees: the caller then copies itself */
  copyRange(
    source: RegularFile,
    offset: number,
    { file, handle }: FileAndHandle,
    offsetOut: number,
    length: number,
  ): number {
    if (source.tree !== file.tree) throw EXDEV;
    return copyRange(source, offset, length, (data) => this.write(file, handle, data, offsetOut));
  }

  /** close(2) of one descriptor. A promise when there is something to commit. */
  flush(
    file: RegularFile,
    handle: OpenFile | undefined,
    caller: Caller,
  ): Promise<void> | undefined {
    if (handle === undefined || file.document === undefined) return undefined;
    // Opened before its file came to stand at a legacy name: there is no draft, but what it wrote counts.
    const draftless = handle.draft === undefined && handle.wrote;
    handle.wrote = false;
    if (handle.draft === undefined && !draftless) return undefined;
    return file.document.commit(file, handle.draft, caller);
  }

  async fsync(file: RegularFile, handle: OpenFile | undefined, caller: Caller): Promise<void> {
    await file.sync();
    await this.flush(file, handle, caller);
  }

  release(id: number): void {
    const handle = this.#files.get(id);
    if (handle === undefined) {
      this.#releaseStream(id);
      return;
    }
    this.#files.delete(id);
    const { file, draft } = handle;
    const { document } = file;
    // Pages of a shared mapping are written after the last close(2); nobody is left to hear of a failure.
    if (draft?.untried === true && document !== undefined)
      void this.background(async () => await document.commit(file, draft, NOBODY));
    if (draft !== undefined) {
      document?.closed(draft);
      file.tree.journal?.note(['Y', id]);
    }
    if (--file.opens === 0) file.released();
    this.#collect(file);
  }

  #releaseStream(id: number): void {
    const opened = this.#streams.get(id);
    if (opened === undefined) return;
    this.#streams.delete(id);
    opened.file.opens--;
    opened.stream.close();
    opened.closing.abort(ESTALE);
    this.#collect(opened.file);
  }

  opendir(directory: Directory): OpenDirectory {
    const handle = { id: this.#nextHandle++, directory, listing: [] };
    directory.opens++;
    this.#directories.set(handle.id, handle);
    return handle;
  }

  /**
   * Entries from `offset` (0 = from the start, with a fresh look) until `emit` returns false. An entry's `next` is the
   * offset after it. "." and ".." come first.
   */
  readdir(
    directory: Directory,
    handleId: number,
    offset: number,
    emit: (name: string, inode: Inode, next: number) => boolean,
  ): void {
    const handle = this.#directories.get(handleId);
    if (handle !== undefined && offset === 0) handle.listing = directory.listing();
    // One of an earlier process, or one that has not begun here: offsets mean the same in every listing.
    const isKnown = handle !== undefined && (offset < COOKIES_FROM || handle.listing.length > 0);
    const listing = isKnown ? handle.listing : directory.listing();
    if (offset <= 0 && !emit('.', directory, 1)) return;
    if (offset <= 1 && !emit('..', directory.parent, 2)) return;
    for (let i = firstAfter(listing, offset); i < listing.length; i++) {
      const entry = listing[i];
      if (entry === undefined) return;
      const inode = directory.get(entry.name);
      if (inode !== undefined && !emit(entry.name, inode, entry.cookie)) return;
    }
  }

  releasedir(id: number): void {
    const handle = this.#directories.get(id);
    if (handle === undefined) return;
    this.#directories.delete(id);
    handle.directory.opens--;
    this.#collect(handle.directory);
  }

  statfs(inode: Inode): Usage {
    const { tree } = inode;
    return {
      bytesMax: tree.quota.bytesMax,
      bytes: tree.bytes,
      inodesMax: tree.quota.inodesMax,
      inodes: tree.inodeCount,
    };
  }

  /** chown, write and truncate by someone else than the owner: S_ISUID goes, and S_ISGID where it means set-group-id. */
  clearSetId(inode: Inode): void {
    if (inode.isDirectory) return;
    inode.mode &= ~S_ISUID;
    if ((inode.mode & S_IXGRP) !== 0) inode.mode &= ~S_ISGID;
    inode.attributesChanged();
  }

  /** Puts another inode under a name without telling its document: the same file in a newer version. */
  async supersede(directory: Directory, name: string, file: RegularFile): Promise<void> {
    const old = directory.get(name);
    if (directory instanceof WorkDirectory || directory instanceof ExecutionDirectory)
      directory.supersede(name, file);
    if (old !== undefined) this.#unlinked(old);
    await this.kernel.entryChanged(directory, name);
  }

  /** Forgets a tree that nobody uses any more: its container is gone. */
  async removeTree(directory: Directory, name: string): Promise<void> {
    this.root.remove(name);
    for (const [id, { file }] of this.#files)
      if (file.tree === directory.tree) this.#files.delete(id);
    for (const [id, opened] of this.#directories)
      if (opened.directory.tree === directory.tree) this.#directories.delete(id);
    for (const [id, { file }] of this.#streams)
      if (file.tree === directory.tree) this.#releaseStream(id);
    await this.kernel.entryChanged(this.root, name);
    await directory.tree.dispose();
  }

  /** Writes what journals are to know; `answer` is that of a request about inode `node`. */
  flushJournals(node = 0, answer?: Answer): void {
    const asked = answer === undefined ? undefined : this.inodes.get(node)?.tree.journal;
    for (const journal of this.dirtyJournals) journal.flush(journal === asked ? answer : undefined);
  }

  /** Does what nobody waits for; a failure is reported, never thrown: it would end the loop that answers everybody. */
  async background(work: () => Promise<unknown> | undefined): Promise<void> {
    try {
      await work();
    } catch (error) {
      this.onError(error);
    }
  }

  #checkNew(parent: Directory, name: string, isDirectory = false): void {
    checkName(name);
    if (parent === this.root) throw EACCES;
    if (parent.nlink === 0) throw ENOENT; // removed, but still somebody's working directory
    if (name === '.' || name === '..' || parent.get(name) !== undefined) throw EEXIST;
    parent.assertMayAdd(name, isDirectory);
    parent.tree.assertRoomForName();
  }

  #create(parent: Directory, name: string, mode: number, caller: Caller): RegularFile {
    this.#checkNew(parent, name);
    const file = new RegularFile(parent.tree, mode, ownerIn(parent, caller));
    this.#add(parent, name, file);
    return file;
  }

  #add<T extends Inode>(parent: Directory, name: string, inode: T): T {
    parent.add(name, inode);
    this.#tellAlias(parent, name);
    return inode;
  }

  #unlinked(inode: Inode): void {
    inode.nlink--;
    inode.touchCtime();
    this.#collect(inode);
  }

  /** Frees an inode that no name, handle or kernel reference leads to. */
  #collect(inode: Inode): void {
    if (isLinked(inode) || inode.opens > 0 || inode.lookups > 0) return;
    inode.tree.delete(inode);
  }

  /** After a name has changed: the commit its document asks for, and the other directory that shows the same name. */
  #settled(parent: Directory, name: string, caller: Caller): Promise<void> | undefined {
    this.#tellAlias(parent, name);
    const inode = parent.get(name);
    if (!(inode instanceof RegularFile)) return undefined;
    try {
      return inode.document?.commit(inode, undefined, caller);
    } catch (error) {
      return Promise.reject(error instanceof Error ? error : new Error(String(error))); // undone like any refused commit
    }
  }

  /** A name changed through `/cronium/` is cached by the kernel under `work/` too. */
  #tellAlias(parent: Directory, name: string): void {
    const other = parent.cacheable ? undefined : aliasOf(parent);
    if (other !== undefined)
      void this.background(async () => await this.kernel.entryChanged(other, name));
  }
}

const isLinked = ({ isDirectory, nlink }: Inode): boolean => nlink > (isDirectory ? 1 : 0);

const handleRecord = ({ id, file, flags, draft }: OpenFile): JournalRecord => [
  'H',
  id,
  file.id,
  flags,
  draft?.document.name,
  draft?.document.draftRecord(draft),
];

/** Index of the first entry beyond `offset`. */
function firstAfter(listing: readonly Entry[], offset: number): number {
  let low = 0;
  let high = listing.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if ((listing[middle]?.cookie ?? 0) > offset) high = middle;
    else low = middle + 1;
  }
  return low;
}

export const isReadOnlyOpen = (flags: number): boolean => (flags & O_ACCMODE) === O_RDONLY;

function aliasOf(directory: Directory): Directory | undefined {
  const work = directory.get('work');
  return work instanceof WorkDirectory ? work : undefined;
}

/** Group from a set-group-id directory, otherwise the caller's: inode_init_owner of the kernel. */
function ownerIn(parent: Directory, { uid, gid }: Caller): { uid: number; gid: number } {
  return { uid, gid: (parent.mode & S_ISGID) === 0 ? gid : parent.gid };
}

function setTime(time: Time, to: Time | 'now' | undefined): void {
  if (to === 'now') setNow(time);
  else if (to !== undefined) {
    time.sec = to.sec;
    time.nsec = to.nsec;
  }
}
