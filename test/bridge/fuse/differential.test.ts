import { spawn } from 'node:child_process';
import { chmodSync, constants, mkdtempSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import t from 'tap';
import { finished } from '#test/support/installation.js';
import { needsFuse } from '#test/support/machine.js';
import { FakeRuntime, TestMount } from '#test/support/mounted.js';
import { Random, seedOf } from '#test/support/random.js';

/**
 * Long random sequences of system calls, by several processes, done on tmpfs and on the mount: every result, errno, stat
 * and the final contents must be the same. SEED=n repeats a run; ROUNDS=n makes more sequences.
 */
const ROUNDS = Number(process.env['ROUNDS'] ?? 12);
const CALLS = 400;
const PROGRAM = fileURLToPath(
  new URL('../../../../test/fixtures/system-calls.py', import.meta.url),
);

type Call = [process: number, name: string, ...args: (string | number)[]];

const NAMES = [
  'a',
  'b',
  'c',
  'd',
  'd/a',
  'd/b',
  'd/e',
  'd/e/a',
  'f',
  'f/a',
  '.',
  'd/..',
  'n'.repeat(255),
] as const;
const { O_RDONLY, O_WRONLY, O_RDWR, O_CREAT, O_EXCL, O_TRUNC, O_APPEND, O_DIRECTORY, O_NOFOLLOW } =
  constants;

/**
 * `reserves`: with fallocate(2) that reserves, and then without SEEK_DATA: what tmpfs shows as data after reserving the same pages
 * twice is an accident of its own.
 */
function randomCall(random: Random, reserves: boolean): Call {
  const path = () => random.pick(NAMES);
  const slot = () => random.int(3);
  const size = () => random.pick([0, 1, 100, 4095, 4096, 4097, 70_000]);
  const offset = () => random.pick([0, 0, 1, 4096, 5000, 131_072]);
  const byte = () => random.int(256);
  const mode = () => random.pick([0o644, 0o600, 0o755, 0o4755, 0o2755, 0o1777]);
  const flags = () =>
    random.pick([O_RDONLY, O_WRONLY, O_RDWR]) |
    random.pick([0, O_CREAT, O_CREAT, O_CREAT | O_EXCL]) |
    random.pick([0, 0, O_TRUNC, O_APPEND]) |
    random.pick([0, 0, 0, 0, O_NOFOLLOW, O_DIRECTORY]);
  const calls: readonly [number, () => [string, ...(string | number)[]]][] = [
    [10, () => ['open', slot(), path(), flags(), mode()]],
    [4, () => ['close', slot()]],
    [5, () => ['read', slot(), size()]],
    [8, () => ['write', slot(), byte(), size()]],
    [4, () => ['pread', slot(), size(), offset()]],
    [5, () => ['pwrite', slot(), byte(), size(), offset()]],
    [3, () => ['lseek', slot(), random.pick([0, 10, -5, 4096]), random.int(3)]],
    [
      reserves ? 0 : 4,
      () => ['lseek', slot(), random.pick([0, 1, 4096, 9000, 131_072]), random.pick([3, 4])],
    ],
    [3, () => ['ftruncate', slot(), size()]],
    [2, () => ['truncate', path(), random.pick([0, 10, 5000, -1])]],
    [3, () => ['fstat', slot()]],
    [4, () => ['stat', path()]],
    [3, () => ['lstat', path()]],
    [5, () => ['unlink', path()]],
    [4, () => ['mkdir', path(), mode()]],
    [3, () => ['rmdir', path()]],
    [5, () => ['rename', path(), path()]],
    [3, () => ['renameat2', path(), path(), random.pick([1, 2, 3])]],
    [4, () => ['link', path(), path()]],
    [3, () => ['symlink', random.pick(['a', '../a', 'nowhere', 'd', 'b/c', '/']), path()]],
    [2, () => ['readlink', path()]],
    [1, () => ['mkfifo', path(), 0o644]],
    [3, () => ['chmod', path(), mode()]],
    [1, () => ['fchmod', slot(), mode()]],
    [2, () => ['chown', path(), random.pick([0, 1000, -1]), random.pick([0, 1000, -1])]],
    [
      2,
      () => [
        'utime',
        path(),
        random.pick([0, 1, 123_456_789_012, -5]),
        random.pick([0, 999_999_999, 1e18]),
      ],
    ],
    [3, () => ['listdir', path()]],
    [1, () => ['access', path(), random.int(8)]],
    [1, () => ['umask', random.pick([0o022, 0o077, 0])]],
    [1, () => ['fsync', slot()]],
    [
      4,
      () => [
        'fallocate',
        slot(),
        random.pick(reserves ? [0, 1, 3] : [3]),
        offset(),
        random.pick([1, 5000, 70_000]),
      ],
    ],
    [
      1,
      () => ['tmpfile', slot(), path(), random.pick([O_WRONLY, O_RDWR, O_RDWR | O_EXCL]), mode()],
    ],
    [1, () => ['linkfd', slot(), path()]],
    [1, () => ['truncate', path(), random.pick([2 ** 31, 2 ** 40])]],
    [1, () => ['copy_file_range', slot(), slot(), size(), offset(), offset()]],
    [1, () => ['sendfile', slot(), slot(), offset(), size()]],
    [2, () => ['mmap_write', slot(), byte(), random.int(10_000)]],
    [
      1,
      () => [
        'setxattr',
        path(),
        random.pick(['user.x', 'user.y']),
        'v'.repeat(random.int(50)),
        random.int(3),
      ],
    ],
    [1, () => ['getxattr', path(), 'user.x']],
    [1, () => ['listxattr', path()]],
    [1, () => ['removexattr', path(), 'user.x']],
  ];
  let at = random.int(calls.reduce((sum, [weight]) => sum + weight, 0));
  for (const [weight, make] of calls) {
    at -= weight;
    if (at < 0) return [random.int(3), ...make()];
  }
  throw new Error('the weights do not add up');
}

/** Opening a FIFO waits for its other end, on every file system: such calls are left out, after a look at who is one. */
const withoutFifoOpens = (calls: readonly Call[]): Call[] => {
  const fifos = calls.some(([, name]) => name === 'mkfifo');
  return calls.map((call) => {
    const [process, name, slot, path, flags, mode] = call;
    // O_NONBLOCK: a reader opens at once, a writer gets ENXIO.
    return fifos && name === 'open' && typeof flags === 'number'
      ? [process, name, slot ?? 0, path ?? '', flags | constants.O_NONBLOCK, mode ?? 0]
      : call;
  });
};

async function perform(
  directory: string,
  calls: readonly Call[],
): Promise<{ answers: unknown[]; contents: unknown }> {
  const child = spawn(
    '/bin/sh',
    ['-c', 'cd "$0" && exec /usr/bin/python3 "$1"', directory, PROGRAM],
    {
      stdio: ['pipe', 'pipe', 'pipe'],
    },
  );
  child.stdin.end(JSON.stringify(calls));
  const { stdout, stderr } = await finished(child);
  if (stdout === '') throw new Error(`no answer: ${stderr}`);
  return JSON.parse(stdout) as { answers: unknown[]; contents: unknown };
}

const options = needsFuse();

void t.test('random system calls give on the mount what they give on tmpfs', options, async (t) => {
  await using mount = await TestMount.open();
  const seed = seedOf(process.env);
  t.comment(`SEED=${seed}`);

  /** The first difference, as text; undefined = none. */
  const difference = async (calls: readonly Call[]): Promise<string | undefined> => {
    const reference = mkdtempSync('/dev/shm/cronium-differential-');
    chmodSync(reference, 0o755);
    try {
      await using tree = await mount.tree(new FakeRuntime());
      await tree.bash('mkdir -m 755 here');
      const [truth, ours] = await Promise.all([
        perform(reference, calls),
        perform(join(tree.work, 'here'), calls),
      ]);
      for (const [i, call] of calls.entries()) {
        const [a, b] = [JSON.stringify(truth.answers[i]), JSON.stringify(ours.answers[i])];
        if (a !== b) return `call ${i} ${JSON.stringify(call)}: tmpfs ${a}, mount ${b}`;
      }
      const [a, b] = [
        JSON.stringify(sorted(truth.contents)),
        JSON.stringify(sorted(ours.contents)),
      ];
      return a === b ? undefined : `contents: tmpfs ${a}, mount ${b}`;
    } finally {
      rmSync(reference, { recursive: true });
    }
  };

  for (let round = 0; round < ROUNDS; round++) {
    const random = new Random(seed + round);
    const calls = withoutFifoOpens(
      Array.from({ length: CALLS }, () => randomCall(random, (seed + round) % 2 === 0)),
    );
    const found = await difference(calls);
    if (found === undefined) {
      t.pass(`round ${round}: ${CALLS} calls`);
      continue;
    }
    const small = await shrink(calls, async (fewer) => (await difference(fewer)) !== undefined);
    t.fail(`SEED=${seed + round} ROUNDS=1 differs: ${(await difference(small)) ?? found}`, {
      calls: small.map((call) => JSON.stringify(call)),
    });
    return;
  }
});

/** Leaves out ever smaller parts while the failure stays. */
async function shrink(
  calls: readonly Call[],
  fails: (calls: readonly Call[]) => Promise<boolean>,
): Promise<Call[]> {
  let small = [...calls];
  for (let part = Math.ceil(small.length / 2); part >= 1; part = Math.floor(part / 2)) {
    for (let at = 0; at < small.length; ) {
      const fewer = [...small.slice(0, at), ...small.slice(at + part)];
      if (fewer.length > 0 && (await fails(fewer))) small = fewer;
      else at += part;
    }
  }
  return small;
}

function sorted(value: unknown): unknown {
  return Object.fromEntries(Object.entries(value as object).sort(([a], [b]) => (a < b ? -1 : 1)));
}
