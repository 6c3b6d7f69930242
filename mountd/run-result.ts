import type { Outcome } from '#bridge/vfs/documents.js';
import type { RunResult } from '#bridge/wire/control.js';
import { BridgeError } from '#bridge/wire/errors.js';
import type { ExecutionId } from '#bridge/wire/names.js';
import type { Params, ServerOperations } from '#bridge/wire/protocol.js';

/** Characters kept of an output.json that is not JSON: enough to see what went wrong. */
const RAW_OUTPUT_MAX = 256 * 1024;

/** Changed variables in a result; with the largest output it still fits one message. */
const RESULT_VARIABLES_MAX = 4 * 1024 * 1024;

export type Ended = Pick<RunResult, 'status' | 'exitCode' | 'signal' | 'startedAt' | 'finishedAt'>;
export type Finish = Params<ServerOperations, 'execution.finish'>;

/** It cannot go on, and it is not its script's fault. */
export class Lost extends BridgeError {
  constructor(reason: string) {
    super('unavailable', reason);
  }
}

export const LOST = { status: 'lost', exitCode: null, signal: null } as const;

export const CUT =
  'Warning: the connection with Docker was cut; some of what the script printed may be missing';

export const NO_ROOM =
  "Warning: a write was refused for want of room: the execution's files were at their limit, or the host's disk was full";

export const tooMuchPrinted = (bytes: number): string =>
  `Warning: the script printed more than ${bytes} bytes and was stopped; cronium run --log-limit allows more`;

export const UNKNOWN: Outcome = {
  output: null,
  rawOutput: null,
  condition: null,
  variables: { set: [], deleted: [] },
  warnings: [],
  wasFull: false,
};

export const lostSentence = (reason: string): string =>
  `Warning: lost: ${reason}; what the script committed is kept, and its container is removed as soon as Docker allows it`;

export const unrecorded = ({ status, exitCode }: Ended): string =>
  `the server could not be told how it ended: ${status}${exitCode === null ? '' : `, exit code ${exitCode}`}`;

export const cancellation = (reason: unknown) =>
  `Warning: cancelled by an operator${reason === '' ? '' : `: ${String(reason)}`}`;

/** What the server is told; adds to the warnings if that is not all. */
export function finishOf(ended: Ended, { rawOutput }: Outcome, warnings: string[]): Finish {
  const isCut = rawOutput !== null && rawOutput.length > RAW_OUTPUT_MAX;
  const cut = `Warning: output.json is kept up to ${RAW_OUTPUT_MAX} characters`;
  if (isCut && !warnings.includes(cut)) warnings.push(cut);
  return {
    ...ended,
    warnings,
    ...(rawOutput !== null && { rawOutput: rawOutput.slice(0, RAW_OUTPUT_MAX) }),
  };
}

export function resultOf(
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
