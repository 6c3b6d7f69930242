import { join } from 'node:path';
import type { RunHost } from '#bridge/client/runtime.js';
import type { Variable } from '#bridge/wire/protocol.js';
import { Documents, type Policy } from './documents.js';
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

/** One execution's `/cronium`: present in the volume from `create` to `dispose`. */
export class ExecutionTree implements AsyncDisposable {
  readonly #volume: Volume;
  readonly #id: string;
  readonly #root: ExecutionDirectory;
  readonly documents: Documents;

  private constructor(volume: Volume, spec: TreeSpec, runtime: RunHost, root: ExecutionDirectory) {
    this.#volume = volume;
    this.#id = spec.id;
    this.#root = root;
    this.documents = new Documents(volume, root, runtime, spec.policy, spec);
  }

  static create(volume: Volume, backing: string, spec: TreeSpec, runtime: RunHost): ExecutionTree {
    const tree = new Tree(volume.inodes, join(backing, spec.id), spec.quota);
    try {
      return ExecutionTree.#fill(volume, tree, spec, runtime);
    } catch (error) {
      void volume.background(async () => await tree.dispose());
      throw error;
    }
  }

  static #fill(volume: Volume, tree: Tree, spec: TreeSpec, runtime: RunHost): ExecutionTree {
    const owner = { uid: spec.uid, gid: spec.gid };
    const root = new ExecutionDirectory(tree, owner, volume.root);
    const put = (path: string, mode: number, data: Uint8Array) => {
      const parts = path.split('/');
      const name = parts.pop() ?? path;
      let directory: Directory = root;
      for (const part of parts) {
        const next = directory.get(part) ?? new Directory(tree, 0o755, ROOT, directory);
        if (!(next instanceof Directory))
          throw new TypeError(`${path}: ${part} is not a directory`);
        if (directory.get(part) === undefined) directory.add(part, next);
        directory = next;
      }
      const file = new RegularFile(tree, mode, directory === root.work ? owner : ROOT);
      file.fill(data);
      directory.add(name, file);
    };
    put('work/input.json', 0o644, Buffer.from(spec.input));
    put('work/event.json', 0o644, Buffer.from(spec.event));
    for (const { path, mode, data } of spec.files) put(path, mode, data);
    // TMPDIR: inside work/, because scripts rename from it across to their directory.
    root.work.add('.tmp', new Directory(tree, 0o1777, owner, root.work));
    root.seal();
    const execution = new ExecutionTree(volume, spec, runtime, root);
    volume.root.add(spec.id, root);
    return execution;
  }

  /** Removes the tree: its container must be gone. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.#volume.removeTree(this.#root, this.#id);
  }
}

const ROOT = { uid: 0, gid: 0 };
