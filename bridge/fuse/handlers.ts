import { constants } from 'node:os';
import { fallocate } from '#bridge/vfs/file-ranges.js';
import { EINVAL, EIO, ENOENT, ERANGE } from '#bridge/vfs/fs-error.js';
import { GateFile } from '#bridge/vfs/gate-file.js';
import type { Caller, Directory, Inode } from '#bridge/vfs/inode.js';
import { type OpenFile, RegularFile } from '#bridge/vfs/regular-file.js';
import { type OpenStream, readStream, StreamFile } from '#bridge/vfs/stream-file.js';
import { type AttrChange, isReadOnlyOpen, type Volume } from '#bridge/vfs/volume.js';
import { getxattr, listxattr, removexattr, setxattr } from '#bridge/vfs/xattrs.js';
import {
  FATTR,
  FOPEN_DIRECT_IO,
  FOPEN_KEEP_CACHE,
  FOPEN_NOFLUSH,
  FOPEN_NONSEEKABLE,
  FOPEN_STREAM,
  IN,
  OPEN_KILL_SUIDGID,
  OPERATIONS,
  OUT_HEADER_BYTES,
  POLL_SCHEDULE_NOTIFY,
  type ServedName,
  WRITE_KILL_SUIDGID,
} from './abi.js';
import type { Reply } from './reply.js';
import type { Request } from './request.js';

/** Fills the reply that the waiting request gets. */
export type Finish = (reply: Reply) => void;

/** An answer that a signal may cut short: the caller then gets EINTR, and nothing has happened. */
export interface Wait {
  readonly answer: Promise<Finish>;
  /** Aborted by the session when an INTERRUPT for the request comes. */
  readonly interrupt: AbortController;
}

/**
 * Answers one request by filling `reply`, or fails by throwing. A promise or a Wait defers the answer: the request's buffer
 * then holds other requests, so everything was read from it before. A promise goes on whatever signal comes, a Wait does not.
 */
export type Handler = (request: Request, reply: Reply) => Promise<Finish> | Wait | void;

/** One for every row of the table that wants a reply. */
export type Handlers = { readonly [O in ServedName]: Handler };

/** Body offsets, for `request.u32(BODY + n)`. */
const BODY = IN.BODY;

const { ENOTTY } = constants.errno;

/** open(2) as the kernel passes it, asm-generic/fcntl.h. */
const O_NONBLOCK = 0o4000;

/** poll(2) bits of asm-generic/poll.h: always readable and writable, as the kernel answers for a file without poll. */
const POLLIN = 0x001;
const POLLRDNORM = 0x040;
const ALWAYS_READY = POLLIN | POLLRDNORM | 0x004 | 0x100;

const done: Finish = () => {};

/** Every operation we serve, over one volume. */
export function handlersFor(volume: Volume): Handlers {
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

  /** Streams whose pollers are told by NOTIFY_POLL at the next arrival. */
  const scheduled = new WeakSet<OpenStream>();

  const handlers: Handlers = {
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
      if (file instanceof StreamFile) {
        const { id } = volume.openStream(file, flags, callerOf(request));
        reply.open(id, FOPEN_DIRECT_IO | FOPEN_NONSEEKABLE | FOPEN_STREAM);
        return undefined;
      }
      if (file instanceof GateFile && !file.isOpen) {
        const caller = callerOf(request);
        const interrupt = new AbortController();
        const finish: Finish = (answer) =>
          answer.open(volume.open(file, flags, caller).id, FOPEN_KEEP_CACHE);
        return { answer: file.passed(caller, interrupt.signal).then(() => finish), interrupt };
      }
      const handle = volume.open(file, flags, callerOf(request));
      if ((openFlags & OPEN_KILL_SUIDGID) !== 0) volume.clearSetId(file);
      // The kernel's pages are right: scratch changes only through them, and a new version is a new inode.
      // Nothing that such a handle does can need a commit: no FLUSH, one round trip less a close.
      const isPlainRead = isReadOnlyOpen(flags) && handle.draft === undefined;
      reply.open(handle.id, isPlainRead ? FOPEN_KEEP_CACHE | FOPEN_NOFLUSH : FOPEN_KEEP_CACHE);
      return undefined;
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
    TMPFILE: (request, reply) => {
      const parent = volume.directory(request.node);
      const [flags, mode] = [request.u32(BODY), request.u32(BODY + 4)];
      const [inode, handle] = volume.tmpfile(parent, mode, flags, callerOf(request));
      entry(reply, parent, inode);
      reply.open(handle.id, FOPEN_KEEP_CACHE);
    },
    READ: (request, reply) => {
      if (volume.inode(request.node) instanceof StreamFile) return readFromStream(request, reply);
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
    POLL: (request, reply) => {
      if (!(volume.inode(request.node) instanceof StreamFile)) {
        reply.size(ALWAYS_READY);
        return;
      }
      const opened = volume.stream(request.u64(BODY));
      const isReadable = opened.stream.isReadable;
      const wantsNews = (request.u32(BODY + 16) & POLL_SCHEDULE_NOTIFY) !== 0;
      // Also while there is something to read: an edge-triggered epoll asks once and then waits for the next arrival.
      if (wantsNews && !scheduled.has(opened)) {
        const pollHandle = request.u64(BODY + 8); // one for each open file description
        scheduled.add(opened);
        opened.stream.whenMore(() => {
          scheduled.delete(opened);
          void volume.background(async () => await volume.kernel.pollChanged(pollHandle));
        });
      }
      reply.size(isReadable ? POLLIN | POLLRDNORM : 0);
    },
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
      const target = { file: regular(request), handle: handleOf(volume, request) };
      const [offset, length] = [request.u64(BODY + 8), request.u64(BODY + 16)];
      return fallocate(target, request.u32(BODY + 24), offset, length)?.then(() => done);
    },
    LSEEK: (request, reply) =>
      reply.offset(regular(request).seek(request.u64(BODY + 8), request.u32(BODY + 16))),
    COPY_FILE_RANGE: (request, reply) => {
      const target = volume.inode(request.u64(BODY + 16));
      if (!(target instanceof RegularFile)) throw EINVAL;
      const to = { file: target, handle: volume.handle(request.u64(BODY + 24)) };
      const [offset, offsetOut] = [request.u64(BODY + 8), request.u64(BODY + 32)];
      const length = request.u64(BODY + 40);
      reply.size(volume.copyRange(regular(request), offset, to, offsetOut, length));
    },
  };

  const readFromStream = (request: Request, reply: Reply): Wait | void => {
    const opened = volume.stream(request.u64(BODY));
    const size = Math.min(request.u32(BODY + 16), reply.bytes.length - OUT_HEADER_BYTES);
    const isBlocking = (request.u32(BODY + 32) & O_NONBLOCK) === 0;
    const interrupt = new AbortController();
    const data = readStream(opened, size, isBlocking, interrupt.signal);
    if (data instanceof Promise)
      return { answer: data.then((bytes) => (answer) => answer.data(bytes)), interrupt };
    reply.data(data);
  };

  const checked = Object.entries(handlers).map(([name, handler]) => [
    name,
    afterCheck(name as ServedName, handler),
  ]);
  return Object.fromEntries(checked) as Handlers;
}

/** Refuses a message that ends inside its body or its names, before the handler would read what an older one left there. */
function afterCheck(name: ServedName, handler: Handler): Handler {
  const { body, names } = OPERATIONS[name];
  return (request, reply) => {
    if (!request.has(body)) throw EINVAL;
    for (let i = 0, at = BODY + body; i < names; i++) {
      const end = request.endOfName(at);
      if (end === undefined) throw EIO;
      at = end + 1;
    }
    return handler(request, reply);
  };
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

/** `afterCheck` has seen that it ends. */
const nameAt = (request: Request, offset: number): string => request.name(offset) ?? '';

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
