import { readdirSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import type { RunHost } from '#bridge/client/runtime.js';
import { ExecutionTree } from '#bridge/vfs/execution-tree.js';
import type { Volume } from '#bridge/vfs/volume.js';

interface RestoredTrees {
  readonly trees: ReadonlyMap<string, ExecutionTree>;
  /** With the reason. */
  readonly damaged: readonly (readonly [string, string])[];
  readonly answers: ReadonlyMap<bigint, Uint8Array | undefined>;
}

/** The trees that an earlier process has left in `backing`. One that cannot be read does not keep the others from going on. */
export function restoreTrees(
  volume: Volume,
  backing: string,
  runtimeOf: (id: string) => RunHost,
  log: { warn(context: object, message: string): void },
): RestoredTrees {
  const trees = new Map<string, ExecutionTree>();
  const damaged: [string, string][] = [];
  const answers = new Map<bigint, Uint8Array | undefined>();
  for (const entry of readdirSync(backing, { withFileTypes: true })) {
    const id = entry.name;
    if (!entry.isDirectory()) continue;
    try {
      const restored = ExecutionTree.restore(volume, backing, id, runtimeOf(id));
      if (restored === undefined) {
        rmSync(join(backing, id), { recursive: true, force: true }); // it was being made
        continue;
      }
      trees.set(id, restored.tree);
      for (const [unique, answer] of restored.answers) answers.set(unique, answer);
    } catch (error) {
      const reason = error instanceof Error ? error.message : String(error);
      log.warn({ execution: id, err: error }, 'a tree cannot be taken over');
      damaged.push([id, reason]);
    }
  }
  return { trees, damaged, answers };
}
