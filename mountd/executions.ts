import { randomUUID } from 'node:crypto';
import { join } from 'node:path';
import type { Logger } from 'pino';
import { Channels, ExecutionChannel } from '#bridge/client/execution-channel.js';
import type { Link } from '#bridge/client/link.js';
import type { RunHost, Runtime } from '#bridge/client/runtime.js';
import type { Outcome } from '#bridge/vfs/documents.js';
import {
  type MountdStatus,
  RUN_OVERHEAD_MS,
  type RunRequest,
  type RunResult,
} from '#bridge/wire/control.js';
import { asBridgeError, BridgeError } from '#bridge/wire/errors.js';
import { ExecutionId } from '#bridge/wire/names.js';
import type { EventDocument } from '#bridge/wire/protocol.js';
import { AwaitedListener, type Received } from './awaited-listener.js';
import {
  ContainerLost,
  type ContainerSpec,
  type Containers,
  type RunningContainer,
} from './containers.js';
import type { RunListener } from './control-server.js';
import type { Egress, RunNetwork } from './egress.js';
import { eventDocument } from './event-document.js';
import { LAUNCH, type Launch, launchOf } from './launch-files.js';
import { MaskedLog } from './masked-log.js';
import type { MountedTree, MountHost } from './mount-host.js';
import { News } from './run-news.js';
import type { RunRecord, RunRecords } from './run-records.js';
import {
  CUT,
  cancellation,
  type Ended,
  finishOf,
  LOST,
  Lost,
  lostSentence,
  resultOf,
  UNKNOWN,
  unrecorded,
} from './run-result.js';
import { type Followed, follow, signalOf, statusOf } from './script-run.js';

/** Scratch an execution may fill: room for real work, and 100 executions still fit on a small disk. */
const SCRATCH_QUOTA = { bytesMax: 1024 * 1024 * 1024, inodesMax: 100_000 };

export interface ExecutionsOptions {
  readonly link: Link;
  readonly mount: MountHost;
  readonly containers: Containers;
  readonly egress: Egress;
  readonly records: RunRecords;
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
  readonly #channels: Channels;
  readonly #running = new Map<ExecutionId, MountdStatus['executions'][number]>();
  /** From before the server hears of them until it has heard, or cannot hear, of their end. */
  readonly #ours = new Set<ExecutionId>();
  /** Of an earlier process, and not asked for again yet. */
  readonly #awaited = new Map<ExecutionId, AwaitedRun>();
  readonly #runs = new Set<Promise<unknown>>();
  readonly #closing = new AbortController();
  #nonce = Date.now();

  constructor(options: ExecutionsOptions) {
    this.#options = options;
    this.#channels = new Channels(options.link);
  }

  get running(): MountdStatus['executions'] {
    return [...this.#running.values()];
  }

  /** Whether it runs here, or is about to. */
  isOurs(executionId: string): boolean {
    return this.#ours.has(executionId as ExecutionId);
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
    return await this.#tracked(this.#owned({ record, isResumed: false }, listener, until));
  }

  /** Goes on with what ran when an earlier process died. Whoever asked for it is to ask again. */
  resume(records: readonly RunRecord[]): void {
    const { log } = this.#options;
    for (const record of records) {
      const listener = new AwaitedListener();
      const until = AbortSignal.any([listener.signal, this.#closing.signal]);
      const result = this.#tracked(this.#owned({ record, isResumed: true }, listener, until));
      this.#awaited.set(record.executionId, { listener, result });
      log.info({ execution: record.executionId }, 'execution goes on');
      const forget = () => {
        // Its result is there for those who come late, too; not for ever.
        setTimeout(() => this.#awaited.delete(record.executionId), RESULT_KEPT_MS).unref();
      };
      result.then(forget, forget);
    }
  }

  async #tracked(run: Promise<RunResult>): Promise<RunResult> {
    this.#runs.add(run);
    try {
      return await run;
    } finally {
      this.#runs.delete(run);
    }
  }

  /** Stops every script and waits until nothing of them is left. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#closing.abort();
    await Promise.allSettled(this.#runs);
  }

  async #owned(
    { record, isResumed }: Pick<Run, 'record' | 'isResumed'>,
    listener: RunListener,
    signal: AbortSignal,
  ): Promise<RunResult> {
    const { records } = this.#options;
    const { executionId } = record;
    const run: Run = { executionId, record, isResumed, unknown: undefined };
    this.#ours.add(executionId);
    try {
      if (!isResumed) records.write(record);
      return await this.#run(run, listener, signal);
    } finally {
      this.#ours.delete(executionId);
      const remove = () => records.remove(executionId);
      // Until whoever asked has surely been told: if this process dies now, the next one tells them.
      if (record.ended === undefined) remove();
      else setTimeout(remove, TOLD_MS).unref();
      if (run.unknown !== undefined) this.#options.onUnknown(executionId, run.unknown);
    }
  }

  async #run(run: Run, listener: RunListener, signal: AbortSignal): Promise<RunResult> {
    const { executionId, record, isResumed } = run;
    const { link, mount, containers, mountPoint, hostsFile, uid, gid } = this.#options;
    const { runtime, exact, user, org, timeoutMs, profile, readOnly } = record.request;
    const image = record.request.image ?? LAUNCH[runtime].image;
    await using network = this.#options.egress.forRun(executionId, record.request.egress);
    if (!isResumed) {
      await containers.assertImage(image);
      await network.resolve();
    }

    const event = eventDocument(record);
    const printed = new MaskedLog(async (log) => await listener.log(log), record.secrets);
    printed.onSecrets = () => this.#write(record, { secrets: printed.secrets });
    const news = new News(printed);
    run.unknown = isResumed ? INTERRUPTED : 'it was interrupted before its script was started';
    const params = {
      user,
      ...(org !== undefined && { org }),
      executionId,
      instance: this.#options.instance,
      variablesOf: record.request.variablesOf === 'org' && org !== undefined ? { org } : { user },
      runtime,
      event,
      timeoutMs,
      ...(profile !== undefined && { profile }),
      ...(readOnly !== undefined && { readOnly }),
    };
    const create = async () =>
      await ExecutionChannel.create(link, this.#channels, params, news, signal);
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
    this.#running.set(executionId, {
      executionId,
      runtime,
      startedAt,
      script: record.request.script.name,
    });
    try {
      const launch = this.#launchOf(record);
      await using tree = await this.#treeOf(run, channel, printed, event, launch);
      news.deliverTo(tree);
      await using container = await this.#containerOf(run, network, {
        executionId,
        image,
        command: launch.command,
        env: { ...record.request.env, ...launch.env },
        croniumSource: join(mountPoint, executionId),
        hostsFile,
        uid,
        gid,
        memoryBytes: record.request.memoryBytes,
        cpus: record.request.cpus,
      });
      if (!isResumed) log.info({ runtime, image }, 'execution started');
      const cancelled = news.stop;
      const onLog: RunListener['log'] = async (log) => await printed.push(log);
      const leftMs = timeoutMs - (Date.now() - startedAt);
      let followed: Followed;
      try {
        followed = await follow(container, { timeoutMs: leftMs, onLog, signal, cancelled });
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
      const status = statusOf(followed, exact && followed.stderrSeen);
      const outcome = await tree.finish(status === 'succeeded');
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
      const isSecret = (key: string) => printed.isSecret(key);
      const finish = finishOf(ended, outcome, warnings);
      const result = resultOf(executionId, ended, outcome, warnings, isSecret);
      this.#write(record, { ended: { result, finish } });
      await recordEnd(run, channel, ended, outcome, warnings);
      log.info({ status, exitCode: code, ms: ended.finishedAt - startedAt }, 'execution finished');
      return resultOf(executionId, ended, outcome, warnings, isSecret);
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

  #launchOf({ request, nonce }: RunRecord): Launch {
    const { helpers } = this.#options;
    return launchOf(request.runtime, request.script.data, { helpers, exact: request.exact, nonce });
  }

  /** @throws Lost when an earlier process has left one that cannot be used */
  async #treeOf(
    { executionId, record: { request, startedAt }, isResumed }: Run,
    channel: ExecutionChannel,
    printed: MaskedLog,
    event: EventDocument,
    { files }: Launch,
  ): Promise<MountedTree> {
    const { mount, containers, uid, gid } = this.#options;
    const { runtime, commit, exact, strict, input } = request;
    const host = hostOf(channel, printed, async (text) => {
      // Bash goes on after a close that failed; whoever reads its output sees why.
      if (runtime === 'bash') await printed.warn(text);
    });
    const { variables, merged } = channel;
    if (isResumed) {
      const { restored, damaged } = mount.takenOver;
      const [, reason] = damaged.find(([id]) => id === executionId) ?? [];
      if (reason !== undefined) {
        await containers.discard(executionId);
        await mount.discard(executionId);
        throw new Lost(`its files cannot be taken over: ${reason}`);
      }
      if (restored.includes(executionId))
        return await mount.resumeTree(executionId, host, variables);
      if (startedAt !== undefined) {
        await containers.discard(executionId);
        throw new Lost('its files could not be kept'); // a full disk, when it was time to note what they are
      }
    }
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
        policy: { commit, exact, strict },
        files,
      },
      host,
    );
  }

  /** @throws Lost when it was started, and is gone */
  async #containerOf(
    { executionId, record, isResumed }: Run,
    network: RunNetwork,
    spec: ContainerSpec,
  ): Promise<RunningContainer> {
    const { containers } = this.#options;
    if (isResumed) {
      const container = await containers.resume(executionId);
      if (container !== undefined) return container;
      if (record.isStarted === true) throw new Lost('somebody removed its container');
    }
    const opened = await network.open();
    this.#write(record, { startedAt: Date.now() });
    const container = await containers.start({ ...spec, network: opened }, isResumed);
    this.#write(record, { isStarted: true });
    return container;
  }

  #write(
    record: RunRecord,
    more: Pick<RunRecord, 'startedAt' | 'isStarted' | 'ended' | 'secrets'>,
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
  async #replay({ executionId }: Run, printed: MaskedLog): Promise<void> {
    const container = await this.#options.containers.resume(executionId).catch(() => undefined);
    if (container === undefined) return;
    try {
      for await (const log of container.logs) await printed.push(log);
    } catch {
      // Docker is away: what they have has to do.
    }
    printed.end();
  }

  /** Whatever an earlier process has left of it goes. */
  async #discard({ executionId, isResumed }: Run): Promise<void> {
    if (!isResumed) return;
    const { containers, mount } = this.#options;
    await containers.discard(executionId);
    if (mount.takenOver.restored.includes(executionId)) await mount.removeTree(executionId);
    else await mount.discard(executionId);
  }
}

/** One run, from before it exists. */
interface Run {
  readonly executionId: ExecutionId;
  readonly record: RunRecord;
  /** An earlier process has begun it. */
  readonly isResumed: boolean;
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

/** For an answer to reach the command. */
const TOLD_MS = 5_000;

const INTERRUPTED = 'mountd was interrupted before it was known how it ended';

/** Again and again while the server is away and the run has time left. @throws what `create` throws */
async function untilTime<T>(
  { acceptedAt, request }: RunRecord,
  create: () => Promise<T>,
): Promise<T> {
  for (;;)
    try {
      return await create();
    } catch (error) {
      const isAway = asBridgeError(error).code === 'unavailable';
      if (!isAway || Date.now() > acceptedAt + request.timeoutMs + RUN_OVERHEAD_MS) throw error;
    }
}

/** Tells the server how it ended; adds to the warnings if it could not be told. */
async function recordEnd(
  run: Run,
  channel: ExecutionChannel,
  ended: Ended,
  outcome: Outcome,
  warnings: string[],
): Promise<void> {
  const finish = finishOf(ended, outcome, warnings);
  run.unknown = unrecorded(ended);
  try {
    await channel.finish(finish);
    run.unknown = undefined;
  } catch (error) {
    // What the run did is known here and committed there; only the record of its end is missing.
    warnings.push(
      `Warning: the end of the execution was not recorded: ${asBridgeError(error).message}`,
    );
  }
}

const hostOf = (runtime: Runtime, printed: MaskedLog, warned: RunHost['warned']): RunHost => ({
  commitVariables: async (edit) => {
    // Before the script can go on, and also if it is refused: it may print what it wrote.
    printed.learn(edit.set.map(([key, text]) => ({ key, text })));
    const changes = await runtime.commitVariables(edit);
    printed.learn(changes);
    return changes;
  },
  setOutput: async (text) => await runtime.setOutput(text),
  setCondition: async (condition) => await runtime.setCondition(condition),
  warned,
});
