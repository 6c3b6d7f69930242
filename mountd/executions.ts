import { randomUUID } from 'node:crypto';
import { join } from 'node:path';
import type { Logger } from 'pino';
import {
  type ChannelListener,
  Channels,
  ExecutionChannel,
} from '#bridge/client/execution-channel.js';
import type { Link } from '#bridge/client/link.js';
import type { RunHost, Runtime } from '#bridge/client/runtime.js';
import type { Outcome } from '#bridge/vfs/documents.js';
import type { MountdStatus, RunRequest, RunResult } from '#bridge/wire/control.js';
import { asBridgeError, BridgeError } from '#bridge/wire/errors.js';
import { ExecutionId } from '#bridge/wire/names.js';
import type {
  EventDocument,
  Params,
  ServerOperations,
  Variable,
  VariableChange,
} from '#bridge/wire/protocol.js';
import { ContainerLost, type Containers } from './containers.js';
import type { RunListener } from './control-server.js';
import { LAUNCH, launchOf } from './launch-files.js';
import { MaskedLog } from './masked-log.js';
import type { MountedTree, MountHost } from './mount-host.js';
import { type Followed, follow, signalOf, statusOf } from './script-run.js';

/** Scratch an execution may fill: room for real work, and 100 executions still fit on a small disk. */
const SCRATCH_QUOTA = { bytesMax: 1024 * 1024 * 1024, inodesMax: 100_000 };

/** Characters kept of an output.json that is not JSON: enough to see what went wrong. */
const RAW_OUTPUT_MAX = 256 * 1024;

/** Changed variables in a result; with the largest output it still fits one message. */
const RESULT_VARIABLES_MAX = 4 * 1024 * 1024;

export interface ExecutionsOptions {
  readonly link: Link;
  readonly mount: MountHost;
  readonly containers: Containers;
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
    const run = this.#owned(request, listener, AbortSignal.any([signal, this.#closing.signal]));
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
    request: RunRequest,
    listener: RunListener,
    signal: AbortSignal,
  ): Promise<RunResult> {
    const run: Run = { executionId: ExecutionId.parse(randomUUID()), unknown: undefined };
    this.#ours.add(run.executionId);
    try {
      return await this.#run(run, request, listener, signal);
    } finally {
      this.#ours.delete(run.executionId);
      if (run.unknown !== undefined) this.#options.onUnknown(run.executionId, run.unknown);
    }
  }

  async #run(
    run: Run,
    request: RunRequest,
    listener: RunListener,
    signal: AbortSignal,
  ): Promise<RunResult> {
    const { executionId } = run;
    const { link, mount, containers, mountPoint, helpers, hostsFile, uid, gid } = this.#options;
    const { runtime, exact, strict, user, org, timeoutMs, profile, readOnly } = request;
    const image = request.image ?? LAUNCH[runtime].image;
    await containers.assertImage(image);

    const event = eventDocument(request);
    const printed = new MaskedLog(async (log) => await listener.log(log));
    const news = new News(printed);
    run.unknown = 'it was interrupted before its script was started';
    using channel = await ExecutionChannel.create(
      link,
      this.#channels,
      {
        user,
        ...(org !== undefined && { org }),
        executionId,
        instance: this.#options.instance,
        variablesOf: request.variablesOf === 'org' && org !== undefined ? { org } : { user },
        runtime,
        event,
        timeoutMs,
        ...(profile !== undefined && { profile }),
        ...(readOnly !== undefined && { readOnly }),
      },
      news,
      signal,
    );
    listener.created(executionId);
    printed.learn(channel.variables);
    const log = this.#options.log.child({ execution: executionId });
    const startedAt = Date.now();
    this.#running.set(executionId, {
      executionId,
      runtime,
      startedAt,
      script: request.script.name,
    });
    try {
      const launch = launchOf(runtime, request.script.data, {
        helpers,
        exact,
        nonce: this.#nonce++,
      });
      await using tree = await mount.createTree(
        {
          id: executionId,
          uid,
          gid,
          quota: SCRATCH_QUOTA,
          input: request.input,
          event: JSON.stringify(event, null, 2),
          variables: channel.variables,
          merged: channel.merged,
          policy: { commit: request.commit, exact, strict },
          files: launch.files,
        },
        hostOf(channel, printed, async (text) => {
          // Bash goes on after a close that failed; whoever reads its output sees why.
          if (runtime === 'bash')
            await printed.push({ stream: 'stderr', data: Buffer.from(`${text}\n`) });
        }),
      );
      news.deliverTo(tree);
      await using container = await containers.start({
        executionId,
        image,
        command: launch.command,
        env: { ...request.env, ...launch.env },
        croniumSource: join(mountPoint, executionId),
        hostsFile,
        uid,
        gid,
        memoryBytes: request.memoryBytes,
        cpus: request.cpus,
      });
      log.info({ runtime, image }, 'execution started');
      const cancelled = news.stop;
      const onLog: RunListener['log'] = async (log) => await printed.push(log);
      let followed: Followed;
      try {
        followed = await follow(container, { timeoutMs, onLog, signal, cancelled });
      } catch (error) {
        if (!(error instanceof ContainerLost)) throw error;
        printed.end();
        const lost = await tree.outcome();
        const warnings = [
          ...lost.warnings.map((text) => printed.mask(text)),
          lostSentence(error.message),
        ];
        const ended: Ended = { ...LOST, startedAt, finishedAt: Date.now() };
        await record(run, channel, ended, lost, warnings);
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
      await record(run, channel, ended, outcome, warnings);
      log.info({ status, exitCode: code, ms: ended.finishedAt - startedAt }, 'execution finished');
      return resultOf(executionId, ended, outcome, warnings, (key) => printed.isSecret(key));
    } catch (error) {
      const { message } = asBridgeError(error);
      log.warn({ reason: message }, 'execution could not be run');
      const status = mount.isGone ? 'lost' : signal.aborted ? 'killed' : 'failed';
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
      if (mount.isGone)
        return resultOf(executionId, ended, UNKNOWN, [lostSentence(message)], () => false);
      throw error;
    } finally {
      this.#running.delete(executionId);
    }
  }
}

/** One run, from before it exists. */
interface Run {
  readonly executionId: ExecutionId;
  /** What became of it, while nobody knows whether the server knows; undefined: the server has told us that it does. */
  unknown: string | undefined;
}

type Ended = Pick<RunResult, 'status' | 'exitCode' | 'signal' | 'startedAt' | 'finishedAt'>;
type Finish = Params<ServerOperations, 'execution.finish'>;

const LOST = { status: 'lost', exitCode: null, signal: null } as const;

const CUT =
  'Warning: the connection with Docker was cut; some of what the script printed may be missing';

const UNKNOWN: Outcome = {
  output: null,
  rawOutput: null,
  condition: null,
  variables: { set: [], deleted: [] },
  warnings: [],
};

const lostSentence = (reason: string): string =>
  `Warning: lost: ${reason}; what the script committed is kept, and its container is removed as soon as Docker allows it`;

const unrecorded = ({ status, exitCode }: Ended): string =>
  `the server could not be told how it ended: ${status}${exitCode === null ? '' : `, exit code ${exitCode}`}`;

const cancellation = (reason: unknown) =>
  `Warning: cancelled by an operator${reason === '' ? '' : `: ${String(reason)}`}`;

/** Tells the server how it ended; adds to the warnings if it could not be told. */
async function record(
  run: Run,
  channel: ExecutionChannel,
  ended: Ended,
  outcome: Outcome,
  warnings: string[],
): Promise<void> {
  const finish: Finish = { ...ended, warnings };
  const { rawOutput } = outcome;
  if (rawOutput !== null) {
    finish.rawOutput = rawOutput.slice(0, RAW_OUTPUT_MAX);
    if (rawOutput.length > RAW_OUTPUT_MAX)
      warnings.push(`Warning: output.json is kept up to ${RAW_OUTPUT_MAX} characters`);
  }
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

function resultOf(
  executionId: ExecutionId,
  ended: Ended,
  { output, condition, variables }: Outcome,
  warnings: string[],
  isSecret: (key: string) => boolean,
): RunResult {
  const bytes = variables.set.reduce((sum, [key, text]) => sum + key.length + text.length, 0);
  const shown = bytes <= RESULT_VARIABLES_MAX;
  if (!shown)
    warnings.push('Warning: the variables are too large to be shown; see: cronium var export');
  const set = (shown ? variables.set : [])
    .filter(([key]) => !isSecret(key))
    .map(([key, text]): [string, string] => [key, text]);
  const secrets = variables.set.map(([key]) => key).filter(isSecret);
  return {
    executionId,
    ...ended,
    output,
    condition,
    variables: { set, secrets, deleted: [...variables.deleted] },
    warnings,
  };
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

/** Changes that arrive between the execution's creation and its tree's are kept for the tree. */
class News implements ChannelListener {
  readonly #printed: MaskedLog;
  readonly #cancelling = new AbortController();
  #tree: MountedTree | undefined;
  #early: ((tree: MountedTree) => void)[] = [];

  constructor(printed: MaskedLog) {
    this.#printed = printed;
  }

  /** Aborts with the reason, a string, when an operator wants the execution stopped. */
  get stop(): AbortSignal {
    return this.#cancelling.signal;
  }

  changed(changes: readonly VariableChange[]): void {
    this.#printed.learn(changes);
    this.#tell((tree) => tree.changed(changes));
  }

  refreshed(variables: readonly Variable[]): void {
    this.#printed.learn(variables);
    this.#tell((tree) => tree.refreshed(variables));
  }

  cancelled(reason: string): void {
    this.#cancelling.abort(reason);
  }

  deliverTo(tree: MountedTree): void {
    this.#tree = tree;
    for (const tell of this.#early.splice(0)) tell(tree);
  }

  #tell(tell: (tree: MountedTree) => void): void {
    if (this.#tree === undefined) this.#early.push(tell);
    else tell(this.#tree);
  }
}

/** event.json with every key, in the contract's order; what the caller left out gets a plain default. */
function eventDocument({ event, script, runtime, user }: RunRequest): EventDocument {
  const now = new Date().toISOString();
  return {
    id: event.id ?? 0,
    name: event.name ?? script.name,
    description: event.description ?? null,
    type: event.type ?? runtime.toUpperCase(),
    runLocation: event.runLocation ?? 'LOCAL',
    createdAt: event.createdAt ?? now,
    updatedAt: event.updatedAt ?? now,
    userId: event.userId ?? user,
    server: event.server ?? null,
    successCount: event.successCount ?? 0,
    failureCount: event.failureCount ?? 0,
    lastRunAt: event.lastRunAt ?? null,
  };
}
