import { isMainThread, parentPort, workerData } from 'node:worker_threads';
import { pino } from 'pino';
import type { Runtime } from '#bridge/client/runtime.js';
import { FuseSession } from '#bridge/fuse/session.js';
import type { Outcome } from '#bridge/vfs/documents.js';
import { ExecutionTree, type TreeSpec } from '#bridge/vfs/execution-tree.js';
import { Volume } from '#bridge/vfs/volume.js';
import { BridgeError } from '#bridge/wire/errors.js';
import type { Variable, VariableChange } from '#bridge/wire/protocol.js';
import { connectPort } from './port-calls.js';

/**
 * The thread that answers the kernel. It holds the file system and nothing else, so a busy main thread never delays a
 * stat; what needs the server is asked of the main thread.
 */

export interface FuseWorkerData {
  readonly fuseFd: number;
  /** Directory of the backing files, empty at start. */
  readonly backing: string;
  readonly logLevel: string;
}

/** What the main thread asks of this one. */
export interface FuseCalls {
  createTree(spec: TreeSpec): Promise<void>;
  variablesChanged(id: string, changes: readonly VariableChange[]): Promise<void>;
  variablesRefreshed(id: string, variables: readonly Variable[]): Promise<void>;
  /** Commits what is left and sums up; the container has ended. */
  finishTree(id: string, success: boolean): Promise<Outcome>;
  removeTree(id: string): Promise<void>;
}

/** What this thread asks of the main one. */
export interface RuntimeCalls {
  ready(): Promise<void>;
  ended(reason: string | undefined): Promise<void>;
  commitVariables(
    id: string,
    ...args: Parameters<Runtime['commitVariables']>
  ): ReturnType<Runtime['commitVariables']>;
  setOutput(id: string, text: string): Promise<void>;
  setCondition(id: string, condition: boolean): Promise<void>;
}

if (!isMainThread && parentPort !== null) {
  const { fuseFd, backing, logLevel } = workerData as FuseWorkerData;
  const log = pino({ level: logLevel, base: { thread: 'fuse' } });
  const volume = new Volume(backing);
  volume.onError = (error) => log.warn({ err: error }, 'background work failed');
  const trees = new Map<string, ExecutionTree>();
  const tree = (id: string): ExecutionTree => {
    const found = trees.get(id);
    if (found === undefined) throw new BridgeError('not_found', `no tree ${id}`);
    return found;
  };

  const { calls: main } = connectPort<RuntimeCalls, FuseCalls>(parentPort, {
    createTree: async (spec) => {
      const runtime: Runtime = {
        commitVariables: (edit) => main.commitVariables(spec.id, edit),
        setOutput: (text) => main.setOutput(spec.id, text),
        setCondition: (condition) => main.setCondition(spec.id, condition),
      };
      trees.set(spec.id, ExecutionTree.create(volume, backing, spec, runtime));
    },
    variablesChanged: async (id, changes) => trees.get(id)?.documents.changed(changes),
    variablesRefreshed: async (id, variables) => trees.get(id)?.documents.refreshed(variables),
    finishTree: async (id, success) => await tree(id).documents.finish(success),
    removeTree: async (id) => {
      const removed = trees.get(id);
      trees.delete(id);
      await removed?.[Symbol.asyncDispose]();
    },
  });

  const session = new FuseSession(fuseFd, volume, log);
  void session.ready.then(() => main.ready());
  void session.ended.then((error) => main.ended(error?.message));
}
