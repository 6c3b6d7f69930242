// `npm run bench -- start`: what it takes from the command to the first line of a script, and to the command's end; plain
// `docker run` of the same image and script in the same round. docs/benchmarks.md says what the rows mean. Root and Docker are needed.
import { type ChildProcess, spawn } from 'node:child_process';
import { chmodSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { loadavg, tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { parseArgs } from 'node:util';
import { TestInstallation } from '#test/support/installation.js';
import { markdownTable, median, ratioOfTimes, verdict } from './lib/figures.js';
import { CannotRun, machine, ROOT, say } from './lib/running.js';

const LINE = 'first line';
const SCRIPTS = {
  bash: { extension: 'sh', interpreter: 'bash', text: `echo ${LINE}\n` },
  python: { extension: 'py', interpreter: 'python', text: `print('${LINE}')\n` },
  node: { extension: 'js', interpreter: 'node', text: `console.log('${LINE}');\n` },
} as const;
type Language = keyof typeof SCRIPTS;
const LANGUAGES = Object.keys(SCRIPTS) as Language[];

/** The peer first. `cold`: no container waits; `warm`: one does. */
const VARIANTS = ['docker', 'cold', 'warm'] as const;
type Variant = (typeof VARIANTS)[number];

const MOMENTS = ['first line', 'end'] as const;
type Moment = (typeof MOMENTS)[number];

/** Of docker run's. */
const GOALS: { readonly [V in Variant]?: number } = { cold: 1.15, warm: 0.6 };

const ROUNDS = 20;
const ROUNDS_MIN = 3;
/** A container that waits is there within a second; on a machine at its limit, later. */
const WARM_MS = 60_000;
const POLL_MS = 20;

type Times = { readonly [M in Moment]: number };

/** Milliseconds to the first byte of standard output and to the end. @throws CannotRun when it failed */
async function timed(start: () => ChildProcess): Promise<Times> {
  const from = performance.now();
  const child = start();
  let first: number | undefined;
  let [stdout, stderr] = ['', ''];
  child.stdout?.on('data', (chunk: Buffer) => {
    first ??= performance.now() - from;
    stdout += chunk.toString();
  });
  child.stderr?.on('data', (chunk: Buffer) => {
    stderr += chunk.toString();
  });
  const code = await new Promise((resolve, reject) => {
    child.on('error', (error) => reject(new CannotRun(error.message)));
    child.on('close', resolve);
  });
  const end = performance.now() - from;
  if (code !== 0 || first === undefined || stdout !== `${LINE}\n`)
    throw new CannotRun(`exit code ${String(code)}: ${stdout}${stderr}`);
  return { 'first line': first, end };
}

class Bench implements AsyncDisposable {
  readonly #directory = mkdtempSync(join(tmpdir(), 'cronium-bench-'));
  readonly #installations: { readonly cold: TestInstallation; readonly warm: TestInstallation };

  private constructor(cold: TestInstallation, warm: TestInstallation) {
    this.#installations = { cold, warm };
    chmodSync(this.#directory, 0o755); // the container's user reads the script
    for (const language of LANGUAGES)
      writeFileSync(this.#script(language), SCRIPTS[language].text, { mode: 0o644 });
  }

  static async start(): Promise<Bench> {
    const cold = await TestInstallation.up(undefined, '--warm', '0', '--log-level', 'info');
    return new Bench(
      cold,
      await TestInstallation.up(undefined, '--warm', '1', '--log-level', 'info'),
    );
  }

  #script(language: Language): string {
    return join(this.#directory, `script.${SCRIPTS[language].extension}`);
  }

  async measure(variant: Variant, language: Language): Promise<Times> {
    const script = this.#script(language);
    const { interpreter } = SCRIPTS[language];
    const stdio = ['ignore', 'pipe', 'pipe'] as const;
    if (variant === 'docker') {
      const image = `cronium-${language}:latest`;
      const args = ['run', '--rm', '-v', `${script}:/script:ro`, image, interpreter, '/script'];
      return await timed(() => spawn('docker', args, { stdio: [...stdio], cwd: '/' }));
    }
    const { state } = this.#installations[variant];
    if (variant === 'warm') await this.#warmedUp(language);
    const args = ['run', '--state', state, script];
    return await timed(() =>
      spawn(join(ROOT, 'bin/cronium'), args, { stdio: [...stdio], cwd: '/' }),
    );
  }

  /** Returns when a container of the right kind waits, and the machine has nothing else of ours to do. */
  async #warmedUp(language: Language): Promise<void> {
    const { installation, state } = this.#installations.warm;
    using mountd = await installation.control();
    // The last run's kind is the one that waits: make it this one.
    if (this.#last !== language) {
      await timed(() =>
        spawn(join(ROOT, 'bin/cronium'), ['run', '--state', state, this.#script(language)], {
          stdio: ['ignore', 'pipe', 'pipe'],
          cwd: '/',
        }),
      );
      this.#last = language;
    }
    for (const until = Date.now() + WARM_MS; ; await sleep(POLL_MS)) {
      const { waiting } = await mountd.call('status', {});
      if (waiting !== undefined && waiting > 0) return;
      if (Date.now() > until) throw new CannotRun(`no container waits after ${WARM_MS} ms`);
    }
  }
  #last: Language | undefined;

  async [Symbol.asyncDispose](): Promise<void> {
    rmSync(this.#directory, { recursive: true, force: true });
    for (const one of Object.values(this.#installations)) await one[Symbol.asyncDispose]();
  }
}

interface Row {
  readonly language: Language;
  readonly variant: Variant;
  /** Milliseconds, one a round. */
  readonly times: { readonly [M in Moment]: number[] };
}

const ms = (figures: readonly number[]): string =>
  `${median(figures).toFixed(0)} (${Math.min(...figures).toFixed(0)})`;

function report(rows: readonly Row[]): string {
  const lines = [['script', 'command', 'first line', 'to docker', 'end', 'to docker', 'goal']];
  for (const { language, variant, times } of rows) {
    const base = rows.find((row) => row.language === language && row.variant === 'docker');
    const ratios = MOMENTS.map((moment) => ratioOfTimes(times[moment], base?.times[moment]));
    const [first, end] = ratios.map((ratio) =>
      variant === 'docker' || ratio === undefined
        ? ''
        : `${ratio.median.toFixed(2)} (${ratio.best.toFixed(2)})`,
    );
    const goal = GOALS[variant];
    const all = ratios.flatMap((ratio) => (ratio === undefined ? [] : [ratio.median, ratio.best]));
    const judged = goal === undefined ? '' : `<= ${goal}: ${verdict(all, goal)}`;
    const command = variant === 'docker' ? 'docker run' : `cronium run, ${variant}`;
    lines.push([
      language,
      command,
      ms(times['first line']),
      first ?? '',
      ms(times.end),
      end ?? '',
      judged,
    ]);
  }
  return markdownTable(lines, 2);
}

const USAGE = `usage: npm run bench -- start [--rounds N] [--json FILE]
  N: ${ROUNDS_MIN} or more (default ${ROUNDS}); FILE: default bench/results/start-DATE.json`;

async function main(): Promise<number> {
  let values: { rounds?: string; json?: string };
  try {
    const option = { type: 'string' } as const;
    ({ values } = parseArgs({ options: { rounds: option, json: option } }));
  } catch (error) {
    say(`${error instanceof Error ? error.message : String(error)}\n${USAGE}`);
    return 2;
  }
  const rounds = Number(values.rounds ?? ROUNDS);
  if (!Number.isInteger(rounds) || rounds < ROUNDS_MIN) {
    say(USAGE);
    return 2;
  }
  const before = loadavg();
  const rows = LANGUAGES.flatMap((language) =>
    VARIANTS.map((variant): Row => ({ language, variant, times: { 'first line': [], end: [] } })),
  );
  try {
    await using bench = await Bench.start();
    // Round 0 is thrown away: it compiles our code and warms caches.
    for (let round = 0; round <= rounds; round++) {
      say(round === 0 ? 'warm-up' : `round ${round} of ${rounds}`);
      for (const { language, variant, times } of rows) {
        const measured = await bench.measure(variant, language);
        if (round === 0) continue;
        for (const moment of MOMENTS) times[moment].push(measured[moment]);
      }
    }
  } catch (error) {
    if (!(error instanceof CannotRun)) throw error;
    say(error.message);
    return 1;
  }
  const { text, facts } = machine(before);
  process.stdout.write(
    `${rounds} rounds, milliseconds: median (best); ratios: median of the rounds (of the bests). ${text}\n\n${report(rows)}\n`,
  );
  const today = facts.date.slice(0, 10);
  const file = values.json ?? `bench/results/start-${today}.json`;
  mkdirSync(dirname(file), { recursive: true });
  writeFileSync(file, `${JSON.stringify({ ...facts, rounds, rows }, null, 2)}\n`);
  say(`all figures: ${file}`);
  return 0;
}

process.exitCode = await main();
