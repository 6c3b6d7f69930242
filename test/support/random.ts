import t, { type Test } from 'tap';
import { Random, seedOf } from './chance.js';

export { Random, seedOf };

/** A test driven by chance. Its name carries the seed: `SEED=… node scripts/run-tests.mjs …` runs it again. */
export function randomTest(name: string, body: (t: Test, random: Random) => Promise<void>): void {
  const seed = seedOf(process.env);
  void t.test(`${name} [SEED=${seed}]`, async (t) => {
    await body(t, new Random(seed));
  });
}
