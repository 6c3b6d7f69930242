import t from 'tap';
import { chaos } from '#test/chaos/chaos.js';
import { describe } from '#test/chaos/report.js';
import { Random, seedOf } from '#test/support/chance.js';
import { needsMachine } from '#test/support/machine.js';

/** The short form of `npm run chaos -- --only mountd`, without what takes long: one that hangs is given up after 10 s. */
const SECONDS = 25;
const WEIGHTS = {
  'kill mountd': 6,
  'kill mountd twice': 2,
  'stop mountd': 1,
  "kill mountd's supervisor": 1,
};

const options = await needsMachine();
const seed = seedOf(process.env);

void t.test(
  `scripts do not notice that mountd is killed and stopped, but for pauses [SEED=${seed}]`,
  options,
  async (t) => {
    const report = await chaos(new Random(seed), { seconds: SECONDS, weights: WEIGHTS });
    for (const line of describe(report).split('\n')) t.comment(line);
    t.strictSame(report.errors, []);
    t.strictSame(report.lost, [], 'what was acknowledged is there');
    t.strictSame(report.doubled, [], 'and nothing was done twice');
    t.ok(report.pauses.length > 3 && report.calls.length > 100, 'there was something to survive');
    t.ok(report.scratchCalls.length > 1_000, 'on files, too');
  },
);
