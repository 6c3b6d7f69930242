import { mkdirSync, rmSync } from 'node:fs';
import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { MessageChannel, Worker } from 'node:worker_threads';
import { OUTAGE_BUDGET_MS } from '#bridge/client/link.js';
import type { RunHost } from '#bridge/client/runtime.js';
import type { Outcome } from '#bridge/vfs/documents.js';
import type { TreeSpec } from '#bridge/vfs/execution-tree.js';
import type { LinkState } from '#bridge/vfs/state-files.js';
import type { WaitingTreeSpec } from '#bridge/vfs/waiting-tree.js';
import { BridgeError } from '#bridge/wire/errors.js';
import type { Variable, VariableChange } from '#bridge/wire/protocol.js';
import { connectPort, type Port } from './port-calls.js';
import {
  type FuseCalls,
  type KernelMount,
  type NativeMount,
  type RuntimeCalls,
  serveFuse,
  type TakenOverTrees,
  type TreeUsage,
} from './serve-fuse.js';

/** The kernel answers a mount within milliseconds; a wait this long means that something holds it. */
const MOUNT_READY_MS = 10_000;

/** The side that answers the kernel, wherever it runs. */
interface Serving {
  readonly port: Port;
  /** Resolves with the reason when nothing answers any more. */
  readonly ended: Promise<string>;
  stop(): Promise<void>;
}

/** The kernel driver's thread, ready to serve. Its programs take longer to load than a mount to be taken over. */
export const loadFuseThread = (): Worker =>
  new Worker(new URL('./fuse-worker.js', import.meta.url));

/** The kernel driver, on a thread of its own. */
function onThread(mount: KernelMount, worker: Worker): Serving {
  worker.postMessage(mount);
  const exited = new Promise<string>((resolve) => {
    worker.on('exit', () => resolve('the FUSE thread ended'));
  });
  const failed = new Promise<string>((resolve) => {
    worker.on('error', (error) =>
      resolve(`the FUSE thread failed: ${error.stack ?? error.message}`),
    );
  });
  return {
    port: worker,
    ended: Promise.race([failed, exited]),
    stop: async () => {
      await worker.terminate();
      await exited;
    },
  };
}

/** The driver fuse-native, on this thread. Its end is told through the port. */
function here(mount: NativeMount): Serving {
  const { port1, port2 } = new MessageChannel();
  const driver = serveFuse(port1, mount);
  let stopped: (reason: string) => void = () => {};
  return {
    port: port2,
    ended: new Promise((resolve) => {
      stopped = resolve;
    }),
    stop: async () => {
      await driver.close();
      port1.close();
      stopped('the file system was closed');
    },
  };
}

/** The main thread's side of what answers the kernel: trees come and go here. */
export class MountHost implements AsyncDisposable {
  readonly #serving: Serving;
  readonly #backing: string;
  readonly #fuse: FuseCalls;
  /** A promise while nobody has claimed a tree that was taken over. */
  readonly #runtimes = new Map<string, RunHost | Promise<RunHost>>();
  readonly #unclaimed = new Map<string, Unclaimed>();
  /** Those that an earlier process served. */
  takenOver: TakenOverTrees = { restored: [], damaged: [] };
  #ready: () => void = () => {};
  #isGone = false;
  /** Resolves when nothing is answered any more, asked for or not; `isMounted`: somebody else could answer. */
  readonly ended: Promise<{ readonly reason: string; readonly isMounted: boolean }>;

  private constructor(serving: Serving, backing: string) {
    this.#serving = serving;
    this.#backing = backing;
    let ended: (end: { reason: string; isMounted: boolean }) => void = () => {};
    this.ended = new Promise((resolve) => {
      ended = resolve;
    });
    const runtime = (id: string): RunHost | Promise<RunHost> => {
      const found = this.#runtimes.get(id);
      if (found === undefined) throw new BridgeError('denied', `execution ${id} has ended`);
      return found;
    };
    const fuse = connectPort<FuseCalls, RuntimeCalls>(serving.port, {
      takenOver: async (trees) => {
        this.takenOver = trees;
        for (const id of trees.restored) this.#awaitClaim(id);
      },
      ready: async () => this.#ready(),
      ended: async (reason) =>
        ended({ reason: reason ?? 'the file system was unmounted', isMounted: false }),
      commitVariables: async (id, edit) => await (await runtime(id)).commitVariables(edit),
      setOutput: async (id, text) => await (await runtime(id)).setOutput(text),
      setCondition: async (id, condition) => await (await runtime(id)).setCondition(condition),
      warned: async (id, text) => await (await runtime(id)).warned(text),
    });
    this.#fuse = fuse.calls;
    void this.ended.then(() => {
      this.#isGone = true;
    });
    void serving.ended.then((reason) => {
      fuse.fail(new BridgeError('unavailable', 'the file system has ended'));
      ended({ reason, isMounted: true });
    });
  }

  /** Starts answering the kernel. @throws BridgeError `timeout`, `unavailable` */
  static async open(mount: KernelMount | NativeMount, thread?: Worker): Promise<MountHost> {
    const isNew = mount.driver !== 'kernel' || !mount.takeOver;
    if (isNew) rmSync(mount.backing, { recursive: true, force: true });
    mkdirSync(mount.backing, { recursive: true, mode: 0o700 });
    const host = new MountHost(
      mount.driver === 'kernel' ? onThread(mount, thread ?? loadFuseThread()) : here(mount),
      mount.backing,
    );
    const silence = new AbortController();
    try {
      await Promise.race([
        new Promise<void>((resolve) => {
          host.#ready = resolve;
        }),
        host.ended.then(({ reason }) => {
          throw new BridgeError('unavailable', reason);
        }),
        sleep(MOUNT_READY_MS, undefined, { signal: silence.signal }).then(() => {
          throw new BridgeError(
            'timeout',
            `the kernel did not start the mount within ${MOUNT_READY_MS} ms`,
          );
        }),
      ]);
    } catch (error) {
      await host[Symbol.asyncDispose]();
      throw error;
    } finally {
      silence.abort();
    }
    return host;
  }

  /** Nothing answers the kernel any more. */
  get isGone(): boolean {
    return this.#isGone;
  }

  /** Resolves when what answers the kernel has answered us. */
  async beat(): Promise<void> {
    await this.#fuse.beat();
  }

  /** A tree for a container that does not know its execution yet; present in the mount when this resolves. */
  async createWaitingTree(spec: WaitingTreeSpec): Promise<void> {
    await this.#fuse.createWaitingTree(spec);
  }

  /** Resolves when somebody stands at the gate of a waiting tree. */
  async gateReached(id: string): Promise<void> {
    await this.#fuse.gateReached(id);
  }

  /** Lets whoever stands there through. @throws BridgeError `unavailable` when nobody does any more */
  async openGate(id: string): Promise<void> {
    await this.#fuse.openGate(id);
  }

  /** A tree that asks `runtime` for everything; present in the mount when this resolves. */
  async createTree(spec: TreeSpec, runtime: RunHost): Promise<MountedTree> {
    this.#runtimes.set(spec.id, runtime);
    try {
      await this.#fuse.createTree(spec);
    } catch (error) {
      this.#runtimes.delete(spec.id);
      throw error;
    }
    return new MountedTree(this.#fuse, spec.id, () => this.#runtimes.delete(spec.id));
  }

  /** A tree that was taken over; what it asked for meanwhile goes to `runtime` now. */
  async resumeTree(
    id: string,
    runtime: RunHost,
    variables: readonly Variable[],
  ): Promise<MountedTree> {
    await this.#fuse.resumeTree(id, variables);
    this.#runtimes.set(id, runtime);
    this.#unclaimed.get(id)?.resolve(runtime);
    this.#unclaimed.delete(id);
    return new MountedTree(this.#fuse, id, () => this.#runtimes.delete(id));
  }

  /** @throws BridgeError `not_found` when there is no such tree, `unavailable` when the file system has ended */
  async usageOf(id: string): Promise<TreeUsage> {
    return await this.#fuse.usageOf(id);
  }

  /** For every tree's `status`. */
  linkChanged(link: LinkState): void {
    this.#fuse.linkChanged(link).catch(() => {}); // a dead thread ends mountd anyway
  }

  /** Nobody goes on with it: its container must be gone. */
  async removeTree(id: string): Promise<void> {
    this.#runtimes.delete(id);
    this.#unclaimed.get(id)?.reject(new BridgeError('denied', `execution ${id} has ended`));
    this.#unclaimed.delete(id);
    await this.#fuse.removeTree(id);
  }

  /** Of a tree that could not be taken over: its container must be gone. */
  async discard(id: string): Promise<void> {
    await rm(join(this.#backing, id), { recursive: true, force: true });
  }

  /** Whoever asks for it meanwhile waits no longer than for a server that is away. */
  #awaitClaim(id: string): void {
    const claimed = new Promise<RunHost>((resolve, reject) => {
      this.#unclaimed.set(id, { resolve, reject });
      const late = () => reject(new BridgeError('unavailable', 'the server is out of reach'));
      setTimeout(late, OUTAGE_BUDGET_MS).unref();
    });
    claimed.catch(() => {}); // whoever waits for it hears of it
    this.#runtimes.set(id, claimed);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#serving.stop();
  }
}

interface Unclaimed {
  readonly resolve: (runtime: RunHost) => void;
  readonly reject: (error: BridgeError) => void;
}

export class MountedTree implements AsyncDisposable {
  readonly #fuse: FuseCalls;
  readonly #id: string;
  readonly #removed: () => void;

  constructor(fuse: FuseCalls, id: string, removed: () => void) {
    this.#fuse = fuse;
    this.#id = id;
    this.#removed = removed;
  }

  changed(changes: readonly VariableChange[]): void {
    this.#fuse.variablesChanged(this.#id, changes).catch(() => {}); // a dead thread ends mountd anyway
  }

  refreshed(variables: readonly Variable[]): void {
    this.#fuse.variablesRefreshed(this.#id, variables).catch(() => {});
  }

  async finish(success: boolean): Promise<Outcome> {
    return await this.#fuse.finishTree(this.#id, success);
  }

  async outcome(): Promise<Outcome> {
    return await this.#fuse.outcomeOf(this.#id);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#fuse.removeTree(this.#id);
    this.#removed();
  }
}
