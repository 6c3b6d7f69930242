import { constants } from 'node:fs';
import { stat } from 'node:fs/promises';
import { EBADF, ENOENT, ENOTDIR, ENOTEMPTY, FsError } from '#bridge/vfs/fs-error.js';
import { type Caller, Directory, type Inode, type Time } from '#bridge/vfs/inode.js';
import { NAME_BYTES_MAX } from '#bridge/vfs/names.js';
import type { OpenFile } from '#bridge/vfs/regular-file.js';
import type { AttrChange, Volume } from '#bridge/vfs/volume.js';
import { getxattr, listxattr, removexattr, setxattr } from '#bridge/vfs/xattrs.js';
import { asBridgeError, BridgeError } from '#bridge/wire/errors.js';
import type { Driver, DriverLog } from './driver.js';
import { errnoFor } from './errno.js';
import {
  loadFuseNative,
  type MountOptions,
  type NativeMount,
  type Operations,
  type StatFs,
  type StatWords,
} from './fuse-native.js';
import { abortConnection, unmount } from './mount.js';

const { O_WRONLY } = constants;
const EILSEQ = new FsError('EILSEQ');

const BLOCK_BYTES = 4096;

/**
 * Nothing is cached but pages of private mappings: libfuse 2 cannot be told to forget. `direct_io` takes every read to its own
 * handle; with the page cache, which knows paths only, a reader of an old variables.json would get the new one's length.
 * `use_ino`: hard links have one inode number. `atomic_o_trunc`: the truncating open is told from truncate(2).
 */
const OPTIONS: MountOptions = {
  timeout: false,
  allowOther: true,
  defaultPermissions: true,
  entryTimeout: '0',
  attrTimeout: '0',
  fsname: 'cronium,subtype=cronium,use_ino,direct_io,big_writes,atomic_o_trunc,nosuid,nodev',
};

/** fuse-native does not say when its loop ends; the mount is looked at this often. */
const LOOK_MS = 1000;

/** What libfuse renames a file to that is removed while it is open; it removes that name at the last close. */
const HIDDEN_NAME = /^\.fuse_hidden[0-9a-f]{16}$/;

/** -1 as an id: chown(2) keeps it. */
const KEEP_ID = 0xffff_ffff;

/** The uid, gid and pid of a caller do not come through. */
const UNKNOWN: Caller = { uid: 0, gid: 0, pid: 0 };

/**
 * The driver for hosts where ours cannot be used, on the npm package fuse-native (libfuse 2): an adapter from paths to
 * inodes. What it cannot do is in docs/drivers.md. It must run on the main thread of its process, because fuse-native
 * runs on libuv's default loop.
 *
 * No look-ups are counted: libfuse holds paths, not inodes, so an inode lives by its names and handles alone.
 */
export class NativeDriver implements Driver {
  readonly #volume: Volume;
  readonly #directory: string;
  readonly #log: DriverLog;
  #mount: NativeMount | undefined;
  #look: NodeJS.Timeout | undefined;
  #end: (error: Error | undefined) => void = () => {};
  readonly ready: Promise<void>;
  readonly ended: Promise<Error | undefined>;
  /** Removed but open files under the names that libfuse calls them by; they hold one look-up of their inode. */
  readonly #hidden = new WeakMap<Directory, Map<string, Inode>>();

  /** Mounts at `directory`. A failure is what `ended` resolves with: a BridgeError when the package cannot be used. */
  constructor(volume: Volume, directory: string, log: DriverLog) {
    this.#volume = volume;
    this.#directory = directory;
    this.#log = log;
    volume.kernel = { entryChanged: async () => {}, pollChanged: async () => {} }; // it caches no names and polls nothing
    this.ended = new Promise((resolve) => {
      this.#end = resolve;
    });
    this.ready = new Promise((resolve) => {
      this.#start(resolve);
    });
  }

  async close(): Promise<void> {
    clearInterval(this.#look);
    const mount = this.#mount;
    this.#mount = undefined;
    if (mount === undefined) return;
    // Nobody may wait for an answer that nobody will give.
    abortConnection(this.#directory);
    await unmount(this.#directory);
    await new Promise<void>((resolve) => {
      mount.unmount((error) => {
        if (error !== null && error !== undefined) this.#log.warn({ err: error }, 'cannot unmount');
        resolve();
      });
    });
    this.#end(undefined);
  }

  #start(ready: () => void): void {
    try {
      const Mount = loadFuseNative();
      const mount = new Mount(this.#directory, this.#operations(), OPTIONS);
      mount.mount((error) => {
        if (error !== null && error !== undefined) {
          this.#end(
            new BridgeError(
              'unavailable',
              `cannot mount ${this.#directory} through fuse-native (${error.message}): libfuse has written the reason to standard error, which is the log`,
              { cause: error },
            ),
          );
          return;
        }
        this.#mount = mount;
        this.#log.info({ directory: this.#directory }, 'mounted through fuse-native');
        this.#watch();
        ready();
      });
    } catch (error) {
      this.#end(asBridgeError(error));
    }
  }

  /** stat(2) in the thread pool, never synchronously: we answer it. */
  #watch(): void {
    let device: number | undefined;
    let isLooking = false;
    const look = async () => {
      if (isLooking) return;
      isLooking = true;
      try {
        const { dev } = await stat(this.#directory);
        device ??= dev;
        if (dev !== device) this.#gone();
      } catch {
        this.#gone(); // ENOTCONN: aborted
      } finally {
        isLooking = false;
      }
    };
    void look();
    this.#look = setInterval(() => void look(), LOOK_MS);
  }

  #gone(): void {
    clearInterval(this.#look);
    this.#end(undefined);
  }

  // --- paths ------------------------------------------------------------------------------------------------------

  /** @throws FsError ENOENT, ENOTDIR, EILSEQ */
  #inode(path: string): Inode {
    if (path === '/') return this.#volume.root;
    const [parent, name] = this.#place(path);
    const inode = this.#hidden.get(parent)?.get(name) ?? this.#volume.lookup(parent, name);
    if (inode === undefined) throw ENOENT;
    return inode;
  }

  #directoryAt(path: string): Directory {
    const inode = this.#inode(path);
    if (!(inode instanceof Directory)) throw ENOTDIR;
    return inode;
  }

  /** The directory that holds, or may get, the last name of `path`, and that name. */
  #place(path: string): [Directory, string] {
    const names = path.split('/');
    const last = names.pop() ?? '';
    let at: Directory = this.#volume.root;
    for (const name of names) {
      if (name === '') continue;
      const next = this.#volume.lookup(at, bytesOf(name));
      if (next === undefined) throw ENOENT;
      if (!(next instanceof Directory)) throw ENOTDIR;
      at = next;
    }
    return [at, bytesOf(last)];
  }

  #handle(id: number): OpenFile {
    const handle = this.#volume.handle(id);
    if (handle === undefined) throw EBADF;
    return handle;
  }

  #setattr(path: string, change: AttrChange): void {
    this.#volume.setattr(this.#inode(path), change);
  }

  // --- removed but open -------------------------------------------------------------------------------------------

  #hide(parent: Directory, name: string, hiddenName: string): void {
    const inode = parent.get(name);
    if (inode === undefined) throw ENOENT;
    inode.lookups++;
    try {
      this.#volume.unlink(parent, name);
    } catch (error) {
      this.#volume.forget(inode.id, 1);
      throw error;
    }
    const hidden = this.#hidden.get(parent) ?? new Map<string, Inode>();
    this.#hidden.set(parent, hidden.set(hiddenName, inode));
  }

  #unlink(path: string): void {
    const [parent, name] = this.#place(path);
    const hidden = this.#hidden.get(parent);
    const inode = hidden?.get(name);
    if (inode === undefined) {
      this.#volume.unlink(parent, name);
      return;
    }
    hidden?.delete(name);
    this.#volume.forget(inode.id, 1);
  }

  /**
   * libfuse loses the path of an open file when the directory goes that it was removed from, and fuse-native then passes
   * a null pointer on: so that directory stays until the file is closed. @throws FsError ENOTEMPTY
   */
  #assertHidesNothing(inode: Inode | undefined): void {
    if (inode instanceof Directory && (this.#hidden.get(inode)?.size ?? 0) > 0) throw ENOTEMPTY;
  }

  #rename(from: string, to: string): Promise<void> | undefined {
    const [oldParent, name] = this.#place(from);
    const [newParent, newName] = this.#place(to);
    if (oldParent === newParent && HIDDEN_NAME.test(newName)) {
      this.#hide(oldParent, name, newName);
      return undefined;
    }
    this.#assertHidesNothing(newParent.get(newName));
    return this.#volume.rename(oldParent, name, newParent, newName, 0, ownerIn(newParent));
  }

  // --- operations -------------------------------------------------------------------------------------------------

  /** Does `work`, waits if it gives a promise, and calls back: nothing may escape, or the caller waits for ever. */
  #answer<T>(
    op: keyof Operations,
    work: () => Promise<T> | T,
    good: (value: T) => void,
    bad: (result: number) => void,
  ): void {
    const fail = (error: unknown) => bad(-errnoFor(error, op, this.#log));
    let result: Promise<T> | T;
    try {
      result = work();
    } catch (error) {
      fail(error);
      return;
    }
    if (result instanceof Promise) result.then(good, fail);
    else good(result);
  }

  /** For operations that return nothing. */
  #do(
    op: keyof Operations,
    done: (result: number) => void,
    work: () => Promise<void> | undefined | void,
  ): void {
    this.#answer<void>(op, work as () => Promise<void> | void, () => done(0), done);
  }

  /** For operations that return a value beside the 0 of success. */
  #give<T>(op: keyof Operations, done: (error: number, value?: T) => void, work: () => T): void {
    this.#answer(op, work, (value) => done(0, value), done);
  }

  #operations(): Operations {
    const volume = this.#volume;
    const make = (
      op: keyof Operations,
      path: string,
      done: (result: number) => void,
      work: (parent: Directory, name: string, caller: Caller) => void,
    ) =>
      this.#do(op, done, () => {
        const [parent, name] = this.#place(path);
        work(parent, name, ownerIn(parent));
      });
    return {
      getattr: (path, done) => this.#give('getattr', done, () => statWords(this.#inode(path))),
      fgetattr: (path, id, done) =>
        this.#give('fgetattr', done, () => statWords(volume.handle(id)?.file ?? this.#inode(path))),
      statfs: (path, done) => this.#give('statfs', done, () => this.#statfs(path)),
      readlink: (path, done) =>
        this.#give('readlink', done, () =>
          Buffer.from(volume.readlink(this.#inode(path))).toString(),
        ),
      readdir: (path, done) => {
        const names: string[] = [];
        const stats: StatWords[] = [];
        this.#do(
          'readdir',
          (error) => done(error, names, stats),
          () =>
            volume.readdir(this.#directoryAt(path), 0, 0, (name, inode) => {
              names.push(textOf(name));
              stats.push(statWords(inode));
              return true;
            }),
        );
      },
      opendir: (path, _flags, done) =>
        this.#give('opendir', done, () => volume.opendir(this.#directoryAt(path)).id),
      releasedir: (_path, id, done) => this.#do('releasedir', done, () => volume.releasedir(id)),
      fsyncdir: (_path, _dataOnly, _id, done) => done(0),

      open: (path, flags, done) =>
        this.#give('open', done, () => volume.open(this.#inode(path), flags, UNKNOWN).id),
      // The flags of open(2) do not come through. A handle on a new file reads nothing, so for a document it is a writer.
      create: (path, mode, done) =>
        this.#give('create', done, () => {
          const [parent, name] = this.#place(path);
          return volume.create(parent, name, mode, O_WRONLY, ownerIn(parent))[1].id;
        }),
      read: (_path, id, data, length, offset, done) =>
        this.#answer('read', () => this.#handle(id).file.read(data, 0, length, offset), done, done),
      write: (_path, id, data, length, offset, done) =>
        this.#answer(
          'write',
          () => {
            const handle = this.#handle(id);
            return volume.write(handle.file, handle, data.subarray(0, length), offset);
          },
          done,
          done,
        ),
      flush: (_path, id, done) =>
        this.#do('flush', done, () => {
          const handle = this.#handle(id);
          return volume.flush(handle.file, handle, UNKNOWN);
        }),
      fsync: (_path, _dataOnly, id, done) =>
        this.#do('fsync', done, async () => {
          const handle = this.#handle(id);
          await volume.fsync(handle.file, handle, UNKNOWN);
        }),
      release: (_path, id, done) => this.#do('release', done, () => volume.release(id)),

      truncate: (path, size, done) =>
        this.#do('truncate', done, () => this.#setattr(path, { size })),
      ftruncate: (_path, id, size, done) =>
        this.#do('ftruncate', done, () => {
          const handle = this.#handle(id);
          volume.setattr(handle.file, { size }, handle);
        }),
      chmod: (path, mode, done) => this.#do('chmod', done, () => this.#setattr(path, { mode })),
      // The kernel clears the set-id bits itself, by a chmod before.
      chown: (path, uid, gid, done) =>
        this.#do('chown', done, () =>
          this.#setattr(path, {
            ...(uid === KEEP_ID ? {} : { uid }),
            ...(gid === KEEP_ID ? {} : { gid }),
          }),
        ),
      utimens: (path, atime, mtime, done) =>
        this.#do('utimens', done, () =>
          this.#setattr(path, { atime: timeOf(atime), mtime: timeOf(mtime) }),
        ),

      mkdir: (path, mode, done) =>
        make('mkdir', path, done, (parent, name, caller) =>
          volume.mkdir(parent, name, mode, caller),
        ),
      mknod: (path, mode, device, done) =>
        make('mknod', path, done, (parent, name, caller) =>
          volume.mknod(parent, name, mode, device, caller),
        ),
      symlink: (target, path, done) =>
        make('symlink', path, done, (parent, name, caller) => {
          if (target.includes(UNKNOWN_BYTES)) throw EILSEQ;
          volume.symlink(parent, name, Buffer.from(target), caller);
        }),
      link: (existing, path, done) =>
        this.#do('link', done, () => {
          const [parent, name] = this.#place(path);
          return volume.link(this.#inode(existing), parent, name, ownerIn(parent));
        }),
      rename: (from, to, done) => this.#do('rename', done, () => this.#rename(from, to)),
      unlink: (path, done) => this.#do('unlink', done, () => this.#unlink(path)),
      rmdir: (path, done) =>
        this.#do('rmdir', done, () => {
          const [parent, name] = this.#place(path);
          this.#assertHidesNothing(parent.get(name));
          volume.rmdir(parent, name);
        }),

      setxattr: (path, name, value, _position, flags, done) =>
        this.#do('setxattr', done, () => setxattr(this.#inode(path), bytesOf(name), value, flags)),
      getxattr: (path, name, done) =>
        this.#give('getxattr', done, () => getxattr(this.#inode(path), bytesOf(name))),
      listxattr: (path, done) =>
        this.#give('listxattr', done, () => {
          const names = listxattr(this.#inode(path));
          return Buffer.from(names.map((name) => `${name}\0`).join(''), 'latin1');
        }),
      removexattr: (path, name, done) =>
        this.#do('removexattr', done, () => removexattr(this.#inode(path), bytesOf(name))),
    };
  }

  #statfs(path: string): StatFs {
    const { bytesMax, bytes, inodesMax, inodes } = this.#volume.statfs(this.#inode(path));
    const free = Math.floor(Math.max(0, bytesMax - bytes) / BLOCK_BYTES);
    const inodesFree = Math.max(0, inodesMax - inodes);
    return {
      bsize: BLOCK_BYTES,
      frsize: BLOCK_BYTES,
      blocks: Math.floor(bytesMax / BLOCK_BYTES),
      bfree: free,
      bavail: free,
      files: inodesMax,
      ffree: inodesFree,
      favail: inodesFree,
      namemax: NAME_BYTES_MAX,
    };
  }
}

/** What is made in a directory belongs to the directory's owner: in an execution's tree, the script's user. */
const ownerIn = ({ uid, gid }: Directory): Caller => ({ uid, gid, pid: 0 });

/** What fuse-native puts in the place of bytes that are not UTF-8: which they were is lost. */
const UNKNOWN_BYTES = '\ufffd';

/**
 * A Volume's names are byte strings held as Latin-1; fuse-native's are text. Two names that are no UTF-8 could look the
 * same here, so one that may be such is refused. @throws FsError EILSEQ
 */
function bytesOf(name: string): string {
  if (name.includes(UNKNOWN_BYTES)) throw EILSEQ;
  return Buffer.from(name, 'utf8').toString('latin1');
}

const textOf = (name: string): string => Buffer.from(name, 'latin1').toString('utf8');

/** Times before 1970 arrive as huge unsigned numbers, and could not be shown again: they become 1970. */
function timeOf(ms: number): Time {
  if (ms >= 2 ** 63) return { sec: 0, nsec: 0 };
  return { sec: Math.floor(ms / 1000), nsec: (ms % 1000) * 1_000_000 };
}

/**
 * struct stat as fuse-native reads it: u32 mode, uid, gid; u64 size; u32 dev, nlink, ino, rdev, blksize; u64 blocks, atime,
 * mtime, ctime (times in milliseconds), each u64 as two words, low first.
 */
function statWords(inode: Inode): StatWords {
  const words = new Uint32Array(18);
  words[0] = inode.mode;
  words[1] = inode.uid;
  words[2] = inode.gid;
  put64(words, 3, inode.size);
  words[6] = inode.nlink;
  words[7] = inode.id;
  words[8] = inode.rdev;
  words[9] = BLOCK_BYTES;
  put64(words, 10, inode.blocks);
  put64(words, 12, msOf(inode.atime));
  put64(words, 14, msOf(inode.mtime));
  put64(words, 16, msOf(inode.ctime));
  return words;
}

function put64(words: Uint32Array, at: number, value: number): void {
  words[at] = value % 0x1_0000_0000;
  words[at + 1] = Math.floor(value / 0x1_0000_0000);
}

const msOf = ({ sec, nsec }: Time): number => Math.max(0, sec * 1000 + Math.floor(nsec / 1e6));
