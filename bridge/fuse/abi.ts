/**
 * The kernel's side of FUSE as linux/fuse.h defines it (protocol 7.45): numbers and offsets, nothing else. All integers
 * are in the machine's byte order, which is little-endian on every machine Node runs this on. Offsets count from the
 * start of the message, header included.
 */

/** `enum fuse_opcode`, as far as we know it; an opcode without a handler is answered ENOSYS. */
export const OPCODES = {
  LOOKUP: 1,
  FORGET: 2,
  GETATTR: 3,
  SETATTR: 4,
  READLINK: 5,
  SYMLINK: 6,
  MKNOD: 8,
  MKDIR: 9,
  UNLINK: 10,
  RMDIR: 11,
  RENAME: 12,
  LINK: 13,
  OPEN: 14,
  READ: 15,
  WRITE: 16,
  STATFS: 17,
  RELEASE: 18,
  FSYNC: 20,
  SETXATTR: 21,
  GETXATTR: 22,
  LISTXATTR: 23,
  REMOVEXATTR: 24,
  FLUSH: 25,
  INIT: 26,
  OPENDIR: 27,
  READDIR: 28,
  RELEASEDIR: 29,
  FSYNCDIR: 30,
  GETLK: 31,
  SETLK: 32,
  SETLKW: 33,
  ACCESS: 34,
  CREATE: 35,
  INTERRUPT: 36,
  BMAP: 37,
  DESTROY: 38,
  IOCTL: 39,
  POLL: 40,
  NOTIFY_REPLY: 41,
  BATCH_FORGET: 42,
  FALLOCATE: 43,
  READDIRPLUS: 44,
  RENAME2: 45,
  LSEEK: 46,
  COPY_FILE_RANGE: 47,
  SETUPMAPPING: 48,
  REMOVEMAPPING: 49,
  SYNCFS: 50,
  TMPFILE: 51,
  STATX: 52,
} as const;
export type OpcodeName = keyof typeof OPCODES;

export const OPCODE_NAMES: readonly (OpcodeName | undefined)[] = (() => {
  const names: (OpcodeName | undefined)[] = [];
  for (const [name, code] of Object.entries(OPCODES)) names[code] = name as OpcodeName;
  return names;
})();

/** struct fuse_in_header { u32 len, opcode; u64 unique, nodeid; u32 uid, gid, pid; u16 total_extlen, padding } */
export const IN = {
  LEN: 0,
  OPCODE: 4,
  UNIQUE: 8,
  NODEID: 16,
  UID: 24,
  GID: 28,
  PID: 32,
  BODY: 40,
} as const;

/** struct fuse_out_header { u32 len; s32 error; u64 unique } */
export const OUT_HEADER_BYTES = 16;

/** struct fuse_attr, 88 bytes; fuse_entry_out is 128 bytes with the attr at 40; fuse_attr_out 104 with it at 16. */
export const ENTRY_OUT_BYTES = 128;
export const ATTR_OUT_BYTES = 104;
export const OPEN_OUT_BYTES = 16;

export const KERNEL_MAJOR = 7;
/** The oldest minor we speak: 7.31 is Linux 5.4, the first with every reply layout used here. */
export const KERNEL_MINOR_MIN = 31;
/** What we were written against; the kernel uses the lower of both. */
export const KERNEL_MINOR = 38;

/** INIT flags by bit number: the kernel sends bits 32-63 in flags2. */
export const INIT_BITS = {
  ATOMIC_O_TRUNC: 3,
  BIG_WRITES: 5,
  DO_READDIRPLUS: 13,
  READDIRPLUS_AUTO: 14,
  PARALLEL_DIROPS: 18,
  ABORT_ERROR: 21,
  MAX_PAGES: 22,
  HANDLE_KILLPRIV_V2: 28,
  INIT_EXT: 30,
  DIRECT_IO_ALLOW_MMAP: 36,
  NO_EXPORT_SUPPORT: 38,
  HAS_RESEND: 39,
} as const;

/** SETATTR `valid` */
export const FATTR = {
  MODE: 1 << 0,
  UID: 1 << 1,
  GID: 1 << 2,
  SIZE: 1 << 3,
  ATIME: 1 << 4,
  MTIME: 1 << 5,
  FH: 1 << 6,
  ATIME_NOW: 1 << 7,
  MTIME_NOW: 1 << 8,
  KILL_SUIDGID: 1 << 11,
} as const;

export const WRITE_CACHE = 1 << 0;
export const WRITE_KILL_SUIDGID = 1 << 2;
export const OPEN_KILL_SUIDGID = 1 << 0;

export const FOPEN_KEEP_CACHE = 1 << 1;

/** enum fuse_notify_code */
export const NOTIFY_INVAL_INODE = 2;
export const NOTIFY_INVAL_ENTRY = 3;

/**
 * Bytes that a request's body has at least, before any name or data: `struct fuse_*_in`. A shorter message is refused,
 * because what it leaves out would be read from the message before it.
 */
export const BODY_BYTES_MIN: { readonly [O in OpcodeName]?: number } = {
  GETATTR: 16,
  SETATTR: 88,
  MKNOD: 16,
  MKDIR: 8,
  RENAME: 8,
  RENAME2: 16,
  LINK: 8,
  OPEN: 8,
  READ: 40,
  WRITE: 40,
  RELEASE: 24,
  FSYNC: 16,
  SETXATTR: 8,
  GETXATTR: 8,
  LISTXATTR: 8,
  FLUSH: 24,
  OPENDIR: 8,
  READDIR: 40,
  READDIRPLUS: 40,
  RELEASEDIR: 24,
  FSYNCDIR: 16,
  CREATE: 16,
  IOCTL: 32,
  FALLOCATE: 32,
};
