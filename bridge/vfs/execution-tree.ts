import { join } from 'node:path';
import type { RunHost } from '#bridge/client/runtime.js';
import type { Variable } from '#bridge/wire/protocol.js';
import { Documents, type Policy } from './documents.js';
import { Directory } from './inode.js';
import { answersIn, Journal } from './journal.js';
import { JournalDamaged, type JournalRecord, readJournal } from './journal-file.js';
import { namedCounts, type OperationCounts } from './operation-counts.js';
import { RegularFile } from './regular-file.js';
import { type LinkState, StateFiles } from './state-files.js';
import { FULL_RECORD, type Quota, Tree } from './tree.js';
import { entryRecord, inodeRecord, xattrRecord } from './tree-records.js';
import { restoreInodes } from './tree-restore.js';
import type { Usage, Volume } from './volume.js';
import { addScratch, putFile, type TreeFile, type WaitingTree } from './waiting-tree.js';
import { ExecutionDirectory } from './work-directory.js';

/** Everything an execution's tree is made from. */
export interface TreeSpec {
  readonly id: string;
  /** Owner of work/ and what is in it, as the host sees the container's user. */
  readonly uid: number;
  readonly gid: number;
  readonly quota: Quota;
  /** Source text of input.json and event.json. */
  readonly input: string;
  readonly event: string;
  readonly variables: readonly Variable[];
  /** Keys with a merge policy. */
  readonly merged: readonly string[];
  readonly policy: Policy;
  readonly files: readonly TreeFile[];
}

/** What a journal says of a tree as a whole, beside what is in it. */
type Frame = Omit<TreeSpec, 'input' | 'event' | 'variables' | 'files'> & {
  readonly rootId: number;
};

/** One execution's `/cronium`: present in the volume from `create` to `dispose`. */
export class ExecutionTree implements AsyncDisposable {
  readonly #volume: Volume;
  readonly #frame: Frame;
  readonly #root: ExecutionDirectory;
  readonly documents: Documents;
  readonly #stateFiles: StateFiles;

  private constructor(
    volume: Volume,
    frame: Frame,
    runtime: RunHost,
    root: ExecutionDirectory,
    variables: readonly Variable[],
  ) {
    this.#volume = volume;
    this.#frame = frame;
    this.#root = root;
    const { policy, merged } = frame;
    this.documents = new Documents(volume, root, runtime, policy, { merged, variables });
    this.#stateFiles = new StateFiles(volume, root);
    this.documents.onWarning = (text) => this.#stateFiles.error(text);
  }

  /** What it was asked, and what is in it. */
  get usage(): { operations: OperationCounts; scratch: Usage } {
    const { tree } = this.#root;
    return { operations: namedCounts(tree.counts), scratch: this.#volume.statfs(this.#root) };
  }

  /** The link to the server came or went. */
  linkChanged(link: LinkState): void {
    this.#stateFiles.link(link);
  }

  /** `isJournaled`: another process can take it over. */
  static create(
    volume: Volume,
    backing: string,
    spec: TreeSpec,
    runtime: RunHost,
    isJournaled = false,
  ): ExecutionTree {
    const tree = new Tree(volume.inodes, join(backing, spec.id), spec.quota);
    try {
      const root = new ExecutionDirectory(tree, spec, volume.root);
      addScratch(root, spec);
      const execution = ExecutionTree.#fill(volume, root, spec, runtime);
      if (isJournaled) execution.#journal();
      volume.root.add(spec.id, root);
      return execution;
    } catch (error) {
      void volume.background(async () => await tree.dispose());
      throw error;
    }
  }

  /** In the place of one that waits for it, and has its id. After a failure that one is of no use any more. */
  static adopt(
    volume: Volume,
    { root }: WaitingTree,
    spec: TreeSpec,
    runtime: RunHost,
    isJournaled: boolean,
  ): ExecutionTree {
    // The kernel has its attributes and is not told of what comes in here: they shall not change.
    const { mtime, ctime } = root.work;
    const [before, changed] = [{ ...mtime }, { ...ctime }];
    const execution = ExecutionTree.#fill(volume, root, spec, runtime);
    Object.assign(mtime, before);
    Object.assign(ctime, changed);
    if (isJournaled) execution.#journal();
    return execution;
  }

  static #fill(
    volume: Volume,
    root: ExecutionDirectory,
    spec: TreeSpec,
    runtime: RunHost,
  ): ExecutionTree {
    const document = (path: string, text: string) =>
      putFile(root, { path, mode: 0o644, data: Buffer.from(text) }, spec);
    document('work/input.json', spec.input);
    document('work/event.json', spec.event);
    for (const file of spec.files) putFile(root, file, spec);
    root.seal();
    const { id, uid, gid, quota, merged, policy, variables } = spec;
    const frame = { id, uid, gid, quota, merged, policy, rootId: root.id };
    const execution = new ExecutionTree(volume, frame, runtime, root, variables);
    execution.documents.start(volume);
    return execution;
  }

  /**
   * The tree that an earlier process served, from its journal. Undefined when there is none, which nobody has heard of then.
   * @throws JournalDamaged, host errors
   */
  static restore(
    volume: Volume,
    backing: string,
    id: string,
    runtime: RunHost,
  ): RestoredTree | undefined {
    const records = readJournal(join(backing, id));
    if (records === undefined) return undefined;
    const frame = records.find(([kind]) => kind === 'T')?.[1] as Frame | undefined;
    if (frame?.id !== id) throw new JournalDamaged('its journal is of another execution');
    const tree = new Tree(volume.inodes, join(backing, id), frame.quota);
    const next = volume.inodes.nextId();
    try {
      volume.inodes.next = frame.rootId;
      const root = new ExecutionDirectory(tree, frame, volume.root);
      const inodes = restoreInodes(tree, root, records);
      if (records.some(([kind]) => kind === FULL_RECORD[0])) tree.roomRefused();
      root.seal();
      const execution = new ExecutionTree(volume, frame, runtime, root, []);
      execution.documents.restore(records, {
        file: (inodeId) => {
          const file = inodes.get(inodeId);
          return file instanceof RegularFile ? file : undefined;
        },
        opened: (handle) => volume.reopened(handle),
      });
      volume.root.add(id, root);
      volume.inodes.next = next;
      execution.#journal(records);
      return { tree: execution, answers: answersIn(records) };
    } catch (error) {
      tree.abandon();
      throw error;
    } finally {
      volume.inodes.next = next;
    }
  }

  /** Removes the tree: its container must be gone. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.#volume.removeTree(this.#root, this.#frame.id);
  }

  /** `before`: what an earlier process noted. */
  #journal(before?: readonly JournalRecord[]): void {
    const { tree } = this.#root;
    const volume = this.#volume;
    const everything = () => {
      this.documents.startRecords();
      return this.#records();
    };
    const failed = (error: unknown) => volume.onError(error);
    tree.journal = new Journal(tree.directory, volume.dirtyJournals, failed);
    if (before === undefined) tree.journal.begin(everything);
    else tree.journal.goOn(everything, before);
  }

  /** Everything there is to know of the tree, but the bytes of its files. */
  *#records(): Iterable<string> {
    const { tree } = this.#root;
    yield JSON.stringify(['T', this.#frame]);
    if (tree.wasFull) yield JSON.stringify(FULL_RECORD);
    for (const inode of tree.members) {
      yield inodeRecord(inode);
      if (inode.xattrs !== undefined) yield xattrRecord(inode);
      if (inode instanceof Directory)
        for (const { name } of inode.ownEntries()) yield entryRecord(inode, name);
      if (inode instanceof RegularFile && inode.document !== undefined)
        yield JSON.stringify([
          'F',
          inode.id,
          inode.document.name,
          inode.document.fileRecord(inode),
        ]);
    }
    for (const record of this.#volume.handleRecords(tree)) yield JSON.stringify(record);
    for (const record of this.documents.records()) yield JSON.stringify(record);
  }
}

export interface RestoredTree {
  readonly tree: ExecutionTree;
  /** What requests were answered, by the kernel's number for them. */
  readonly answers: ReadonlyMap<bigint, Uint8Array | undefined>;
}
