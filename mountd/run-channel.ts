import type { ExecutionChannel } from '#bridge/client/execution-channel.js';
import type { RunHost, Runtime } from '#bridge/client/runtime.js';
import type { Outcome } from '#bridge/vfs/documents.js';
import { type PrepareRequest, RUN_OVERHEAD_MS, type RunRequest } from '#bridge/wire/control.js';
import { asBridgeError } from '#bridge/wire/errors.js';
import type { ExecutionId } from '#bridge/wire/names.js';
import type { EventDocument, Params, ServerOperations } from '#bridge/wire/protocol.js';
import type { MaskedLog } from './masked-log.js';
import { type Ended, finishOf, unrecorded } from './run-result.js';

/** What the server is asked, and told, of an execution: the same whether its container is ours or somebody else's. */

/** Scratch an execution may fill: room for real work, and 100 executions still fit on a small disk. */
export const SCRATCH_QUOTA = { bytesMax: 1024 * 1024 * 1024, inodesMax: 100_000 };

/** For an answer to reach the command. */
export const TOLD_MS = 5_000;

export const INTERRUPTED = 'mountd was interrupted before it was known how it ended';

/** The server's word for an execution whose runtime nobody has named. */
const NO_RUNTIME = 'container';

interface Accepted {
  readonly executionId: ExecutionId;
  readonly request: RunRequest | PrepareRequest;
  /** Milliseconds since the epoch. */
  readonly acceptedAt: number;
}

/** `instance`: among the machines whose certificates have the same name. */
export function paramsOf(
  { executionId, request }: Accepted,
  instance: string,
  event: EventDocument,
): Params<ServerOperations, 'execution.create'> {
  const { runtime = NO_RUNTIME, user, org, variablesOf, timeoutMs, profile, readOnly } = request;
  return {
    user,
    ...(org !== undefined && { org }),
    executionId,
    instance,
    variablesOf: variablesOf === 'org' && org !== undefined ? { org } : { user },
    runtime,
    event,
    timeoutMs,
    ...(profile !== undefined && { profile }),
    ...(readOnly !== undefined && { readOnly }),
  };
}

/** Again and again while the server is away and the run has time left. @throws what `create` throws */
export async function untilTime<T>(
  { acceptedAt, request }: Accepted,
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

/** What became of an execution, while nobody knows whether the server knows; undefined: the server has told us that it does. */
export interface Told {
  unknown: string | undefined;
}

/** Tells the server how it ended; adds to the warnings if it could not be told. */
export async function recordEnd(
  told: Told,
  channel: ExecutionChannel,
  ended: Ended,
  outcome: Outcome,
  warnings: string[],
): Promise<void> {
  const finish = finishOf(ended, outcome, warnings);
  told.unknown = unrecorded(ended);
  try {
    await channel.finish(finish);
    told.unknown = undefined;
  } catch (error) {
    // What the run did is known here and committed there; only the record of its end is missing.
    warnings.push(
      `Warning: the end of the execution was not recorded: ${asBridgeError(error).message}`,
    );
  }
}

export const hostOf = (
  runtime: Runtime,
  printed: MaskedLog,
  warned: RunHost['warned'],
): RunHost => ({
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
