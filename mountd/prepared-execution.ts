import { setTimeout as sleep } from 'node:timers/promises';
import type { Logger } from 'pino';
import { type Channels, ExecutionChannel } from '#bridge/client/execution-channel.js';
import type { Link } from '#bridge/client/link.js';
import type { TreeFile } from '#bridge/vfs/waiting-tree.js';
import type { FinishRequest, PrepareRequest, RunResult } from '#bridge/wire/control.js';
import { asBridgeError, BridgeError } from '#bridge/wire/errors.js';
import type { EventDocument } from '#bridge/wire/protocol.js';
import type { Containers } from './containers.js';
import { eventDocument } from './event-document.js';
import { injectionOf } from './launch-files.js';
import { MaskedLog } from './masked-log.js';
import type { MountedTree, MountHost } from './mount-host.js';
import type { PreparedRecord, PreparedRecords } from './prepared-records.js';
import {
  hostOf,
  INTERRUPTED,
  paramsOf,
  recordEnd,
  SCRATCH_QUOTA,
  type Told,
  untilTime,
} from './run-channel.js';
import { News } from './run-news.js';
import {
  cancellation,
  type Ended,
  finishOf,
  LOST,
  Lost,
  NO_ROOM,
  resultOf,
  UNKNOWN,
  unrecorded,
} from './run-result.js';
import { signalOf, statusOf } from './script-run.js';

/** Docker unmounts before it says that a container has ended, or is about to. */
const UNMOUNT_MS = 10_000;
const UNMOUNT_POLL_MS = 50;

export interface PreparedContext {
  readonly link: Link;
  readonly channels: Channels;
  readonly mount: MountHost;
  readonly containers: Pick<Containers, 'namesOn'>;
  readonly records: PreparedRecords;
  /** Among the machines whose certificates have the same name. */
  readonly instance: string;
  readonly log: Logger;
  readonly helpers: string;
  /** The container's user, as files in the mount show it. */
  readonly uid: number;
  readonly gid: number;
}

/** How somebody wants it to end. */
type End = Pick<Ended, 'status' | 'exitCode' | 'signal'> & { readonly warnings: readonly string[] };

const STOPPED: End = {
  ...LOST,
  warnings: [
    'Warning: lost: mountd was stopped before the execution was finished; what the script committed is kept',
  ],
};

/** One execution whose container is somebody else's: from before the server has heard of it until it is told how it ended. */
export class PreparedExecution {
  readonly record: PreparedRecord;
  /** What became of it, while nobody knows whether the server knows. */
  readonly told: Told = { unknown: undefined };
  /** Its directory is in the mount, and the server has it. Rejects when it could not be made. */
  readonly ready: Promise<void>;
  /** Settles when nothing of it is left here. Rejects when it could not be made. */
  readonly over: Promise<RunResult>;
  readonly #context: PreparedContext;
  readonly #isResumed: boolean;
  readonly #printed: MaskedLog;
  readonly #news: News;
  readonly #wanted: Promise<End>;
  #want: (end: End) => void = () => {};
  #isEnding = false;
  #isReady: () => void = () => {};

  /** `script`: of one that is new. `signal`: it is not to be made any more. */
  constructor(
    context: PreparedContext,
    record: PreparedRecord,
    {
      isResumed,
      script,
      signal,
    }: { isResumed: boolean; script?: PrepareRequest['script']; signal: AbortSignal },
  ) {
    this.#context = context;
    this.record = record;
    this.#isResumed = isResumed;
    this.#printed = new MaskedLog(async () => {}, record.secrets); // what its container prints is not ours
    this.#printed.onSecrets = () => this.#write({ secrets: this.#printed.secrets });
    this.#news = new News(this.#printed);
    this.#wanted = new Promise((resolve) => {
      this.#want = resolve;
    });
    const made = new Promise<void>((resolve) => {
      this.#isReady = resolve;
    });
    this.over = this.#run(script, signal);
    this.ready = Promise.race([made, this.over.then(() => {})]);
    this.ready.catch(() => {}); // heard where it is awaited
  }

  /** When it is ended if nobody has finished it: milliseconds since the epoch. */
  get expiresAt(): number {
    return this.record.acceptedAt + this.record.request.timeoutMs;
  }

  get isMounted(): boolean {
    return this.record.mountId !== undefined;
  }

  /** No container may have it any more. */
  get isEnding(): boolean {
    return this.#isEnding;
  }

  /** A container is to have it; asked for again with the same id, it has. @throws BridgeError `busy`, `not_found` */
  async mount(mountId: string): Promise<void> {
    // One that was taken over is in the mount already, whether the server is there or not.
    if (!this.#isTakenOver) await this.ready;
    const { executionId, mountId: held, mountedAt } = this.record;
    if (this.#isEnding) throw new BridgeError('not_found', `execution ${executionId} has ended`);
    if (held !== undefined && held !== mountId)
      throw new BridgeError(
        'busy',
        `execution ${executionId} is mounted in another container: an execution is for one at a time; prepare one for each with: cronium exec create`,
      );
    this.#write({ mountId, mountedAt: mountedAt ?? Date.now() });
    this.#context.log.info({ execution: executionId, mountId }, 'execution mounted');
  }

  /** That container has it no more. */
  unmount(mountId: string): void {
    if (this.record.mountId !== mountId) return;
    this.#write({ mountId: undefined, unmountedAt: Date.now() });
  }

  /** As whoever ran its container says. @throws BridgeError `busy` while a container has it */
  async finish({
    exitCode,
    reason,
    force,
  }: Omit<FinishRequest, 'executionId'>): Promise<RunResult> {
    if (!this.#isEnding && !force) await this.#assertUnmounted();
    const warnings = reason === undefined ? [] : [`Warning: finished by whoever ran it: ${reason}`];
    if (exitCode === null)
      return await this.#end({ status: 'failed', exitCode, signal: null, warnings });
    const exit = { code: exitCode, oomKilled: false };
    const how = { exit, timedOut: false, stopped: false, isOverLogLimit: false };
    const status = statusOf(how, { failed: false, wasFull: false });
    return await this.#end({ status, exitCode, signal: signalOf(exitCode), warnings });
  }

  /** mountd stops, and the mount goes. */
  async lose(): Promise<void> {
    await this.#end(STOPPED).catch(() => {});
  }

  /** The first one to want it decides. */
  async #end(how: End): Promise<RunResult> {
    this.#isEnding = true;
    this.#want(how);
    return await this.over;
  }

  /** Of its container, as far as Docker has told of it. */
  get #times(): Pick<Ended, 'startedAt' | 'finishedAt'> {
    const { acceptedAt, mountedAt, mountId, unmountedAt } = this.record;
    const finishedAt = mountId === undefined ? unmountedAt : undefined;
    return { startedAt: mountedAt ?? acceptedAt, finishedAt: finishedAt ?? Date.now() };
  }

  get #isTakenOver(): boolean {
    return (
      this.#isResumed && this.#context.mount.takenOver.restored.includes(this.record.executionId)
    );
  }

  async #run(script: PrepareRequest['script'], signal: AbortSignal): Promise<RunResult> {
    const { record } = this;
    const { executionId, request, acceptedAt } = record;
    const { link, channels, instance } = this.#context;
    const log = this.#context.log.child({ execution: executionId });
    const event = eventDocument({ request: { ...request, script }, acceptedAt });
    const params = paramsOf(record, instance, event);
    const create = async () =>
      await ExecutionChannel.create(link, channels, params, this.#news, signal);
    this.told.unknown = this.#isResumed ? INTERRUPTED : 'it was interrupted while it was prepared';
    const opening = this.#isResumed ? untilTime(record, create) : create();
    if (record.ended !== undefined) return await this.#afterEnd(record.ended, opening);
    using channel = await opening.catch(async (error: unknown) => {
      await this.#discardTree();
      throw error;
    });
    this.#printed.learn(channel.variables);
    const cancel = () => {
      const warnings = [cancellation(this.#news.stop.reason)];
      this.#end({ status: 'killed', exitCode: null, signal: null, warnings }).catch(() => {});
    };
    this.#news.stop.addEventListener('abort', cancel, { once: true });
    if (this.#news.stop.aborted) cancel();
    const late = () => {
      const warnings = ['Warning: it was not finished in time; see: cronium exec finish --help'];
      const end: End = { status: 'timed-out', exitCode: null, signal: null, warnings };
      this.#end(end).catch(() => {});
    };
    const timer = setTimeout(late, Math.max(1, this.expiresAt - Date.now()));
    try {
      await using tree = await this.#treeOf(channel, event, script);
      this.#news.deliverTo(tree);
      if (record.isReady === undefined) this.#write({ isReady: true });
      this.#isReady();
      log.info({ runtime: request.runtime, expiresAt: this.expiresAt }, 'execution prepared');
      const how = await this.#wanted;
      const { exitCode } = how;
      const outcome = await tree.finish(how.status === 'succeeded');
      const isForWantOfRoom = outcome.wasFull && how.status === 'failed' && exitCode !== null;
      const status = isForWantOfRoom ? 'disk-full' : how.status;
      const ended: Ended = { status, exitCode, signal: how.signal, ...this.#times };
      const room = outcome.wasFull ? [NO_ROOM] : [];
      const warnings = [...outcome.warnings, ...how.warnings, ...room].map((text) =>
        this.#printed.mask(text),
      );
      const isSecret = (key: string) => this.#printed.isSecret(key);
      const finish = finishOf(ended, outcome, warnings);
      const result = resultOf(executionId, ended, outcome, warnings, isSecret);
      this.#write({ ended: { result, finish } });
      await recordEnd(this.told, channel, ended, outcome, warnings);
      log.info({ status, exitCode, isMounted: this.isMounted }, 'prepared execution finished');
      return resultOf(executionId, ended, outcome, warnings, isSecret);
    } catch (error) {
      const { message } = asBridgeError(error);
      log.warn({ reason: message }, 'prepared execution was lost');
      const ended: Ended = { ...LOST, ...this.#times };
      const warnings = [`Warning: lost: ${message}; what the script committed is kept`];
      await recordEnd(this.told, channel, ended, UNKNOWN, warnings);
      if (record.isReady === undefined) throw error; // whoever wants it prepared hears of it
      return resultOf(executionId, ended, UNKNOWN, warnings, () => false);
    } finally {
      this.#isEnding = true;
      clearTimeout(timer);
    }
  }

  /** @throws Lost when an earlier process has left one that cannot be used */
  async #treeOf(
    channel: ExecutionChannel,
    event: EventDocument,
    script: PrepareRequest['script'],
  ): Promise<MountedTree> {
    const { mount, helpers, uid, gid } = this.#context;
    const { executionId, request, isReady } = this.record;
    const { runtime, commit, strict, input } = request;
    const { variables, merged } = channel;
    const host = hostOf(channel, this.#printed, async () => {}); // /cronium/errors says it
    if (this.#isTakenOver) return await mount.resumeTree(executionId, host, variables);
    if (isReady === true) {
      const [, reason] = mount.takenOver.damaged.find(([id]) => id === executionId) ?? [];
      await mount.discard(executionId);
      throw new Lost(
        reason === undefined
          ? 'its files could not be kept'
          : `its files cannot be taken over: ${reason}`,
      );
    }
    // Nobody could ask again with the script that an earlier process was given.
    if (this.#isResumed) throw new Lost('mountd was interrupted while it was prepared: try again');
    const files: TreeFile[] = runtime === undefined ? [] : [...injectionOf(runtime, helpers).files];
    if (script !== undefined)
      files.push({ path: `work/${script.name}`, mode: 0o755, data: script.data });
    return await mount.createTree(
      {
        id: executionId,
        uid,
        gid,
        quota: SCRATCH_QUOTA,
        input,
        event: JSON.stringify(event, null, 2),
        variables,
        merged,
        policy: { commit, exact: false, strict },
        files,
      },
      host,
    );
  }

  /** An earlier process died when all was known, and perhaps not told. */
  async #afterEnd(
    { result, finish }: NonNullable<PreparedRecord['ended']>,
    opening: Promise<ExecutionChannel>,
  ): Promise<RunResult> {
    this.#isEnding = true;
    this.told.unknown = unrecorded(result);
    try {
      using channel = await opening;
      await channel.finish(finish);
      this.told.unknown = undefined;
    } catch (error) {
      if (asBridgeError(error).code === 'denied') this.told.unknown = undefined; // it has ended there
    }
    await this.#discardTree();
    return result;
  }

  /** Whatever an earlier process has left of it goes. */
  async #discardTree(): Promise<void> {
    if (!this.#isResumed) return;
    const { mount } = this.#context;
    const { executionId } = this.record;
    if (this.#isTakenOver) await mount.removeTree(executionId);
    else await mount.discard(executionId);
  }

  async #assertUnmounted(): Promise<void> {
    for (const deadline = Date.now() + UNMOUNT_MS; this.isMounted; await sleep(UNMOUNT_POLL_MS))
      if (this.#isEnding || Date.now() > deadline) break;
    if (this.#isEnding || !this.isMounted) return;
    const { executionId } = this.record;
    // Docker may have died with the container, and never told us.
    const names = await this.#context.containers.namesOn(executionId).catch(() => undefined);
    if (names?.length === 0) return;
    throw new BridgeError(
      'busy',
      `execution ${executionId} is still mounted in ${names === undefined ? 'a container' : `container ${names.join(', ')}`}: stop that first, or add --force to finish anyway`,
    );
  }

  #write(more: Partial<PreparedRecord>): void {
    Object.assign(this.record, more);
    this.#context.records.write(this.record);
  }
}
