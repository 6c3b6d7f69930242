// `npm run bench -- legacy`: what a call of a legacy helper costs on a mount of ours, in a plain directory, and in a
// container with the server behind it. docs/benchmarks-legacy.md says what the rows mean. Root, /dev/fuse and Docker are needed.
import {
  closeSync,
  fdatasyncSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readFileSync,
  rmSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import type { TreeFile } from '#bridge/vfs/waiting-tree.js';
import { dialectOf, LANGUAGES, type Language } from '#test/helpers-legacy/languages.js';
import { TestInstallation } from '#test/support/installation.js';
import {
  fastest,
  machine,
  markdownTable,
  median,
  type Ratio,
  ratioOfTimes,
  verdict,
} from './lib/figures.js';
import { EXTENSIONS, KEY, listeningScript, scriptThatObeys } from './lib/helper-scripts.js';
import { Listener } from './lib/listener.js';
import { say } from './lib/running.js';
import { ServedMount } from './lib/served-mount.js';

/** `get-new`: somebody else changed a variable since the last call. */
type Call = 'get' | 'get-new' | 'set';

interface Row {
  readonly name: string;
  readonly call: Call;
  readonly language: Language;
  readonly members: number;
  readonly count: number;
}

type TargetName = 'tmpfs' | 'disk' | 'mount';

interface Target {
  readonly name: TargetName;
  /** A run directory with these variables, values as JSON source text, and with these files. */
  directory(
    variables: Readonly<Record<string, string>>,
    files: Readonly<Record<string, Buffer>>,
  ): Promise<string>;
  /** Somebody else sets a variable. */
  push(directory: string, variables: Readonly<Record<string, string>>): Promise<void>;
  remove(directory: string): Promise<void>;
}

/** Small enough that the file system decides, and large enough that parsing does. */
const MEMBERS = [10, 1000] as const;

/** Calls in one measurement, by members: some tens of milliseconds for a fast helper, ten calls of one that starts jq. */
const COUNTS: { readonly [L in Language]: { readonly [C in Call]: readonly [number, number] } } = {
  node: { get: [2000, 300], 'get-new': [15, 15], set: [200, 50] },
  python: { get: [2000, 200], 'get-new': [15, 15], set: [200, 50] },
  plain: { get: [400, 15], 'get-new': [15, 10], set: [100, 50] },
  jq: { get: [10, 10], 'get-new': [8, 8], set: [10, 10] },
};
const CALLS: readonly Call[] = ['get', 'get-new', 'set'];

const ROWS: readonly Row[] = CALLS.flatMap((call) =>
  LANGUAGES.flatMap((language) =>
    MEMBERS.map((members, i): Row => {
      const count = COUNTS[language][call][i] ?? 1;
      return { name: `${call}/${language}/${members}`, call, language, members, count };
    }),
  ),
);

/** Sets and gets of one container. */
const IN_CONTAINER = { get: 100, set: 20 } as const;
const IN_CONTAINER_JQ = { get: 10, set: 10 } as const;

const GET_BOUND = 1.5;
const ROUNDS_MIN = 3;
const ROUNDS = 5;
/** From a push until the kernel has certainly been told: some hundred microseconds, on a machine at rest. */
const PUSH_SEEN_MS = 5;
const FSYNCS = 20;

const HELPERS = fileURLToPath(new URL('../../helpers-legacy/', import.meta.url));

/** Members of 31 bytes a line. */
const variablesOf = (members: number): Record<string, string> =>
  Object.fromEntries(
    Array.from({ length: members }, (_, i) => [
      `key_${String(i).padStart(4, '0')}`,
      JSON.stringify(`value ${String(i).padStart(7, '0')}`),
    ]),
  );

/** As the mount renders them. */
const documentOf = (variables: Readonly<Record<string, string>>): string =>
  `{\n${Object.entries(variables)
    .map(([key, text]) => `  ${JSON.stringify(key)}: ${text}`)
    .join(',\n')}\n}`;

function plainDirectory(name: TargetName, base: string): Target {
  let made = 0;
  const write = (directory: string, variables: Readonly<Record<string, string>>) =>
    writeFileSync(join(directory, 'variables.json'), documentOf(variables));
  return {
    name,
    directory: async (variables, files) => {
      const directory = join(base, String(made++));
      mkdirSync(directory);
      for (const [file, data] of Object.entries(files)) writeFileSync(join(directory, file), data);
      for (const file of ['input.json', 'event.json']) writeFileSync(join(directory, file), '{}');
      write(directory, variables);
      return directory;
    },
    push: async (directory, variables) => write(directory, variables),
    remove: async (directory) => rmSync(directory, { recursive: true }),
  };
}

function mounted(mount: ServedMount): Target {
  return {
    name: 'mount',
    directory: async (variables, files) =>
      await mount.tree(
        variables,
        Object.entries(files).map(([file, data]): TreeFile => {
          return { path: `work/${file}`, mode: 0o644, data };
        }),
      ),
    push: async (directory, variables) => {
      await mount.push(directory, KEY, variables[KEY] ?? 'null');
      await sleep(PUSH_SEEN_MS);
    },
    remove: async (directory) => await mount.remove(directory),
  };
}

/** Nanoseconds a call. */
async function measure(target: Target, row: Row): Promise<number> {
  const { helper, program, script, name } = dialectOf(row.language);
  if (program === null) throw new Error(`${name} is not installed: run scripts/setup as root`);
  const variables = variablesOf(row.members);
  const directory = await target.directory(variables, {
    [helper]: readFileSync(join(HELPERS, helper)),
    [script]: Buffer.from(listeningScript(row.language)),
  });
  try {
    await using listener = new Listener(directory, program, script);
    const what = row.call === 'set' ? 'set' : 'get';
    await listener.obey(`${what} ${Math.max(3, row.count >> 2)}`); // compiles, fills caches
    if (row.call !== 'get-new')
      return (await listener.obey(`${what} ${row.count}`)).nanoseconds / row.count;
    const figures: number[] = [];
    for (let i = 0; i < row.count; i++) {
      const news = `news ${i}`;
      await target.push(directory, { ...variables, [KEY]: JSON.stringify(news) });
      const { answer, nanoseconds } = await listener.obey('get 1');
      // One that the news had not reached yet would be a read from the cache.
      if (answer === news) figures.push(nanoseconds);
    }
    if (figures.length * 2 < row.count) throw new Error(`${row.name}: the pushes come too late`);
    return median(figures);
  } finally {
    await target.remove(directory);
  }
}

/** The whole thing: a container, mountd, TLS, the server and its store. */
class InContainers implements AsyncDisposable {
  readonly #installation: TestInstallation;
  readonly figures = new Map<string, number[]>();
  /** Nanoseconds to write 4 KiB and have the disk confirm it, where the server keeps its store. */
  readonly fsyncs: number[] = [];

  private constructor(installation: TestInstallation) {
    this.#installation = installation;
  }

  static async start(): Promise<InContainers> {
    const containers = new InContainers(await TestInstallation.up());
    try {
      await containers.#seed();
    } catch (error) {
      await containers[Symbol.asyncDispose]();
      throw error;
    }
    return containers;
  }

  async measure(language: Language, members: number, isWarmUp: boolean): Promise<void> {
    const { get, set } = language === 'jq' ? IN_CONTAINER_JQ : IN_CONTAINER;
    const stdout = await this.#run(
      language,
      members,
      scriptThatObeys(language, [
        { what: 'get', count: 3 },
        { what: 'get', count: get },
        { what: 'set', count: 3 },
        { what: 'set', count: set },
      ]),
    );
    const lines = stdout.trim().split('\n');
    if (lines.length !== 8) throw new Error(`cronium run printed ${JSON.stringify(stdout)}`);
    if (isWarmUp) return;
    this.#add(`get/${language}/${members}`, Number(lines[3]) / get);
    this.#add(`set/${language}/${members}`, Number(lines[7]) / set);
  }

  measureDisk(): void {
    const path = join(this.#installation.directory, 'fsync');
    const fd = openSync(path, 'w');
    const data = Buffer.alloc(4096, 'x');
    const figures: number[] = [];
    for (let i = 0; i < FSYNCS; i++) {
      const begin = process.hrtime.bigint();
      writeSync(fd, data);
      fdatasyncSync(fd);
      figures.push(Number(process.hrtime.bigint() - begin));
    }
    closeSync(fd);
    this.fsyncs.push(median(figures));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#installation[Symbol.asyncDispose]();
  }

  async #seed(): Promise<void> {
    for (const members of MEMBERS) {
      const document = JSON.stringify(documentOf(variablesOf(members)));
      await this.#run(
        'node',
        members,
        `require('fs').writeFileSync('variables.json', ${document})`,
      );
    }
  }

  #add(name: string, figure: number): void {
    const figures = this.figures.get(name) ?? [];
    figures.push(figure);
    this.figures.set(name, figures);
  }

  async #run(language: Language, members: number, script: string): Promise<string> {
    const user = `members-${members}`;
    const run = await this.#installation.run(EXTENSIONS[language], script, '--user', user);
    if (run.status !== 'succeeded' || run.warnings.length > 0)
      throw new Error(
        `a script in a container ${run.status}: ${run.stderr}${run.warnings.join('\n')}`,
      );
    return run.stdout;
  }
}

interface Result {
  readonly row: Row;
  /** Nanoseconds a call, one figure a round. */
  readonly targets: Readonly<Partial<Record<TargetName, readonly number[]>>>;
  readonly inContainer: readonly number[] | undefined;
  readonly toTmpfs: Ratio | undefined;
  readonly toDisk: Ratio | undefined;
}

const microseconds = (nanoseconds: number) => (nanoseconds / 1000).toFixed(1);
const shown = (figures: readonly number[] | undefined) =>
  figures === undefined || figures.length === 0
    ? '-'
    : `${microseconds(median(figures))} (${microseconds(fastest(figures))})`;
const quotient = (ratio: Ratio | undefined) =>
  ratio === undefined ? '-' : `${ratio.median.toFixed(2)} (${ratio.best.toFixed(2)})`;

const table = (results: readonly Result[]): string =>
  markdownTable(
    [
      ['row', 'tmpfs', 'disk', 'mount', 'mount/tmpfs', 'mount/disk', 'cronium run'],
      ...results.map(({ row, targets, inContainer, toTmpfs, toDisk }) => [
        row.name,
        shown(targets.tmpfs),
        shown(targets.disk),
        shown(targets.mount),
        quotient(toTmpfs),
        quotient(toDisk),
        shown(inContainer),
      ]),
    ],
    1,
  );

const goals = (results: readonly Result[]): string[] =>
  results.flatMap(({ row, toTmpfs, toDisk }) => {
    if (row.call !== 'get' || toTmpfs === undefined || toDisk === undefined) return [];
    const figures = [toDisk.median, toDisk.best, toTmpfs.median, toTmpfs.best];
    const of = (ratio: Ratio) => `${ratio.median.toFixed(2)}x (${ratio.best.toFixed(2)}x)`;
    return [
      `${verdict(figures, GET_BOUND).padEnd(7)} ${row.name}: ${of(toDisk)} of the disk, ${of(toTmpfs)} of tmpfs, wanted <= ${GET_BOUND}`,
    ];
  });

/** Undefined without Docker, which is said. */
async function startContainers(): Promise<InContainers | undefined> {
  try {
    return await InContainers.start();
  } catch (error) {
    say(`without containers: ${error instanceof Error ? error.message : String(error)}`);
    return undefined;
  }
}

async function bench(rows: readonly Row[], rounds: number, json: string): Promise<void> {
  const tmpfs = mkdtempSync('/dev/shm/cronium-bench-');
  const disk = mkdtempSync(join(tmpdir(), 'cronium-bench-'));
  const figures = rows.map((): Partial<Record<TargetName, number[]>> => ({}));
  try {
    await using mount = await ServedMount.start();
    const wantsContainers = rows.some(({ call }) => call !== 'get-new');
    await using containers = wantsContainers ? await startContainers() : undefined;
    const targets = [
      plainDirectory('tmpfs', tmpfs),
      plainDirectory('disk', disk),
      mounted(mount),
    ] as const;
    // Round 0 is thrown away: it compiles our code and warms caches, as a daemon's first seconds do.
    for (let round = 0; round <= rounds; round++) {
      const named = round === 0 ? 'warm-up' : `round ${round} of ${rounds}`;
      for (const [i, row] of rows.entries()) {
        say(`${named}: ${row.name}`);
        for (let k = 0; k < targets.length; k++) {
          const target = targets[(round + i + k) % targets.length];
          const into = figures[i];
          if (target === undefined || into === undefined) continue;
          const figure = await measure(target, row);
          into[target.name] ??= [];
          if (round > 0) into[target.name]?.push(figure);
        }
      }
      if (containers === undefined) continue;
      say(`${named}: cronium run`);
      for (const language of LANGUAGES)
        for (const members of MEMBERS)
          if (rows.some((row) => row.language === language && row.members === members))
            await containers.measure(language, members, round === 0);
      if (round > 0) containers.measureDisk();
    }
    const results = rows.map((row, i): Result => {
      const of = figures[i] ?? {};
      const mine = of.mount ?? [];
      return {
        row,
        targets: of,
        inContainer: containers?.figures.get(row.name),
        toTmpfs: ratioOfTimes(mine, of.tmpfs),
        toDisk: ratioOfTimes(mine, of.disk),
      };
    });
    const about = machine();
    const said = [
      `${rounds} rounds, microseconds a call: median (best); ratios: median of the rounds (of the bests). Load ${about.load.map((l) => l.toFixed(1)).join(' ')}.`,
      '',
      table(results),
      '',
      ...(containers === undefined
        ? []
        : [
            `4 KiB written and synced to the server's disk, without any of ours: ${shown(containers.fsyncs)}`,
            '',
          ]),
      ...goals(results),
    ];
    process.stdout.write(`${said.join('\n')}\n`);
    const document = {
      date: new Date().toISOString(),
      machine: about,
      rounds,
      fsyncNanoseconds: containers?.fsyncs,
      results,
    };
    mkdirSync(dirname(json), { recursive: true });
    writeFileSync(json, `${JSON.stringify(document, null, 2)}\n`);
    say(`all figures: ${json}`);
  } finally {
    for (const directory of [tmpfs, disk]) rmSync(directory, { recursive: true, force: true });
  }
}

const USAGE = `usage: npm run bench -- legacy [--rounds N] [--rows a,b] [--json FILE]
  N: ${ROUNDS_MIN} or more (default ${ROUNDS}); rows: every row whose name contains one of the parts, of
  ${ROWS.map(({ name }) => name).join(' ')}
  FILE: default bench/results/legacy-DATE.json`;

async function main(): Promise<number> {
  let values: { rounds?: string; rows?: string; json?: string };
  try {
    const option = { type: 'string' } as const;
    ({ values } = parseArgs({ options: { rounds: option, rows: option, json: option } }));
  } catch (error) {
    say(`${error instanceof Error ? error.message : String(error)}\n${USAGE}`);
    return 2;
  }
  const rounds = Number(values.rounds ?? ROUNDS);
  const wanted = values.rows?.split(',') ?? [''];
  const rows = ROWS.filter(({ name }) => wanted.some((part) => name.includes(part)));
  if (!Number.isInteger(rounds) || rounds < ROUNDS_MIN || rows.length === 0) {
    say(USAGE);
    return 2;
  }
  if (process.getuid?.() !== 0) {
    say('mounting needs root: run the bench as root');
    return 1;
  }
  const today = new Date().toISOString().slice(0, 10);
  try {
    await bench(rows, rounds, values.json ?? `bench/results/legacy-${today}.json`);
    return 0;
  } catch (error) {
    if (!(error instanceof Error)) throw error;
    say(error.message);
    return 1;
  }
}

process.exitCode = await main();
