import { EEXIST, EINVAL, EISDIR, ENOENT, ENOTDIR, ENOTEMPTY, EXDEV } from './fs-error.js';
import { Directory, type Inode } from './inode.js';
import { assertFits, checkName, isWithin } from './names.js';
import { RegularFile } from './regular-file.js';

/** linux/fs.h; RENAME_WHITEOUT is for overlay file systems and refused. */
const RENAME_NOREPLACE = 1;
const RENAME_EXCHANGE = 2;

/** One renameat2(2) that is allowed: done, and perhaps undone, as a whole. */
export class Rename {
  readonly #from: Directory;
  readonly #name: string;
  readonly #to: Directory;
  readonly #newName: string;
  readonly #inode: Inode;
  /** What stood at the new name. */
  readonly #target: Inode | undefined;
  readonly isExchange: boolean;

  private constructor(
    from: Directory,
    name: string,
    to: Directory,
    newName: string,
    inode: Inode,
    target: Inode | undefined,
    isExchange: boolean,
  ) {
    this.#from = from;
    this.#name = name;
    this.#to = to;
    this.#newName = newName;
    this.#inode = inode;
    this.#target = target;
    this.isExchange = isExchange;
  }

  /** Checks everything before anything changes. Undefined = both names are one file: nothing to do. @throws FsError */
  static plan(
    from: Directory,
    name: string,
    to: Directory,
    newName: string,
    flags: number,
  ): Rename | undefined {
    checkName(name);
    checkName(newName);
    const noReplace = (flags & RENAME_NOREPLACE) !== 0;
    const exchange = (flags & RENAME_EXCHANGE) !== 0;
    if ((flags & ~(RENAME_NOREPLACE | RENAME_EXCHANGE)) !== 0 || (noReplace && exchange))
      throw EINVAL;
    if (isDots(name) || isDots(newName)) throw EINVAL;
    const inode = from.get(name);
    if (inode === undefined || to.nlink === 0) throw ENOENT; // nlink 0: removed, but still somebody's
    if (from.tree !== to.tree) throw EXDEV;
    const target = to.get(newName);
    if (target === inode && !noReplace) return undefined; // rename(2)
    if (inode instanceof Directory && isWithin(to, inode)) throw EINVAL;
    if (exchange) {
      if (target === undefined) throw ENOENT;
      if (target instanceof Directory && isWithin(from, target)) throw EINVAL;
    } else if (target !== undefined) {
      if (noReplace) throw EEXIST;
      assertReplaceable(target, inode);
    }
    from.assertMayRemove(name);
    to.assertMayAdd(newName, inode.isDirectory);
    assertFits(to, newName, inode);
    if (exchange && target !== undefined) {
      to.assertMayRemove(newName);
      from.assertMayAdd(name, target.isDirectory);
      assertFits(from, name, target);
    }
    return new Rename(from, name, to, newName, inode, target, exchange);
  }

  /** Until `letGo`, a replaced target is kept, although no name leads to it. */
  apply(): void {
    const target = this.#target;
    this.#from.remove(this.#name);
    if (target !== undefined) this.#to.remove(this.#newName);
    this.#to.add(this.#newName, this.#inode);
    this.#inode.touchCtime();
    if (target === undefined) return;
    target.touchCtime();
    if (this.isExchange) this.#from.add(this.#name, target);
    else {
      target.nlink = target.isDirectory ? 0 : target.nlink - 1;
      target.opens++;
    }
  }

  /** Puts everything back, unless somebody has changed the names meanwhile. */
  undo(): void {
    const target = this.#target;
    const left = this.isExchange ? target : undefined;
    if (this.#to.get(this.#newName) !== this.#inode || this.#from.get(this.#name) !== left) return;
    this.#to.remove(this.#newName);
    if (this.isExchange) this.#from.remove(this.#name);
    this.#from.add(this.#name, this.#inode);
    if (target === undefined) return;
    this.#to.add(this.#newName, target);
    if (!this.isExchange) target.nlink = target.isDirectory ? 2 : target.nlink + 1;
  }

  /** Nothing will be undone any more. Returns the replaced inode, which may be nobody's now. */
  letGo(): Inode | undefined {
    const target = this.#target;
    if (target === undefined || this.isExchange) return undefined;
    target.opens--;
    if (target instanceof RegularFile && target.opens === 0) target.released();
    return target;
  }
}

const isDots = (name: string): boolean => name === '.' || name === '..';

/** @throws FsError EISDIR, ENOTDIR, ENOTEMPTY */
function assertReplaceable(target: Inode, inode: Inode): void {
  if (target instanceof Directory) {
    if (!inode.isDirectory) throw EISDIR;
    if (!target.isEmpty) throw ENOTEMPTY;
  } else if (inode.isDirectory) throw ENOTDIR;
}
