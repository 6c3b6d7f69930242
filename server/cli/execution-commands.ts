import { setTimeout as sleep } from 'node:timers/promises';
import type { Connection } from '#bridge/client/connection.js';
import { ExecutionId, namespaceText } from '#bridge/wire/names.js';
import type { Result, ServerOperations } from '#bridge/wire/protocol.js';
import { Installation } from '#server/admin/installation.js';
import { State } from '#server/admin/state.js';
import { atMost, COMMON, type Command, command, type Io, Misuse } from './command.js';
import { namespaceOf } from './values.js';

const LISTED = 20;
/** What one answer of the server holds. */
const LISTED_MAX = 1000;

/** A script has two seconds after SIGTERM; what it wrote last must still be committed. */
const END_WAIT_MS = 30_000;
const END_POLL_MS = 200;

type Listed = Result<ServerOperations, 'execution.list'>['executions'][number];

const executionList = command({
  name: 'exec list',
  summary: 'List executions, the newest first',
  usage: 'cronium exec list [--running] [-n COUNT] [--user ID | --org ID] [--json]',
  help: [
    '  --running            only those that have not ended',
    `  -n COUNT             how many (default ${LISTED}, at most ${LISTED_MAX})`,
    '  --user ID, --org ID  only those that use the variables of one owner',
    '',
    'example: cronium exec list --running',
  ].join('\n'),
  options: {
    ...COMMON,
    running: { type: 'boolean', default: false },
    lines: { type: 'string', short: 'n', default: String(LISTED) },
    user: { type: 'string' },
    org: { type: 'string' },
  },
  async run({ positionals, values }, io) {
    atMost(positionals, 0);
    const { running, lines } = values;
    const limit = Number(lines);
    if (!(Number.isInteger(limit) && limit >= 1 && limit <= LISTED_MAX))
      throw new Misuse(`-n ${lines}: write a number from 1 to ${LISTED_MAX}`);
    const isOwned = values.user !== undefined || values.org !== undefined;
    const query = { running, limit, ...(isOwned && { namespace: namespaceOf(values) }) };
    using server = await connect(values.state, io);
    const { executions } = await server.call('execution.list', query);
    if (values.json) io.out(`${JSON.stringify(executions.map(listedJson))}\n`);
    else if (executions.length === 0)
      io.err(running ? 'nothing runs' : 'nothing has been run; see: cronium run --help');
    else for (const one of executions) io.out(`${listedLine(one)}\n`);
    return 0;
  },
});

const listedJson = ({ namespace, createdAt, finishedAt, ...rest }: Listed) => ({
  ...rest,
  namespace: namespaceText(namespace),
  createdAt: isoTime(createdAt),
  finishedAt: finishedAt === null ? null : isoTime(finishedAt),
});

const listedLine = ({ executionId, status, runtime, createdAt, namespace, name }: Listed) =>
  [
    executionId,
    status.padEnd(9),
    runtime.padEnd(6),
    isoTime(createdAt),
    namespaceText(namespace),
    name,
  ].join('  ');

const executionShow = command({
  name: 'exec show',
  summary: 'Show what the server keeps of an execution',
  usage: 'cronium exec show EXECUTION [--json]',
  help: 'example: cronium exec show 5f0c…',
  options: COMMON,
  async run({ positionals, values }, io) {
    const executionId = executionArgument(positionals);
    using server = await connect(values.state, io);
    const { record, output, condition } = await server.call('execution.get', { executionId });
    const json = `{"executionId":"${executionId}","record":${JSON.stringify(record)},"output":${output ?? 'null'},"condition":${condition}}`;
    if (values.json) io.out(`${json}\n`);
    else {
      for (const [name, value] of Object.entries(record))
        io.out(`${name.padEnd(12)} ${JSON.stringify(value)}\n`);
      io.out(
        `${'output'.padEnd(12)} ${output ?? 'none'}\n${'condition'.padEnd(12)} ${condition ?? 'none'}\n`,
      );
    }
    return 0;
  },
});

const executionCancel = command({
  name: 'exec cancel',
  summary: 'Stop a running execution, as Ctrl-C in its terminal would',
  usage: 'cronium exec cancel EXECUTION [--reason TEXT] [--no-wait] [--force] [--json]',
  help: [
    '  --reason TEXT        kept with the execution, and told to whoever started it',
    `  --no-wait            do not wait until it has ended (default: up to ${END_WAIT_MS / 1000} s)`,
    '  --force              if it has not ended by then, give it up: its status is then "lost"; for a host that will not',
    '                       come back',
    '',
    'The script gets SIGTERM, two seconds later SIGKILL; its status is then "killed". If its host cannot be reached, it is stopped',
    'as soon as that is back. What one that was given up still tries to store is refused. Exit code 1 when it has ended already,',
    'or not yet.',
    '',
    'example: cronium exec cancel 5f0c… --reason "wrong input"',
  ].join('\n'),
  options: {
    ...COMMON,
    reason: { type: 'string', default: '' },
    'no-wait': { type: 'boolean', default: false },
    force: { type: 'boolean', default: false },
  },
  async run({ positionals, values }, io) {
    const executionId = executionArgument(positionals);
    using server = await connect(values.state, io);
    const { reason, force } = values;
    const isAwaited = !values['no-wait'];
    if (isAwaited || !force) await server.call('execution.cancel', { executionId, reason });
    let status = isAwaited ? await statusAtEnd(server, executionId, io.signal) : undefined;
    if (force && status === undefined && !(isAwaited && io.signal.aborted)) {
      await server.call('execution.cancel', { executionId, reason, force });
      status = 'lost';
    }
    const isOver = status !== undefined;
    if (values.json)
      io.out(`${JSON.stringify({ executionId, requested: true, status: status ?? 'running' })}\n`);
    if (status === 'lost') {
      if (!values.json) io.err(`${executionId} is given up: its status is lost`);
      return 0;
    }
    if (isOver && status !== 'killed') {
      io.err(`${executionId} ended by itself meanwhile: ${status}`);
      return 1;
    }
    if (isAwaited && !isOver) {
      const { record } = await server.call('execution.get', { executionId });
      io.err(
        `${executionId} has not ended yet: its host ${String(record['host'])} does not answer. It ends when that host hears of it; if that will never be: cronium exec cancel ${executionId} --force`,
      );
      return 1;
    }
    if (!values.json) io.err(isOver ? `${executionId} was killed` : `${executionId} is to end`);
    return 0;
  },
});

/** Undefined when it has not ended in time, or nobody waits any more. */
async function statusAtEnd(
  server: Connection,
  executionId: ExecutionId,
  signal: AbortSignal,
): Promise<string | undefined> {
  const deadline = Date.now() + END_WAIT_MS;
  while (!signal.aborted && Date.now() < deadline) {
    const { record } = await server.call('execution.get', { executionId });
    if (typeof record['status'] === 'string') return record['status'];
    await sleep(END_POLL_MS, undefined, { signal }).catch(() => {});
  }
  return undefined;
}

export const EXECUTION_COMMANDS: readonly Command[] = [
  executionList,
  executionShow,
  executionCancel,
];

/** @throws Misuse */
export function executionArgument(positionals: readonly string[]): ExecutionId {
  atMost(positionals, 1);
  const [id] = positionals;
  if (id === undefined) throw new Misuse('which execution? see: cronium exec list');
  const executionId = ExecutionId.safeParse(id);
  if (executionId.success) return executionId.data;
  throw new Misuse(`${JSON.stringify(id)} is not an execution id; see: cronium exec list`);
}

async function connect(state: string | undefined, io: Io): Promise<Connection> {
  return await new Installation(State.of(state, io.env)).operator();
}

const isoTime = (ms: number): string => new Date(ms).toISOString();
