// `npm run bench -- NAME [options]`: runs bench/NAME.ts, compiled.
import { spawnSync } from 'node:child_process';
import { existsSync, readdirSync } from 'node:fs';

const [name, ...args] = process.argv.slice(2);
const known = existsSync('dist/bench')
  ? readdirSync('dist/bench')
      .filter((file) => file.endsWith('.js'))
      .map((file) => file.slice(0, -3))
  : [];
if (name === undefined || !known.includes(name)) {
  console.error(
    `usage: npm run bench -- NAME [options]   (NAME: ${known.join(', ') || 'nothing is built'})`,
  );
  process.exit(2);
}
const { status } = spawnSync(
  process.execPath,
  ['--enable-source-maps', `dist/bench/${name}.js`, ...args],
  {
    stdio: 'inherit',
  },
);
process.exit(status ?? 1);
