import { spawn } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import t from 'tap';
import { finished } from '#test/support/installation.js';
import { needsFuse } from '#test/support/machine.js';
import { FakeRuntime, TestMount, type TestTree } from '#test/support/mounted.js';

/** Many busy processes of one execution and a single one of another, on one loop. */
const options = needsFuse();
const FLOOD = 32;
const SECONDS = 2;
const PROGRAM = fileURLToPath(new URL('../../../../test/fixtures/flood.py', import.meta.url));

/** How often each of `processes` did it. */
async function flood(
  tree: TestTree,
  what: 'lookup' | 'write',
  processes: number,
): Promise<number[]> {
  const args = ['-c', 'cd "$0" && exec python3 "$@"', tree.work, PROGRAM];
  const child = spawn('/bin/sh', [...args, what, String(processes), String(SECONDS)], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  return JSON.parse((await finished(child)).stdout) as number[];
}

void t.test('a flood of one execution leaves another its turns', options, async (t) => {
  await using mount = await TestMount.open();
  await using greedy = await mount.tree(new FakeRuntime());
  await using modest = await mount.tree(new FakeRuntime());
  const [writes, [lookups = 0]] = await Promise.all([
    flood(greedy, 'write', FLOOD),
    flood(modest, 'lookup', 1),
  ]);
  const total = writes.reduce((sum, count) => sum + count, 0);
  t.comment(
    `${FLOOD} processes wrote ${total} MiB; the one beside them looked up ${lookups} names`,
  );
  // First come, first served would be one look-up for each round of writes.
  t.ok(lookups > (5 * total) / FLOOD, 'many look-ups for each round of writes');
  t.ok(Math.min(...writes) > 0, 'and none of the flood starves');
});
