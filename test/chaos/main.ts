/** `npm run chaos -- --minutes N --seed S --only mountd|server|link|FAULT`. Exit code 1 when anything is wrong. */
import { parseArgs } from 'node:util';
import { Random, seedOf } from '#test/support/chance.js';
import { chaos } from './chaos.js';
import { FAULTS, LINK_FAULTS, MOUNTD_FAULTS, SERVER_FAULTS, type Weights } from './faults.js';
import { describe, isGood } from './report.js';

const say = (text: string) => process.stdout.write(`${text}\n`);

const ONLY = new Map<string, Weights>([
  ['mountd', MOUNTD_FAULTS],
  ['server', SERVER_FAULTS],
  ['link', LINK_FAULTS],
]);

interface Arguments {
  readonly minutes: number;
  readonly seed: number;
  readonly weights: Weights;
  /** What to say to get the same weights again. */
  readonly chosen: string;
}

function argumentsOf(): Arguments | undefined {
  const options = {
    minutes: { type: 'string', default: '1' },
    seed: { type: 'string' },
    only: { type: 'string' },
  } as const;
  try {
    const { values } = parseArgs({ options });
    const { only } = values;
    const minutes = Number(values.minutes);
    const seed = values.seed === undefined ? seedOf(process.env) : Number(values.seed);
    const weights = only === undefined ? FAULTS : (ONLY.get(only) ?? single(only));
    if (!(minutes > 0) || !Number.isSafeInteger(seed) || weights === undefined) return undefined;
    return { minutes, seed, weights, chosen: only === undefined ? '' : ` --only '${only}'` };
  } catch {
    return undefined; // an option that there is not
  }
}

/** One fault again and again. */
const single = (name: string): Weights | undefined => (name in FAULTS ? { [name]: 1 } : undefined);

const wanted = argumentsOf();
if (wanted === undefined) {
  process.stderr.write(
    `usage: npm run chaos -- [--minutes N] [--seed S] [--only ${[...ONLY.keys()].join('|')}|FAULT]\nfaults: ${Object.keys(FAULTS).join(', ')}\n`,
  );
  process.exit(2);
}
const { minutes, seed, weights, chosen } = wanted;
say(`${minutes} minutes of chaos, seed ${seed}`);
const interrupted = new AbortController();
for (const signal of ['SIGINT', 'SIGTERM']) process.on(signal, () => interrupted.abort());
const { signal } = interrupted;
const report = await chaos(new Random(seed), { seconds: minutes * 60, weights, say, signal });
say(`\n${describe(report)}`);
if (!isGood(report)) say(`again: npm run chaos -- --minutes ${minutes} --seed ${seed}${chosen}`);
process.exit(isGood(report) ? 0 : 1);
