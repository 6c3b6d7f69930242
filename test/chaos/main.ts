/** `npm run chaos -- --minutes N --seed S`. Exit code 1 when anything is wrong. */
import { parseArgs } from 'node:util';
import { Random, seedOf } from '#test/support/chance.js';
import { chaos, describe, isGood } from './chaos.js';

const say = (text: string) => process.stdout.write(`${text}\n`);

function argumentsOf(): { minutes: number; seed: number } | undefined {
  const options = { minutes: { type: 'string', default: '1' }, seed: { type: 'string' } } as const;
  try {
    const { values } = parseArgs({ options });
    const minutes = Number(values.minutes);
    const seed = values.seed === undefined ? seedOf(process.env) : Number(values.seed);
    return minutes > 0 && Number.isSafeInteger(seed) ? { minutes, seed } : undefined;
  } catch {
    return undefined; // an option that there is not
  }
}

const wanted = argumentsOf();
if (wanted === undefined) {
  process.stderr.write('usage: npm run chaos -- [--minutes N] [--seed S]\n');
  process.exit(2);
}
const { minutes, seed } = wanted;
say(`${minutes} minutes of chaos, seed ${seed}`);
const interrupted = new AbortController();
for (const signal of ['SIGINT', 'SIGTERM']) process.on(signal, () => interrupted.abort());
const { signal } = interrupted;
const report = await chaos(new Random(seed), { seconds: minutes * 60, say, signal });
say(`\n${describe(report)}`);
if (!isGood(report)) say(`again: npm run chaos -- --minutes ${minutes} --seed ${seed}`);
process.exit(isGood(report) ? 0 : 1);
