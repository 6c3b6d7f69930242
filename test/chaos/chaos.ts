import { readFileSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Connection } from '#bridge/client/connection.js';
import { asBridgeError } from '#bridge/wire/errors.js';
import { type ExecutionId, type Namespace, OwnerId, VariableKey } from '#bridge/wire/names.js';
import type { Random } from '#test/support/chance.js';
import { eventually, type RunJson, TestInstallation } from '#test/support/installation.js';
import { FAULTS, type Fault, inflict, pickFault, type Weights } from './faults.js';
import { LinkProxy } from './link-proxy.js';
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

/** All is well again: a hung server is given up after 15 s, and the budget of calls is 30 s. */
const RECOVERY_MS = 30_000;

/** A run lasts this long, give or take, so that executions begin and end under faults too. */
const RUN_S_MIN = 5;
const RUN_S_MAX = 20;
/** For a script that waits at its end. */
const RUN_SLACK_S = 100;

export interface ChaosOptions {
  readonly seconds: number;
  readonly weights?: Weights;
  readonly say?: (text: string) => void;
  /** Ends it early. */
  readonly signal?: AbortSignal;
}

interface Run {
  readonly worker: Worker;
  readonly name: string;
  readonly result: RunJson;
  readonly report: WorkerReport;
}

interface Inflicted {
  readonly fault: Fault;
  readonly from: number;
  /** When all was well again. */
  readonly to: number;
}

export interface ChaosReport {
  readonly faults: readonly Inflicted[];
  readonly runs: number;
  readonly rounds: number;
  /** Milliseconds of every helper call, ascending. */
  readonly calls: readonly number[];
  /** For every fault, milliseconds of the longest helper call during it, ascending. */
  readonly pauses: readonly number[];
  readonly restarts: number;
  /** Sentences; empty when all is as it should be. */
  readonly errors: readonly string[];
  readonly lost: readonly string[];
  readonly doubled: readonly string[];
}

/** Scripts at work in containers while faults come down on the server and the link, and the account afterwards. */
export async function chaos(random: Random, options: ChaosOptions): Promise<ChaosReport> {
  const { seconds, weights = FAULTS, say = () => {}, signal } = options;
  await using cronium = await TestInstallation.up();
  await using proxy = await LinkProxy.open(cronium.installation.state.settings().listen.port);
  await linkThrough(cronium, proxy);
  for (const key of [SHARED_COUNT, ...WORKERS.map(({ name }) => countOf(name))])
    await must(cronium, 'var', 'policy', key, 'add', '--user', USER);

  const runs: Run[] = [];
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
        (error: unknown) => errors.push(`run ${name}: ${String(error)}`),
      );
    }
  });
  const isOver = () => Date.now() >= until;
  const faults = await inflictAll({ cronium, proxy, random, isOver, weights, say });
  await Promise.all(working);

  using operator = await cronium.installation.operator();
  const account = await settle(operator, runs);
  const { restarts } = await operator.call('server.status', {});
  for (const { name, result, report } of runs) errors.push(...failuresOf(name, result, report));
  errors.push(...account.errors);
  const calls = runs.flatMap(({ report }) => report.calls);
  const ascending = (list: readonly number[]) => [...list].sort((a, b) => a - b);
  return {
    faults,
    runs: runs.length,
    rounds: runs.reduce((sum, { report }) => sum + report.rounds, 0),
    calls: ascending(calls.map(([, ms]) => ms)),
    pauses: ascending(
      faults.map(({ from, to }) =>
        calls.reduce(
          (longest, [began, ms]) =>
            began <= to && began + ms >= from ? Math.max(longest, ms) : longest,
          0,
        ),
      ),
    ),
    restarts,
    errors,
    lost: account.lost,
    doubled: account.doubled,
  };
}

/** Starts mountd anew, with the proxy for a server. */
async function linkThrough(cronium: TestInstallation, proxy: LinkProxy): Promise<void> {
  const { mountd } = cronium.installation;
  const argument = readFileSync(`/proc/${mountd.pid}/cmdline`, 'utf8').split('\0').at(-2) ?? '';
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
  try {
    return { worker, name, result, report: JSON.parse(result.stdout) as WorkerReport };
  } catch {
    const { status, stdout, stderr } = result;
    throw new Error(`${status}, and no report: ${stdout.slice(0, 500)} ${stderr.slice(0, 500)}`);
  }
}

async function inflictAll({
  cronium,
  proxy,
  random,
  isOver,
  weights,
  say,
}: {
  cronium: TestInstallation;
  proxy: LinkProxy;
  random: Random;
  isOver: () => boolean;
  weights: Weights;
  say: (text: string) => void;
}): Promise<Inflicted[]> {
  const faults: Inflicted[] = [];
  const began = Date.now();
  using control = await cronium.installation.control();
  while (!isOver()) {
    await sleep(LULL_MS_MIN + random.int(LULL_MS_MAX - LULL_MS_MIN));
    const fault = pickFault(random, weights);
    const from = Date.now();
    await inflict(fault, cronium, proxy, random);
    await eventually(
      `all is well after ${fault}`,
      async () => (await control.call('status', {})).link.connected && cronium.serverPid !== 0,
      RECOVERY_MS,
    );
    const to = Date.now();
    faults.push({ fault, from, to });
    say(`${((from - began) / 1000).toFixed(1)} s: ${fault}, ${to - from} ms until all was well`);
  }
  return faults;
}

const failuresOf = (name: string, result: RunJson, report: WorkerReport): string[] => [
  ...report.failures.map((failure) => `run ${name}: ${failure}`),
  ...result.warnings.map((warning) => `run ${name} warns: ${warning}`),
  ...(result.stderr === '' ? [] : [`run ${name} said: ${result.stderr.slice(0, 500)}`]),
  ...(result.status === 'succeeded' ? [] : [`run ${name}: ${result.status}`]),
];

/** Compares what the server has with what the scripts were told. */
async function settle(
  operator: Connection,
  runs: readonly Run[],
): Promise<Pick<ChaosReport, 'errors' | 'lost' | 'doubled'>> {
  const [errors, lost, doubled]: [string[], string[], string[]] = [[], [], []];
  const compare = (what: string, found: number, told: number) => {
    if (found < told) lost.push(`${what}: ${told} were acknowledged, ${found} are there`);
    if (found > told) doubled.push(`${what}: ${told} were acknowledged, ${found} are there`);
  };
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
    if (kept.condition !== (sequence % 2 === 1))
      lost.push(`condition of ${name}: ${kept.condition} after ${sequence} rounds`);
    if (kept.record['status'] !== 'succeeded')
      lost.push(`end of ${name}: the server has ${String(kept.record['status'])}`);
  }
  const counted = (of: readonly Run[]) => of.reduce((sum, { report }) => sum + report.counted, 0);
  for (const { name } of WORKERS) {
    const own = runs.filter(({ worker }) => worker.name === name);
    compare(countOf(name), await number(countOf(name)), counted(own));
  }
  compare(SHARED_COUNT, await number(SHARED_COUNT), counted(runs));
  const { executions } = await operator.call('execution.list', {
    namespace: NAMESPACE,
    limit: 1000,
  });
  compare('executions', executions.length, runs.length);
  const store = await operator.call('store.verify', {}, { deadlineMs: 120_000 });
  const audit = await operator.call('audit.verify', { heads: [] }, { deadlineMs: 120_000 });
  errors.push(...store.problems, ...audit.broken.map((what) => `audit: ${JSON.stringify(what)}`));
  return { errors, lost, doubled };
}

/** The value that `share` of them do not exceed; 0 of none. */
export const quantile = (ascending: readonly number[], share: number): number =>
  ascending[Math.min(ascending.length - 1, Math.floor(ascending.length * share))] ?? 0;

/** For people. */
export function describe(report: ChaosReport): string {
  const { faults, runs, rounds, calls, pauses, restarts, errors, lost, doubled } = report;
  const kinds = new Map<string, number>();
  for (const { fault } of faults) kinds.set(fault, (kinds.get(fault) ?? 0) + 1);
  const three = (list: readonly number[]) =>
    `p50 ${quantile(list, 0.5)} ms, p99 ${quantile(list, 0.99)} ms, max ${quantile(list, 1)} ms`;
  const all = (what: string, list: readonly string[]) => [
    `${what.padEnd(26)}${list.length}`,
    ...list.slice(0, 20).map((line) => `  ${line}`),
  ];
  return [
    `faults                    ${faults.length}: ${[...kinds].map(([kind, count]) => `${count} ${kind}`).join(', ')}`,
    `restarts of the server    ${restarts} under the last supervisor`,
    `runs, rounds on files     ${runs}, ${rounds}`,
    `helper calls              ${calls.length}: ${three(calls)}`,
    `longest call in a fault   ${three(pauses)}`,
    ...all('errors', errors),
    ...all('acknowledged, then lost', lost),
    ...all('done twice', doubled),
  ].join('\n');
}

export const isGood = ({ errors, lost, doubled }: ChaosReport): boolean =>
  errors.length + lost.length + doubled.length === 0;
