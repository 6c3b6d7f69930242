import { EIO, FsError, hostErrno } from '#bridge/vfs/fs-error.js';
import { BridgeError, errnoOf } from '#bridge/wire/errors.js';
import type { DriverLog } from './driver.js';

/** The last hop: the positive errno that the caller of operation `op` gets for whatever was thrown. */
export function errnoFor(error: unknown, op: string | undefined, log: DriverLog): number {
  if (error instanceof FsError) return error.errno;
  if (error instanceof BridgeError) return errnoOf(error);
  const errno = hostErrno(error);
  // A full disk is the operator's business, anything else unforeseen is ours: both must be on record.
  log.warn({ op, errno, err: error }, 'request failed');
  return errno === 0 ? EIO.errno : errno;
}
