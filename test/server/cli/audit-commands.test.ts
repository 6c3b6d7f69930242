import { copyFileSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import t, { type Test } from 'tap';
import { Connection } from '#bridge/client/connection.js';
import { type AuditRow, lineOf, nextHash, rowLineOf } from '#bridge/wire/audit-chain.js';
import type { Damage } from '#bridge/wire/audit-check.js';
import { BridgeError } from '#bridge/wire/errors.js';
import { State } from '#server/admin/state.js';
import { AUDIT_COMMANDS } from '#server/cli/audit-commands.js';
import { checkLines } from '#server/cli/audit-file.js';
import { dispatch } from '#server/cli/command.js';
import { noteOf, target } from '#server/services/audit/note.js';
import { Audit } from '#server/services/audit.js';
import { MemoryStore } from '#server/store/memory-store.js';
import { InProcessServer } from '#test/support/in-process-server.js';
import { randomTest } from '#test/support/random.js';

const ADA = { role: 'operator', name: 'ada', thumbprint: 'A'.repeat(43) };

/** The commands against a server in this process. */
class Desk implements AsyncDisposable {
  readonly server: InProcessServer;
  readonly #state: State;

  private constructor(server: InProcessServer) {
    this.server = server;
    this.#state = new State(join(server.directory, 'state'));
  }

  static async open(): Promise<Desk> {
    const desk = new Desk(await InProcessServer.start());
    const state = desk.#state;
    mkdirSync(state.path('pki'), { recursive: true });
    for (const name of ['ca.crt', 'operator.crt', 'operator.key'])
      copyFileSync(join(desk.server.directory, name), state.path('pki', name));
    state.writeSettings({ listen: desk.server.address });
    return desk;
  }

  path = (name: string): string => join(this.server.directory, name);

  async run(args: readonly string[], signal = new AbortController().signal) {
    let [stdout, stderr] = ['', ''];
    const code = await dispatch(AUDIT_COMMANDS, args, {
      out: (text) => {
        stdout += text;
      },
      err: (text) => {
        stderr += `${text}\n`;
      },
      stdin: async () => Buffer.alloc(0),
      env: { CRONIUM_STATE: this.#state.directory },
      signal,
    });
    return { code, stdout, stderr };
  }

  /** Events `from`-`to`, one a key. */
  read(from: number, to: number): void {
    for (let n = from; n <= to; n++) {
      const note = target(noteOf(ADA, 'variable.get'), [`key-${n}`]);
      note.namespace = 'user:ada';
      if (n % 10 === 0) void this.server.audit.failed(note, new BridgeError('denied', 'not yours'));
      else void this.server.audit.done(note);
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.server[Symbol.asyncDispose]();
  }
}

const lines = (text: string): string[] => text.split('\n').filter((line) => line !== '');

void t.test('tail shows the last events, filtered, as text or JSON', async (t) => {
  await using desk = await Desk.open();
  desk.read(1, 100);
  await desk.server.audit.flush();
  const shown = await desk.run(['audit', 'tail', '-n', '2', '--user', 'ada']);
  t.match(shown, { code: 0, stderr: '' });
  const [nine, ten] = lines(shown.stdout);
  t.match(nine, /^\d{4}-\d\d-\d\dT[\d:.]+Z ok {7}operator:ada variable\.get user:ada "key-99"$/);
  t.match(ten, /denied {3}operator:ada variable\.get user:ada "key-100" – not yours$/);
  const json = await desk.run(['audit', 'tail', '-n', '3', '--outcome', 'denied', '--json']);
  t.same(
    lines(json.stdout).map((line) => (JSON.parse(line) as AuditRow).target),
    [['key-80'], ['key-90'], ['key-100']],
  );
  const { stdout } = await desk.run(['audit', 'tail', '--op', 'audit.read', '--json']);
  t.match(JSON.parse(lines(stdout)[0] ?? ''), { who: 'operator:test-operator', outcome: 'ok' });
  t.match(await desk.run(['audit', 'tail', '-n', 'x']), { code: 2 });
});

void t.test('tail -f follows until Ctrl-C, and is on record once', async (t) => {
  await using desk = await Desk.open();
  const interrupted = new AbortController();
  const tail = desk.run(['audit', 'tail', '-f', '--op', 'variable.get'], interrupted.signal);
  await sleep(300);
  desk.read(1, 5);
  await sleep(800);
  desk.read(6, 9);
  await sleep(1300);
  interrupted.abort();
  const { code, stdout } = await tail;
  t.equal(code, 0);
  t.same(
    lines(stdout).map((line) => /key-\d/.exec(line)?.[0]),
    Array.from({ length: 9 }, (_, n) => `key-${n + 1}`),
  );
  await desk.server.audit.flush();
  const { events } = await desk.server.audit.read({ limit: 99, reverse: false, op: 'audit.read' });
  t.equal(events.length, 1);
});

void t.test('tail -f waits for a server that restarts, and misses nothing', async (t) => {
  await using desk = await Desk.open();
  const interrupted = new AbortController();
  const tail = desk.run(['audit', 'tail', '-f', '--op', 'variable.get'], interrupted.signal);
  await sleep(700);
  desk.read(1, 5);
  await desk.server.pause();
  await sleep(700);
  await desk.server.resume();
  desk.read(6, 9);
  await sleep(1500);
  interrupted.abort();
  const { code, stdout, stderr } = await tail;
  t.equal(code, 0);
  t.match(stderr, /^[^\n]+; waiting for the server\n$/);
  t.same(
    lines(stdout).map((line) => /key-\d/.exec(line)?.[0]),
    Array.from({ length: 9 }, (_, n) => `key-${n + 1}`),
  );
});

void t.test('an export is verified offline, and tampering and a cut end are found', async (t) => {
  await using desk = await Desk.open();
  desk.read(1, 50);
  const out = desk.path('log.jsonl');
  const exported = await desk.run(['audit', 'export', '--out', out]);
  t.equal(exported.code, 0, exported.stderr);
  const head = /head of run 1, event 51: ([0-9a-f]{64})/.exec(exported.stderr)?.[1] ?? '';
  t.same(
    readdirSync(desk.server.directory).filter((name) => name.startsWith('log.')),
    ['log.jsonl'],
  );
  t.match(await desk.run(['audit', 'verify', out, '--head', head]), {
    code: 0,
    stdout: `intact: 52 events of 1 run; head ${head}\n`,
  });
  const whole = readFileSync(out, 'utf8');
  writeFileSync(out, lines(whole).slice(0, -1).join('\n'));
  t.match(await desk.run(['audit', 'verify', out]), { code: 0 }, 'no head, no notice');
  t.match(await desk.run(['audit', 'verify', out, '--head', head]), {
    code: 1,
    stdout: /^head does not match: run 1, event 50, .*: no event has the hash/,
  });
  writeFileSync(out, whole.replace('"key-7"', '"key-8"'));
  t.match(await desk.run(['audit', 'verify', out]), {
    code: 1,
    stdout: /^changed: run 1, event 7, /,
  });
  writeFileSync(out, whole.slice(0, -30));
  t.match(await desk.run(['audit', 'verify', out]), {
    code: 1,
    stdout: /^changed: line 52 of .* is not as it was exported/,
  });
  t.match(await desk.run(['audit', 'verify', out, '--json']), {
    code: 1,
    stdout: /"intact":false/,
  });
  t.match(await desk.run(['audit', 'verify', desk.path('none')]), { code: 2, stderr: /ENOENT/ });
  t.match(await desk.run(['audit', 'verify', '--head', 'x']), { code: 2 });
  rmSync(out);
  const piped = await desk.run(['audit', 'export', '--from', '2020-01-01']);
  t.ok(piped.stdout.startsWith(whole));
  t.match(await desk.run(['audit', 'export', '--to', '2020-01-01']), { code: 0, stdout: '' });
  t.match(await desk.run(['audit', 'export', '--to', 'soon']), { code: 2 });
  t.match(await desk.run(['audit', 'export', '--out', desk.path('no/such')]), { code: 2 });
});

void t.test('the server verifies its own log and prunes it, both on record', async (t) => {
  await using desk = await Desk.open();
  desk.read(1, 20);
  t.match(await desk.run(['audit', 'verify']), { code: 0, stdout: /^intact: 22 events of 1 run/ });
  await sleep(5);
  const before = new Date().toISOString();
  await sleep(5);
  desk.read(21, 40);
  const pruned = await desk.run(['audit', 'prune', '--before', before, '--json']);
  t.match(pruned, { code: 0, stdout: /"events":2\d,/ });
  t.match(await desk.run(['audit', 'verify']), { code: 0 });
  t.match(await desk.run(['audit', 'tail', '-n', '99']), {
    stdout: /ok {7}operator:test-operator audit.prune – events before/,
  });
  const late = ['audit', 'prune', '--before', '2999-01-01'];
  t.match(await desk.run(late), { code: 2, stderr: /still to come/ });
  desk.read(41, 60);
  await desk.server.audit.flush();
  for await (const { key } of desk.server.store.range(['audit', 'system', 1], {
    from: 1,
    limit: 1,
  }))
    await desk.server.store.commit({ ops: [{ del: key }] });
  t.match(await desk.run(['audit', 'verify']), { code: 1, stdout: /^removed: run 1, event/ });
  t.match(await desk.run(['audit', 'tail', '--op', 'audit.verify']), {
    stdout: /not intact: removed at event/,
  });
});

void t.test('a host can neither read nor prune the log', async (t) => {
  await using desk = await Desk.open();
  const { address } = desk.server;
  using host = await Connection.open({ address, tls: desk.server.tls('host'), software: 'test' });
  const calls: Promise<unknown>[] = [
    host.call('audit.read', { limit: 1, reverse: true }),
    host.call('audit.verify', { heads: [] }),
    host.call('audit.head', {}),
    host.call('audit.prune', { before: 0 }),
  ];
  for (const call of calls) await t.rejects(call, { code: 'denied' });
});

/** An exported log of three runs. */
async function exported(): Promise<AuditRow[]> {
  const store = new MemoryStore();
  let last: Audit | undefined;
  for (let run = 0; run < 3; run++) {
    const audit = await Audit.open(store);
    for (let n = 0; n < 20; n++) void audit.done(noteOf(ADA, `op.${n}`));
    await audit[Symbol.asyncDispose]();
    await sleep(2);
    last = audit;
  }
  return [...((await last?.read({ limit: 1000, reverse: false }))?.events ?? [])];
}

const check = async (rows: readonly AuditRow[], heads: string[] = []) =>
  await checkLines(async function* () {
    yield* rows.map(rowLineOf);
  }, heads);

/** The chain of run 2, made to fit again after a change. */
function rehashed(rows: readonly AuditRow[]): AuditRow[] {
  let prev = rows.find(({ writer }) => writer === 2)?.prev ?? '';
  return rows.map((row) => {
    if (row.writer !== 2) return row;
    const made = { ...row, prev, hash: nextHash(prev, lineOf(row)) };
    prev = made.hash;
    return made;
  });
}

const at = (rows: readonly AuditRow[], seq: number) =>
  rows.findIndex((row) => row.writer === 2 && row.seq === seq);

// biome-ignore format: a table
const TAMPERINGS: readonly [name: string, what: Damage, seq: number, act: (rows: AuditRow[]) => AuditRow[]][] = [
  ['a line is removed', 'removed', 5, (rows) => rows.toSpliced(at(rows, 5), 1)],
  ['two lines are swapped', 'reordered', 5, (rows) => { const i = at(rows, 5); return rows.toSpliced(i, 2, rows[i + 1] as AuditRow, rows[i] as AuditRow); }],
  ['a line is repeated', 'reordered', 5, (rows) => rows.toSpliced(at(rows, 8), 0, rows[at(rows, 5)] as AuditRow)],
  ['a line is changed', 'changed', 5, (rows) => rows.map((row, i) => i === at(rows, 5) ? { ...row, who: 'operator:bob' } : row)],
  ['a line and its hash are changed', 'changed', 6, (rows) => rows.map((row, i) => { const odd = { ...row, who: 'operator:bob' }; return i === at(rows, 5) ? { ...odd, hash: nextHash(row.prev, lineOf(odd)) } : row; })],
  ['a whole run is written anew', 'changed', 20, (rows) => rehashed(rows.map((row, i) => i === at(rows, 5) ? { ...row, who: 'operator:bob' } : row))],
  ['the end of a run is cut', 'removed', 18, (rows) => rows.filter(({ writer, seq }) => writer !== 2 || seq < 18)],
  ['a whole run is removed', 'removed', 0, (rows) => rows.filter(({ writer }) => writer !== 2)],
];

for (const [name, what, seq, act] of TAMPERINGS)
  void t.test(`in an exported log ${name}: found`, async (t) => {
    const rows = await exported();
    t.match(await check(rows), { events: 63, broken: [], badLine: undefined });
    t.match((await check(act(rows))).broken, [{ what, writer: 2, seq }]);
  });

void t.test('a part of a log is intact as far as it goes', async (t) => {
  const rows = await exported();
  for (const from of [0, 1, 20, 21, 30, 62]) {
    const part = await check(rows.slice(from));
    t.same(part.broken, [], `from line ${from}`);
    t.equal(part.events, 63 - from);
  }
});

async function assertFound(t: Test, text: string, label: string): Promise<void> {
  const { broken, badLine } = await checkLines(async function* () {
    yield* text.split('\n');
  }, []);
  t.ok(broken.length > 0 || badLine !== undefined, label);
}

randomTest('any bit that is changed in an exported log is noticed', async (t, random) => {
  const text = (await exported()).map(rowLineOf).join('\n');
  for (let round = 0; round < 150; round++) {
    const bytes = Buffer.from(text);
    const place = random.int(bytes.length);
    bytes[place] = (bytes[place] ?? 0) ^ (1 << random.int(8));
    await assertFound(t, bytes.toString(), `byte ${place} is ${bytes[place]}`);
  }
});
