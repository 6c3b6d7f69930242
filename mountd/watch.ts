import type { MountdStatus, RunResult } from '#bridge/wire/control.js';
import { BridgeError } from '#bridge/wire/errors.js';
import type { ExecutionId } from '#bridge/wire/names.js';
import type { Status } from '#bridge/wire/protocol.js';
import type { ExecutionUsage, Kept, LogsRequest, LogsResult } from '#bridge/wire/watch.js';
import type { RunningContainer } from './containers.js';
import type { RunListener } from './control-server.js';
import { KeptLogs } from './kept-logs.js';
import type { MountHost } from './mount-host.js';
import { type Cgroup, cgroupOf, usageOf } from './usage.js';

/** What can be seen of executions from outside while they run: what they print, and what they use. */
export class Watch {
  readonly #mount: MountHost;
  readonly #logs = new KeptLogs();
  readonly #containers = new Map<ExecutionId, Container>();

  constructor(mount: MountHost) {
    this.#mount = mount;
  }

  /** An execution, from before it exists to its disposal. */
  begin(executionId: ExecutionId): Watched {
    this.#logs.begin(executionId);
    return new Watched(executionId, this.#logs, () => this.#containers.delete(executionId));
  }

  /** What it printed cannot be had any more: nobody shall take it for having printed nothing. */
  forget(executionId: ExecutionId): void {
    this.#logs.forget(executionId);
  }

  /** `place`: its directory in the mount. */
  started(executionId: ExecutionId, container: RunningContainer, place: string): void {
    this.#containers.set(executionId, new Container(container, place));
  }

  /** Passes on what it has printed, at the pace of `pass`. @throws BridgeError `not_found` */
  async logs(
    request: LogsRequest,
    signal: AbortSignal,
    pass: (kept: Kept) => Promise<void>,
  ): Promise<LogsResult> {
    const reader = this.#logs.reader(request);
    await pass(reader.start);
    for (;;) {
      const kept = await reader.next(signal);
      if (kept === undefined || signal.aborted) return reader.result;
      await pass(kept);
    }
  }

  /** One reading of each of `running`, or of one of them; none while that one begins or ends. @throws BridgeError `not_found`; `conflict` when that one has ended */
  async stats(
    running: MountdStatus['executions'],
    executionId: ExecutionId | undefined,
  ): Promise<ExecutionUsage[]> {
    const wanted = running.filter(
      (one) => executionId === undefined || one.executionId === executionId,
    );
    if (executionId !== undefined && wanted.length === 0) {
      const status = this.#logs.statusOf(executionId);
      if (status === undefined) return []; // just being started, taken over, or coming to its end
      throw new BridgeError(
        'conflict',
        `execution ${executionId} has ended (${status}) and uses nothing any more; see: cronium exec show ${executionId}`,
      );
    }
    return await Promise.all(wanted.map(async (one) => await this.#usage(one)));
  }

  async #usage({
    executionId,
    runtime,
    startedAt,
    script,
  }: MountdStatus['executions'][number]): Promise<ExecutionUsage> {
    const found = this.#containers.get(executionId);
    const [container, tree] = await Promise.all([
      found?.usage(),
      found && this.#mount.usageOf(found.place).catch(() => undefined), // removed meanwhile
    ]);
    return {
      executionId,
      runtime,
      startedAt,
      script,
      at: Date.now(),
      container: container ?? null,
      operations: tree?.operations ?? null,
      scratch: tree?.scratch ?? null,
    };
  }
}

/** One execution that is watched. Disposed of without a result it has failed. */
class Watched implements Disposable {
  readonly #executionId: ExecutionId;
  readonly #logs: KeptLogs;
  readonly #gone: () => void;
  #status: Status = 'failed';

  constructor(executionId: ExecutionId, logs: KeptLogs, gone: () => void) {
    this.#executionId = executionId;
    this.#logs = logs;
    this.#gone = gone;
  }

  /** Hears all that `listener` hears, and first: whoever is slow does not keep it from others. */
  tee(listener: RunListener): RunListener {
    return {
      created: (executionId) => listener.created(executionId),
      log: async (log) => {
        this.#logs.add(this.#executionId, log);
        await listener.log(log);
      },
    };
  }

  ended(result: RunResult): RunResult {
    this.#status = result.status;
    return result;
  }

  [Symbol.dispose](): void {
    this.#logs.end(this.#executionId, this.#status);
    this.#gone();
  }
}

class Container {
  readonly place: string;
  readonly #container: RunningContainer;
  #cgroup: Cgroup | undefined;

  constructor(container: RunningContainer, place: string) {
    this.#container = container;
    this.place = place;
  }

  async usage(): Promise<ExecutionUsage['container'] | undefined> {
    if (this.#cgroup === undefined) {
      const first = await this.#container.firstProcess();
      if (first !== undefined) this.#cgroup = await cgroupOf(first);
    }
    return this.#cgroup && (await usageOf(this.#cgroup));
  }
}
