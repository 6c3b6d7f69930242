// `npm run dev [-- part-of-path ...]`: rebuilds on save, then reruns the tests that match (all without arguments).
import { spawn, spawnSync } from 'node:child_process';

const compiler = spawn('node_modules/.bin/tsc', ['--watch', '--preserveWatchOutput'], {
  stdio: ['ignore', 'pipe', 'inherit'],
});
let tests;
compiler.stdout.on('data', (chunk) => {
  process.stdout.write(chunk);
  if (!/Found 0 errors/.test(String(chunk))) return;
  tests?.kill();
  spawnSync(process.execPath, ['scripts/bundle.mjs'], { stdio: 'inherit' });
  tests = spawn(process.execPath, ['scripts/run-tests.mjs', ...process.argv.slice(2)], {
    stdio: 'inherit',
  });
});
