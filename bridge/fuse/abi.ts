/**
 * The kernel's side of FUSE as linux/fuse.h defines it (protocol 7.45): numbers and offsets, nothing else. All integers
 * are in the machine's byte order, which is little-endian on every machine Node runs this on. Offsets count from the
 * start of the message, header included.
 */

/** One operation as the kernel sends it. */
interface Operation {
  /** `enum fuse_opcode` */
  readonly code: number;
  /** Bytes of `struct fuse_*_in` before any name or data. A shorter message is refused: the rest would be an older one's. */
  readonly body: number;
  /** NUL-terminated names right after the body. */
  readonly names: 0 | 1 | 2;
  /**
   * `reply`: a handler answers. `session`: the session itself does, or nobody must. `ENOSYS`: refused, which the kernel takes as
   * "do it yourself, and do not ask again".
   */
  readonly answer: 'reply' | 'session' | 'ENOSYS';
}

/** Every operation of protocol 7.45. A row that says `reply` without a handler does not compile (handlers.ts). */
// biome-ignore format: a table
export const OPERATIONS = {
  LOOKUP:          { code:  1, body:  0, names: 1, answer: 'reply' },
  FORGET:          { code:  2, body:  8, names: 0, answer: 'session' },
  GETATTR:         { code:  3, body: 16, names: 0, answer: 'reply' },
  SETATTR:         { code:  4, body: 88, names: 0, answer: 'reply' },
  READLINK:        { code:  5, body:  0, names: 0, answer: 'reply' },
  SYMLINK:         { code:  6, body:  0, names: 2, answer: 'reply' },
  MKNOD:           { code:  8, body: 16, names: 1, answer: 'reply' },
  MKDIR:           { code:  9, body:  8, names: 1, answer: 'reply' },
  UNLINK:          { code: 10, body:  0, names: 1, answer: 'reply' },
  RMDIR:           { code: 11, body:  0, names: 1, answer: 'reply' },
  RENAME:          { code: 12, body:  8, names: 2, answer: 'reply' },
  LINK:            { code: 13, body:  8, names: 1, answer: 'reply' },
  OPEN:            { code: 14, body:  8, names: 0, answer: 'reply' },
  READ:            { code: 15, body: 40, names: 0, answer: 'reply' },
  WRITE:           { code: 16, body: 40, names: 0, answer: 'reply' },
  STATFS:          { code: 17, body:  0, names: 0, answer: 'reply' },
  RELEASE:         { code: 18, body: 24, names: 0, answer: 'reply' },
  FSYNC:           { code: 20, body: 16, names: 0, answer: 'reply' },
  SETXATTR:        { code: 21, body:  8, names: 1, answer: 'reply' },
  GETXATTR:        { code: 22, body:  8, names: 1, answer: 'reply' },
  LISTXATTR:       { code: 23, body:  8, names: 0, answer: 'reply' },
  REMOVEXATTR:     { code: 24, body:  0, names: 1, answer: 'reply' },
  FLUSH:           { code: 25, body: 24, names: 0, answer: 'reply' },
  INIT:            { code: 26, body:  8, names: 0, answer: 'session' },
  OPENDIR:         { code: 27, body:  8, names: 0, answer: 'reply' },
  READDIR:         { code: 28, body: 40, names: 0, answer: 'reply' },
  RELEASEDIR:      { code: 29, body: 24, names: 0, answer: 'reply' },
  FSYNCDIR:        { code: 30, body: 16, names: 0, answer: 'reply' },
  GETLK:           { code: 31, body: 48, names: 0, answer: 'ENOSYS' }, // locks are the kernel's: not negotiated
  SETLK:           { code: 32, body: 48, names: 0, answer: 'ENOSYS' },
  SETLKW:          { code: 33, body: 48, names: 0, answer: 'ENOSYS' },
  ACCESS:          { code: 34, body:  8, names: 0, answer: 'ENOSYS' }, // default_permissions
  CREATE:          { code: 35, body: 16, names: 1, answer: 'reply' },
  INTERRUPT:       { code: 36, body:  8, names: 0, answer: 'session' },
  BMAP:            { code: 37, body: 16, names: 0, answer: 'ENOSYS' }, // block devices
  DESTROY:         { code: 38, body:  0, names: 0, answer: 'session' },
  IOCTL:           { code: 39, body: 32, names: 0, answer: 'reply' },
  POLL:            { code: 40, body: 24, names: 0, answer: 'reply' },
  NOTIFY_REPLY:    { code: 41, body: 40, names: 0, answer: 'session' }, // to NOTIFY_RETRIEVE, which we never send
  BATCH_FORGET:    { code: 42, body:  8, names: 0, answer: 'session' },
  FALLOCATE:       { code: 43, body: 32, names: 0, answer: 'reply' },
  READDIRPLUS:     { code: 44, body: 40, names: 0, answer: 'reply' },
  RENAME2:         { code: 45, body: 16, names: 2, answer: 'reply' },
  LSEEK:           { code: 46, body: 24, names: 0, answer: 'reply' },
  COPY_FILE_RANGE: { code: 47, body: 56, names: 0, answer: 'reply' },
  SETUPMAPPING:    { code: 48, body: 40, names: 0, answer: 'ENOSYS' }, // virtio-fs only
  REMOVEMAPPING:   { code: 49, body:  4, names: 0, answer: 'ENOSYS' },
  SYNCFS:          { code: 50, body:  8, names: 0, answer: 'ENOSYS' }, // the kernel sends it to virtio-fs only
  TMPFILE:         { code: 51, body: 16, names: 1, answer: 'reply' },
  STATX:           { code: 52, body: 24, names: 0, answer: 'ENOSYS' }, // GETATTR says all we know
} as const satisfies Record<string, Operation>;
export type OperationName = keyof typeof OPERATIONS;

/** The operations that a handler answers. */
export type ServedName = {
  [O in OperationName]: (typeof OPERATIONS)[O]['answer'] extends 'reply' ? O : never;
}[OperationName];

export const OPERATION_NAMES = Object.keys(OPERATIONS) as readonly OperationName[];

/** By opcode. */
const NAME_OF: readonly (OperationName | undefined)[] = (() => {
  const names: (OperationName | undefined)[] = [];
  for (const name of OPERATION_NAMES) names[OPERATIONS[name].code] = name;
  return names;
})();

/** Undefined for an opcode that nobody has heard of. */
export const nameOf = (opcode: number): OperationName | undefined => NAME_OF[opcode];

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

export const WRITE_KILL_SUIDGID = 1 << 2;
export const OPEN_KILL_SUIDGID = 1 << 0;

/** FOPEN_* of an open's answer. */
export const FOPEN_DIRECT_IO = 1 << 0;
export const FOPEN_KEEP_CACHE = 1 << 1;
export const FOPEN_NONSEEKABLE = 1 << 2;
export const FOPEN_STREAM = 1 << 4;
/** No FLUSH at close(2); Linux 5.16 and later, older ones send it all the same. */
export const FOPEN_NOFLUSH = 1 << 5;

/** `fuse_poll_in.flags`: say so, once, when the answer changes. */
export const POLL_SCHEDULE_NOTIFY = 1 << 0;

/** enum fuse_notify_code */
export const NOTIFY_POLL = 1;
export const NOTIFY_INVAL_ENTRY = 3;
/** Linux 6.9 */
export const NOTIFY_RESEND = 7;
