import { existsSync } from 'node:fs';
import { createRequire } from 'node:module';
import { constants } from 'node:os';
import { dirname, join } from 'node:path';
import { BridgeError } from '#bridge/wire/errors.js';
import { mountedAt, unmount } from './mount.js';

/**
 * The npm package fuse-native 2.2.6 as far as we use it, with the types it lacks, and with those of its methods replaced
 * that lose what they were given. package.json names that very version: the replaced methods are not public.
 */

/** A negative errno, or what the operation returns. */
type Done = (result: number) => void;
type DoneWith<T> = (error: number, value?: T) => void;

/** struct stat as fuse-native passes it: 18 words, filled by `statWords` of native-driver.ts. */
export type StatWords = Uint32Array;

export interface StatFs {
  readonly bsize: number;
  readonly frsize: number;
  readonly blocks: number;
  readonly bfree: number;
  readonly bavail: number;
  readonly files: number;
  readonly ffree: number;
  readonly favail: number;
  readonly namemax: number;
}

/** Every operation we serve, in our shape where fuse-native's own loses something. Paths start at the mount point. */
export interface Operations {
  statfs(path: string, done: DoneWith<StatFs>): void;
  getattr(path: string, done: DoneWith<StatWords>): void;
  fgetattr(path: string, handle: number, done: DoneWith<StatWords>): void;
  readdir(
    path: string,
    done: (error: number, names?: readonly string[], stats?: readonly StatWords[]) => void,
  ): void;
  readlink(path: string, done: DoneWith<string>): void;
  open(path: string, flags: number, done: DoneWith<number>): void;
  create(path: string, mode: number, done: DoneWith<number>): void;
  read(path: string, fd: number, data: Buffer, length: number, offset: number, done: Done): void;
  write(path: string, fd: number, data: Buffer, length: number, offset: number, done: Done): void;
  truncate(path: string, size: number, done: Done): void;
  ftruncate(path: string, handle: number, size: number, done: Done): void;
  flush(path: string, handle: number, done: Done): void;
  fsync(path: string, dataOnly: number, handle: number, done: Done): void;
  release(path: string, handle: number, done: Done): void;
  opendir(path: string, flags: number, done: DoneWith<number>): void;
  releasedir(path: string, handle: number, done: Done): void;
  fsyncdir(path: string, dataOnly: number, handle: number, done: Done): void;
  mkdir(path: string, mode: number, done: Done): void;
  rmdir(path: string, done: Done): void;
  unlink(path: string, done: Done): void;
  rename(from: string, to: string, done: Done): void;
  link(existing: string, path: string, done: Done): void;
  symlink(target: string, path: string, done: Done): void;
  mknod(path: string, mode: number, device: number, done: Done): void;
  chmod(path: string, mode: number, done: Done): void;
  chown(path: string, uid: number, gid: number, done: Done): void;
  /** Milliseconds. `mtime` is `atime` again: the native code passes the first time twice. */
  utimens(path: string, atime: number, mtime: number, done: Done): void;
  setxattr(
    path: string,
    name: string,
    value: Buffer,
    position: number,
    flags: number,
    done: Done,
  ): void;
  getxattr(path: string, name: string, done: DoneWith<Uint8Array>): void;
  listxattr(path: string, done: DoneWith<Uint8Array>): void;
  removexattr(path: string, name: string, done: Done): void;
}

export interface MountOptions {
  /** false: an operation takes the time it takes. The default answers ETIMEDOUT after 15 s, while the work goes on. */
  readonly timeout: false;
  readonly allowOther: boolean;
  readonly defaultPermissions: boolean;
  /** Seconds, as text: the number 0 is taken for "not given", which means one second. */
  readonly entryTimeout: '0';
  readonly attrTimeout: '0';
  /** Goes into the option text as it is, so options that fuse-native has no name for follow it after a comma. */
  readonly fsname: string;
}

export interface NativeMount {
  mount(done: (error: Error | null) => void): void;
  unmount(done: (error: Error | null) => void): void;
}

type Signal = (result: number, ...values: unknown[]) => void;

type Unmount = (this: void, directory: string, done: (error?: Error | null) => void) => void;

/** What the package exports. */
interface Fuse extends NativeMount {
  readonly ops: Operations;
}
interface FuseClass {
  new (directory: string, operations: Operations, options: MountOptions): Fuse;
  unmount: Unmount;
}
export type NativeMountClass = new (
  directory: string,
  operations: Operations,
  options: MountOptions,
) => NativeMount;

const ERANGE = constants.errno.ERANGE;

/** dlopen(3): stay loaded, although Node closes what turns out to be no module of its own. bits/dlfcn.h */
const RTLD_NODELETE = 0x1000;

let loaded: NativeMountClass | undefined;

/** @throws BridgeError `unavailable` naming what to do, when the package is absent or does not load here */
export function loadFuseNative(): NativeMountClass {
  loaded ??= corrected(load());
  return loaded;
}

function load(): FuseClass {
  const require = createRequire(import.meta.url);
  let main: string;
  try {
    main = require.resolve('fuse-native');
  } catch (cause) {
    throw new BridgeError(
      'unavailable',
      'the package fuse-native is not installed: install it with "npm install --include=optional", or start without --driver fuse-native',
      { cause },
    );
  }
  try {
    keepLibraryLoaded(join(dirname(main), 'prebuilds', `${process.platform}-${process.arch}`));
    return require(main) as FuseClass;
  } catch (cause) {
    const [reason] = (cause instanceof Error ? cause.message : String(cause)).split('\n');
    throw new BridgeError(
      'unavailable',
      `fuse-native does not load on this machine (${reason}): install libfuse 2 (on Debian, the package libfuse2), or start without --driver fuse-native`,
      { cause },
    );
  }
}

/**
 * The prebuilt module asks the linker for libfuse.so.2, which the package ships beside it under another name, where the
 * linker does not look; a library that is loaded already, and says it is libfuse.so.2, satisfies it.
 */
function keepLibraryLoaded(directory: string): void {
  const library = join(directory, 'libfuse.so');
  if (!existsSync(library)) return; // then the host's own is asked for
  try {
    process.dlopen({ exports: {} }, library, constants.dlopen.RTLD_NOW | RTLD_NODELETE);
  } catch {
    // "Module did not self-register": it is no module, but it stays loaded. Any other reason meets the next step too.
  }
}

/** Five methods of fuse-native do less than the native code offers; these replace them. */
function corrected(Base: FuseClass): NativeMountClass {
  const fusermount = Base.unmount;
  Base.unmount = (directory, done) => void unmountBy(fusermount, directory, done);
  return class extends Base {
    /** The original turns 0 links into 1. */
    _op_getattr(signal: Signal, path: string): void {
      this.ops.getattr(path, (error, stat = NO_STAT) => signal(error, stat));
    }

    /** The original forgets the handle. */
    _op_fgetattr(signal: Signal, path: string, handle: number): void {
      this.ops.fgetattr(path, handle, (error, stat = NO_STAT) => signal(error, stat));
    }

    _op_readdir(signal: Signal, path: string): void {
      this.ops.readdir(path, (error, names = [], stats = []) => signal(error, names, stats));
    }

    /** The original reports values that did not fit as if they had, and libfuse sends the memory behind its buffer. */
    _op_getxattr(signal: Signal, path: string, name: string, target: Buffer): void {
      this.ops.getxattr(path, name, (error, value) =>
        signal(fit(error, value, target), target.buffer),
      );
    }

    /** The same. */
    _op_listxattr(signal: Signal, path: string, target: Buffer): void {
      this.ops.listxattr(path, (error, names) => signal(fit(error, names, target), target.buffer));
    }
  };
}

/** umount(8) first: fusermount(1), which fuse-native runs, may be missing, and root has no need of it. */
async function unmountBy(
  fusermount: Unmount,
  directory: string,
  done: (error?: Error | null) => void,
): Promise<void> {
  await unmount(directory);
  if (mountedAt(directory) === undefined) done(null);
  else fusermount(directory, done);
}

const NO_STAT: StatWords = new Uint32Array(18);

/** getxattr(2): size 0 asks how long the value is. */
function fit(error: number, value: Uint8Array | undefined, target: Buffer): number {
  if (value === undefined) return error;
  if (target.length === 0) return value.byteLength;
  if (value.byteLength > target.length) return -ERANGE;
  target.set(value);
  return value.byteLength;
}
