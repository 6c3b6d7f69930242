import { join } from 'node:path';
import { BridgeError } from '#bridge/wire/errors.js';
import { GateFile } from './gate-file.js';
import { Directory } from './inode.js';
import { RegularFile } from './regular-file.js';
import { type Quota, Tree } from './tree.js';
import type { Volume } from './volume.js';
import { ExecutionDirectory } from './work-directory.js';

/** A file the bridge puts into a tree before the script starts. */
export interface TreeFile {
  /** Relative to the tree's root, in directories that exist or are made (owned by root). */
  readonly path: string;
  readonly mode: number;
  readonly data: Uint8Array;
}

export interface WaitingTreeSpec {
  /** Its directory's name in the mount. */
  readonly id: string;
  readonly uid: number;
  readonly gid: number;
  readonly quota: Quota;
  readonly files: readonly TreeFile[];
  /** Path of the file whose open(2) waits. */
  readonly gate: string;
}

/**
 * What a container finds at `/cronium` before it is known which execution it will serve. An execution's tree takes its place,
 * with the same directories, so that who stands in them need not move. Nobody takes it over from a process that dies.
 */
export class WaitingTree implements AsyncDisposable {
  readonly #volume: Volume;
  readonly #id: string;
  readonly #gate: GateFile;
  readonly root: ExecutionDirectory;
  /** Resolves when somebody stands at the gate for the first time. */
  readonly reached: Promise<void>;

  constructor(volume: Volume, backing: string, spec: WaitingTreeSpec) {
    this.#volume = volume;
    this.#id = spec.id;
    const tree = new Tree(volume.inodes, join(backing, spec.id), spec.quota);
    this.root = new ExecutionDirectory(tree, spec, volume.root);
    const gate = new GateFile(tree, spec);
    this.#gate = gate;
    try {
      for (const file of spec.files) putFile(this.root, file, spec);
      place(this.root, spec.gate, gate);
      addScratch(this.root, spec);
    } catch (error) {
      void volume.background(async () => await tree.dispose());
      throw error;
    }
    this.reached = new Promise((resolve) => {
      gate.onReached = resolve;
    });
    volume.root.add(spec.id, this.root);
  }

  /** Whether whoever stood at the gate still does. */
  get isManned(): boolean {
    return this.#gate.isReached;
  }

  /** @throws BridgeError `unavailable` when nobody stands there any more */
  open(): void {
    if (!this.isManned) throw new BridgeError('unavailable', 'its container has gone');
    this.#gate.open();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#volume.removeTree(this.root, this.#id);
  }
}

const ROOT = { uid: 0, gid: 0 };

/** Puts a file there. Those in work/ belong to `owner`, others to root. */
export function putFile(
  root: ExecutionDirectory,
  { path, mode, data }: TreeFile,
  owner: { readonly uid: number; readonly gid: number },
): void {
  const file = new RegularFile(root.tree, mode, path.startsWith('work/') ? owner : ROOT);
  file.fill(data);
  place(root, path, file);
}

/** TMPDIR: inside work/, because scripts rename from it across to their directory. */
export function addScratch(
  { work, tree }: ExecutionDirectory,
  owner: { readonly uid: number; readonly gid: number },
): void {
  work.add('.tmp', new Directory(tree, 0o1777, owner, work));
}

function place(root: ExecutionDirectory, path: string, file: RegularFile): void {
  const parts = path.split('/');
  const name = parts.pop() ?? path;
  let directory: Directory = root;
  for (const part of parts) {
    const next = directory.get(part) ?? new Directory(root.tree, 0o755, ROOT, directory);
    if (!(next instanceof Directory)) throw new TypeError(`${path}: ${part} is not a directory`);
    if (directory.get(part) === undefined) directory.add(part, next);
    directory = next;
  }
  directory.add(name, file);
}
