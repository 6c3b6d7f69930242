import { E2BIG, EEXIST, ENODATA, ENOSPC, EOPNOTSUPP, ERANGE } from './fs-error.js';
import type { Inode } from './inode.js';

/** XATTR_NAME_MAX and XATTR_SIZE_MAX of linux/limits.h. */
const NAME_BYTES_MAX = 255;
const VALUE_BYTES_MAX = 65_536;
/** All attributes of one inode: more than any tool writes, little enough to keep in memory. */
const INODE_BYTES_MAX = 256 * 1024;

/** linux/xattr.h */
const XATTR_CREATE = 1;
const XATTR_REPLACE = 2;

/** @throws FsError ENODATA */
export function getxattr(inode: Inode, name: string): Uint8Array {
  const value = inode.xattrs?.get(name);
  if (value === undefined) throw ENODATA;
  return value;
}

/** Only user.* exists here; the values count against the tree's quota. @throws FsError as setxattr(2) */
export function setxattr(inode: Inode, name: string, value: Uint8Array, flags: number): void {
  if (!name.startsWith('user.')) throw EOPNOTSUPP;
  if (name.length > NAME_BYTES_MAX) throw ERANGE;
  if (value.byteLength > VALUE_BYTES_MAX) throw E2BIG;
  const xattrs = inode.xattrs ?? new Map<string, Uint8Array>();
  const before = xattrs.get(name);
  if ((flags & XATTR_CREATE) !== 0 && before !== undefined) throw EEXIST;
  if ((flags & XATTR_REPLACE) !== 0 && before === undefined) throw ENODATA;
  let bytes = name.length + value.byteLength;
  for (const [key, old] of xattrs) if (key !== name) bytes += key.length + old.byteLength;
  if (bytes > INODE_BYTES_MAX) throw ENOSPC;
  inode.tree.charge(value.byteLength - (before?.byteLength ?? -name.length));
  xattrs.set(name, Uint8Array.from(value));
  inode.xattrs = xattrs;
  inode.touchCtime();
  inode.tree.journal?.xattrs(inode);
}

export function listxattr(inode: Inode): string[] {
  return [...(inode.xattrs?.keys() ?? [])];
}

/** @throws FsError ENODATA */
export function removexattr(inode: Inode, name: string): void {
  const value = getxattr(inode, name);
  inode.xattrs?.delete(name);
  inode.tree.charge(-name.length - value.byteLength);
  inode.touchCtime();
  inode.tree.journal?.xattrs(inode);
}
