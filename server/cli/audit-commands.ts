import { randomUUID } from 'node:crypto';
import { once } from 'node:events';
import { createWriteStream, type WriteStream } from 'node:fs';
import { rename, rm } from 'node:fs/promises';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Connection } from '#bridge/client/connection.js';
import { type AuditLink, type AuditRow, rowLineOf } from '#bridge/wire/audit-chain.js';
import type { BrokenChain, CheckedChain } from '#bridge/wire/audit-check.js';
import { BridgeError, CODES, errnoCode } from '#bridge/wire/errors.js';
import { AUDIT_PAGE_MAX } from '#bridge/wire/protocol/audit.js';
import type { Params, ServerOperations } from '#bridge/wire/protocol.js';
import { Installation } from '#server/admin/installation.js';
import { State } from '#server/admin/state.js';
import { checkFile } from './audit-file.js';
import { atMost, COMMON, command, type Io, Misuse } from './command.js';
import { namespaceOf } from './values.js';

type Query = Params<ServerOperations, 'audit.read'>;

/** How often a follower asks: soon enough for eyes, and nothing for a server. */
const FOLLOW_MS = 500;

const TAIL_LINES = 20;

/** Reading a log of a hundred million events takes minutes. */
const VERIFY_DEADLINE_MS = 60 * 60 * 1000;

const HEADS =
  '  --head HASH          a head that was kept earlier and must be in the log; may be given again';

const auditTail = command({
  name: 'audit tail',
  summary: 'Show what was done last, by whom, and how it ended',
  usage:
    'cronium audit tail [-n COUNT] [-f] [--execution ID] [--user ID | --org ID] [--op OP] [--outcome CODE] [--json]',
  help: [
    `  -n COUNT             how many events (default ${TAIL_LINES})`,
    '  -f                   go on with what happens from now on, until Ctrl-C',
    '  --execution ID       of one execution',
    '  --user ID, --org ID  on variables of one owner',
    '  --op OP              of one operation, like variable.get',
    '  --outcome CODE       ok, denied, conflict, …',
    '  --json               one JSON object a line, with its place in the chain',
    '',
    'example: cronium audit tail -f --outcome denied',
  ].join('\n'),
  options: {
    ...COMMON,
    lines: { type: 'string', short: 'n', default: String(TAIL_LINES) },
    follow: { type: 'boolean', short: 'f', default: false },
    execution: { type: 'string' },
    user: { type: 'string' },
    org: { type: 'string' },
    op: { type: 'string' },
    outcome: { type: 'string' },
  },
  async run({ positionals, values }, io) {
    atMost(positionals, 0);
    const wanted = count(values.lines, '-n');
    const { execution, op, outcome } = values;
    const isOwned = values.user !== undefined || values.org !== undefined;
    const query = {
      ...(execution !== undefined && { execution }),
      ...(op !== undefined && { op }),
      ...(outcome !== undefined && { outcome }),
      ...(isOwned && { namespace: namespaceOf(values) }),
    };
    const print = (row: AuditRow) => io.out(`${values.json ? rowLineOf(row) : shown(row)}\n`);
    using server = await connect(values.state, io);
    const { rows, end } = await newest(server, query, wanted, io.signal);
    for (const row of rows) print(row);
    if (values.follow)
      await follow(server, async () => await connect(values.state, io), query, end, print, io);
    return 0;
  },
});

const auditExport = command({
  name: 'audit export',
  summary: 'Write the audit log as JSON Lines that can be verified without the server',
  usage: 'cronium audit export [--from DATE] [--to DATE] [--out FILE] [--json]',
  help: [
    '  --from DATE, --to DATE  from and up to but without that moment: 2026-01-31 or 2026-01-31T12:00:00Z, UTC',
    '  --out FILE              instead of standard output; it appears when it is complete',
    '  --json                  nothing more: the export is JSON Lines',
    '',
    'Each line is an event with its writer (a run of a server), its number there, and the hash before and after it. Keep the',
    'head that is printed at the end somewhere else: with it `cronium audit verify FILE --head HASH` finds a cut end, too.',
    '',
    'example: cronium audit export --from 2026-01-01 --out january.jsonl',
  ].join('\n'),
  options: {
    ...COMMON,
    from: { type: 'string' },
    to: { type: 'string' },
    out: { type: 'string' },
  },
  async run({ positionals, values }, io) {
    atMost(positionals, 0);
    const from = values.from === undefined ? undefined : date(values.from, '--from');
    const to = values.to === undefined ? undefined : date(values.to, '--to');
    if (from !== undefined && to !== undefined && from >= to)
      throw new Misuse('--from is not before --to: nothing lies between them');
    using server = await connect(values.state, io);
    const { heads } = await server.call('audit.head', {});
    const query = { ...(from !== undefined && { from }), ...(to !== undefined && { to }) };
    let events = 0;
    const ends = new Map<number, AuditLink>();
    const linked = new Map<number, number>();
    const write = async (out: (text: string) => Promise<void>) => {
      for await (const rows of pages(server, query, heads, io.signal)) {
        await out(rows.map((row) => `${rowLineOf(row)}\n`).join(''));
        for (const row of rows) {
          ends.set(row.writer, row);
          for (const { writer, seq } of row.links ?? []) linked.set(writer, seq);
        }
        events += rows.length;
        const last = rows.at(-1);
        if (last !== undefined) io.err(`${events} events, up to ${moment(last.at)}`);
      }
    };
    if (values.out === undefined) await write(async (text) => io.out(text));
    else await toFile(values.out, write);
    for (const { writer, seq, hash } of ends.values())
      if ((linked.get(writer) ?? -1) < seq) io.err(`head of run ${writer}, event ${seq}: ${hash}`);
    if (events === 0) io.err('there are no events in that time');
    return 0;
  },
});

const auditVerify = command({
  name: 'audit verify',
  summary: 'Check that nothing in the audit log was removed, changed or put elsewhere',
  usage: 'cronium audit verify [FILE] [--head HASH]... [--json]',
  help: [
    'Without FILE the server checks its log; with FILE an export is checked here, without a server. Exit code 1 and the broken',
    'place when it is not intact.',
    '',
    HEADS,
    '',
    'example: cronium audit verify january.jsonl --head 9f86d081…',
  ].join('\n'),
  options: { ...COMMON, head: { type: 'string', multiple: true } },
  async run({ positionals, values }, io) {
    atMost(positionals, 1);
    const [file] = positionals;
    const heads = (values.head ?? []).map(head);
    const checked =
      file === undefined ? await ask(values.state, heads, io) : await checkedFile(file, heads);
    const { events, chains, broken, badLine } = checked;
    const isIntact = broken.length === 0 && badLine === undefined;
    if (values.json) {
      io.out(`${JSON.stringify({ intact: isIntact, events, chains, broken, badLine })}\n`);
      return isIntact ? 0 : 1;
    }
    for (const one of broken) io.out(`${brokenText(one)}\n`);
    if (badLine !== undefined)
      io.out(`changed: line ${badLine} of ${file} is not as it was exported\n`);
    for (const chain of chains) if (chain.first > 1) io.err(beginText(chain));
    const last = chains.at(-1);
    if (isIntact)
      io.out(
        `intact: ${events} events of ${chains.length} ${chains.length === 1 ? 'run' : 'runs'}${last === undefined ? '' : `; head ${last.hash}`}\n`,
      );
    return isIntact ? 0 : 1;
  },
});

const auditPrune = command({
  name: 'audit prune',
  summary: 'Delete what is older than a date from the audit log',
  usage: 'cronium audit prune --before DATE [--json]',
  help: [
    '  --before DATE  2026-01-31 or 2026-01-31T12:00:00Z, UTC; a few older events may stay',
    '',
    'That it was done, by whom, and where the log begins since, stays on record. Export first what you must keep.',
    '',
    'example: cronium audit prune --before 2026-01-01',
  ].join('\n'),
  options: { ...COMMON, before: { type: 'string' } },
  async run({ positionals, values }, io) {
    atMost(positionals, 0);
    if (values.before === undefined) throw new Misuse('before when? as in --before 2026-01-01');
    const before = date(values.before, '--before');
    using server = await connect(values.state, io);
    const options = { deadlineMs: VERIFY_DEADLINE_MS, signal: io.signal };
    const pruned = await server.call('audit.prune', { before }, options);
    if (values.json) io.out(`${JSON.stringify(pruned)}\n`);
    else io.err(`deleted ${pruned.events} events`);
    return 0;
  },
});

export const AUDIT_COMMANDS = [auditTail, auditExport, auditVerify, auditPrune];

async function connect(state: string | undefined, io: Io): Promise<Connection> {
  return await new Installation(State.of(state, io.env)).operator();
}

const read = async (server: Connection, query: Query) => await server.call('audit.read', query);

/** The last events that `filter` lets through, the oldest first, and where reading goes on. */
async function newest(
  server: Connection,
  filter: Partial<Query>,
  wanted: number,
  signal: AbortSignal,
): Promise<{ rows: AuditRow[]; end: string }> {
  const rows: AuditRow[] = [];
  let end: string | undefined;
  let after: string | undefined;
  for (;;) {
    const limit = Math.min(AUDIT_PAGE_MAX, Math.max(1, wanted - rows.length));
    const place = after === undefined ? {} : { after };
    const page = await read(server, { ...filter, ...place, reverse: true, limit });
    end ??= page.end;
    rows.push(...page.events.slice(0, wanted - rows.length));
    after = page.cursor;
    if (!page.more || rows.length >= wanted || signal.aborted) return { rows: rows.reverse(), end };
  }
}

/** Prints what happens, until Ctrl-C. A server that goes away is waited for: the place in the log is the same after. */
async function follow(
  first: Connection,
  reconnect: () => Promise<Connection>,
  filter: Partial<Query>,
  end: string,
  print: (row: AuditRow) => void,
  { err, signal }: Io,
): Promise<void> {
  let server: Connection | undefined = first;
  let after = end;
  try {
    for (;;) {
      await sleep(FOLLOW_MS, undefined, { signal }).catch(() => {});
      try {
        for (let more = true; more && !signal.aborted; ) {
          server ??= await reconnect();
          const query = { ...filter, reverse: false, limit: AUDIT_PAGE_MAX, after };
          const page = await read(server, query);
          for (const row of page.events) print(row);
          after = page.cursor;
          more = page.more;
        }
      } catch (error) {
        if (!(error instanceof BridgeError) || !CODES[error.code].retry) throw error;
        if (server !== undefined) err(`${error.message}; waiting for the server`);
        server?.[Symbol.dispose]();
        server = undefined;
      }
      if (signal.aborted) return;
    }
  } finally {
    server?.[Symbol.dispose]();
  }
}

/** All events up to `heads`: what is recorded meanwhile is left to the next export. */
async function* pages(
  server: Connection,
  query: Partial<Query>,
  heads: readonly AuditLink[],
  signal: AbortSignal,
): AsyncGenerator<AuditRow[]> {
  const last = new Map(heads.map(({ writer, seq }) => [writer, seq]));
  const until = heads.reduce((most, { at }) => Math.max(most, at), 0);
  let after: string | undefined;
  for (;;) {
    if (signal.aborted) throw new BridgeError('interrupted', 'the export was interrupted');
    const place = after === undefined ? {} : { after };
    const page = await read(server, { ...query, ...place, reverse: false, limit: AUDIT_PAGE_MAX });
    const rows = page.events.filter(({ writer, seq }) => seq <= (last.get(writer) ?? -1));
    if (rows.length > 0) yield rows;
    const isPast = page.events.some(({ at }) => at > until);
    if (!page.more || isPast) return;
    after = page.cursor;
  }
}

/** Writes beside `path` and renames: an export that was interrupted is not there. */
async function toFile(
  path: string,
  write: (out: (text: string) => Promise<void>) => Promise<void>,
): Promise<void> {
  const temporary = `${path}.${randomUUID()}.new`;
  const file = createWriteStream(temporary, { flags: 'wx', mode: 0o600, flush: true });
  try {
    await opened(file, path);
    await write(async (text) => {
      if (!file.write(text)) await once(file, 'drain');
    });
    file.end();
    await once(file, 'close');
    await rename(temporary, path);
  } catch (error) {
    file.destroy();
    await rm(temporary, { force: true });
    throw error;
  }
}

async function opened(file: WriteStream, path: string): Promise<void> {
  try {
    await once(file, 'open');
  } catch (cause) {
    throw new BridgeError('invalid', `cannot write ${path}: ${errnoCode(cause) ?? String(cause)}`, {
      cause,
    });
  }
}

interface Checked {
  readonly events: number;
  readonly chains: readonly CheckedChain[];
  readonly broken: readonly BrokenChain[];
  readonly badLine?: number | undefined;
}

async function ask(state: string | undefined, heads: string[], io: Io): Promise<Checked> {
  using server = await connect(state, io);
  const options = { deadlineMs: VERIFY_DEADLINE_MS, signal: io.signal };
  return await server.call('audit.verify', { heads }, options);
}

async function checkedFile(path: string, heads: string[]): Promise<Checked> {
  try {
    return await checkFile(path, heads);
  } catch (cause) {
    throw new BridgeError('invalid', `cannot read ${path}: ${errnoCode(cause) ?? String(cause)}`, {
      cause,
    });
  }
}

const moment = (at: number): string => new Date(at).toISOString();

/** One line for people: when, how it ended, who, what, on what. */
function shown(row: AuditRow): string {
  const { at, outcome, who, op, namespace, execution, target = [], targets, detail } = row;
  const more = targets === undefined ? '' : ` (${targets} in all)`;
  const what = [op, namespace, target.map((name) => JSON.stringify(name)).join(', ') + more];
  const run = execution === undefined ? '' : ` in ${execution}`;
  const why = detail === undefined ? '' : ` – ${detail}`;
  return `${moment(at)} ${outcome.padEnd(8)} ${who} ${what.filter(Boolean).join(' ')}${run}${why}`;
}

const brokenText = ({ what, writer, seq, at, text }: BrokenChain): string =>
  `${what === 'head' ? 'head does not match' : what}: run ${writer}, event ${seq}${at === 0 ? '' : `, ${moment(at)}`}: ${text}`;

const beginText = ({ writer, first }: CheckedChain): string =>
  `run ${writer} begins with event ${first}: what came before is not here`;

function head(text: string): string {
  if (/^[0-9a-f]{64}$/.test(text)) return text;
  throw new Misuse(
    `--head ${text}: a head is 64 hexadecimal digits, as export and verify print it`,
  );
}

function count(text: string, option: string): number {
  if (/^\d{1,9}$/.test(text)) return Number(text);
  throw new Misuse(`${option} ${text}: write a whole number`);
}

/** Milliseconds of a date or a date and time; UTC unless it says otherwise. */
function date(text: string, option: string): number {
  const isZoned = /T.*(Z|[+-]\d\d:\d\d)$/.test(text);
  const ms = Date.parse(text.includes('T') && !isZoned ? `${text}Z` : text);
  if (!/^\d{4}-\d\d-\d\d(T\d\d:\d\d.*)?$/.test(text) || Number.isNaN(ms) || ms < 0)
    throw new Misuse(`${option} ${text}: write a date like 2026-01-31 or 2026-01-31T12:00:00Z`);
  return ms;
}
