import { randomUUID } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { basename, extname } from 'node:path';
import { setTimeout as sleep, setImmediate as turn } from 'node:timers/promises';
import { z } from 'zod';
import type { Connection, ControlConnection } from '#bridge/client/connection.js';
import {
  type ControlOperations,
  CREATED,
  Created,
  LOG,
  Log,
  RUN_MS_MAX,
  RUN_OVERHEAD_MS,
  RUNTIMES,
  type RunRequest,
  type RunResult,
  type RuntimeName,
} from '#bridge/wire/control.js';
import { asBridgeError } from '#bridge/wire/errors.js';
import { parse } from '#bridge/wire/frames.js';
import { ExecutionId } from '#bridge/wire/names.js';
import { PROFILES } from '#bridge/wire/protocol/credentials.js';
import {
  EventDocument,
  type Result,
  type ServerOperations,
  Status,
} from '#bridge/wire/protocol.js';
import { Installation } from '#server/admin/installation.js';
import { State } from '#server/admin/state.js';
import { chainedInput } from './chained-input.js';
import { COMMON, command, type Io, Misuse } from './command.js';
import { egressOf } from './egress.js';
import { PacedWriter } from './paced-writer.js';
import { bytes, DEFAULT_USER, duration, jsonArgument, oneOf, owner } from './values.js';

/** What `--json` holds of each stream: a string of Node's has its limit, and so has whoever parses it. */
const JSON_LOG_BYTES_MAX = 128 * 1024 * 1024;

/** One call uses one channel; the number only ties the pushes to it. */
const RUN_CHANNEL = 1;

/** mountd serves again within a second of a crash; one that hangs is replaced after ten. */
export const LOST_WAIT_MS = 20_000;
const LOST_POLL_MS = 200;

/** By a script's extension. */
export const RUNTIME_OF: Readonly<Record<string, RuntimeName>> = {
  '.sh': 'bash',
  '.bash': 'bash',
  '.py': 'python',
  '.js': 'node',
  '.cjs': 'node',
  '.mjs': 'node',
};

const OPTIONS = {
  ...COMMON,
  runtime: { type: 'string' },
  image: { type: 'string' },
  input: { type: 'string' },
  'input-from': { type: 'string', multiple: true },
  event: { type: 'string', default: '{}' },
  user: { type: 'string' },
  org: { type: 'string' },
  env: { type: 'string', multiple: true },
  timeout: { type: 'string', default: '30s' },
  memory: { type: 'string', default: '256m' },
  cpus: { type: 'string', default: '1' },
  'log-limit': { type: 'string', default: '1g' },
  commit: { type: 'string', default: 'live' },
  strict: { type: 'boolean', default: false },
  compat: { type: 'string' },
  profile: { type: 'string', default: 'local' },
  'read-only': { type: 'boolean', default: false },
  egress: { type: 'string', multiple: true },
} as const;

export const run = command({
  name: 'run',
  summary: 'Run a script in a container and show its logs and results',
  usage: [
    'cronium run [--runtime bash|python|node] [--image NAME] [--input JSON|@FILE|- | --input-from [NAME=]EXECUTION...]',
    '            [--event JSON|@FILE]',
    '            [--user ID] [--org ID] [--env K=V]... [--timeout 30s] [--memory 256m] [--cpus 1]',
    '            [--log-limit 1g]',
    '            [--commit live|on-success] [--strict] [--compat exact]',
    '            [--profile local|remote] [--read-only] [--egress HOST:PORT[,HOST:PORT...]]...',
    '            [--state DIR] [--json] SCRIPT',
  ].join('\n'),
  help: [
    '  --runtime NAME       bash, python or node (default: by the extension .sh .py .js)',
    '  --image NAME         a Docker image with that runtime (default: cronium-NAME)',
    '  --input JSON         what the script finds in input.json; @FILE or - for standard input (default {})',
    '  --input-from ID      the output of an execution that has ended: an object or array as it is, anything else as {};',
    '                       given as NAME=ID, or more than once, an object of the outputs by name (default: the name of',
    '                       the event)',
    '  --event JSON         members of event.json to set; @FILE (default: a plain event)',
    '  --user ID, --org ID  whose variables the script sees: the user\'s (default "default"), or, with --org alone, the',
    "                       organisation's",
    '  --env K=V            an environment variable; repeat for more',
    '  --timeout TIME       wall-clock limit, as 30s, 5m or 500ms (default 30s)',
    '  --memory SIZE        memory limit (default 256m)      --cpus N  processor limit (default 1)',
    '  --log-limit SIZE     what the script may print, on both streams together (default 1g); then it is stopped',
    '  --commit WHEN        live: variables are stored as the script writes them (default);',
    '                       on-success: all of them at exit 0, or none',
    '  --strict             closing a variables.json, output.json or condition.json that is no valid document fails',
    '                       (EINVAL), instead of a warning at the end',
    '  --compat exact       the legacy executor to the letter: prelude in the script, string variables only, any',
    '                       stderr output is a failure',
    '  --profile NAME       what the script may do: local, everything (default); remote, read variables and give results, but',
    '                       writing variables.json is refused (EACCES)',
    '  --read-only          every write to the server is refused (EROFS), of results too',
    '  --egress HOST:PORT   a destination of TCP connections that the script may open, and nothing else; HOST is a name or an',
    '                       IPv4 address; several with commas, or repeat (default: the script has no network)',
    '  --json               one JSON object on standard output, nothing else',
    '',
    'Values of secret variables are shown as *** in what the script prints, and not at all in the result.',
    '',
    'Exit code 0 when the script succeeded, 1 when not, 2 for a mistake in the command line.',
    '',
    'example: cronium run --input \'{"name": "Ada"}\' --user ada greet.py',
  ].join('\n'),
  options: OPTIONS,
  async run({ positionals, values }, io) {
    const [path, ...more] = positionals;
    if (path === undefined) throw new Misuse('which script? give its path');
    if (more.length > 0)
      throw new Misuse(`one script at a time; what is ${JSON.stringify(more[0])}?`);
    const script = readScript(path);
    const commit = oneOf(values.commit, ['live', 'on-success'], '--commit');
    if (values.compat !== undefined) oneOf(values.compat, ['exact'], '--compat');
    const cpus = Number(values.cpus);
    if (!(cpus > 0)) throw new Misuse(`--cpus ${values.cpus}: write a number like 1 or 0.5`);
    const request: RunRequest = {
      executionId: ExecutionId.parse(randomUUID()),
      script: { name: basename(path), data: script },
      runtime: runtimeOf(values.runtime, path),
      ...(values.image !== undefined && { image: values.image }),
      input: await inputOf(values, io),
      event: await eventArgument(values.event, io),
      user: owner(values.user ?? DEFAULT_USER, '--user'),
      ...(values.org !== undefined && { org: owner(values.org, '--org') }),
      variablesOf: values.user === undefined && values.org !== undefined ? 'org' : 'user',
      env: environment(values.env ?? []),
      timeoutMs: duration(values.timeout, '--timeout', RUN_MS_MAX),
      memoryBytes: bytes(values.memory, '--memory'),
      cpus,
      logBytesMax: bytes(values['log-limit'], '--log-limit'),
      commit,
      exact: values.compat === 'exact',
      strict: values.strict,
      profile: oneOf(values.profile, PROFILES, '--profile'),
      readOnly: values['read-only'],
      ...(values.egress !== undefined && { egress: egressOf(values.egress) }),
    };
    const target = new Installation(State.of(values.state, io.env));
    target.state.settings(); // says so when nothing is installed
    using running = new Running(target, await target.control(LOST_WAIT_MS), request, io.signal);
    return values.json ? await runForProgram(running, io) : await runForPerson(running, io);
  },
});

async function runForPerson(running: Running, io: Io): Promise<number> {
  /** Those of a bash script stand in its error output already. */
  const shown = new Set<string>();
  // A slow reader slows the script down, not our memory up.
  const writer = new PacedWriter(running);
  const result = await running.end(({ stream, data }) => {
    const text = stream === 'stderr' ? Buffer.from(data).toString('utf8') : '';
    if (text.startsWith('Warning: ')) shown.add(text.trimEnd());
    writer.write(stream === 'stdout' ? process.stdout : process.stderr, data);
  });
  tellResult(result, io, shown);
  return result.status === 'succeeded' ? 0 : 1;
}

/** `shown`: warnings that stand in what the script has printed. */
export function tellResult(result: RunResult, io: Io, shown: ReadonlySet<string>): void {
  const {
    status,
    exitCode,
    signal,
    startedAt,
    finishedAt,
    output,
    condition,
    variables,
    warnings,
  } = result;
  for (const warning of warnings) if (!shown.has(warning)) io.err(warning);
  const how = signal === null ? `exit code ${exitCode}` : `signal ${signal}`;
  const known = exitCode === null && signal === null ? '' : ` (${how})`;
  io.err(`${status} after ${finishedAt - startedAt} ms${known}, execution ${result.executionId}`);
  if (output !== null) io.err(`output     ${output}`);
  if (condition !== null) io.err(`condition  ${condition}`);
  for (const [key, text] of variables.set) io.err(`set        ${key} = ${text}`);
  for (const key of variables.secrets) io.err(`set        ${key} = (secret)`);
  for (const key of variables.deleted) io.err(`deleted    ${key}`);
}

async function runForProgram(running: Running, io: Io): Promise<number> {
  const written: Record<Log['stream'], Uint8Array[]> = { stdout: [], stderr: [] };
  const bytes = { stdout: 0, stderr: 0 };
  const result = await running.end(({ stream, data }) => {
    bytes[stream] += data.byteLength;
    // A copy: the data are a view on a frame, which is large.
    if (bytes[stream] <= JSON_LOG_BYTES_MAX) written[stream].push(Uint8Array.from(data));
  });
  for (const stream of ['stdout', 'stderr'] as const)
    if (bytes[stream] > JSON_LOG_BYTES_MAX)
      result.warnings.push(
        `Warning: ${stream} had ${bytes[stream]} bytes; the first ${JSON_LOG_BYTES_MAX} are here`,
      );
  const text = (stream: Log['stream']) => Buffer.concat(written[stream]).toString('utf8');
  const printed = { stdout: text('stdout'), stderr: text('stderr') };
  io.out(`${resultJson(result, printed)}\n`);
  return result.status === 'succeeded' ? 0 : 1;
}

/**
 * Values stand in it as their own source text, so that 1.0 and 2^63 arrive as they were written. Secret variables that were set
 * stand in `variables.secrets`, without their values; there is no such list when there are none. What was printed stands in it
 * where we know it.
 */
export function resultJson(
  result: RunResult,
  printed?: Readonly<Record<Log['stream'], string>>,
): string {
  const {
    executionId,
    status,
    exitCode,
    signal,
    output,
    condition,
    variables,
    warnings,
    startedAt,
    finishedAt,
  } = result;
  const set = variables.set.map(([key, text]) => `${JSON.stringify(key)}:${text}`).join(',');
  const secrets =
    variables.secrets.length > 0 ? `"secrets":${JSON.stringify(variables.secrets)},` : '';
  const members: [string, string][] = [
    ['executionId', JSON.stringify(executionId)],
    ['status', JSON.stringify(status)],
    ['exitCode', JSON.stringify(exitCode)],
    ['signal', JSON.stringify(signal)],
    ...Object.entries(printed ?? {}).map(([stream, text]): [string, string] => [
      stream,
      JSON.stringify(text),
    ]),
    ['output', output ?? 'null'],
    ['condition', JSON.stringify(condition)],
    ['variables', `{"set":{${set}},${secrets}"deleted":${JSON.stringify(variables.deleted)}}`],
    ['warnings', JSON.stringify(warnings)],
    ['startedAt', JSON.stringify(new Date(startedAt).toISOString())],
    ['finishedAt', JSON.stringify(new Date(finishedAt).toISOString())],
    ['durationMs', JSON.stringify(finishedAt - startedAt)],
  ];
  return `{${members.map(([key, text]) => `"${key}":${text}`).join(',')}}`;
}

/**
 * One run: by mountd, whichever process of it serves, or, when none can go on with it, by what the server knows of it.
 */
class Running implements Disposable {
  readonly #target: Installation;
  readonly #request: RunRequest;
  readonly #signal: AbortSignal;
  readonly #startedAt = Date.now();
  readonly #received = { stdout: 0, stderr: 0 };
  #mountd: ControlConnection<ControlOperations>;
  #isPaused = false;
  #executionId: ExecutionId | undefined;

  constructor(
    target: Installation,
    mountd: ControlConnection<ControlOperations>,
    request: RunRequest,
    signal: AbortSignal,
  ) {
    this.#target = target;
    this.#mountd = mountd;
    this.#request = request;
    this.#signal = signal;
  }

  /** Stops reading, and with it the script, until `resume`. */
  pause(): void {
    this.#isPaused = true;
    this.#mountd.pause();
  }

  resume(): void {
    this.#isPaused = false;
    this.#mountd.resume();
  }

  /** Resolves when the run has ended. Once. @throws BridgeError when it did not begin */
  async end(onLog: (log: Log) => void): Promise<RunResult> {
    for (let request = this.#request; ; ) {
      let isCut = false;
      const mountd = this.#mountd;
      void mountd.closed.then(() => {
        isCut = true;
      });
      try {
        return await this.#asked(mountd, request, onLog);
      } catch (error) {
        await turn(); // the end of the connection is told after that of its calls
        if (this.#signal.aborted) throw error;
        // Another process goes on with it, unless it cannot, or the connection was lost before anything had begun.
        if (isCut && (await this.#reconnected())) {
          const received = this.#executionId === undefined ? undefined : { ...this.#received };
          request = { ...this.#request, ...(received !== undefined && { received }) };
          continue;
        }
        const isUnknown =
          request.received !== undefined && asBridgeError(error).code === 'not_found';
        if ((!isCut && !isUnknown) || this.#executionId === undefined) throw error;
        return await this.#lost(this.#executionId);
      }
    }
  }

  async #asked(
    mountd: ControlConnection<ControlOperations>,
    request: RunRequest,
    onLog: (log: Log) => void,
  ): Promise<RunResult> {
    mountd.onPush = (_channel, topic, value) => {
      if (topic === CREATED) this.#executionId = parse(Created, value, topic).executionId;
      if (topic !== LOG) return;
      const log = parse(Log, value, 'a log line');
      if (log.isWarning !== true) this.#received[log.stream] += log.data.byteLength;
      onLog(log);
    };
    // Closing the connection is what stops the script; see control.ts.
    return await mountd.call('run', request, {
      channel: RUN_CHANNEL,
      deadlineMs: this.#request.timeoutMs + RUN_OVERHEAD_MS,
      signal: this.#signal,
    });
  }

  /** Whether there is a connection again, to whichever process serves now. */
  async #reconnected(): Promise<boolean> {
    this.#mountd[Symbol.dispose]();
    try {
      this.#mountd = await this.#target.control(LOST_WAIT_MS);
      if (this.#isPaused) this.#mountd.pause();
      return true;
    } catch {
      return false; // it was stopped, or does not come back
    }
  }

  [Symbol.dispose](): void {
    this.#mountd[Symbol.dispose]();
  }

  async #lost(executionId: ExecutionId): Promise<RunResult> {
    const { record, output, condition } = await this.#recordAtEnd(executionId);
    const { status, exitCode = null, signal = null } = Ended.catch({}).parse(record);
    const time = (name: 'startedAt' | 'finishedAt', otherwise: number) =>
      typeof record[name] === 'number' ? record[name] : otherwise;
    const became = status === undefined || status === 'lost' ? 'was lost' : `ended as ${status}`;
    return {
      executionId,
      status: status ?? 'lost',
      exitCode,
      signal,
      output,
      condition,
      variables: { set: [], secrets: [], deleted: [] },
      warnings: [
        `Warning: execution ${executionId} ${became}: mountd's serving process died; what was committed is kept; see: cronium exec show ${executionId}`,
      ],
      startedAt: time('startedAt', this.#startedAt),
      finishedAt: time('finishedAt', Date.now()),
    };
  }

  /** As the server has it when it has ended there, or when that takes too long. */
  async #recordAtEnd(executionId: ExecutionId): Promise<Kept> {
    let kept: Kept = { record: {}, output: null, condition: null };
    let server: Connection | undefined;
    try {
      const deadline = Date.now() + LOST_WAIT_MS;
      server = await this.#target.operator();
      do {
        kept = await server.call('execution.get', { executionId });
        if ('status' in kept.record) break;
        await sleep(LOST_POLL_MS, undefined, { signal: this.#signal });
      } while (Date.now() < deadline);
    } catch {
      // The server is away too, or nobody wants to wait: what is known already has to do.
    } finally {
      server?.[Symbol.dispose]();
    }
    return kept;
  }
}

type Kept = Pick<Result<ServerOperations, 'execution.get'>, 'record' | 'output' | 'condition'>;

const Ended = z.object({
  status: Status.optional(),
  exitCode: z.int().nullable().optional(),
  signal: z.string().nullable().optional(),
});

export function readScript(path: string): Buffer {
  try {
    return readFileSync(path);
  } catch (error) {
    throw new Misuse(
      `cannot read the script ${path}: ${error instanceof Error ? error.message : String(error)}`,
    );
  }
}

function runtimeOf(name: string | undefined, path: string): RuntimeName {
  if (name !== undefined) return oneOf(name, RUNTIMES, '--runtime');
  const guess = RUNTIME_OF[extname(path).toLowerCase()];
  if (guess === undefined)
    throw new Misuse(`which runtime is ${path} for? say --runtime bash, python or node`);
  return guess;
}

/** What the script finds in input.json: given, or made of what others left. */
export async function inputOf(
  values: {
    input?: string | undefined;
    'input-from'?: string[] | undefined;
    state?: string | undefined;
  },
  io: Io,
): Promise<string> {
  const from = values['input-from'] ?? [];
  if (from.length === 0) return await jsonArgument(values.input ?? '{}', '--input', io);
  if (values.input !== undefined) throw new Misuse('--input and --input-from exclude each other');
  using server = await new Installation(State.of(values.state, io.env)).operator();
  return await chainedInput(server, from, io);
}

export async function eventArgument(argument: string, io: Io): Promise<RunRequest['event']> {
  const text = await jsonArgument(argument, '--event', io);
  const event = EventDocument.partial().safeParse(JSON.parse(text));
  if (event.success) return event.data;
  const issue = event.error.issues[0];
  throw new Misuse(
    `--event: ${[issue?.path.join('.'), issue?.message].filter(Boolean).join(': ')}`,
  );
}

function environment(pairs: readonly string[]): Record<string, string> {
  const env: Record<string, string> = {};
  for (const pair of pairs) {
    const at = pair.indexOf('=');
    if (at < 1) throw new Misuse(`--env ${JSON.stringify(pair)}: write NAME=VALUE`);
    env[pair.slice(0, at)] = pair.slice(at + 1);
  }
  return env;
}
