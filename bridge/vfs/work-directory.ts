import { EACCES } from './fs-error.js';
import { type Caller, Directory, type Entry, type Inode } from './inode.js';
import { type Document, RegularFile } from './regular-file.js';
import type { Tree } from './tree.js';

/** The legacy names of legacy-contract.md. */
export const DOCUMENT_NAMES = [
  'input.json',
  'event.json',
  'variables.json',
  'output.json',
  'condition.json',
] as const;
export type DocumentName = (typeof DOCUMENT_NAMES)[number];

export const isDocumentName = (name: string): name is DocumentName =>
  (DOCUMENT_NAMES as readonly string[]).includes(name);

/** In a listing the five come after everything else. */
const ALIAS_COOKIES_FROM = 2 ** 40;

/** `work/`: a scratch directory in which five names have a meaning, whichever file stands there. */
export class WorkDirectory extends Directory {
  #documents: Partial<Record<string, Document>> = {};

  constructor(tree: Tree, owner: Pick<Caller, 'uid' | 'gid'>, parent: Directory) {
    super(tree, 0o755, owner, parent);
  }

  override hasDocument(name: string): boolean {
    return this.#documents[name] !== undefined;
  }

  /** Who gives the names their meaning; set once, before scripts see the directory. */
  set documents(documents: Partial<Record<string, Document>>) {
    this.#documents = documents;
    for (const { name, inode } of this.entries()) this.#attach(name, inode);
  }

  override add(name: string, inode: Inode): void {
    super.add(name, inode);
    this.#attach(name, inode);
  }

  override remove(name: string): Inode {
    const inode = super.remove(name);
    if (
      inode instanceof RegularFile &&
      inode.document !== undefined &&
      inode.document === this.#documents[name]
    ) {
      inode.document = undefined;
      this.tree.journal?.note(['F', inode.id, null]);
    }
    return inode;
  }

  /** Replaces the file at `name` by a newer version of the same document: handles on the old one stay drafts of it. */
  supersede(name: string, file: RegularFile): void {
    if (this.get(name) !== undefined) super.remove(name);
    this.add(name, file);
  }

  #attach(name: string, inode: Inode): void {
    const document = this.#documents[name];
    if (document === undefined || !(inode instanceof RegularFile) || inode.document === document)
      return;
    inode.document = document;
    document.attached(inode);
  }
}

/**
 * `/cronium` itself: a fixed set of entries, plus the five names as they stand in `work/`. The kernel may not remember
 * what the five lead to here, because it learns of changes under `work/` only.
 */
export class ExecutionDirectory extends Directory {
  override readonly cacheable = false;
  readonly work: WorkDirectory;
  #sealed = false;

  constructor(tree: Tree, owner: Pick<Caller, 'uid' | 'gid'>, parent: Directory) {
    super(tree, 0o755, owner, parent);
    this.work = new WorkDirectory(tree, owner, this);
    super.add('work', this.work);
  }

  /** Another version of a file that the bridge itself keeps here. */
  supersede(name: string, file: RegularFile): void {
    if (this.ownEntry(name) !== undefined) super.remove(name);
    super.add(name, file);
  }

  /** From now on only the five names may come and go. */
  seal(): void {
    this.#sealed = true;
  }

  override get(name: string): Inode | undefined {
    return isDocumentName(name) ? this.work.get(name) : super.get(name);
  }

  override *entries(): Iterable<Entry> {
    yield* super.entries();
    for (const [i, name] of DOCUMENT_NAMES.entries()) {
      const inode = this.work.get(name);
      if (inode !== undefined) yield { name, inode, cookie: ALIAS_COOKIES_FROM + i };
    }
  }

  override hasDocument(name: string): boolean {
    return this.work.hasDocument(name);
  }

  /** Changes under work/ change it too, so it is not kept. */
  override listing(): readonly Entry[] {
    return [...this.entries()];
  }

  override assertMayAdd(name: string, isDirectory: boolean): void {
    if (!isDocumentName(name) || isDirectory) throw EACCES;
  }

  override assertMayRemove(name: string): void {
    if (!isDocumentName(name)) throw EACCES;
  }

  override add(name: string, inode: Inode): void {
    if (isDocumentName(name)) this.work.add(name, inode);
    else if (this.#sealed) throw EACCES;
    else super.add(name, inode);
  }

  override remove(name: string): Inode {
    return isDocumentName(name) ? this.work.remove(name) : super.remove(name);
  }
}
