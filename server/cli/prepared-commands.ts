import { randomUUID } from 'node:crypto';
import { basename, extname } from 'node:path';
import { setImmediate as turn } from 'node:timers/promises';
import type { ControlConnection } from '#bridge/client/connection.js';
import {
  type ControlOperations,
  type Prepared,
  type PrepareRequest,
  RUN_MS_MAX,
  RUNTIMES,
  type RuntimeName,
} from '#bridge/wire/control.js';
import { ExecutionId } from '#bridge/wire/names.js';
import { PROFILES } from '#bridge/wire/protocol/credentials.js';
import { Installation } from '#server/admin/installation.js';
import { State } from '#server/admin/state.js';
import { atMost, COMMON, type Command, command, type Io, Misuse } from './command.js';
import {
  eventArgument,
  inputOf,
  RUNTIME_OF,
  readScript,
  resultJson,
  tellResult,
} from './run-command.js';
import { bytes, DEFAULT_USER, duration, oneOf, owner } from './values.js';

/** mountd serves again within a second of a crash; one that hangs is replaced after ten. */
const LOST_WAIT_MS = 20_000;

/** Waiting until Docker has unmounted takes up to 10 s, and the last commits may wait for a server that is away. */
const FINISH_MS = 120_000;

const executionCreate = command({
  name: 'exec create',
  summary: 'Prepare an execution for a container that you start yourself, on a Docker volume',
  usage: [
    'cronium exec create [--runtime bash|python|node] [--script SCRIPT] [--input JSON|@FILE|- | --input-from [NAME=]EXECUTION...]',
    '            [--event JSON|@FILE] [--user ID] [--org ID] [--timeout 1h] [--memory 256m] [--cpus 1]',
    '            [--commit live|on-success] [--strict] [--profile local|remote] [--read-only] [--bare]',
    '            [--state DIR] [--json]',
  ].join('\n'),
  help: [
    "  --runtime NAME       puts that runtime's helper into the script's directory, and into unchanged scripts (default: by the",
    '                       extension of --script; without either, none)',
    "  --script FILE        puts the file into the script's directory, /cronium/work, under its name",
    '  --input JSON, --input-from ID, --event JSON, --user ID, --org ID, --commit WHEN, --strict, --profile NAME, --read-only',
    '                       as for cronium run',
    '  --timeout TIME       until it must be finished; then it ends as timed-out (default 1h)',
    '  --memory SIZE, --cpus N  what the printed arguments limit the container to (default 256m and 1)',
    '  --bare               the printed arguments hold the volume, user, directory and environment only, and not what cronium run',
    '                       restricts a container with',
    '  --json               one JSON object: executionId, volume, user, workdir, env, and dockerArgs, for docker run',
    '',
    'Needs cronium up --volume-plugin. The id goes to standard output, and a line to start a container with to standard error. The',
    'id is what a container gets in with: whoever has it, and may use Docker, can be that container. One container has it at a time.',
    '',
    'example:',
    '  ID=$(cronium exec create --runtime python --input \'{"n": 1}\' --script job.py)',
    '  docker run --rm --mount type=volume,volume-driver=cronium,src=$ID,target=/cronium,volume-nocopy … IMAGE python job.py',
    '  cronium exec finish $ID --exit-code $?',
  ].join('\n'),
  options: {
    ...COMMON,
    runtime: { type: 'string' },
    script: { type: 'string' },
    input: { type: 'string' },
    'input-from': { type: 'string', multiple: true },
    event: { type: 'string', default: '{}' },
    user: { type: 'string' },
    org: { type: 'string' },
    timeout: { type: 'string', default: '1h' },
    memory: { type: 'string', default: '256m' },
    cpus: { type: 'string', default: '1' },
    commit: { type: 'string', default: 'live' },
    strict: { type: 'boolean', default: false },
    profile: { type: 'string', default: 'local' },
    'read-only': { type: 'boolean', default: false },
    bare: { type: 'boolean', default: false },
  },
  async run({ positionals, values }, io) {
    atMost(positionals, 0);
    const { script } = values;
    const runtime = runtimeOf(values.runtime, script);
    const cpus = Number(values.cpus);
    if (!(cpus > 0)) throw new Misuse(`--cpus ${values.cpus}: write a number like 1 or 0.5`);
    const request: PrepareRequest = {
      executionId: ExecutionId.parse(randomUUID()),
      ...(runtime !== undefined && { runtime }),
      ...(script !== undefined && {
        script: { name: scriptName(script), data: readScript(script) },
      }),
      input: await inputOf(values, io),
      event: await eventArgument(values.event, io),
      user: owner(values.user ?? DEFAULT_USER, '--user'),
      ...(values.org !== undefined && { org: owner(values.org, '--org') }),
      variablesOf: values.user === undefined && values.org !== undefined ? 'org' : 'user',
      timeoutMs: duration(values.timeout, '--timeout', RUN_MS_MAX),
      memoryBytes: bytes(values.memory, '--memory'),
      cpus,
      commit: oneOf(values.commit, ['live', 'on-success'], '--commit'),
      strict: values.strict,
      profile: oneOf(values.profile, PROFILES, '--profile'),
      readOnly: values['read-only'],
    };
    const { signal } = io;
    const prepared = await asked(values.state, io, async (mountd) => {
      return await mountd.call('create', request, { signal });
    });
    const { hardeningArgs, dockerArgs: bare, ...rest } = prepared;
    const dockerArgs = values.bare ? bare : [...bare, ...hardeningArgs];
    if (values.json) io.out(`${JSON.stringify({ ...rest, dockerArgs })}\n`);
    else {
      io.out(`${prepared.executionId}\n`);
      io.err(hint(prepared, dockerArgs, request, values.state));
    }
    return 0;
  },
});

const executionFinish = command({
  name: 'exec finish',
  summary: 'End a prepared execution when its container has ended, and show its results',
  usage:
    'cronium exec finish EXECUTION --exit-code CODE|none [--reason TEXT] [--force] [--state DIR] [--json]',
  help: [
    '  --exit-code CODE     how the container ended: 0 is success, with --commit on-success variables are stored only then; "none" if',
    '                       it never ran, or nobody knows: a failure',
    '  --reason TEXT        kept among the warnings',
    '  --force              even if a container still has it mounted: that one is cut off',
    '  --json               what cronium run --json prints, without stdout and stderr, which are those of your container',
    '',
    'Waits up to 10 s until Docker has unmounted it. Within a minute it can be asked again, and the answer is the same; later see:',
    'cronium exec show. Exit code 0 when it succeeded, 1 when not.',
    '',
    'example: cronium exec finish 5f0c… --exit-code 0 --json',
  ].join('\n'),
  options: {
    ...COMMON,
    'exit-code': { type: 'string' },
    reason: { type: 'string' },
    force: { type: 'boolean', default: false },
  },
  async run({ positionals, values }, io) {
    atMost(positionals, 1);
    const [id] = positionals;
    if (id === undefined) throw new Misuse('which execution? give the id that exec create printed');
    const executionId = ExecutionId.safeParse(id);
    if (!executionId.success)
      throw new Misuse(`${JSON.stringify(id)} is not an execution id; see: cronium exec list`);
    const request = {
      executionId: executionId.data,
      exitCode: exitCode(values['exit-code']),
      ...(values.reason !== undefined && { reason: values.reason }),
      force: values.force,
    };
    const { signal } = io;
    const result = await asked(values.state, io, async (mountd) => {
      return await mountd.call('finish', request, { deadlineMs: FINISH_MS, signal });
    });
    if (values.json) io.out(`${resultJson(result)}\n`);
    else tellResult(result, io, new Set());
    return result.status === 'succeeded' ? 0 : 1;
  },
});

export const PREPARED_COMMANDS: readonly Command[] = [executionCreate, executionFinish];

/** Asks mountd, and whichever process serves next when one dies: both calls can be made again. */
async function asked<T>(
  state: string | undefined,
  io: Io,
  call: (mountd: ControlConnection<ControlOperations>) => Promise<T>,
): Promise<T> {
  const target = new Installation(State.of(state, io.env));
  target.state.settings(); // says so when nothing is installed
  for (const deadline = Date.now() + LOST_WAIT_MS; ; ) {
    using mountd = await target.control(LOST_WAIT_MS);
    let isCut = false;
    void mountd.closed.then(() => {
      isCut = true;
    });
    try {
      return await call(mountd);
    } catch (error) {
      await turn(); // the end of the connection is told after that of its calls
      if (!isCut || io.signal.aborted || Date.now() > deadline) throw error;
    }
  }
}

function runtimeOf(name: string | undefined, script: string | undefined): RuntimeName | undefined {
  if (name !== undefined) return oneOf(name, RUNTIMES, '--runtime');
  return script === undefined ? undefined : RUNTIME_OF[extname(script).toLowerCase()];
}

/** What the tree has already in the script's directory. */
const TAKEN =
  /^(input\.json|event\.json|variables\.json|output\.json|condition\.json|\.tmp|cronium\.(sh|py|js))$/;

function scriptName(path: string): string {
  const name = basename(path);
  if (TAKEN.test(name))
    throw new Misuse(`--script ${path}: ${name} is a file of the bridge's; rename the script`);
  return name;
}

function exitCode(text: string | undefined): number | null {
  if (text === undefined)
    throw new Misuse('how did the container end? say --exit-code CODE or none');
  if (text === 'none') return null;
  const code = Number(text);
  if (/^\d{1,3}$/.test(text) && code <= 255) return code;
  throw new Misuse(`--exit-code ${text}: write a number from 0 to 255, or none`);
}

/** What to type next. */
function hint(
  { executionId }: Prepared,
  dockerArgs: readonly string[],
  { runtime, script }: Pick<PrepareRequest, 'runtime' | 'script'>,
  state: string | undefined,
): string {
  const image = runtime === undefined ? 'IMAGE' : `cronium-${runtime}:latest`;
  const command = `${runtime ?? ''} ${script?.name ?? (runtime === undefined ? 'COMMAND' : 'SCRIPT')}`;
  return [
    'start its container, and tell how it ended:',
    `  docker run --rm ${dockerArgs.map(quoted).join(' ')} ${image} ${command.trim()}`,
    `  cronium exec finish ${executionId} --exit-code $?${state === undefined ? '' : ` --state ${quoted(state)}`}`,
  ].join('\n');
}

/** For a shell. */
const quoted = (word: string): string =>
  /^[A-Za-z0-9_./:=,@%+-]+$/.test(word) ? word : `'${word.replaceAll("'", "'\\''")}'`;
