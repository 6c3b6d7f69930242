import { pino } from 'pino';
import type { RunHost, Runtime } from '#bridge/client/runtime.js';
import type { Driver } from '#bridge/fuse/driver.js';
import { NativeDriver } from '#bridge/fuse/native-driver.js';
import { FuseSession, type SessionOptions } from '#bridge/fuse/session.js';
import type { Outcome } from '#bridge/vfs/documents.js';
import { ExecutionTree, type TreeSpec } from '#bridge/vfs/execution-tree.js';
import type { OperationCounts } from '#bridge/vfs/operation-counts.js';
import type { LinkState } from '#bridge/vfs/state-files.js';
import { type Usage, Volume } from '#bridge/vfs/volume.js';
import { WaitingTree, type WaitingTreeSpec } from '#bridge/vfs/waiting-tree.js';
import { BridgeError } from '#bridge/wire/errors.js';
import type { Variable, VariableChange } from '#bridge/wire/protocol.js';
import { MountState } from './mount-state.js';
import { connectPort, type Port } from './port-calls.js';
import { restoreTrees } from './restore-trees.js';

/**
 * The side that answers the kernel: it holds the file system and nothing else; what needs the server is asked of the other
 * side of the port. With the kernel driver it is a thread of its own; fuse-native runs on the main thread only.
 */

interface MountBase {
  /** Directory of the backing files, empty at start. */
  readonly backing: string;
  readonly logLevel: string;
}

export interface KernelMount extends MountBase {
  readonly driver: 'kernel';
  /** /dev/fuse, mounted. */
  readonly fuseFd: number;
  /** An earlier process has served it: go on where that has stopped. */
  readonly takeOver: boolean;
}

export interface NativeMount extends MountBase {
  readonly driver: 'fuse-native';
  /** Mounted by the driver itself. */
  readonly mountPoint: string;
}

/** What the host's side asks of this one. */
export interface FuseCalls {
  createTree(spec: TreeSpec): Promise<void>;
  /** One whose execution is not known yet; `createTree` with its id puts the execution's in its place. */
  createWaitingTree(spec: WaitingTreeSpec): Promise<void>;
  /** Resolves when somebody stands at the gate of a waiting tree. */
  gateReached(id: string): Promise<void>;
  /** Lets whoever stands there through. @throws BridgeError `unavailable` when nobody does any more */
  openGate(id: string): Promise<void>;
  /** One that was taken over has a runtime again. */
  resumeTree(id: string, variables: readonly Variable[]): Promise<void>;
  /** The link to the server came or went. */
  linkChanged(link: LinkState): Promise<void>;
  variablesChanged(id: string, changes: readonly VariableChange[]): Promise<void>;
  variablesRefreshed(id: string, variables: readonly Variable[]): Promise<void>;
  /** Commits what is left and sums up; the container has ended. */
  finishTree(id: string, success: boolean): Promise<Outcome>;
  /** Sums up and commits nothing; the container may still be at work. */
  outcomeOf(id: string): Promise<Outcome>;
  removeTree(id: string): Promise<void>;
  usageOf(id: string): Promise<TreeUsage>;
  /** Resolves when this side's loop has come round. */
  beat(): Promise<void>;
}

export interface TreeUsage {
  /** Null with the driver fuse-native, which does not count. */
  readonly operations: OperationCounts | null;
  readonly scratch: Usage;
}

/** Executions whose trees an earlier process served. */
export interface TakenOverTrees {
  readonly restored: readonly string[];
  /** With the reason why they cannot go on. */
  readonly damaged: readonly (readonly [string, string])[];
}

/** What this side asks of the host's. */
export interface RuntimeCalls {
  /** Before anything else, when the mount was taken over. */
  takenOver(trees: TakenOverTrees): Promise<void>;
  ready(): Promise<void>;
  ended(reason: string | undefined): Promise<void>;
  commitVariables(
    id: string,
    ...args: Parameters<Runtime['commitVariables']>
  ): ReturnType<Runtime['commitVariables']>;
  setOutput(id: string, text: string | null): Promise<void>;
  setCondition(id: string, condition: boolean | null): Promise<void>;
  warned(id: string, text: string): Promise<void>;
}

/** Serves the mount, and trees in it on `port`'s request, until the driver is closed or the mount is gone. */
export function serveFuse(port: Port, mount: KernelMount | NativeMount): Driver {
  const { backing, logLevel } = mount;
  const log = pino({ level: logLevel, base: { thread: 'fuse' } });
  const volume = new Volume(backing);
  volume.onError = (error) => log.warn({ err: error }, 'background work failed');
  const trees = new Map<string, ExecutionTree>();
  /** Until their gates are opened. */
  const waitingTrees = new Map<string, WaitingTree>();
  const waiting = (id: string): WaitingTree => {
    const found = waitingTrees.get(id);
    if (found === undefined) throw new BridgeError('not_found', `no tree ${id} waits`);
    return found;
  };
  const tree = (id: string): ExecutionTree => {
    const found = trees.get(id);
    if (found === undefined) throw new BridgeError('not_found', `no tree ${id}`);
    return found;
  };

  const runtimeOf = (id: string): RunHost => ({
    commitVariables: (edit) => host.commitVariables(id, edit),
    setOutput: (text) => host.setOutput(id, text),
    setCondition: (condition) => host.setCondition(id, condition),
    warned: (text) => host.warned(id, text),
  });
  let link: LinkState | undefined;
  const isJournaled = mount.driver === 'kernel';
  const { calls: host } = connectPort<RuntimeCalls, FuseCalls>(port, {
    createTree: async (spec) => {
      const runtime = runtimeOf(spec.id);
      const held = waitingTrees.get(spec.id);
      const tree =
        held === undefined
          ? ExecutionTree.create(volume, backing, spec, runtime, isJournaled)
          : ExecutionTree.adopt(volume, held, spec, runtime, isJournaled);
      if (link !== undefined) tree.linkChanged(link);
      trees.set(spec.id, tree);
    },
    createWaitingTree: async (spec) => {
      waitingTrees.set(spec.id, new WaitingTree(volume, backing, spec));
    },
    gateReached: async (id) => await waiting(id).reached,
    openGate: async (id) => {
      waiting(id).open();
      waitingTrees.delete(id);
    },
    resumeTree: async (id, variables) => tree(id).documents.refreshed(variables),
    linkChanged: async (now) => {
      link = now;
      for (const one of trees.values()) one.linkChanged(now);
    },
    variablesChanged: async (id, changes) => trees.get(id)?.documents.changed(changes),
    variablesRefreshed: async (id, variables) => trees.get(id)?.documents.refreshed(variables),
    finishTree: async (id, success) => await tree(id).documents.finish(success),
    outcomeOf: async (id) => tree(id).documents.outcome,
    beat: async () => {},
    usageOf: async (id) => {
      const { operations, scratch } = tree(id).usage;
      return { operations: mount.driver === 'kernel' ? operations : null, scratch };
    },
    removeTree: async (id) => {
      const removed = trees.get(id) ?? waitingTrees.get(id);
      trees.delete(id);
      waitingTrees.delete(id);
      await removed?.[Symbol.asyncDispose]();
    },
  });

  const driver =
    mount.driver === 'kernel'
      ? new FuseSession(mount.fuseFd, volume, log, sessionOptions(mount))
      : new NativeDriver(volume, mount.mountPoint, log);
  void driver.ready.then(() => host.ready());
  void driver.ended.then((error) => host.ended(error?.message));
  return driver;

  function sessionOptions({ takeOver }: KernelMount): SessionOptions {
    const state = new MountState(backing);
    if (!takeOver) return { onNegotiated: (canResend) => state.begin(canResend) };
    volume.generation = state.next();
    const restored = restoreTrees(volume, backing, runtimeOf, log);
    for (const [id, one] of restored.trees) trees.set(id, one);
    void host.takenOver({ restored: [...restored.trees.keys()], damaged: restored.damaged });
    return { takenOver: { answers: restored.answers } };
  }
}
