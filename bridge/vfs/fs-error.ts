import { constants } from 'node:os';

type ErrnoName = keyof typeof constants.errno;

/**
 * A system call's expected failure. The instances below are made once and thrown many times: a missing file is daily
 * work, and capturing a stack for it would cost more than the look-up. Their stacks therefore say nothing.
 */
export class FsError extends Error {
  readonly errno: number;

  constructor(name: ErrnoName) {
    super(name);
    this.name = 'FsError';
    this.errno = constants.errno[name];
  }
}

export const EPERM = new FsError('EPERM');
export const ENOENT = new FsError('ENOENT');
export const EINTR = new FsError('EINTR');
export const EIO = new FsError('EIO');
export const EBADF = new FsError('EBADF');
export const EAGAIN = new FsError('EAGAIN');
export const EACCES = new FsError('EACCES');
export const EEXIST = new FsError('EEXIST');
export const EXDEV = new FsError('EXDEV');
export const ENOTDIR = new FsError('ENOTDIR');
export const EISDIR = new FsError('EISDIR');
export const EINVAL = new FsError('EINVAL');
export const EFBIG = new FsError('EFBIG');
export const ENOSPC = new FsError('ENOSPC');
export const EMLINK = new FsError('EMLINK');
export const ERANGE = new FsError('ERANGE');
export const ENAMETOOLONG = new FsError('ENAMETOOLONG');
export const ENOSYS = new FsError('ENOSYS');
export const ENOTEMPTY = new FsError('ENOTEMPTY');
export const ENODATA = new FsError('ENODATA');
export const EOPNOTSUPP = new FsError('EOPNOTSUPP');
export const ENXIO = new FsError('ENXIO');
export const ESTALE = new FsError('ESTALE');
export const E2BIG = new FsError('E2BIG');

/** The errno of a failed call on a backing file: the host's own, so a full disk is ENOSPC inside too. */
export function hostErrno(error: unknown): number {
  if (error instanceof FsError) return error.errno;
  if (error instanceof Error && 'errno' in error && typeof error.errno === 'number')
    return Math.abs(error.errno);
  return EIO.errno;
}
