import { randomUUID } from 'node:crypto';
import { join } from 'node:path';
import type { Logger } from 'pino';
import { type Channels, ExecutionChannel } from '#bridge/client/execution-channel.js';
import type { Link } from '#bridge/client/link.js';
import type { TreeFile } from '#bridge/vfs/waiting-tree.js';
import {
  LOG_BYTES_MAX,
  type MountdStatus,
  type RunRequest,
  type RunResult,
} from '#bridge/wire/control.js';
import { asBridgeError, BridgeError } from '#bridge/wire/errors.js';
import { ExecutionId } from '#bridge/wire/names.js';
import type { EventDocument } from '#bridge/wire/protocol.js';
import { after } from './after.js';
import { AwaitedListener, type Received } from './awaited-listener.js';
import { ContainerLost, type Containers, nameOf, type RunningContainer } from './containers.js';
import type { RunListener } from './control-server.js';
import type { Egress, RunNetwork } from './egress.js';
import { eventDocument } from './event-document.js';
import { coldLaunch, LAUNCH, type Launch, launchOf, warmFiles } from './launch-files.js';
import { MaskedLog } from './masked-log.js';
import type { MountedTree, MountHost } from './mount-host.js';
import {
  hostOf,
  INTERRUPTED,
  paramsOf,
  recordEnd,
  SCRATCH_QUOTA,
  TOLD_MS,
  untilTime,
} from './run-channel.js';
import { News } from './run-news.js';
import { placeOf, type RunRecord, type RunRecords } from './run-records.js';
import {
  CUT,
  cancellation,
  type Ended,
  finishOf,
  LOST,
  Lost,
  lostSentence,
  NO_ROOM,
  resultOf,
  tooMuchPrinted,
  UNKNOWN,
  unrecorded,
} from './run-result.js';
import { type Followed, follow, signalOf, statusOf } from './script-run.js';
import type { WarmContainer, WarmContainers } from './warm-containers.js';
import type { Watch } from './watch.js';

export interface ExecutionsOptions {
  readonly link: Link;
  readonly channels: Channels;
  readonly mount: MountHost;
  readonly containers: Containers;
  readonly warm: WarmContainers;
  readonly egress: Egress;
  readonly records: RunRecords;
  readonly watch: Watch;
  /** Among the machines whose certificates have the same name. */
  readonly instance: string;
  /**
   * Called when nobody knows whether the server has, or has ended, an execution that is not ours any more: `reason` for its
   * record, if it is lost.
   */
  readonly onUnknown: (executionId: ExecutionId, reason: string) => void;
  readonly log: Logger;
  readonly mountPoint: string;
  readonly helpers: string;
  readonly hostsFile: string;
  /** The container's user, as files in the mount show it. */
  readonly uid: number;
  readonly gid: number;
}

/** Runs scripts: a tree in the mount, a container on it, an execution on the server, and the end of all three. */
export class Executions implements AsyncDisposable {
  readonly #options: ExecutionsOptions;
  readonly #running = new Map<ExecutionId, MountdStatus['executions'][number]>();
  /** From before the server hears of them until it has heard, or cannot hear, of their end. */
  readonly #ours = new Set<ExecutionId>();
  /** Of those that are ours: names of their containers, and of their directories in the mount. */
  readonly #places = new Set<string>();
  /** Of an earlier process, and not asked for again yet. */
  readonly #awaited = new Map<ExecutionId, AwaitedRun>();
  readonly #runs = new Set<Promise<unknown>>();
  readonly #closing = new AbortController();
  #nonce = Date.now();

  constructor(options: ExecutionsOptions) {
    this.#options = options;
  }

  get running(): MountdStatus['executions'] {
    return [...this.#running.values()];
  }

  /** Whether it runs here, or is about to. */
  isOurs(executionId: string): boolean {
    return this.#ours.has(executionId as ExecutionId);
  }

  /** Whether what stands at this place, in the mount or as a container, belongs to one that runs here. */
  uses(place: string): boolean {
    return this.#places.has(place);
  }

  /** Runs to the end, whatever that is; `signal` stops the script. @throws BridgeError when the script could not be started. */
  async run(request: RunRequest, listener: RunListener, signal: AbortSignal): Promise<RunResult> {
    if (this.#closing.signal.aborted)
      throw new BridgeError('unavailable', 'mountd is shutting down');
    const { received, ...asked } = request;
    const executionId = request.executionId ?? ExecutionId.parse(randomUUID());
    const awaited = this.#awaited.get(executionId);
    if (awaited !== undefined) {
      this.#awaited.delete(executionId);
      awaited.listener.attach(listener, received ?? NOTHING, signal);
      return await awaited.result;
    }
    if (this.#ours.has(executionId))
      throw new BridgeError('conflict', `execution ${executionId} runs already`);
    // Whatever became of it before is known to the server.
    if (received !== undefined)
      throw new BridgeError('not_found', `execution ${executionId} does not run here`);
    const record: RunRecord = {
      executionId,
      request: asked,
      acceptedAt: Date.now(),
      nonce: this.#nonce++,
    };
    const until = AbortSignal.any([signal, this.#closing.signal]);
    return await this.#told((tell) =>
      this.#owned({ record, isResumed: false, tell }, listener, until),
    );
  }

  /** Goes on with what ran when an earlier process died. Whoever asked for it is to ask again. */
  resume(records: readonly RunRecord[]): void {
    const { log } = this.#options;
    for (const record of records) {
      const listener = new AwaitedListener();
      const until = AbortSignal.any([listener.signal, this.#closing.signal]);
      const result = this.#told((tell) =>
        this.#owned({ record, isResumed: true, tell }, listener, until),
      );
      this.#awaited.set(record.executionId, { listener, result });
      log.info({ execution: record.executionId }, 'execution goes on');
      const forget = () => {
        // Its result is there for those who come late, too; not for ever.
        setTimeout(() => this.#awaited.delete(record.executionId), RESULT_KEPT_MS).unref();
      };
      result.then(forget, forget);
    }
  }

  /** Resolves with the result as soon as it is known; what is left of the run goes after that. */
  async #told(start: (tell: Run['tell']) => Promise<RunResult>): Promise<RunResult> {
    return await new Promise((resolve, reject) => {
      const gone = start(resolve);
      this.#runs.add(gone);
      gone.then(resolve, reject).finally(() => this.#runs.delete(gone));
    });
  }

  /** Stops every script and waits until nothing of them is left. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#closing.abort();
    await Promise.allSettled(this.#runs);
  }

  async #owned(
    { record, isResumed, tell }: Pick<Run, 'record' | 'isResumed' | 'tell'>,
    listener: RunListener,
    signal: AbortSignal,
  ): Promise<RunResult> {
    const { records } = this.#options;
    const { executionId } = record;
    const run: Run = { executionId, record, isResumed, tell, unknown: undefined };
    this.#ours.add(executionId);
    this.#places.add(placeOf(record));
    using watched = this.#options.watch.begin(executionId);
    try {
      if (!isResumed) records.write(record);
      return watched.ended(await this.#run(run, watched.tee(listener), signal));
    } finally {
      this.#ours.delete(executionId);
      this.#places.delete(executionId);
      this.#places.delete(placeOf(record));
      const remove = () => records.remove(executionId);
      // Until whoever asked has surely been told: if this process dies now, the next one tells them.
      if (record.ended === undefined) remove();
      else setTimeout(remove, TOLD_MS).unref();
      if (run.unknown !== undefined) this.#options.onUnknown(executionId, run.unknown);
    }
  }

  async #run(run: Run, listener: RunListener, signal: AbortSignal): Promise<RunResult> {
    const { executionId, record, isResumed } = run;
    const { link, channels, mount, containers, warm, watch } = this.#options;
    const { runtime, exact, timeoutMs } = record.request;
    const { memoryBytes, cpus, logBytesMax = LOG_BYTES_MAX } = record.request;
    const image = record.request.image ?? LAUNCH[runtime].image;
    await using network = this.#options.egress.forRun(executionId, record.request.egress);
    const { id: imageId, hasEntrypoint } = isResumed
      ? { id: image, hasEntrypoint: true }
      : await containers.image(image);
    if (!isResumed) await network.resolve();

    const event = eventDocument(record);
    const printed = new MaskedLog(async (log) => await listener.log(log), record.secrets);
    printed.onSecrets = () => this.#write(record, { secrets: printed.secrets });
    const news = new News(printed);
    run.unknown = isResumed ? INTERRUPTED : 'it was interrupted before its script was started';
    const params = paramsOf(record, this.#options.instance, event);
    const create = async () => await ExecutionChannel.create(link, channels, params, news, signal);
    // What runs already waits for a server that is away, as it would have without another process.
    const opening = isResumed ? untilTime(record, create) : create();
    if (record.ended !== undefined)
      return await this.#afterEnd(run, record.ended, opening, printed);
    opening.catch(async () => await this.#discard(run)).catch(() => {}); // nobody goes on with what an earlier process has begun
    using channel = await opening;
    listener.created(executionId);
    printed.learn(channel.variables);
    const log = this.#options.log.child({ execution: executionId });
    const startedAt = record.startedAt ?? Date.now();
    const { name: script } = record.request.script;
    const shown = { executionId, runtime, startedAt, script };
    this.#running.set(executionId, shown);
    try {
      const kind = { imageId, memoryBytes, cpus };
      // An entry point would run before there is anything to find.
      const canBeWarm = !isResumed && !hasEntrypoint && record.request.egress === undefined;
      await using waiting = canBeWarm ? warm.take(kind) : undefined;
      // Starting another one takes from what this one has of the machine: it shall not begin with that.
      using _ahead = canBeWarm ? after(AHEAD_MS, () => warm.used(kind)) : undefined;
      if (waiting !== undefined) this.#settle(record, waiting.place);
      const launch = this.#launchOf(record);
      const files = waiting === undefined ? coldLaunch(launch).files : warmFiles(launch);
      await using tree = await this.#treeOf(run, channel, printed, event, files);
      news.deliverTo(tree);
      await using container = await this.#containerOf(run, waiting, launch, imageId, network);
      this.#running.set(executionId, { ...shown, containerName: nameOf(placeOf(record)) });
      watch.started(executionId, container, placeOf(record));
      const isWarm = waiting !== undefined;
      if (!isResumed) log.info({ runtime, image, isWarm }, 'execution started');
      const cancelled = news.stop;
      const onLog: RunListener['log'] = async (log) => await printed.push(log);
      const leftMs = timeoutMs - (Date.now() - startedAt);
      let followed: Followed;
      try {
        followed = await follow(container, {
          timeoutMs: leftMs,
          onLog,
          logBytesMax,
          signal,
          cancelled,
        });
      } catch (error) {
        if (!(error instanceof ContainerLost)) throw error;
        printed.end();
        const lost = await tree.outcome();
        const warnings = [
          ...lost.warnings.map((text) => printed.mask(text)),
          lostSentence(error.message),
        ];
        const ended: Ended = { ...LOST, startedAt, finishedAt: Date.now() };
        await recordEnd(run, channel, ended, lost, warnings);
        log.warn({ reason: error.message }, 'execution was lost');
        return resultOf(executionId, ended, lost, warnings, (key) => printed.isSecret(key));
      }
      printed.end();
      const failed = exact && followed.stderrSeen;
      const hasSucceeded = statusOf(followed, { failed, wasFull: false }) === 'succeeded';
      const outcome = await tree.finish(hasSucceeded);
      const { wasFull } = outcome;
      const status = statusOf(followed, { failed, wasFull });
      printed.end(); // of warnings that came with it
      const { code } = followed.exit;
      const ended: Ended = {
        status,
        exitCode: code,
        signal: signalOf(code),
        startedAt,
        finishedAt: followed.endedAt,
      };
      const warnings = outcome.warnings.map((text) => printed.mask(text));
      if (followed.stopped && cancelled.aborted) warnings.push(cancellation(cancelled.reason));
      if (printed.warning !== undefined) warnings.push(printed.warning);
      if (followed.wasCut) warnings.push(CUT);
      if (followed.isOverLogLimit) warnings.push(tooMuchPrinted(logBytesMax));
      if (wasFull) warnings.push(NO_ROOM);
      const isSecret = (key: string) => printed.isSecret(key);
      const finish = finishOf(ended, outcome, warnings);
      const result = resultOf(executionId, ended, outcome, warnings, isSecret);
      this.#write(record, { ended: { result, finish } });
      void container[Symbol.asyncDispose](); // takes its time, while the server does
      await recordEnd(run, channel, ended, outcome, warnings);
      log.info({ status, exitCode: code, ms: ended.finishedAt - startedAt }, 'execution finished');
      const told = resultOf(executionId, ended, outcome, warnings, isSecret);
      this.#running.delete(executionId);
      run.tell(told);
      return told;
    } catch (error) {
      const { message } = asBridgeError(error);
      log.warn({ reason: message }, 'execution could not be run');
      const isLost = mount.isGone || error instanceof Lost || error instanceof ContainerLost;
      const status = isLost ? 'lost' : signal.aborted ? 'killed' : 'failed';
      const finishedAt = Date.now();
      // The server's record shall not stay open. If the server cannot be told now, it is later.
      const ended = { status, exitCode: null, signal: null, startedAt, finishedAt } as const;
      run.unknown = unrecorded(ended);
      await channel.finish({ ...ended, warnings: [message] }).then(
        () => {
          run.unknown = undefined;
        },
        (cause: unknown) => log.warn({ err: cause }, 'the end was not recorded'),
      );
      if (isLost)
        return resultOf(executionId, ended, UNKNOWN, [lostSentence(message)], () => false);
      throw error;
    } finally {
      this.#running.delete(executionId);
    }
  }

  /** From now on it is at this place. */
  #settle(record: RunRecord, place: string | undefined): void {
    this.#places.delete(placeOf(record));
    this.#write(record, { place });
    this.#places.add(placeOf(record));
  }

  #launchOf({ request: { runtime, script, exact, env }, nonce }: RunRecord): Launch {
    const { helpers } = this.#options;
    return launchOf(runtime, script.data, { helpers, exact, nonce, env });
  }

  /** @throws Lost when an earlier process has left one that cannot be used */
  async #treeOf(
    { record, isResumed }: Run,
    channel: ExecutionChannel,
    printed: MaskedLog,
    event: EventDocument,
    files: readonly TreeFile[],
  ): Promise<MountedTree> {
    const { mount, containers, uid, gid } = this.#options;
    const { request, startedAt } = record;
    const { runtime, commit, exact, strict, input } = request;
    const place = placeOf(record);
    const host = hostOf(channel, printed, async (text) => {
      // Bash goes on after a close that failed; whoever reads its output sees why.
      if (runtime === 'bash') await printed.warn(text);
    });
    const { variables, merged } = channel;
    if (isResumed) {
      const { restored, damaged } = mount.takenOver;
      const [, reason] = damaged.find(([id]) => id === place) ?? [];
      if (reason !== undefined) {
        await containers.discard(place);
        await mount.discard(place);
        throw new Lost(`its files cannot be taken over: ${reason}`);
      }
      if (restored.includes(place)) return await mount.resumeTree(place, host, variables);
      if (startedAt !== undefined) {
        await containers.discard(place);
        throw new Lost('its files could not be kept'); // a full disk, when it was time to note what they are
      }
      if (record.place !== undefined) {
        // The container waited for another process's word, and has not heard it.
        await containers.discard(place);
        this.#settle(record, undefined);
      }
    }
    return await mount.createTree(
      {
        id: placeOf(record),
        uid,
        gid,
        quota: SCRATCH_QUOTA,
        input,
        event: JSON.stringify(event, null, 2),
        variables,
        merged,
        policy: { commit, exact, strict },
        files,
      },
      host,
    );
  }

  /** @throws Lost when it was started, and is gone */
  async #containerOf(
    { record, isResumed }: Run,
    waiting: WarmContainer | undefined,
    launch: Launch,
    image: string,
    network: RunNetwork,
  ): Promise<RunningContainer> {
    const { containers, mountPoint, hostsFile, uid, gid, log } = this.#options;
    const place = placeOf(record);
    if (isResumed) {
      const container = await containers.resume(place);
      if (container !== undefined) {
        // Another process may have to go on with it in turn.
        const startedAt = record.startedAt ?? Date.now();
        if (record.isStarted === undefined) this.#write(record, { startedAt, isStarted: true });
        return container;
      }
      const wasWarm = record.place !== undefined && record.startedAt !== undefined;
      if (record.isStarted === true || wasWarm) throw new Lost('somebody removed its container');
    }
    const opened = await network.open();
    this.#write(record, { startedAt: Date.now() });
    const warm = await waiting?.go().catch(async (error: unknown) => {
      log.warn({ place, reason: asBridgeError(error).message }, 'a container that waited is gone');
      await containers.discard(place);
      return undefined;
    });
    const { command, env } = coldLaunch(launch);
    const { memoryBytes, cpus } = record.request;
    const source = join(mountPoint, place);
    const limits = { memoryBytes, cpus, network: opened };
    const spec = { place, image, command, env, source, hostsFile, uid, gid, ...limits };
    // The name of one that is being removed is free in a moment.
    const mayBeUnderWay = isResumed || waiting !== undefined;
    const container = warm ?? (await containers.start(spec, mayBeUnderWay));
    try {
      this.#write(record, { isStarted: true });
    } catch (error) {
      await container[Symbol.asyncDispose](); // a full disk
      throw error;
    }
    return container;
  }

  #write(
    record: RunRecord,
    more: Pick<RunRecord, 'place' | 'startedAt' | 'isStarted' | 'ended' | 'secrets'>,
  ): void {
    Object.assign(record, more);
    this.#options.records.write(record);
  }

  /** An earlier process died when all was known, and perhaps not told. */
  async #afterEnd(
    run: Run,
    { result, finish }: NonNullable<RunRecord['ended']>,
    opening: Promise<ExecutionChannel>,
    printed: MaskedLog,
  ): Promise<RunResult> {
    await this.#replay(run, printed);
    run.unknown = unrecorded(result);
    try {
      using channel = await opening;
      await channel.finish(finish);
      run.unknown = undefined;
    } catch (error) {
      if (asBridgeError(error).code === 'denied') run.unknown = undefined; // it has ended there
    }
    await this.#discard(run);
    return result;
  }

  /** What its container printed: whoever asked may not have all of it. */
  async #replay({ executionId, record }: Run, printed: MaskedLog): Promise<void> {
    const container = await this.#options.containers.resume(placeOf(record)).catch(() => undefined);
    if (container === undefined) return this.#options.watch.forget(executionId);
    try {
      for await (const log of container.logs) await printed.push(log);
    } catch {
      // Docker is away: what they have has to do.
    }
    printed.end();
  }

  /** Whatever an earlier process has left of it goes. */
  async #discard({ record, isResumed }: Run): Promise<void> {
    if (!isResumed) return;
    const { containers, mount } = this.#options;
    const place = placeOf(record);
    await containers.discard(place);
    if (mount.takenOver.restored.includes(place)) await mount.removeTree(place);
    else await mount.discard(place);
  }
}

/** One run, from before it exists. */
interface Run {
  readonly executionId: ExecutionId;
  readonly record: RunRecord;
  /** An earlier process has begun it. */
  readonly isResumed: boolean;
  /** Whoever asked for it need not wait until its container has been removed. */
  readonly tell: (result: RunResult) => void;
  /** What became of it, while nobody knows whether the server knows; undefined: the server has told us that it does. */
  unknown: string | undefined;
}

interface AwaitedRun {
  readonly listener: AwaitedListener;
  readonly result: Promise<RunResult>;
}

const NOTHING: Received = { stdout: 0, stderr: 0 };

/** For whoever asks again late. */
const RESULT_KEPT_MS = 60_000;

/** A script that takes longer than this shares the machine with the start of the next one's container. */
const AHEAD_MS = 1_000;
