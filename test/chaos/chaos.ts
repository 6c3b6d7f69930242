import { cpSync, mkdtempSync, readFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Connection, ControlConnection } from '#bridge/client/connection.js';
import type { ControlOperations } from '#bridge/wire/control.js';
import { asBridgeError } from '#bridge/wire/errors.js';
import { type ExecutionId, type Namespace, OwnerId, VariableKey } from '#bridge/wire/names.js';
import type { Random } from '#test/support/chance.js';
import { eventually, type RunJson, TestInstallation } from '#test/support/installation.js';
import { FAULTS, inflict, MOUNTD_FAULTS, pickFault, type Weights } from './faults.js';
import { LinkProxy } from './link-proxy.js';
import { ascending, type ChaosReport, type Inflicted, isGood } from './report.js';
import {
  countOf,
  SHARED_COUNT,
  sequenceOf,
  WORKERS,
  type Worker,
  type WorkerReport,
} from './workers.js';

const USER = 'chaos';
const NAMESPACE: Namespace = { user: OwnerId.parse(USER) };

/** Between the end of one fault's effects and the next: some work gets done, but no lull. */
const LULL_MS_MIN = 200;
const LULL_MS_MAX = 1_500;
/** mountd is given up when it dies five times in a row within 500 ms, and that is not what is tried here. */
const MOUNTD_LULL_MS_MIN = 600;

/** All is well again: a hung server is given up after 15 s, a mountd that hangs before its first beat after 30 s. */
const RECOVERY_MS = 45_000;
/** mountd answers at once, or is stopped. */
const STATUS_MS = 2_000;

/** A run lasts this long, give or take, so that executions begin and end under faults too. */
const RUN_S_MIN = 5;
const RUN_S_MAX = 20;
/** For a script that waits at its end. */
const RUN_SLACK_S = 100;

export interface ChaosOptions {
  readonly seconds: number;
  /** Empty: nothing happens to it. */
  readonly weights?: Weights;
  /** Called once, with what is at work. */
  readonly watch?: (cronium: TestInstallation) => void;
  readonly say?: (text: string) => void;
  /** Ends it early. */
  readonly signal?: AbortSignal;
}

interface Run {
  readonly worker: Worker;
  readonly name: string;
  readonly result: RunJson;
  /** Of its standard output, before the report. */
  readonly lines: readonly string[];
  readonly report: WorkerReport;
}

/** Scripts at work in containers while faults come down on the server, mountd and the link between them, and the account afterwards. */
export async function chaos(random: Random, options: ChaosOptions): Promise<ChaosReport> {
  const { seconds, weights = FAULTS, watch, say = () => {}, signal } = options;
  await using cronium = await TestInstallation.up(undefined, '--warm', '2');
  await using proxy = await LinkProxy.open(cronium.installation.state.settings().listen.port);
  await linkThrough(cronium, proxy);
  for (const key of [SHARED_COUNT, ...WORKERS.map(({ name }) => countOf(name))])
    await must(cronium, 'var', 'policy', key, 'add', '--user', USER);

  watch?.(cronium);
  const runs: Run[] = [];
  let unknown = 0;
  const errors: string[] = [];
  let until = Date.now() + seconds * 1000;
  signal?.addEventListener('abort', () => {
    until = 0;
  });
  const lengths = WORKERS.map(() => random.int(2 ** 31)); // each worker's own chance: they do not take turns
  const working = WORKERS.map(async (worker, n) => {
    let chance = lengths[n] ?? 0;
    for (let i = 0; Date.now() < until; i++) {
      chance = (Math.imul(chance, 1_103_515_245) + 12_345) >>> 1;
      const length = RUN_S_MIN + (chance % (RUN_S_MAX - RUN_S_MIN));
      const left = Math.ceil((until - Date.now()) / 1000);
      const name = `${worker.name}_${i}`;
      await work(cronium, worker, name, Math.min(length, Math.max(1, left))).then(
        (run) => runs.push(run),
        (error: unknown) => {
          unknown++;
          errors.push(`run ${name}: ${String(error)}`);
        },
      );
    }
  });
  const isOver = () => Date.now() >= until;
  const faults: Inflicted[] = [];
  await inflictAll({ cronium, proxy, random, isOver, weights, say, faults }).catch(
    (error: unknown) => {
      errors.push(`after ${faults.length} faults: ${String(error)}`);
      until = 0;
    },
  );
  await Promise.all(working);

  using operator = await cronium.installation.operator();
  const account = await settle(operator, runs, unknown);
  const { restarts } = await operator.call('server.status', {});
  for (const run of runs) errors.push(...failuresOf(run));
  errors.push(...account.errors);
  const callsOf = (what: Worker['calls']) =>
    runs.filter(({ worker }) => worker.calls === what).flatMap(({ report }) => report.calls);
  const [helpers, scratch] = [callsOf('helpers'), callsOf('scratch')];
  const { lost, doubled } = account;
  return {
    runs: runs.length,
    rounds: runs.reduce((sum, { report }) => sum + report.rounds, 0),
    calls: ascending(helpers.map(([, ms]) => ms)),
    scratchCalls: ascending(scratch.map(([, ms]) => ms)),
    pauses: faults.map((one) => ({
      fault: one.fault,
      helpers: longestIn(one, helpers),
      scratch: longestIn(one, scratch),
    })),
    restarts,
    errors,
    lost,
    doubled,
    logs: isGood({ errors, lost, doubled }) ? undefined : keepLogs(cronium),
  };
}

function longestIn({ from, to }: Inflicted, calls: WorkerReport['calls']): number | undefined {
  let longest: number | undefined;
  for (const [began, ms] of calls)
    if (began <= to && began + ms >= from) longest = Math.max(longest ?? 0, ms);
  return longest;
}

/** The installation's own directory is removed at its end. */
function keepLogs(cronium: TestInstallation): string {
  const directory = mkdtempSync(join(tmpdir(), 'cronium-chaos-'));
  cpSync(join(cronium.state, 'log'), directory, { recursive: true });
  return directory;
}

/** `node --enable-source-maps supervisor.js CONFIG` */
const SUPERVISOR_CONFIG = 3;

/** Starts mountd anew, with the proxy for a server. */
async function linkThrough(cronium: TestInstallation, proxy: LinkProxy): Promise<void> {
  const { mountd } = cronium.installation;
  const argument =
    readFileSync(`/proc/${mountd.pid}/cmdline`, 'utf8').split('\0')[SUPERVISOR_CONFIG] ?? '';
  const config = JSON.parse(argument) as object;
  await mountd.stop();
  await mountd.start({ ...config, server: { host: '127.0.0.1', port: proxy.port } });
}

async function must(cronium: TestInstallation, ...args: string[]): Promise<void> {
  const { code, stderr } = await cronium.cronium(args);
  if (code !== 0) throw new Error(`cronium ${args.join(' ')}: ${stderr}`);
}

async function work(
  cronium: TestInstallation,
  worker: Worker,
  name: string,
  seconds: number,
): Promise<Run> {
  const result = await cronium.run(
    worker.extension,
    worker.script,
    `--user=${USER}`,
    `--input=${JSON.stringify({ run: name, seconds })}`,
    `--timeout=${seconds + RUN_SLACK_S}s`,
  );
  const lines = result.stdout.trimEnd().split('\n');
  const last = lines.pop() ?? '';
  try {
    return { worker, name, result, lines, report: JSON.parse(last) as WorkerReport };
  } catch {
    const { executionId, status, stderr } = result;
    throw new Error(
      `(${executionId}) ${status}, and no report: ${last.slice(0, 500)} ${stderr.slice(0, 500)}`,
    );
  }
}

async function inflictAll({
  cronium,
  proxy,
  random,
  isOver,
  weights,
  say,
  faults,
}: {
  cronium: TestInstallation;
  proxy: LinkProxy;
  random: Random;
  isOver: () => boolean;
  weights: Weights;
  say: (text: string) => void;
  /** Takes those that are over. */
  faults: Inflicted[];
}): Promise<void> {
  const began = Date.now();
  using control = new Control(cronium);
  if (Object.keys(weights).length === 0) {
    while (!isOver()) await sleep(LULL_MS_MAX);
    return;
  }
  while (!isOver()) {
    const fault = pickFault(random, weights);
    const lullMin = fault in MOUNTD_FAULTS ? MOUNTD_LULL_MS_MIN : LULL_MS_MIN;
    await sleep(lullMin + random.int(LULL_MS_MAX - lullMin));
    const from = Date.now();
    await inflict(fault, cronium, proxy, random);
    await eventually(
      `all is well after ${fault}`,
      async () => (await control.isLinked()) && cronium.serverPid !== 0,
      RECOVERY_MS,
    );
    const to = Date.now();
    faults.push({ fault, from, to });
    say(`${((from - began) / 1000).toFixed(1)} s: ${fault}, ${to - from} ms until all was well`);
  }
}

/** A connection to mountd that is made again after each of its deaths. */
class Control implements Disposable {
  readonly #cronium: TestInstallation;
  #connection: ControlConnection<ControlOperations> | undefined;

  constructor(cronium: TestInstallation) {
    this.#cronium = cronium;
  }

  /** Whether mountd answers, and has its link to the server. */
  async isLinked(): Promise<boolean> {
    try {
      this.#connection ??= await this.#cronium.installation.control();
      const status = await this.#connection.call('status', {}, { deadlineMs: STATUS_MS });
      return status.link.connected;
    } catch {
      this[Symbol.dispose](); // whoever takes over is asked next
      return false;
    }
  }

  [Symbol.dispose](): void {
    this.#connection?.[Symbol.dispose]();
    this.#connection = undefined;
  }
}

function failuresOf({ name, result, lines, report }: Run): string[] {
  const wrong = lines.findIndex((line, n) => line !== `line ${n + 1}`);
  return [
    ...report.failures,
    ...result.warnings.map((warning) => `warns: ${warning}`),
    ...(result.stderr === '' ? [] : [`said: ${result.stderr.slice(0, 500)}`]),
    ...(result.status === 'succeeded' ? [] : [result.status]),
    ...(wrong === -1 ? [] : [`printed "${lines[wrong]}" instead of line ${wrong + 1}`]),
    ...(lines.length === report.lines
      ? []
      : [`printed ${report.lines} lines, and ${lines.length} arrived`]),
  ].map((failure) => `run ${name} (${result.executionId}) ${failure}`);
}

/** Compares what the server has with what the scripts were told; `unknown`: runs that did not say so. */
async function settle(
  operator: Connection,
  runs: readonly Run[],
  unknown: number,
): Promise<Pick<ChaosReport, 'errors' | 'lost' | 'doubled'>> {
  const [errors, lost, doubled]: [string[], string[], string[]] = [[], [], []];
  const compare = (what: string, found: number, told: number) => {
    if (found < told) lost.push(`${what}: ${told} were acknowledged, ${found} are there`);
    if (found > told) doubled.push(`${what}: ${told} were acknowledged, ${found} are there`);
  };
  /** Of all runs, and those that said nothing have done something, too. */
  const compareAll = (what: string, found: number, told: number) =>
    compare(what, unknown === 0 ? found : Math.min(found, told), told);
  const number = async (key: string) => {
    const params = { namespace: NAMESPACE, key: VariableKey.parse(key) };
    const text = await operator.call('variable.get', params).then(
      (variable) => variable.text,
      (error: unknown) => {
        if (asBridgeError(error).code === 'not_found') return null;
        throw error;
      },
    );
    return Number(JSON.parse(text ?? '0')); // in a string, where bash wrote it
  };
  for (const { name, result, report } of runs) {
    const { sequence } = report;
    compare(`sequence of ${name}`, await number(sequenceOf(name)), sequence);
    const executionId = result.executionId as ExecutionId;
    const kept = await operator.call('execution.get', { executionId });
    const { n } = JSON.parse(kept.output ?? '{"n": 0}') as { n: number };
    compare(`output of ${name}`, n, sequence);
    const condition = sequence === 0 ? null : sequence % 2 === 1; // set every time
    if (kept.condition !== condition)
      lost.push(`condition of ${name}: ${kept.condition} after ${sequence} rounds`);
    if (kept.record['status'] !== 'succeeded')
      lost.push(`end of ${name}: the server has ${String(kept.record['status'])}`);
  }
  const counted = (of: readonly Run[]) => of.reduce((sum, { report }) => sum + report.counted, 0);
  for (const { name } of WORKERS) {
    const own = runs.filter(({ worker }) => worker.name === name);
    compareAll(countOf(name), await number(countOf(name)), counted(own));
  }
  compareAll(SHARED_COUNT, await number(SHARED_COUNT), counted(runs));
  const { executions } = await operator.call('execution.list', {
    namespace: NAMESPACE,
    limit: 1000,
  });
  compareAll('executions', executions.length, runs.length);
  const store = await operator.call('store.verify', {}, { deadlineMs: 120_000 });
  const audit = await operator.call('audit.verify', { heads: [] }, { deadlineMs: 120_000 });
  errors.push(...store.problems, ...audit.broken.map((what) => `audit: ${JSON.stringify(what)}`));
  return { errors, lost, doubled };
}
