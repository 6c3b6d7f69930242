import { mkdirSync, rmSync } from 'node:fs';
import { Worker } from 'node:worker_threads';
import type { Runtime } from '#bridge/client/runtime.js';
import type { Outcome } from '#bridge/vfs/documents.js';
import type { TreeSpec } from '#bridge/vfs/execution-tree.js';
import { BridgeError } from '#bridge/wire/errors.js';
import type { Variable, VariableChange } from '#bridge/wire/protocol.js';
import type { FuseCalls, FuseWorkerData, RuntimeCalls } from './fuse-worker.js';
import { connectPort } from './port-calls.js';

/** The kernel answers a mount within milliseconds; a wait this long means that something holds it. */
const MOUNT_READY_MS = 10_000;

/** The main thread's side of the FUSE thread: trees come and go here. */
export class MountHost implements AsyncDisposable {
  readonly #worker: Worker;
  readonly #fuse: FuseCalls;
  readonly #runtimes = new Map<string, Runtime>();
  readonly #exited: Promise<void>;
  #ready: () => void = () => {};
  /** Resolves with the reason when the mount is gone, asked for or not. */
  readonly ended: Promise<string>;

  private constructor(data: FuseWorkerData) {
    let ended: (reason: string) => void = () => {};
    this.ended = new Promise((resolve) => {
      ended = resolve;
    });
    this.#worker = new Worker(new URL('./fuse-worker.js', import.meta.url), { workerData: data });
    this.#worker.on('error', (error) =>
      ended(`the FUSE thread failed: ${error.stack ?? error.message}`),
    );
    const runtime = (id: string): Runtime => {
      const found = this.#runtimes.get(id);
      if (found === undefined) throw new BridgeError('denied', `execution ${id} has ended`);
      return found;
    };
    const fuse = connectPort<FuseCalls, RuntimeCalls>(this.#worker, {
      ready: async () => this.#ready(),
      ended: async (reason) => ended(reason ?? 'the file system was unmounted'),
      commitVariables: async (id, edit) => await runtime(id).commitVariables(edit),
      setOutput: async (id, text) => await runtime(id).setOutput(text),
      setCondition: async (id, condition) => await runtime(id).setCondition(condition),
    });
    this.#fuse = fuse.calls;
    this.#exited = new Promise((resolve) => {
      this.#worker.on('exit', () => {
        fuse.fail(new BridgeError('unavailable', 'the file system thread has ended'));
        ended('the FUSE thread ended');
        resolve();
      });
    });
  }

  /** Starts answering the kernel on `fuseFd`, which is mounted. @throws BridgeError `timeout` */
  static async open(data: FuseWorkerData): Promise<MountHost> {
    rmSync(data.backing, { recursive: true, force: true });
    mkdirSync(data.backing, { recursive: true, mode: 0o700 });
    const host = new MountHost(data);
    let timer: NodeJS.Timeout | undefined;
    await Promise.race([
      new Promise<void>((resolve) => {
        host.#ready = resolve;
      }),
      host.ended.then((reason) => {
        throw new BridgeError('unavailable', reason);
      }),
      new Promise<void>((_resolve, reject) => {
        timer = setTimeout(
          () =>
            reject(
              new BridgeError(
                'timeout',
                `the kernel did not start the mount within ${MOUNT_READY_MS} ms`,
              ),
            ),
          MOUNT_READY_MS,
        );
      }),
    ]);
    clearTimeout(timer);
    return host;
  }

  /** A tree that asks `runtime` for everything; present in the mount when this resolves. */
  async createTree(spec: TreeSpec, runtime: Runtime): Promise<MountedTree> {
    this.#runtimes.set(spec.id, runtime);
    try {
      await this.#fuse.createTree(spec);
    } catch (error) {
      this.#runtimes.delete(spec.id);
      throw error;
    }
    return new MountedTree(this.#fuse, spec.id, () => this.#runtimes.delete(spec.id));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#worker.terminate();
    await this.#exited;
  }
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

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#fuse.removeTree(this.#id);
    this.#removed();
  }
}
