import { constants } from 'node:os';
import { EINVAL, EIO, ENOENT, EOPNOTSUPP, ERANGE } from '#bridge/vfs/fs-error.js';
import type { Caller, Directory, Inode } from '#bridge/vfs/inode.js';
import { type OpenFile, RegularFile } from '#bridge/vfs/regular-file.js';
import type { AttrChange, Volume } from '#bridge/vfs/volume.js';
import { getxattr, listxattr, removexattr, setxattr } from '#bridge/vfs/xattrs.js';
import {
  BODY_BYTES_MIN,
  FATTR,
  FOPEN_KEEP_CACHE,
  IN,
  OPEN_KILL_SUIDGID,
  type OpcodeName,
  OUT_HEADER_BYTES,
  WRITE_KILL_SUIDGID,
} from './abi.js';
import type { Reply } from './reply.js';
import type { Request } from './request.js';

/** Fills the reply that the waiting request gets. */
export type Finish = (reply: Reply) => void;

/**
 * Answers one request by filling `reply`, or fails by throwing. A promise defers the answer: the request's buffer then
 * holds other requests, so everything was read from it before.
 */
export type Handler = (request: Request, reply: Reply) => Promise<Finish> | void;

/** Body offsets, for `request.u32(BODY + n)`. */
const BODY = IN.BODY;

const { ENOTTY } = constants.errno;

/** fallocate(2) modes of linux/falloc.h */
const FALLOC_FL_KEEP_SIZE = 1;

const done: Finish = () => {};

/** Every operation we serve; an opcode that is not here is answered ENOSYS, which the kernel takes as "do it yourself". */
export function handlersFor(volume: Volume): Partial<Record<OpcodeName, Handler>> {
  const regular = (request: Request): RegularFile => {
    const inode = volume.inode(request.node);
    if (!(inode instanceof RegularFile)) throw EINVAL;
    return inode;
  };
  const readdir = (request: Request, reply: Reply, isPlus: boolean) => {
    const directory = volume.directory(request.node);
    const size = Math.min(request.u32(BODY + 16), reply.bytes.length - OUT_HEADER_BYTES);
    const limit = OUT_HEADER_BYTES + size;
    volume.readdir(directory, request.u64(BODY), request.u64(BODY + 8), (name, inode, next) => {
      const isDots = name === '.' || name === '..';
      const plus = !isPlus ? 'plain' : isDots ? 'uncounted' : 'counted';
      const added = reply.dirent(name, inode, next, limit, plus, directory.cacheable);
      if (added && plus === 'counted') inode.lookups++;
      return added;
    });
  };
  const rename = (request: Request, flags: number, namesAt: number) => {
    const from = volume.directory(request.node);
    const to = volume.directory(request.u64(BODY));
    const name = nameAt(request, namesAt);
    const newName = nameAt(request, namesAt + name.length + 1);
    return volume.rename(from, name, to, newName, flags, callerOf(request))?.then(() => done);
  };

  const handlers: Partial<Record<OpcodeName, Handler>> = {
    LOOKUP: (request, reply) => {
      const parent = volume.directory(request.node);
      const inode = volume.lookup(parent, nameAt(request, BODY));
      if (inode !== undefined) entry(reply, parent, inode);
      else if (parent.cacheable) reply.negativeEntry();
      else throw ENOENT;
    },
    GETATTR: (request, reply) => reply.attr(volume.inode(request.node)),
    SETATTR: (request, reply) => {
      const inode = volume.inode(request.node);
      const valid = request.u32(BODY);
      const handle = (valid & FATTR.FH) === 0 ? undefined : volume.handle(request.u64(BODY + 8));
      volume.setattr(inode, attrChange(request, valid), handle);
      reply.attr(inode);
    },
    READLINK: (request, reply) => reply.data(volume.readlink(volume.inode(request.node))),
    SYMLINK: (request, reply) => {
      const parent = volume.directory(request.node);
      const name = nameAt(request, BODY);
      const target = nameAt(request, BODY + name.length + 1);
      entry(
        reply,
        parent,
        volume.symlink(parent, name, Buffer.from(target, 'latin1'), callerOf(request)),
      );
    },
    MKNOD: (request, reply) => {
      const parent = volume.directory(request.node);
      const [mode, rdev] = [request.u32(BODY), request.u32(BODY + 4)];
      entry(
        reply,
        parent,
        volume.mknod(parent, nameAt(request, BODY + 16), mode, rdev, callerOf(request)),
      );
    },
    MKDIR: (request, reply) => {
      const parent = volume.directory(request.node);
      const mode = request.u32(BODY);
      entry(
        reply,
        parent,
        volume.mkdir(parent, nameAt(request, BODY + 8), mode, callerOf(request)),
      );
    },
    UNLINK: (request) => volume.unlink(volume.directory(request.node), nameAt(request, BODY)),
    RMDIR: (request) => volume.rmdir(volume.directory(request.node), nameAt(request, BODY)),
    RENAME: (request) => rename(request, 0, BODY + 8),
    RENAME2: (request) => rename(request, request.u32(BODY + 8), BODY + 16),
    LINK: (request, reply) => {
      const parent = volume.directory(request.node);
      const inode = volume.inode(request.u64(BODY));
      const committed = volume.link(inode, parent, nameAt(request, BODY + 8), callerOf(request));
      const finish: Finish = (answer) => entry(answer, parent, inode);
      if (committed !== undefined) return committed.then(() => finish);
      finish(reply);
      return undefined;
    },
    OPEN: (request, reply) => {
      const file = volume.inode(request.node);
      const [flags, openFlags] = [request.u32(BODY), request.u32(BODY + 4)];
      const handle = volume.open(file, flags, callerOf(request));
      if ((openFlags & OPEN_KILL_SUIDGID) !== 0) volume.clearSetId(file);
      // The kernel's pages are right: scratch changes only through them, and a new version is a new inode.
      reply.open(handle.id, FOPEN_KEEP_CACHE);
    },
    CREATE: (request, reply) => {
      const parent = volume.directory(request.node);
      const [flags, mode] = [request.u32(BODY), request.u32(BODY + 4)];
      const [inode, handle] = volume.create(
        parent,
        nameAt(request, BODY + 16),
        mode,
        flags,
        callerOf(request),
      );
      entry(reply, parent, inode);
      reply.open(handle.id, FOPEN_KEEP_CACHE);
    },
    READ: (request, reply) => {
      const file = regular(request);
      const size = Math.min(request.u32(BODY + 16), reply.bytes.length - OUT_HEADER_BYTES);
      reply.length += file.read(reply.bytes, OUT_HEADER_BYTES, size, request.u64(BODY + 8));
    },
    WRITE: (request, reply) => {
      const file = regular(request);
      const size = request.u32(BODY + 16);
      if (!request.has(40 + size)) throw EINVAL;
      const data = request.bytes.subarray(BODY + 40, BODY + 40 + size);
      if ((request.u32(BODY + 20) & WRITE_KILL_SUIDGID) !== 0) volume.clearSetId(file);
      reply.size(volume.write(file, handleOf(volume, request), data, request.u64(BODY + 8)));
    },
    STATFS: (request, reply) => reply.statfs(volume.statfs(volume.inode(request.node))),
    FLUSH: (request) => {
      const file = regular(request);
      return volume.flush(file, handleOf(volume, request), callerOf(request))?.then(() => done);
    },
    FSYNC: (request) =>
      volume.fsync(regular(request), handleOf(volume, request), callerOf(request)).then(() => done),
    RELEASE: (request) => volume.release(request.u64(BODY)),
    OPENDIR: (request, reply) => reply.open(volume.opendir(volume.directory(request.node)).id, 0),
    READDIR: (request, reply) => readdir(request, reply, false),
    READDIRPLUS: (request, reply) => readdir(request, reply, true),
    RELEASEDIR: (request) => volume.releasedir(request.u64(BODY)),
    FSYNCDIR: () => {},
    SETXATTR: (request) => {
      const [size, flags] = [request.u32(BODY), request.u32(BODY + 4)];
      const name = nameAt(request, BODY + 8);
      const at = BODY + 8 + name.length + 1;
      if (at + size > request.length) throw EINVAL;
      setxattr(volume.inode(request.node), name, request.bytes.subarray(at, at + size), flags);
    },
    GETXATTR: (request, reply) => {
      const value = getxattr(volume.inode(request.node), nameAt(request, BODY + 8));
      sized(reply, request.u32(BODY), value);
    },
    LISTXATTR: (request, reply) => {
      const names = listxattr(volume.inode(request.node));
      sized(
        reply,
        request.u32(BODY),
        Buffer.from(names.map((name) => `${name}\0`).join(''), 'latin1'),
      );
    },
    REMOVEXATTR: (request) => removexattr(volume.inode(request.node), nameAt(request, BODY)),
    IOCTL: (_request, reply) => reply.fail(ENOTTY),
    FALLOCATE: (request) => {
      const file = regular(request);
      const [offset, length, mode] = [
        request.u64(BODY + 8),
        request.u64(BODY + 16),
        request.u32(BODY + 24),
      ];
      if ((mode & ~FALLOC_FL_KEEP_SIZE) !== 0) throw EOPNOTSUPP;
      if (mode === 0 && offset + length > file.size) file.truncate(offset + length);
    },
  };
  for (const [name, handler] of Object.entries(handlers) as [OpcodeName, Handler][]) {
    const bytes = BODY_BYTES_MIN[name] ?? 0;
    handlers[name] = (request, reply) => {
      if (!request.has(bytes)) throw EINVAL;
      return handler(request, reply);
    };
  }
  return handlers;
}

/** Gives the kernel a reference along with the entry. */
function entry(reply: Reply, parent: Directory, inode: Inode): void {
  inode.lookups++;
  reply.entry(inode, parent.cacheable);
}

function callerOf(request: Request): Caller {
  return { uid: request.uid, gid: request.gid, pid: request.pid };
}

/** FLUSH, FSYNC and WRITE start with the handle. */
const handleOf = (volume: Volume, request: Request): OpenFile | undefined =>
  volume.handle(request.u64(BODY));

/** @throws FsError EIO for a message that ends inside the name */
function nameAt(request: Request, offset: number): string {
  const name = request.name(offset);
  if (name === undefined) throw EIO;
  return name;
}

/** getxattr(2): size 0 asks how long the value is. */
function sized(reply: Reply, size: number, value: Uint8Array): void {
  if (size === 0) reply.size(value.byteLength);
  else if (value.byteLength > size) throw ERANGE;
  else reply.data(value);
}

/** struct fuse_setattr_in: valid 0, fh 8, size 16, times 32-63, mode 68, uid 76, gid 80 (offsets in the body) */
function attrChange(request: Request, valid: number): AttrChange {
  const change: AttrChange = {};
  if ((valid & FATTR.SIZE) !== 0) change.size = request.u64(BODY + 16);
  if ((valid & FATTR.ATIME) !== 0)
    change.atime =
      (valid & FATTR.ATIME_NOW) === 0
        ? { sec: request.s64(BODY + 32), nsec: request.u32(BODY + 56) }
        : 'now';
  if ((valid & FATTR.MTIME) !== 0)
    change.mtime =
      (valid & FATTR.MTIME_NOW) === 0
        ? { sec: request.s64(BODY + 40), nsec: request.u32(BODY + 60) }
        : 'now';
  if ((valid & FATTR.MODE) !== 0) change.mode = request.u32(BODY + 68);
  if ((valid & FATTR.UID) !== 0) change.uid = request.u32(BODY + 76);
  if ((valid & FATTR.GID) !== 0) change.gid = request.u32(BODY + 80);
  // With HANDLE_KILLPRIV_V2 clearing at chown(2) is ours; chown(-1, -1) arrives with nothing to set at all.
  const isChown = (valid & (FATTR.UID | FATTR.GID)) !== 0 || (valid & ~FATTR.FH) === 0;
  if (isChown || (valid & FATTR.KILL_SUIDGID) !== 0) change.killSetId = true;
  return change;
}
