// `npm run demo`: makes the machine ready, starts server and mountd with a throw-away state directory, runs one legacy
// script a language in its own container, twice, and leaves nothing behind.
import { execFileSync, spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

const SCRIPTS = ['visits.sh', 'visits.py', 'visits.js'];

function run(command, args) {
  const { status, error } = spawnSync(command, args, { stdio: 'inherit' });
  if (error) throw new Error(`cannot run ${command}: ${error.message}`);
  return status ?? 1;
}

if (run('scripts/setup', ['--quiet']) !== 0) process.exit(1);

const directory = mkdtempSync(join(tmpdir(), 'cronium-demo-'));
process.env.CRONIUM_STATE = join(directory, 'state');
const cronium = (...args) => {
  console.log(`\n$ cronium ${args.map((arg) => (/[{ ]/.test(arg) ? `'${arg}'` : arg)).join(' ')}`);
  return run(process.execPath, ['bin/cronium', ...args]);
};

/** What must be gone afterwards: mounts, containers and processes that name the state directory. */
function leftovers() {
  const mounts = readFileSync('/proc/self/mounts', 'utf8')
    .split('\n')
    .filter((line) => line.includes(directory));
  const list = (command, args) =>
    execFileSync(command, args, { encoding: 'utf8' }).trim().split('\n').filter(Boolean);
  const containers = list('docker', [
    'ps',
    '--all',
    '--quiet',
    '--filter',
    'label=cronium.managed=1',
  ]).filter((id) =>
    execFileSync('docker', ['inspect', id], { encoding: 'utf8' }).includes(directory),
  );
  const processes = list('ps', ['-eo', 'pid=,args=']).filter(
    (line) => line.includes(directory) && !line.includes(' ps '),
  );
  return [...mounts, ...containers, ...processes];
}

const started = Date.now();
let failures = 0;
for (const signal of ['SIGINT', 'SIGTERM']) process.on(signal, () => {}); // children end first, then we clean up
try {
  failures += cronium('up');
  for (const round of ['first', 'second']) {
    console.log(
      `\n=== the ${round} run of each${round === 'second' ? ': it sees the variables of the first' : ''} ===`,
    );
    for (const script of SCRIPTS)
      failures += cronium('run', '--input', '{"name": "Ada"}', `scripts/demo/${script}`);
  }
  failures += cronium('var', 'list');
  failures += cronium('status');
} finally {
  failures += cronium('down');
  const left = leftovers();
  for (const line of left) console.error(`left behind: ${line}`);
  failures += left.length;
  rmSync(directory, { recursive: true, force: true });
}
console.log(
  failures === 0
    ? `\nDemo done in ${((Date.now() - started) / 1000).toFixed(1)} s; no container, mount or process is left.`
    : `\nThe demo had ${failures} failures.`,
);
process.exit(failures === 0 ? 0 : 1);
