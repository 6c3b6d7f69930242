import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import type {
  FinishRequest,
  MountdStatus,
  Prepared,
  PrepareRequest,
  RunResult,
} from '#bridge/wire/control.js';
import { BridgeError } from '#bridge/wire/errors.js';
import type { ExecutionId } from '#bridge/wire/names.js';
import type { Containers } from './containers.js';
import { type Host, preparedOf } from './docker-arguments.js';
import { type PreparedContext, PreparedExecution } from './prepared-execution.js';
import type { PreparedRecord } from './prepared-records.js';
import { TOLD_MS } from './run-channel.js';
import type { Volumes } from './volume-plugin.js';

/** For whoever asks again, or comes when its time was over. */
const RESULT_KEPT_MS = 60_000;

/** When mountd stops, Docker may take this long to forget the volumes. */
const FORGET_MS = 2_000;

export interface PreparedOptions extends PreparedContext, Omit<Host, 'driver'> {
  readonly containers: Pick<Containers, 'namesOn' | 'forgetVolume'>;
  readonly mountPoint: string;
  /** Docker's name for the volume plugin; undefined: there is none. */
  readonly driver: string | undefined;
  /** Called when nobody knows whether the server has ended an execution that is not ours any more. */
  readonly onUnknown: (executionId: ExecutionId, reason: string) => void;
}

/** Executions whose containers somebody else starts: prepared, mounted through the volume plugin, and finished by command. */
export class PreparedExecutions implements Volumes, AsyncDisposable {
  readonly #options: PreparedOptions;
  /** From before the server hears of them until it has heard, or cannot hear, of their end. */
  readonly #all = new Map<string, PreparedExecution>();
  readonly #ended = new Map<string, Promise<RunResult>>();
  readonly #forgotten = new Set<Promise<void>>();
  readonly #closing = new AbortController();

  constructor(options: PreparedOptions) {
    this.#options = options;
  }

  isOurs(executionId: string): boolean {
    return this.#all.has(executionId);
  }

  get status(): NonNullable<MountdStatus['prepared']> {
    return [...this.#all.values()].map(({ record, expiresAt, isMounted }) => ({
      executionId: record.executionId,
      ...(record.request.runtime !== undefined && { runtime: record.request.runtime }),
      createdAt: record.acceptedAt,
      expiresAt,
      isMounted,
    }));
  }

  /** Goes on with what was there when an earlier process died. */
  resume(records: readonly PreparedRecord[]): void {
    for (const record of records)
      this.#begin(record, { isResumed: true, signal: this.#closing.signal });
  }

  /** It was there in an earlier life, and nothing of it is any more. */
  clear(record: PreparedRecord): void {
    this.#options.records.remove(record.executionId);
    this.#forget(record);
  }

  /** @throws BridgeError `conflict` without a plugin, and what the server and the mount throw */
  async create({ script, ...request }: PrepareRequest, signal: AbortSignal): Promise<Prepared> {
    const { driver } = this.#options;
    const { executionId } = request;
    if (this.#closing.signal.aborted)
      throw new BridgeError('unavailable', 'mountd is shutting down');
    if (driver === undefined)
      throw new BridgeError(
        'conflict',
        'this installation serves no volumes to Docker: use cronium down, then cronium up --volume-plugin',
      );
    if (this.#ended.has(executionId))
      throw new BridgeError('conflict', `execution ${executionId} has ended`);
    const execution =
      this.#all.get(executionId) ??
      this.#begin(
        { executionId, request, acceptedAt: Date.now() },
        {
          isResumed: false,
          ...(script && { script }),
          signal: AbortSignal.any([signal, this.#closing.signal]),
        },
      );
    await execution.ready;
    return preparedOf(executionId, request, { ...this.#options, driver });
  }

  async finish({ executionId, ...how }: FinishRequest): Promise<RunResult> {
    const ended = this.#ended.get(executionId);
    if (ended !== undefined) return await ended;
    const execution = this.#all.get(executionId);
    if (execution === undefined)
      throw new BridgeError(
        'not_found',
        `execution ${executionId} is not prepared here, or ended more than a minute ago; see: cronium exec show ${executionId}`,
      );
    return await execution.finish(how);
  }

  get names(): readonly string[] {
    return [...this.#all.values()]
      .filter(({ isEnding }) => !isEnding)
      .map(({ record }) => record.executionId);
  }

  pathOf(name: string): string | undefined {
    const execution = this.#all.get(name);
    if (execution === undefined || execution.isEnding) return undefined;
    return join(this.#options.mountPoint, name);
  }

  async mount(name: string, mountId: string): Promise<void> {
    await this.#all.get(name)?.mount(mountId);
  }

  unmount(name: string, mountId: string): void {
    this.#all.get(name)?.unmount(mountId);
  }

  /** Ends all as lost. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#closing.abort();
    await Promise.all([...this.#all.values()].map(async (one) => await one.lose()));
    const late = sleep(FORGET_MS, undefined, { ref: false });
    await Promise.race([Promise.all(this.#forgotten), late]);
  }

  #begin(
    record: PreparedRecord,
    how: ConstructorParameters<typeof PreparedExecution>[2],
  ): PreparedExecution {
    const { records } = this.#options;
    const { executionId } = record;
    if (!how.isResumed) records.write(record);
    const execution = new PreparedExecution(this.#options, record, how);
    this.#all.set(executionId, execution);
    const over = (isKnown: boolean) => {
      this.#all.delete(executionId);
      const { unknown } = execution.told;
      if (unknown !== undefined) this.#options.onUnknown(executionId, unknown);
      const remove = () => records.remove(executionId);
      // Until whoever finished it has surely been told: if this process dies now, the next one tells them.
      if (!isKnown) remove();
      else {
        setTimeout(remove, TOLD_MS).unref();
        this.#ended.set(executionId, execution.over);
        setTimeout(() => this.#ended.delete(executionId), RESULT_KEPT_MS).unref();
      }
      this.#forget(record);
    };
    execution.over.then(
      () => over(true),
      () => over(false),
    );
    return execution;
  }

  /** Docker keeps the name of every volume it has mounted. For one it does not know it would ask every driver it has ever met. */
  #forget({ executionId, mountedAt }: PreparedRecord): void {
    if (mountedAt === undefined) return;
    const forgotten = this.#options.containers.forgetVolume(executionId);
    this.#forgotten.add(forgotten);
    void forgotten.then(() => this.#forgotten.delete(forgotten));
  }
}
