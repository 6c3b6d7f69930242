// `npm test [part-of-path ...]`: makes the machine ready, then runs the whole suite (or the files that match).
// CRONIUM_SKIP_MACHINE_TESTS=1 leaves out what needs root, /dev/fuse and Docker, for a laptop.
import { spawnSync } from 'node:child_process';

const laptop = process.env.CRONIUM_SKIP_MACHINE_TESTS === '1';
const steps = [
  ['scripts/setup', laptop ? ['--only', 'npm', '--only', 'build', '--quiet'] : ['--quiet']],
  [process.execPath, ['scripts/run-tests.mjs', ...process.argv.slice(2)]],
];
for (const [command, args] of steps) {
  const { status, error } = spawnSync(command, args, { stdio: 'inherit' });
  if (error) console.error(`cannot run ${command}: ${error.message}`);
  if (status !== 0) process.exit(status ?? 1);
}
