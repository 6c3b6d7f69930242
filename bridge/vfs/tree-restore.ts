import type { ContentRecord } from './content.js';
import { Directory, type Inode, SpecialFile, Symlink, timeOf } from './inode.js';
import { JournalDamaged, type JournalRecord } from './journal-file.js';
import { RegularFile } from './regular-file.js';
import type { Tree } from './tree.js';
import type { ExecutionDirectory } from './work-directory.js';

/** References the kernel may hold to what an earlier process served; see Volume.forget. */
export const UNKNOWN_LOOKUPS = Number.POSITIVE_INFINITY;

type Added = ContentRecord & { readonly version?: number; readonly isTemporary?: true };

/** Which records about inodes and names count: for each the last. */
interface Last {
  readonly inodes: Map<number, JournalRecord>;
  readonly xattrs: Map<number, readonly [string, string][]>;
  /** By directory, then name. */
  readonly entries: Map<number, Map<string, JournalRecord>>;
}

function lastOf(records: readonly JournalRecord[]): Last {
  const last: Last = { inodes: new Map(), xattrs: new Map(), entries: new Map() };
  const gone: number[] = [];
  for (const record of records) {
    const [kind, id, what] = record;
    const number = id as number;
    if (kind === 'I') last.inodes.set(number, record);
    else if (kind === 'Z') gone.push(number);
    else if (kind === 'X') last.xattrs.set(number, what as [string, string][]);
    else if (kind === 'E') {
      const names = last.entries.get(number) ?? new Map<string, JournalRecord>();
      last.entries.set(number, names.set(what as string, record));
    }
  }
  // Numbers are not used twice, so whatever else is said of it was said before.
  for (const id of gone) last.inodes.delete(id);
  return last;
}

/**
 * Makes the inodes and names of `tree` again, with their numbers, below its root, which is there already. By number.
 * @throws JournalDamaged, and host errors when a backing file is missing
 */
export function restoreInodes(
  tree: Tree,
  root: ExecutionDirectory,
  records: readonly JournalRecord[],
): ReadonlyMap<number, Inode> {
  const last = lastOf(records);
  const inodes = new Map<number, Inode>([
    [root.id, root],
    [root.work.id, root.work],
  ]);
  const contents: (() => void)[] = [];
  for (const [id, record] of last.inodes) {
    const inode = inodes.get(id) ?? restoreInode(tree, root, record);
    inodes.set(id, inode);
    restoreAttributes(inode, record, last.xattrs.get(id));
    if (inode instanceof RegularFile) contents.push(() => restoreContent(inode, record));
  }
  if (!last.inodes.has(root.id)) throw new JournalDamaged('its journal has no root');
  for (const inode of inodes.values()) inode.nlink = inode.isDirectory ? 2 : 0;
  const named = restoreEntries(root, inodes, last);
  for (const inode of inodes.values()) {
    inode.lookups = UNKNOWN_LOOKUPS;
    // Removed; somebody is still in it.
    if (inode.isDirectory && inode !== root && !named.has(inode)) inode.nlink = 0;
  }
  for (const restore of contents) restore();
  return inodes;
}

function restoreInode(tree: Tree, root: Directory, record: JournalRecord): Inode {
  const [, id, type, mode, uid, gid, rdev] = record;
  const owner = { uid: uid as number, gid: gid as number };
  const permissions = (mode as number) & 0o7777;
  tree.inodes.next = id as number;
  switch (type) {
    case 'directory':
      return new Directory(tree, permissions, owner, root);
    case 'file':
      return new RegularFile(tree, permissions, owner, true);
    case 'symlink': {
      const target = Buffer.from(record[13] as string, 'latin1');
      tree.chargeExempt(target.byteLength);
      return new Symlink(tree, owner, Uint8Array.from(target));
    }
    case 'special':
      return new SpecialFile(tree, mode as number, owner, rdev as number);
    default:
      throw new JournalDamaged(`it has an inode of type ${String(type)}`);
  }
}

function restoreAttributes(
  inode: Inode,
  record: JournalRecord,
  xattrs: readonly [string, string][] | undefined,
): void {
  const [mode, uid, gid] = [record[3], record[4], record[5]] as [number, number, number];
  Object.assign(inode, { mode, uid, gid });
  const times = record.slice(7, 13) as number[];
  for (const [i, time] of [inode.atime, inode.mtime, inode.ctime].entries()) {
    time.sec = times[2 * i] ?? 0;
    time.nsec = times[2 * i + 1] ?? 0;
  }
  if (xattrs === undefined || xattrs.length === 0) return;
  inode.xattrs = new Map();
  for (const [name, base64] of xattrs) {
    const value = Buffer.from(base64, 'base64');
    inode.tree.chargeExempt(name.length + value.byteLength);
    inode.xattrs.set(name, Uint8Array.from(value));
  }
}

function restoreContent(file: RegularFile, record: JournalRecord): void {
  const added = record[13] as Added;
  file.contentVersion = added.version ?? 0;
  file.isTemporary = added.isTemporary === true && file.nlink === 0;
  // One without a name may have been removed in the very moment that nobody could note it.
  file.restoreContent(file.nlink === 0 ? { ...added, backed: false } : added);
}

/** Returns what has a name. */
function restoreEntries(
  root: ExecutionDirectory,
  inodes: Map<number, Inode>,
  last: Last,
): Set<Inode> {
  const named = new Set<Inode>();
  for (const [directoryId, names] of last.entries) {
    const directory = inodes.get(directoryId);
    if (directory === undefined) continue; // removed, and so was all that it held
    if (!(directory instanceof Directory)) throw new JournalDamaged('it has names in a file');
    const entries = [...names.values()].sort((a, b) => (a[4] as number) - (b[4] as number));
    for (const [, , name, inodeId, cookie, ms] of entries) {
      if (timeOf(ms as number).sec >= directory.mtime.sec)
        Object.assign(directory.mtime, timeOf(ms as number));
      if (inodeId === 0) continue;
      const inode = inodes.get(inodeId as number);
      if (inode === undefined) throw new JournalDamaged(`the file ${String(name)} is missing`);
      named.add(inode);
      if (inode.isDirectory) directory.nlink++;
      else inode.nlink++;
      // work/ came with the root
      if (inode !== root.work)
        directory.restore({ name: name as string, inode, cookie: cookie as number });
    }
  }
  return named;
}
