import { EFBIG, EINVAL, ENAMETOOLONG } from './fs-error.js';
import type { Directory, Inode } from './inode.js';
import { DOCUMENT_BYTES_MAX, RegularFile } from './regular-file.js';

/** NAME_MAX of linux/limits.h; the kernel lets longer names through to FUSE. */
export const NAME_BYTES_MAX = 255;

/** @throws FsError ENAMETOOLONG, EINVAL */
export function checkName(name: string): void {
  if (name.length > NAME_BYTES_MAX) throw ENAMETOOLONG;
  if (name === '' || name.includes('/') || name.includes('\0')) throw EINVAL;
}

/** A legacy name can hold a document only, however large the file was under another name. @throws FsError EFBIG */
export function assertFits(parent: Directory, name: string, inode: Inode): void {
  if (!(inode instanceof RegularFile) || inode.size <= DOCUMENT_BYTES_MAX) return;
  if (parent.hasDocument(name)) throw EFBIG;
}

/** Whether `directory` is `ancestor` or below it. */
export function isWithin(directory: Directory, ancestor: Directory): boolean {
  for (let at = directory; ; at = at.parent) {
    if (at === ancestor) return true;
    if (at.parent === at) return false;
  }
}
