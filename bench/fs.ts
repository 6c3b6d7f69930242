// `npm run bench -- fs`: the same small program on tmpfs, on a mount of ours and on a C server, in turn. docs/benchmarks.md
// says what the rows mean. Root, /dev/fuse and a C compiler are needed.
import { type ChildProcess, spawn } from 'node:child_process';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { cpus, loadavg, release } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { unmount } from '#bridge/fuse/mount.js';
import { FakeRuntime, TestMount, type TestTree } from '#test/support/mounted.js';

/** What the client does, how often (shared by the processes), and whether a small or a large figure is the better one. */
interface Row {
  readonly name: string;
  readonly what: string;
  readonly count: number;
  readonly processes: number;
  readonly unit: 'ns/op' | 'MB/s';
  /** Works on files the kernel has never heard of. */
  readonly isNew?: boolean;
}

type TargetName = 'tmpfs' | 'ours' | 'c';

interface Target {
  readonly name: TargetName;
  /** An empty directory for a row. */
  directory(): Promise<string>;
  /** A directory with NEW_FILES files of 4 KiB, f000000 and up, whose names nobody has looked up since they exist. */
  newFiles(): Promise<string>;
  stop(): Promise<void>;
}

interface Goal {
  readonly row: string;
  readonly against: 'c' | 'tmpfs';
  /** At most for times, at least for throughput. */
  readonly bound: number;
}

const NEW_FILES = 5_000;
const NEW_FILE_BYTES = 4096;
const PROCESSES = 16;
const SEQUENTIAL_MIB = 256;
/** As long as our own mount lets the kernel remember (bridge/fuse/reply.ts). */
const PEER_TTL_SECONDS = 3600;
const ROUNDS_MIN = 5;
/** The slowest row takes seconds; a client that takes this long hangs. */
const CLIENT_MS = 120_000;
const PEER_START_MS = 10_000;

/** Long enough for a few hundred milliseconds of each, so that one preemption does not decide. */
const SMALL: readonly Omit<Row, 'processes' | 'unit'>[] = [
  { name: 'stat', what: 'stat', count: 200_000 },
  { name: 'pread', what: 'pread', count: 200_000 },
  { name: 'stat-new', what: 'stat-new', count: NEW_FILES, isNew: true },
  { name: 'open', what: 'open', count: 10_000 },
  { name: 'open-new', what: 'open-new', count: NEW_FILES, isNew: true },
  { name: 'create', what: 'create', count: 3_000 },
];

const ROWS: readonly Row[] = [
  ...SMALL.map((row): Row => ({ ...row, processes: 1, unit: 'ns/op' })),
  { name: 'write', what: 'write', count: SEQUENTIAL_MIB, processes: 1, unit: 'MB/s' },
  { name: 'read', what: 'read', count: SEQUENTIAL_MIB, processes: 1, unit: 'MB/s' },
  ...SMALL.map(
    (row): Row => ({ ...row, name: `${row.name}-x16`, processes: PROCESSES, unit: 'ns/op' }),
  ),
];

const GOALS: readonly Goal[] = [
  { row: 'stat-new', against: 'c', bound: 1.35 },
  { row: 'open-new', against: 'c', bound: 1.6 },
  { row: 'open', against: 'c', bound: 1.6 },
  { row: 'stat', against: 'tmpfs', bound: 1.3 },
  { row: 'pread', against: 'tmpfs', bound: 1.3 },
  { row: 'write', against: 'c', bound: 0.85 },
  { row: 'read', against: 'c', bound: 0.85 },
];

const PEERS = fileURLToPath(new URL('../../bench/peers/', import.meta.url));

/** Ends the bench with a sentence instead of a stack. */
class CannotRun extends Error {}

const say = (text: string) => process.stderr.write(`${text}\n`);

interface Ran {
  readonly code: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

/** Always from a directory of the host's: the mounts are touched by the program, never by this process. */
async function run(command: string, args: readonly string[], timeout = CLIENT_MS): Promise<Ran> {
  const child = spawn(command, args, { cwd: '/', stdio: ['ignore', 'pipe', 'pipe'], timeout });
  let [stdout, stderr] = ['', ''];
  child.stdout.on('data', (chunk: Buffer) => {
    stdout += chunk.toString();
  });
  child.stderr.on('data', (chunk: Buffer) => {
    stderr += chunk.toString();
  });
  return await new Promise((resolve) => {
    child.on('error', (error) => resolve({ code: 127, stdout, stderr: error.message }));
    child.on('close', (code) => resolve({ code, stdout, stderr: stderr.trim() }));
  });
}

/** Compiles one of bench/peers; undefined = done, otherwise why not. */
async function compile(
  source: string,
  output: string,
  flags: readonly string[],
): Promise<string | undefined> {
  const { code, stderr } = await run('cc', ['-O2', '-o', output, join(PEERS, source), ...flags]);
  if (code === 0) return undefined;
  return code === 127
    ? 'there is no C compiler: apt-get install gcc libc6-dev'
    : `${source} does not compile: ${stderr}`;
}

async function tmpfs(base: string): Promise<Target> {
  const root = join(base, 'tmpfs');
  mkdirSync(root);
  let made = 0;
  const data = Buffer.alloc(NEW_FILE_BYTES, 'x');
  const directory = async () => {
    const path = join(root, String(made++));
    mkdirSync(path);
    return path;
  };
  return {
    name: 'tmpfs',
    directory,
    newFiles: async () => {
      const path = await directory();
      for (let i = 0; i < NEW_FILES; i++) writeFileSync(join(path, newName(i)), data);
      return path;
    },
    stop: async () => {},
  };
}

async function ours(base: string): Promise<Target> {
  // Backing files on tmpfs too: the C server keeps its files in memory, and the disk is not what is compared.
  process.env['TMPDIR'] = base;
  const mount = await TestMount.open();
  const quota = { bytesMax: 4 * 1024 ** 3, inodesMax: 200_000 };
  const data = Buffer.alloc(NEW_FILE_BYTES, 'x');
  const files = Array.from({ length: NEW_FILES }, (_, i) => ({
    path: `work/new/${newName(i)}`,
    mode: 0o644,
    data,
  }));
  const tree = await mount.tree(new FakeRuntime(), { quota });
  return {
    name: 'ours',
    directory: async () => tree.work,
    // The bridge puts them there, so the kernel learns of each at its first look-up.
    newFiles: async () => {
      const fresh: TestTree = await mount.tree(new FakeRuntime(), { quota, files });
      return join(fresh.work, 'new');
    },
    stop: async () => await mount[Symbol.asyncDispose](),
  };
}

/** Undefined when there is no library or compiler, which is said. */
async function cServer(base: string): Promise<Target | undefined> {
  const { code, stdout } = await run('pkg-config', ['--cflags', '--libs', 'fuse3']);
  if (code !== 0) {
    say(
      'without the C server: libfuse3 is not installed (apt-get install libfuse3-dev pkg-config)',
    );
    return undefined;
  }
  const program = join(base, 'memory-fs');
  const failure = await compile('memory-fs.c', program, stdout.trim().split(/\s+/));
  if (failure !== undefined) {
    say(`without the C server: ${failure}`);
    return undefined;
  }
  const root = join(base, 'c');
  mkdirSync(root);
  const child = spawn(program, [root, String(PEER_TTL_SECONDS), String(NEW_FILES)], {
    cwd: '/',
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  const closed = new Promise<void>((resolve) => child.on('close', () => resolve()));
  const stop = async () => {
    child.kill('SIGTERM');
    await closed;
    await unmount(root);
  };
  if (!(await saysReady(child))) {
    await stop();
    say('without the C server: it did not start');
    return undefined;
  }
  let made = 0;
  const make = async (name: string) => {
    const path = join(root, `${name}${made++}`);
    const { code: failed, stderr } = await run('mkdir', [path]);
    if (failed !== 0)
      throw new CannotRun(`the C server does not make a directory: ${stderr || 'it hangs'}`);
    return path;
  };
  return {
    name: 'c',
    directory: async () => await make('row-'),
    newFiles: async () => await make('new-'),
    stop,
  };
}

async function saysReady(child: ChildProcess): Promise<boolean> {
  return await new Promise((resolve) => {
    const timer = setTimeout(() => resolve(false), PEER_START_MS);
    const settle = (ready: boolean) => {
      clearTimeout(timer);
      resolve(ready);
    };
    child.stdout?.once('data', () => settle(true));
    child.once('error', () => settle(false));
    child.once('close', () => settle(false));
  });
}

const newName = (i: number) => `f${String(i).padStart(6, '0')}`;

async function measure(client: string, target: Target, row: Row): Promise<number> {
  const directory = row.isNew === true ? await target.newFiles() : await target.directory();
  const args = [row.what, directory, String(row.count), String(row.processes)];
  const { code, stdout, stderr } = await run(client, args);
  const figure = Number.parseFloat(stdout);
  if (code !== 0 || !Number.isFinite(figure))
    throw new CannotRun(
      `row ${row.name} failed on ${target.name}: ${stderr || (code === null ? `no end within ${CLIENT_MS} ms` : `exit code ${code}`)}`,
    );
  return figure;
}

function median(figures: readonly number[]): number {
  const sorted = [...figures].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  const [low, high] = [sorted[middle - 1 + (sorted.length & 1)], sorted[middle]];
  return ((low ?? Number.NaN) + (high ?? Number.NaN)) / 2;
}

/** The least disturbed round: the fastest. */
const best = (row: Row, figures: readonly number[]): number =>
  row.unit === 'ns/op' ? Math.min(...figures) : Math.max(...figures);

/** Ratios are taken within a round, where both saw the same neighbours; then their median. */
function ratio(row: Row, figures: readonly number[], base: readonly number[] | undefined) {
  if (base === undefined || base.length === 0) return undefined;
  return {
    median: median(figures.map((figure, i) => figure / (base[i] ?? Number.NaN))),
    best: best(row, figures) / best(row, base),
  };
}
type Ratio = ReturnType<typeof ratio>;

interface Result {
  readonly row: Row;
  readonly targets: Readonly<Partial<Record<TargetName, readonly number[]>>>;
  readonly oursToC: Ratio;
  readonly oursToTmpfs: Ratio;
}

function table(results: readonly Result[]): string {
  const figure = (row: Row, figures: readonly number[] | undefined) =>
    figures === undefined
      ? '-'
      : `${Math.round(median(figures))} (${Math.round(best(row, figures))})`;
  const quotient = (value: Ratio) =>
    value === undefined ? '-' : `${value.median.toFixed(2)} (${value.best.toFixed(2)})`;
  const lines = [
    ['row', 'unit', 'tmpfs', 'ours', 'C', 'ours/C', 'ours/tmpfs'],
    ...results.map(({ row, targets, oursToC, oursToTmpfs }) => [
      row.name,
      row.unit,
      figure(row, targets.tmpfs),
      figure(row, targets.ours),
      figure(row, targets.c),
      quotient(oursToC),
      quotient(oursToTmpfs),
    ]),
  ];
  const widths = lines[0]?.map((_, i) => Math.max(...lines.map((line) => line[i]?.length ?? 0)));
  const print = (line: readonly string[]) =>
    `| ${line.map((cell, i) => (i < 2 ? cell.padEnd(widths?.[i] ?? 0) : cell.padStart(widths?.[i] ?? 0))).join(' | ')} |`;
  const rule = `|${widths?.map((width, i) => (i < 2 ? '-'.repeat(width + 2) : `${'-'.repeat(width + 1)}:`)).join('|')}|`;
  return [print(lines[0] ?? []), rule, ...lines.slice(1).map(print)].join('\n');
}

/** By how many of the two ratios, median and best, meet the goal: other work on the machine can bend either. */
const VERDICTS = ['MISSED ', 'unclear', 'hit    '] as const;

function goals(results: readonly Result[]): string[] {
  const said: string[] = [];
  for (const { row: name, against, bound } of GOALS) {
    const result = results.find(({ row }) => row.name === name);
    const measured = against === 'c' ? result?.oursToC : result?.oursToTmpfs;
    if (result === undefined || measured === undefined) continue;
    const isTime = result.row.unit === 'ns/op';
    const isHit = (figure: number) => (isTime ? figure <= bound : figure >= bound);
    const hits = [measured.median, measured.best].filter(isHit).length;
    const than = against === 'c' ? 'C' : 'tmpfs';
    said.push(
      `${VERDICTS[hits] ?? ''} ${name}: ${measured.median.toFixed(2)}x (${measured.best.toFixed(2)}x) of ${than}, wanted ${isTime ? '<=' : '>='} ${bound}`,
    );
  }
  return said;
}

async function bench(rows: readonly Row[], rounds: number, json: string | undefined) {
  const base = mkdtempSync('/dev/shm/cronium-bench-');
  const targets: Target[] = [];
  const stopAll = async () => {
    for (const target of targets.reverse()) await target.stop();
    rmSync(base, { recursive: true, force: true });
  };
  try {
    const client = join(base, 'client');
    const failure = await compile('client.c', client, []);
    if (failure !== undefined) throw new CannotRun(`no client: ${failure}`);
    targets.push(await tmpfs(base), await ours(base));
    const c = await cServer(base);
    if (c !== undefined) targets.push(c);

    const figures = rows.map((): Partial<Record<TargetName, number[]>> => ({}));
    // Round 0 is thrown away: it compiles our code and warms caches, as a daemon's first seconds do.
    for (let round = 0; round <= rounds; round++) {
      for (const [i, row] of rows.entries()) {
        say(`${round === 0 ? 'warm-up' : `round ${round} of ${rounds}`}: ${row.name}`);
        for (let k = 0; k < targets.length; k++) {
          const target = targets[(round + i + k) % targets.length];
          const into = figures[i];
          if (target === undefined || into === undefined) continue;
          const figure = await measure(client, target, row);
          into[target.name] ??= [];
          if (round > 0) into[target.name]?.push(figure);
        }
      }
    }
    const results = rows.map((row, i): Result => {
      const of = figures[i] ?? {};
      const mine = of.ours ?? [];
      return {
        row,
        targets: of,
        oursToC: ratio(row, mine, of.c),
        oursToTmpfs: ratio(row, mine, of.tmpfs),
      };
    });
    const machine = {
      cpu: cpus()[0]?.model ?? 'unknown',
      cpus: cpus().length,
      kernel: release(),
      node: process.version,
      load: loadavg(),
    };
    process.stdout.write(
      `${rounds} rounds: median (best); ratios: median of the rounds (of the bests). Load ${machine.load.map((l) => l.toFixed(1)).join(' ')}.\n\n`,
    );
    process.stdout.write(`${table(results)}\n\n${goals(results).join('\n')}\n`);
    if (json !== undefined) {
      const document = { date: new Date().toISOString(), machine, rounds, results };
      try {
        mkdirSync(dirname(json), { recursive: true });
        writeFileSync(json, `${JSON.stringify(document, null, 2)}\n`);
      } catch (error) {
        throw new CannotRun(
          `cannot write ${json}: ${error instanceof Error ? error.message : String(error)}`,
        );
      }
    }
  } finally {
    await stopAll();
  }
}

const USAGE = `usage: npm run bench -- fs [--rounds N] [--rows a,b] [--json FILE]
  N: ${ROUNDS_MIN} or more (default ${ROUNDS_MIN}); rows: ${ROWS.map(({ name }) => name).join(' ')}`;

async function main(): Promise<number> {
  let values: { rounds?: string; rows?: string; json?: string };
  try {
    const option = { type: 'string' } as const;
    ({ values } = parseArgs({ options: { rounds: option, rows: option, json: option } }));
  } catch (error) {
    say(`${error instanceof Error ? error.message : String(error)}\n${USAGE}`);
    return 2;
  }
  const rounds = Number(values.rounds ?? ROUNDS_MIN);
  const wanted = values.rows?.split(',');
  const unknown = wanted?.find((name) => !ROWS.some((row) => row.name === name));
  if (!Number.isInteger(rounds) || rounds < ROUNDS_MIN || unknown !== undefined) {
    say(unknown === undefined ? USAGE : `there is no row ${unknown}\n${USAGE}`);
    return 2;
  }
  if (process.getuid?.() !== 0) {
    say('mounting needs root: run the bench as root');
    return 1;
  }
  const rows = ROWS.filter(({ name }) => wanted === undefined || wanted.includes(name));
  try {
    await bench(rows, rounds, values.json);
    return 0;
  } catch (error) {
    if (!(error instanceof Error)) throw error;
    say(error.message);
    return 1;
  }
}

process.exitCode = await main();
