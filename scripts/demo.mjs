// `npm run demo`: makes the machine ready, starts server and mountd with a throw-away state directory, runs one legacy
// script a language in its own container, twice, and leaves nothing behind.
import { execFileSync, spawnSync } from 'node:child_process';
import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
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
  const docker = (...args) => execFileSync('docker', args, { encoding: 'utf8' });
  const containers = docker('ps', '--all', '--quiet', '--filter', 'label=cronium.managed=1')
    .split('\n')
    .filter((id) => id !== '' && docker('inspect', id).includes(directory));
  const processes = readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name) && name !== String(process.pid))
    .map((pid) => `process ${pid} ${commandLine(pid)}`)
    .filter((line) => line.includes(directory));
  return [...mounts, ...containers, ...processes];
}

function commandLine(pid) {
  try {
    return readFileSync(`/proc/${pid}/cmdline`, 'utf8').replaceAll('\0', ' ');
  } catch {
    return ''; // it has just ended
  }
}

const started = Date.now();
let failures = 0;
let interrupted = false;
// The running command hears the terminal's signal too and ends first; then the rest is left out and we clean up.
for (const signal of ['SIGINT', 'SIGTERM']) process.on(signal, () => (interrupted = true));
const step = async (...args) => {
  if (interrupted) return;
  failures += cronium(...args);
  await new Promise(setImmediate); // lets a signal that came meanwhile be heard
};
try {
  await step('up');
  for (const round of failures === 0 ? ['first', 'second'] : []) {
    if (interrupted) break;
    console.log(
      `\n=== the ${round} run of each${round === 'second' ? ': it sees the variables of the first' : ''} ===`,
    );
    for (const script of SCRIPTS)
      await step('run', '--input', '{"name": "Ada"}', `scripts/demo/${script}`);
  }
  if (failures === 0) {
    await step('var', 'list');
    await step('status');
  }
} finally {
  failures += cronium('down') + (interrupted ? 1 : 0);
  const left = leftovers();
  for (const line of left) console.error(`left behind: ${line}`);
  failures += left.length;
  if (left.length === 0) rmSync(directory, { recursive: true, force: true });
}
console.log(
  failures === 0
    ? `\nDemo done in ${((Date.now() - started) / 1000).toFixed(1)} s; no container, mount or process is left.`
    : `\nThe demo had ${failures} failures.`,
);
process.exit(failures === 0 ? 0 : 1);
