// `npm run test:posix -- [--suite DIR [--only part-of-path]] [--fsx PROGRAM [--runs N]]`: runs a checkout of pjdfstest, or an fsx
// that was built somewhere, on tmpfs and on a mount of ours, and prints what passes on tmpfs but not here. Root, a C compiler
// and /dev/fuse are needed; nothing of the suites is ours.
import { spawn, spawnSync } from 'node:child_process';
import { existsSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { availableParallelism, tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { parseArgs } from 'node:util';

const { values } = parseArgs({
  options: {
    suite: { type: 'string' },
    only: { type: 'string', default: '' },
    fsx: { type: 'string' },
    runs: { type: 'string', default: '12' },
  },
});
if (values.suite === undefined && values.fsx === undefined) {
  console.error(
    'usage: npm run test:posix -- [--suite DIR] [--fsx PROGRAM]   (DIR: a checkout of pjdfstest; PROGRAM: a built fsx)',
  );
  process.exit(2);
}
const suite = values.suite === undefined ? undefined : resolve(values.suite);
if (suite !== undefined && !existsSync(join(suite, 'pjdfstest.c'))) {
  console.error(`${suite} is no checkout of pjdfstest: it has no pjdfstest.c`);
  process.exit(2);
}
/** Of one run: a few seconds on the mount. */
const FSX_OPERATIONS = 20_000;
const fsx = values.fsx === undefined ? undefined : resolve(values.fsx);
if (fsx !== undefined && !existsSync(fsx)) {
  console.error(`there is no program ${fsx}`);
  process.exit(2);
}

// What autoconf would find on Linux with glibc.
const FEATURES = `BINDAT=0 FACCESSAT FCHMODAT FCHOWNAT FSTATAT LINKAT MKDIRAT MKFIFOAT MKNODAT OPENAT POSIX_FALLOCATE READLINKAT
RENAMEAT SYMLINKAT UNLINKAT UTIMENSAT SYS_SYSMACROS_H STRUCT_STAT_ST_ATIM STRUCT_STAT_ST_CTIM STRUCT_STAT_ST_MTIM`;
function compileSuite() {
  const program = join(suite, 'pjdfstest');
  if (!existsSync(program)) {
    const defines = FEATURES.split(/\s+/)
      .filter((name) => !name.endsWith('=0'))
      .map((name) => `-DHAVE_${name}=1`);
    const headers = mkdtempSync(join(tmpdir(), 'cronium-posix-'));
    writeFileSync(join(headers, 'config.h'), ''); // autoconf's, had it run
    const { status } = spawnSync(
      'cc',
      [
        '-w',
        '-O1',
        '-D_GNU_SOURCE',
        ...defines,
        '-I',
        headers,
        '-o',
        program,
        join(suite, 'pjdfstest.c'),
      ],
      { stdio: 'inherit' },
    );
    rmSync(headers, { recursive: true });
    if (status !== 0) {
      console.error(
        'pjdfstest.c does not compile: is a C compiler installed? (apt-get install gcc libc6-dev)',
      );
      process.exit(1);
    }
  }
}

if (suite !== undefined) compileSuite();

const files = (suite === undefined ? [] : readdirSync(join(suite, 'tests'), { recursive: true }))
  .map((name) => join('tests', name))
  .filter((name) => name.endsWith('.t') && name.includes(values.only))
  .sort();

/** Runs every file in `directory`; resolves to Map(file → Map(number → passed)). */
async function run(directory, label) {
  const results = new Map();
  const queue = [...files];
  let done = 0;
  const worker = async () => {
    for (let file = queue.shift(); file !== undefined; file = queue.shift()) {
      results.set(file, await runFile(directory, file));
      if (++done % 20 === 0) process.stderr.write(`${label}: ${done} of ${files.length} files\r`);
    }
  };
  await Promise.all(Array.from({ length: availableParallelism() }, worker));
  process.stderr.write('\n');
  return results;
}

function runFile(directory, file) {
  const own = join(directory, file.replaceAll('/', '_'));
  const child = spawn(
    '/bin/sh',
    ['-c', 'mkdir "$0" && cd "$0" && exec bash "$1"', own, join(suite, file)],
    {
      stdio: ['ignore', 'pipe', 'ignore'],
      timeout: 300_000,
    },
  );
  let text = '';
  child.stdout.on('data', (chunk) => {
    text += chunk;
  });
  return new Promise((done) =>
    child.on('close', () => {
      const cases = new Map();
      for (const [, not, number, rest] of text.matchAll(/^(not )?ok (\d+)(.*)$/gm))
        cases.set(Number(number), { passed: not === undefined, text: rest });
      done(cases);
    }),
  );
}

/** fsx with seeds of its own for each run; returns how many failed on the mount and not on tmpfs. */
async function runFsx(directory) {
  const count = { passed: 0, failed: 0, skipped: 0 };
  for (let seed = 1; seed <= Number(values.runs); seed++) {
    const passes = async (where) => {
      const args = ['-q', '-N', String(FSX_OPERATIONS), '-S', String(seed), `fsx-${seed}`];
      const child = spawn('/bin/sh', ['-c', 'cd "$0" && exec "$@"', where, fsx, ...args], {
        stdio: ['ignore', 'pipe', 'pipe'],
        timeout: 300_000,
      });
      let said = '';
      for (const stream of [child.stdout, child.stderr])
        stream.on('data', (chunk) => {
          said += chunk;
        });
      const code = await new Promise((done) => child.on('close', done));
      if (code !== 0) console.log(`fsx -S ${seed} in ${where}: ${said.slice(-500)}`);
      return code === 0;
    };
    if (!(await passes(reference))) count.skipped++;
    else if (await passes(directory)) count.passed++;
    else count.failed++;
  }
  console.log(
    `fsx: ${count.passed} passed, ${count.failed} failed, ${count.skipped} skipped: they fail on tmpfs too (${FSX_OPERATIONS} operations each)`,
  );
  return count.failed;
}

const { TestMount, FakeRuntime } = await import(
  new URL('../dist/test/support/mounted.js', import.meta.url).href
);
const reference = mkdtempSync('/dev/shm/cronium-posix-');
spawnSync('chmod', ['755', reference]);
const mount = await TestMount.open();
spawnSync('chmod', ['755', mount.directory]);
try {
  const tree = await mount.tree(new FakeRuntime(), {
    // Device nodes are refused in executions; here they are let in, or every case after one would fail with it.
    quota: { bytesMax: 4 * 1024 ** 3, inodesMax: 200_000, devices: true },
  });
  await tree.bash('mkdir -m 755 here');
  const fsxFailures = fsx === undefined ? 0 : await runFsx(join(tree.work, 'here'));
  const onTmpfs = await run(reference, 'tmpfs');
  const here = await run(join(tree.work, 'here'), 'mount');
  const count = { passed: 0, failed: 0, elsewhere: 0 };
  for (const file of files) {
    const [truth, ours] = [onTmpfs.get(file), here.get(file)];
    for (const [number, { passed }] of truth) {
      const mine = ours.get(number);
      if (!passed) count.elsewhere++;
      else if (mine?.passed === true) count.passed++;
      else {
        count.failed++;
        console.log(`FAILED ${file} ${number}${mine?.text ?? ' (no result)'}`);
      }
    }
  }
  await tree[Symbol.asyncDispose]();
  if (suite !== undefined)
    console.log(
      `pjdfstest: ${count.passed} passed, ${count.failed} failed, ${count.elsewhere} skipped: they fail on tmpfs too (${files.length} files)`,
    );
  process.exitCode = count.failed === 0 && fsxFailures === 0 ? 0 : 1;
} finally {
  await mount[Symbol.asyncDispose]();
  rmSync(reference, { recursive: true, force: true });
}
