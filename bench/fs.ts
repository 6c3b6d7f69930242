// `npm run bench -- fs`: the same small program on tmpfs, on a mount of ours, on a C server and on one of the npm package
// fuse-native, in turn. docs/benchmarks.md says what the rows mean. Root, /dev/fuse and a C compiler are needed.
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { loadavg } from 'node:os';
import { dirname, join, relative } from 'node:path';
import { parseArgs } from 'node:util';
import { unmount } from '#bridge/fuse/mount.js';
import { FakeRuntime, TestMount, type TestTree } from '#test/support/mounted.js';
import { markdownTable, median, type Ratio } from './lib/figures.js';
import {
  CannotRun,
  CLIENT_MS,
  compile,
  firstWord,
  machine,
  PEERS,
  ROOT,
  run,
  say,
} from './lib/running.js';

/** What the client does, how often (shared by the processes), and whether a small or a large figure is the better one. */
interface Row {
  readonly name: string;
  readonly what: string;
  readonly count: number;
  readonly processes: number;
  readonly unit: 'ns/op' | 'MB/s';
  /** Works on files the kernel has never heard of. */
  readonly isNew?: boolean;
  /** The kernel answers alone, whoever serves the mount: there is nothing to be faster with. */
  readonly isKernels?: boolean;
  /** While the main thread of the serving process is busy half of the time; only where there is such a thread. */
  readonly isBusy?: boolean;
  /** What the client's figures are called, when it prints more than one. */
  readonly lines?: readonly string[];
}

type TargetName = 'tmpfs' | 'ours' | 'c' | 'native';

interface Target {
  readonly name: TargetName;
  /** An empty directory for a row. */
  directory(): Promise<string>;
  /** A directory with NEW_FILES files of 4 KiB, f000000 and up, whose names nobody has looked up since they exist. */
  newFiles(): Promise<string>;
  /** From now on the main thread burns BURN_MS, rests as long, and so on, until the returned function is called. */
  keepBusy?(): Promise<() => Promise<void>>;
  stop(): Promise<void>;
}

interface Goal {
  readonly line: string;
  /** Undefined = the figure itself. */
  readonly against: Exclude<TargetName, 'ours'> | undefined;
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
const PEER_START_MS = 10_000;
/** As in native-fs.mjs: a long turn of the event loop, and as long again until the next. */
const BURN_MS = 20;
/** How far two runs of the same system call may differ on a busy machine and still count as level. */
const LEVEL = 1.1;

/** Long enough for a few hundred milliseconds of each, so that one preemption does not decide. */
const SMALL: readonly Omit<Row, 'processes' | 'unit'>[] = [
  { name: 'stat', what: 'stat', count: 200_000, isKernels: true },
  { name: 'pread', what: 'pread', count: 200_000, isKernels: true },
  { name: 'stat-new', what: 'stat-new', count: NEW_FILES, isNew: true },
  { name: 'open', what: 'open', count: 10_000 },
  { name: 'open-new', what: 'open-new', count: NEW_FILES, isNew: true },
  { name: 'create', what: 'create', count: 3_000 },
];

const ROWS: readonly Row[] = [
  ...SMALL.map((row): Row => ({ ...row, processes: 1, unit: 'ns/op' })),
  { name: 'write', what: 'write', count: SEQUENTIAL_MIB, processes: 1, unit: 'MB/s' },
  { name: 'read', what: 'read', count: SEQUENTIAL_MIB, processes: 1, unit: 'MB/s' },
  {
    name: 'stat-busy',
    what: 'stat-paced',
    count: 2_000,
    processes: 1,
    unit: 'ns/op',
    isNew: true,
    isBusy: true,
    lines: ['stat-busy-p50', 'stat-busy-p99'],
  },
  ...SMALL.map(
    (row): Row => ({ ...row, name: `${row.name}-x16`, processes: PROCESSES, unit: 'ns/op' }),
  ),
];

const linesOf = (row: Row): readonly string[] => row.lines ?? [row.name];

const GOALS: readonly Goal[] = [
  { line: 'stat-new', against: 'c', bound: 1.35 },
  { line: 'open-new', against: 'c', bound: 1.6 },
  { line: 'open', against: 'c', bound: 1.6 },
  { line: 'stat', against: 'tmpfs', bound: 1.3 },
  { line: 'pread', against: 'tmpfs', bound: 1.3 },
  { line: 'write', against: 'c', bound: 0.85 },
  { line: 'read', against: 'c', bound: 0.85 },
  { line: 'stat-busy-p99', against: undefined, bound: 3_000_000 },
  // Ahead of fuse-native everywhere; where the kernel answers, level with it.
  ...ROWS.flatMap((row) =>
    linesOf(row).map(
      (line): Goal => ({ line, against: 'native', bound: row.isKernels === true ? LEVEL : 1 }),
    ),
  ),
];

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
    // This thread is the main one of the serving process.
    keepBusy: async () => {
      let timer: NodeJS.Timeout | undefined;
      const burn = () => {
        const end = performance.now() + BURN_MS;
        while (performance.now() < end);
        timer = setTimeout(burn, BURN_MS);
      };
      burn();
      return async () => clearTimeout(timer);
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
  return await peer('c', child, root);
}

/** Undefined when the package is not there, which is said. */
async function nativeServer(base: string): Promise<Target | undefined> {
  let library: string;
  try {
    // What its prebuilt binding was linked with lies beside it, under a name that the loader does not look for.
    const main = createRequire(import.meta.url).resolve('fuse-native');
    library = join(dirname(main), `prebuilds/${process.platform}-${process.arch}/libfuse.so`);
  } catch {
    say(
      'without fuse-native: the package is not installed (npm install --no-save --ignore-scripts fuse-native@2.2.6)',
    );
    return undefined;
  }
  const root = join(base, 'native');
  const libraries = join(base, 'lib');
  for (const path of [root, libraries]) mkdirSync(path);
  symlinkSync(library, join(libraries, 'libfuse.so.2'));
  const script = join(PEERS, 'native-fs.mjs');
  const args = [script, root, String(PEER_TTL_SECONDS), String(NEW_FILES)];
  const child = spawn(process.execPath, args, {
    cwd: '/',
    stdio: ['ignore', 'pipe', 'inherit', 'ipc'],
    env: { ...process.env, LD_LIBRARY_PATH: libraries },
  });
  const served = await peer('native', child, root);
  const tell = async (burn: boolean) => {
    child.send({ burn });
    await once(child, 'message');
  };
  if (served === undefined) return undefined;
  return {
    ...served,
    keepBusy: async () => {
      await tell(true);
      return async () => await tell(false);
    },
  };
}

const TITLES: Readonly<Record<TargetName, string>> = {
  tmpfs: 'tmpfs',
  ours: 'ours',
  c: 'C',
  native: 'fuse-native',
};

/** A server in a process of its own, which says when it is ready and makes new files in directories named `new-…`. */
async function peer(
  name: 'c' | 'native',
  child: ChildProcess,
  root: string,
): Promise<Target | undefined> {
  const closed = new Promise<void>((resolve) => child.on('close', () => resolve()));
  const stop = async () => {
    child.kill('SIGTERM');
    await closed;
    await unmount(root);
  };
  if (!(await saysReady(child))) {
    await stop();
    say(`without ${TITLES[name]}: its server did not start`);
    return undefined;
  }
  let made = 0;
  const make = async (prefix: string) => {
    const path = join(root, `${prefix}${made++}`);
    const { code, stderr } = await run('mkdir', [path]);
    if (code !== 0)
      throw new CannotRun(`${TITLES[name]} does not make a directory: ${stderr || 'it hangs'}`);
    return path;
  };
  return {
    name,
    directory: async () => await make('row-'),
    newFiles: async () => await make('new-'),
    stop,
  };
}

const saysReady = async (child: ChildProcess): Promise<boolean> =>
  (await firstWord(child, PEER_START_MS)) !== undefined;

const newName = (i: number) => `f${String(i).padStart(6, '0')}`;

/** What the client printed: one figure for each of the row's lines. */
async function measure(client: string, target: Target, row: Row): Promise<readonly number[]> {
  const directory = row.isNew === true ? await target.newFiles() : await target.directory();
  const args = [row.what, directory, String(row.count), String(row.processes)];
  const running = run(client, args); // before this thread is kept busy: it has to start the client
  const rest = row.isBusy === true ? await target.keepBusy?.() : undefined;
  const { code, stdout, stderr } = await running;
  await rest?.();
  const figures = stdout.trim().split(/\s+/).map(Number.parseFloat);
  if (code !== 0 || figures.length !== linesOf(row).length || !figures.every(Number.isFinite))
    throw new CannotRun(
      `row ${row.name} failed on ${TITLES[target.name]}: ${stderr || (code === null ? `no end within ${CLIENT_MS} ms` : `exit code ${code}`)}`,
    );
  return figures;
}

/** The least disturbed round: the fastest. */
const best = (row: Row, figures: readonly number[]): number =>
  row.unit === 'ns/op' ? Math.min(...figures) : Math.max(...figures);

/** Ratios are taken within a round, where both saw the same neighbours; then their median. */
function ratio(
  row: Row,
  figures: readonly number[],
  base: readonly number[] | undefined,
): Ratio | undefined {
  if (base === undefined || base.length === 0) return undefined;
  return {
    median: median(figures.map((figure, i) => figure / (base[i] ?? Number.NaN))),
    best: best(row, figures) / best(row, base),
  };
}

interface Result {
  readonly line: string;
  readonly row: Row;
  /** Of each round, in order. */
  readonly targets: Readonly<Partial<Record<TargetName, readonly number[]>>>;
  /** Ours to theirs. */
  readonly ratios: Readonly<Partial<Record<TargetName, Ratio | undefined>>>;
}

const COLUMNS = ['tmpfs', 'ours', 'c', 'native'] as const satisfies readonly TargetName[];
const RATIOS = ['c', 'tmpfs', 'native'] as const satisfies readonly TargetName[];

function table(results: readonly Result[]): string {
  const figure = (row: Row, figures: readonly number[] | undefined) =>
    figures === undefined
      ? '-'
      : `${Math.round(median(figures))} (${Math.round(best(row, figures))})`;
  const quotient = (value: Ratio | undefined) =>
    value === undefined ? '-' : `${value.median.toFixed(2)} (${value.best.toFixed(2)})`;
  const lines = [
    [
      'row',
      'unit',
      ...COLUMNS.map((name) => TITLES[name]),
      ...RATIOS.map((name) => `ours/${TITLES[name]}`),
    ],
    ...results.map(({ line, row, targets, ratios }) => [
      line,
      row.unit,
      ...COLUMNS.map((name) => figure(row, targets[name])),
      ...RATIOS.map((name) => quotient(ratios[name])),
    ]),
  ];
  return markdownTable(lines, 2);
}

/** By how many of the two ratios, median and best, meet the goal: other work on the machine can bend either. */
const VERDICTS = ['MISSED ', 'unclear', 'hit    '] as const;

function goals(results: readonly Result[]): string[] {
  const said: string[] = [];
  for (const { line, against, bound } of GOALS) {
    const result = results.find((one) => one.line === line);
    if (result === undefined) continue;
    const { row, targets, ratios } = result;
    const isTime = row.unit === 'ns/op';
    const own = targets.ours ?? [];
    const measured =
      against === undefined ? { median: median(own), best: best(row, own) } : ratios[against];
    if (measured === undefined) continue;
    const isHit = (figure: number) => (isTime ? figure <= bound : figure >= bound);
    const hits = [measured.median, measured.best].filter(isHit).length;
    const show = (figure: number) =>
      against === undefined ? `${(figure / 1e6).toFixed(2)} ms` : `${figure.toFixed(2)}x`;
    const of = against === undefined ? '' : ` of ${TITLES[against]}`;
    said.push(
      `${VERDICTS[hits] ?? ''} ${line}: ${show(measured.median)} (${show(measured.best)})${of}, wanted ${isTime ? '<=' : '>='} ${show(bound)}`,
    );
  }
  return said;
}

async function bench(rows: readonly Row[], rounds: number, json: string) {
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
    const native = await nativeServer(base);
    if (native !== undefined) targets.push(native);

    const figures = rows.map((row) =>
      linesOf(row).map((): Partial<Record<TargetName, number[]>> => ({})),
    );
    const load = loadavg();
    // Round 0 is thrown away: it compiles our code and warms caches, as a daemon's first seconds do.
    for (let round = 0; round <= rounds; round++) {
      for (const [i, row] of rows.entries()) {
        say(`${round === 0 ? 'warm-up' : `round ${round} of ${rounds}`}: ${row.name}`);
        for (let k = 0; k < targets.length; k++) {
          const target = targets[(round + i + k) % targets.length];
          if (target === undefined) continue;
          if (row.isBusy === true && target.keepBusy === undefined) continue;
          for (const [line, figure] of (await measure(client, target, row)).entries()) {
            const into = figures[i]?.[line];
            if (round > 0 && into !== undefined) (into[target.name] ??= []).push(figure);
          }
        }
      }
    }
    const results = rows.flatMap((row, i) =>
      linesOf(row).map((line, k): Result => {
        const of = figures[i]?.[k] ?? {};
        const ratios: Partial<Record<TargetName, Ratio | undefined>> = {};
        for (const name of RATIOS) ratios[name] = ratio(row, of.ours ?? [], of[name]);
        return { line, row, targets: of, ratios };
      }),
    );
    const said = goals(results);
    const told = machine(load);
    process.stdout.write(
      `${rounds} rounds: median (best); ratios: median of the rounds (of the bests). ${told.text}\n\n`,
    );
    process.stdout.write(`${table(results)}\n\n${said.join('\n')}\n`);
    writeJson(json, { ...told.facts, rounds, goals: said, results });
  } finally {
    await stopAll();
  }
}

/** Says where it went. @throws CannotRun */
function writeJson(path: string, document: object): void {
  try {
    mkdirSync(dirname(path), { recursive: true });
    writeFileSync(path, `${JSON.stringify(document, null, 2)}\n`);
  } catch (error) {
    throw new CannotRun(
      `cannot write ${path}: ${error instanceof Error ? error.message : String(error)}`,
    );
  }
  say(`written to ${relative(process.cwd(), path)}`);
}

/** Of this second, so that no run overwrites another's. */
const defaultJson = () =>
  join(ROOT, `bench/results/fs-${new Date().toISOString().slice(0, 19).replaceAll(':', '')}Z.json`);

const USAGE = `usage: npm run bench -- fs [--rounds N] [--rows a,b] [--json FILE]
  FILE: default bench/results/fs-DATE.json; N: ${ROUNDS_MIN} or more (default ${ROUNDS_MIN}); rows: ${ROWS.map(({ name }) => name).join(' ')}`;

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
    await bench(rows, rounds, values.json ?? defaultJson());
    return 0;
  } catch (error) {
    if (!(error instanceof Error)) throw error;
    say(error.message);
    return 1;
  }
}

process.exitCode = await main();
