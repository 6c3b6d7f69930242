// Runs compiled tests under Node's own runner: `node scripts/run-tests.mjs [part-of-path ...]`.
// Test files are plain tap programs, so `node dist/test/x.test.js` works too.
import { spawn } from 'node:child_process';
import { existsSync, readdirSync } from 'node:fs';

const wanted = process.argv.slice(2);
const files = readdirSync('dist/test', { recursive: true })
  .filter((file) => file.endsWith('.test.js'))
  .filter((file) => existsSync(`test/${file.replace(/js$/, 'ts')}`)) // tsc leaves output of deleted tests
  .filter((file) => wanted.length === 0 || wanted.some((part) => file.includes(part)))
  .sort()
  .map((file) => `dist/test/${file}`);
if (files.length === 0) {
  console.error(
    `no test under dist/test matches "${wanted.join(' ')}"; build first: npm run build`,
  );
  process.exit(1);
}
const flags = ['--enable-source-maps', '--test', '--test-concurrency=2', '--test-reporter=spec'];
const runner = spawn(process.execPath, [...flags, ...files], { stdio: 'inherit' });
for (const signal of ['SIGINT', 'SIGTERM']) process.on(signal, () => runner.kill(signal));
runner.on('exit', (code) => process.exit(code ?? 1));
