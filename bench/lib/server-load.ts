// `npm run bench -- server --load`: our server alone, with many executions, and with a tenant that floods it.
import { join } from 'node:path';
import type { ExecutionsConfig, LoadMeasured, LoadQuestion } from './executions-load.js';
import { fastest, markdownTable, median, verdict } from './figures.js';
import { GeneratorProcess } from './generator-process.js';
import type { Quantiles } from './load-generator.js';
import type { OurTarget } from './our-client.js';
import { OurState } from './our-server.js';
import { memoryOf } from './process-cost.js';
import { machine, say } from './running.js';

const EXECUTIONS = 1000;
const SPREADS = [1, 200] as const;
const FLOOD_OUTSTANDING = 256;
const WARM_MS = 500;
/** The flood begins before the quiet tenant is measured and ends after it. */
const FLOOD_LEAD_MS = 300;
/** A quiet tenant's p99 beside the flood, against without. */
const FLOOD_TIMES_MAX = 2;
const MIB = 1024 * 1024;

type Generator = GeneratorProcess<LoadQuestion, LoadMeasured>;

interface LoadOptions {
  readonly rounds: number;
  readonly seconds: number;
  readonly rate: number;
}

const generatorOf = async (config: ExecutionsConfig): Promise<Generator> =>
  await GeneratorProcess.start('executions.js', config);

export async function runLoad(options: LoadOptions, directory: string, before: readonly number[]) {
  const spread = await manyExecutions(options, directory);
  const flood = await floodBeside(options, directory);
  const about = machine(before);
  const text = [
    `${options.rounds} rounds of ${options.seconds} s. ${about.text}`,
    spread.text,
    flood.text,
  ].join('\n\n');
  return { text, json: { ...about.facts, options, spread: spread.json, flood: flood.json } };
}

/** Each spread on a fresh server, so that its memory is its own. */
async function manyExecutions({ rounds, seconds, rate }: LoadOptions, directory: string) {
  const lines: string[][] = [];
  const json: object[] = [];
  for (const connections of SPREADS) {
    const state = await OurState.make(join(directory, `load-${connections}`));
    const { started, target } = await state.startServer('default limits');
    await using server = started;
    const idle = memoryOf(server.pid).resident;
    say(`${EXECUTIONS} executions over ${connections} connections`);
    await using generator = await generatorOf({
      target: target.tcp,
      connections,
      executions: EXECUTIONS,
      users: 'load',
    });
    const measured: LoadMeasured[] = [];
    for (let round = 0; round < rounds; round++)
      measured.push(
        await generator.ask({
          kind: 'paced',
          rate,
          warmMs: WARM_MS,
          ms: seconds * 1000,
          serverPid: server.pid,
        }),
      );
    const { peak } = memoryOf(server.pid);
    const middle = (figure: (one: LoadMeasured) => number) => median(measured.map(figure));
    lines.push([
      `${connections}`,
      middle(({ perSecond }) => perSecond).toFixed(0),
      middle(({ refusedPerSecond }) => refusedPerSecond).toFixed(0),
      middle(({ get }) => get.p50Us).toFixed(0),
      middle(({ get }) => get.p99Us).toFixed(0),
      middle(({ set }) => set.p50Us).toFixed(0),
      middle(({ set }) => set.p99Us).toFixed(0),
      (idle / MIB).toFixed(0),
      (Math.max(...measured.map(({ residentMax }) => residentMax)) / MIB).toFixed(0),
      (peak / MIB).toFixed(0),
    ]);
    json.push({ connections, executions: EXECUTIONS, idle, peak, measured });
  }
  const head = [
    'connections',
    'ops/s',
    'refused/s',
    'get p50 us',
    'get p99 us',
    'set p50 us',
    'set p99 us',
  ];
  const memory = ['RSS idle MiB', 'RSS MiB', 'peak MiB'];
  const title = `${EXECUTIONS} executions, ${rate} operations a second of all together, half of them gets`;
  return { text: `${title}\n\n${markdownTable([[...head, ...memory], ...lines], 0)}`, json };
}

/**
 * The quiet tenant alone, beside a tenant that floods another server, and beside one that floods its own. The second is what the
 * flood takes from it by keeping CPUs and disk busy: no server could give that back.
 */
const SCENES = ['alone', 'flood elsewhere', 'flood'] as const;
type Scene = (typeof SCENES)[number];

async function floodBeside({ rounds, seconds }: LoadOptions, directory: string) {
  const state = await OurState.make(join(directory, 'flooded'));
  const elsewhere = await OurState.make(join(directory, 'elsewhere'));
  const first = await state.startServer('default limits');
  await using _first = first.started;
  const second = await elsewhere.startServer('default limits');
  await using _second = second.started;
  const tenant = async (target: OurTarget, users: string) =>
    await generatorOf({ target, connections: 1, executions: 1, users });
  await using quiet = await tenant(first.target.tcp, 'quiet');
  await using flood = await tenant(first.target.tcp, 'flood');
  await using other = await tenant(second.target.tcp, 'flood');
  const measured: Record<Scene, LoadMeasured[]> = { alone: [], 'flood elsewhere': [], flood: [] };
  const floods: Record<Scene, LoadMeasured[]> = { alone: [], 'flood elsewhere': [], flood: [] };
  const ms = seconds * 1000;
  // Round 0 warms up and does not count.
  for (let round = 0; round <= rounds; round++)
    for (const scene of SCENES) {
      say(`round ${round} of ${rounds}: a quiet tenant, ${scene}`);
      const flooding = { alone: undefined, 'flood elsewhere': other, flood }[scene]?.ask({
        kind: 'closed',
        outstanding: FLOOD_OUTSTANDING,
        warmMs: FLOOD_LEAD_MS,
        ms: WARM_MS + ms + FLOOD_LEAD_MS,
      });
      await new Promise((resolve) => {
        setTimeout(resolve, FLOOD_LEAD_MS);
      });
      const [one, beside] = await Promise.all([
        quiet.ask({ kind: 'closed', outstanding: 1, warmMs: WARM_MS, ms }),
        flooding,
      ]);
      if (round === 0) continue;
      measured[scene].push(one);
      if (beside !== undefined) floods[scene].push(beside);
    }
  return { text: floodText(measured, floods), json: { quiet: measured, flood: floods } };
}

function floodText(
  measured: Readonly<Record<Scene, readonly LoadMeasured[]>>,
  floods: Readonly<Record<Scene, readonly LoadMeasured[]>>,
): string {
  const lines: string[][] = [];
  for (const action of ['get', 'set'] as const)
    for (const scene of SCENES) {
      const figures = (figure: keyof Quantiles) =>
        measured[scene].map((one) => one[action][figure]);
      const p99 = figures('p99Us');
      const times = (base: Scene) => {
        const found = measured[base].map((one) => one[action].p99Us);
        const each = p99.map((figure, i) => figure / (found[i] ?? Number.NaN));
        return { median: median(each), best: fastest(p99) / fastest(found) };
      };
      const shown = (base: Scene) => {
        if (SCENES.indexOf(base) >= SCENES.indexOf(scene)) return '';
        const { median: middle, best } = times(base);
        return `${middle.toFixed(2)} (${best.toFixed(2)})`;
      };
      const ofFlood = (figure: (one: LoadMeasured) => number) =>
        scene === 'alone' ? '' : median(floods[scene].map(figure)).toFixed(0);
      const { median: middle, best } = times('alone');
      lines.push([
        action,
        scene,
        median(figures('p50Us')).toFixed(0),
        median(p99).toFixed(0),
        shown('alone'),
        shown('flood elsewhere'),
        scene === 'flood' ? verdict([middle, best], FLOOD_TIMES_MAX) : '',
        ofFlood(({ perSecond }) => perSecond),
        ofFlood(({ refusedPerSecond }) => refusedPerSecond),
      ]);
    }
  const head = ['quiet', 'beside', 'p50 us', 'p99 us', 'p99, × alone', '× elsewhere'];
  const more = [`alone < ${FLOOD_TIMES_MAX}x`, 'flood ops/s', 'refused/s'];
  const title = `A quiet tenant (1 outstanding) beside a flooding one (${FLOOD_OUTSTANDING} outstanding), gets and sets in turn`;
  return `${title}\n\n${markdownTable([[...head, ...more], ...lines], 2)}`;
}
