import { Directory, type Inode, msOf, Symlink } from './inode.js';
import { RegularFile } from './regular-file.js';

/**
 * What a journal says of the inodes and names of one tree. By kind:
 * I id, type, mode, uid, gid, rdev, six numbers of times, what the type adds · Z id: gone · X id, extended attributes ·
 * E directory, name, id (0 = gone), cookie, milliseconds · R a request and its answer (journal.ts) · q: room was refused (tree.ts)
 */

export type InodeType = 'directory' | 'file' | 'symlink' | 'special';

const typeOf = (inode: Inode): InodeType => {
  if (inode.isDirectory) return 'directory';
  if (inode instanceof RegularFile) return 'file';
  return inode instanceof Symlink ? 'symlink' : 'special';
};

/** How many names lead to an inode is counted when it is read back. */
const addedBy = (inode: Inode): unknown => {
  if (inode instanceof RegularFile) {
    const { contentVersion: version, isTemporary } = inode;
    return {
      ...inode.contentRecord,
      ...(version > 0 && { version }),
      ...(isTemporary && { isTemporary }),
    };
  }
  if (inode instanceof Directory) return inode.parent.id;
  return inode instanceof Symlink ? Buffer.from(inode.target).toString('latin1') : null;
};

export const inodeRecord = (inode: Inode): string => {
  const { id, mode, uid, gid, rdev, atime: a, mtime: m, ctime: c } = inode;
  const times = `${a.sec},${a.nsec},${m.sec},${m.nsec},${c.sec},${c.nsec}`;
  return `["I",${id},"${typeOf(inode)}",${mode},${uid},${gid},${rdev},${times},${JSON.stringify(addedBy(inode))}]`;
};

export const freedRecord = (id: number): string => `["Z",${id}]`;

export const xattrRecord = (inode: Inode): string => {
  const xattrs = [...(inode.xattrs ?? [])];
  const texts = xattrs.map(([name, value]) => [name, Buffer.from(value).toString('base64')]);
  return JSON.stringify(['X', inode.id, texts]);
};

export const entryRecord = (directory: Directory, name: string): string => {
  const entry = directory.ownEntry(name);
  const ms = msOf(directory.mtime);
  return `["E",${directory.id},${JSON.stringify(name)},${entry?.inode.id ?? 0},${entry?.cookie ?? 0},${ms}]`;
};
