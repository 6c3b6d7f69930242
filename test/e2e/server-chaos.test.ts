import t from 'tap';
import { chaos } from '#test/chaos/chaos.js';
import { describe } from '#test/chaos/report.js';
import { Random, seedOf } from '#test/support/chance.js';
import { needsMachine } from '#test/support/machine.js';

/** The short form of `npm run chaos`, without what takes long: a server that hangs is given up after 15 s. */
const SECONDS = 20;
const WEIGHTS = { kill: 6, 'kill twice': 1, end: 1, stop: 1, cut: 2, 'lose answers': 3 };

const options = await needsMachine();
const seed = seedOf(process.env);

void t.test(
  `scripts do not notice that the server is killed, stopped and cut off, but for pauses [SEED=${seed}]`,
  options,
  async (t) => {
    const report = await chaos(new Random(seed), { seconds: SECONDS, weights: WEIGHTS });
    for (const line of describe(report).split('\n')) t.comment(line);
    t.strictSame(report.errors, []);
    t.strictSame(report.lost, [], 'what was acknowledged is there');
    t.strictSame(report.doubled, [], 'and nothing was done twice');
    t.ok(report.pauses.length > 3 && report.calls.length > 100, 'there was something to survive');
  },
);
