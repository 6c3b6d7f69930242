import { spawn } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import t, { type Test } from 'tap';
import { finished } from '#test/support/installation.js';
import { needsFuse } from '#test/support/machine.js';
import { FakeRuntime, TestMount, type TestTree } from '#test/support/mounted.js';

/** Many busy processes of one execution and a single one of another, on one loop. */
const options = needsFuse();
const FLOOD = 40;
const SECONDS = 2;
const PROGRAM = fileURLToPath(new URL('../../../../test/fixtures/flood.py', import.meta.url));

/** How often each of `processes` did it. */
async function flood(
  tree: TestTree,
  what: 'lookup' | 'write' | 'read',
  processes: number,
): Promise<number[]> {
  const args = ['-c', 'cd "$0" && exec python3 "$@"', tree.work, PROGRAM];
  const child = spawn('/bin/sh', [...args, what, String(processes), String(SECONDS)], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  return JSON.parse((await finished(child)).stdout) as number[];
}

/** What the one look-up process gets beside a flood of `what`: look-ups for each time that every process of it had one turn. */
async function beside(t: Test, what: 'write' | 'read'): Promise<number> {
  await using mount = await TestMount.open();
  await using greedy = await mount.tree(new FakeRuntime());
  await using modest = await mount.tree(new FakeRuntime());
  const [counts, [lookups = 0]] = await Promise.all([
    flood(greedy, what, FLOOD),
    flood(modest, 'lookup', 1),
  ]);
  const total = counts.reduce((sum, count) => sum + count, 0);
  t.comment(`${FLOOD} processes: ${total} MiB (${what}); the one beside them: ${lookups} look-ups`);
  t.ok(Math.min(...counts) > 0, 'none of the flood starves');
  return (lookups * FLOOD) / total;
}

void t.test('a flood of one execution leaves another its turns', options, async (t) => {
  // First come, first served would be one look-up for each round of the flood.
  t.ok((await beside(t, 'write')) > 5, 'many look-ups for each round of writes');
  // Answers of a mebibyte each fill what may be kept back; the other one's were kept back with them, for as long as it took.
  t.ok((await beside(t, 'read')) > 0.5, 'and it goes on beside large reads');
});
