import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import t from 'tap';
import { ServedVolume } from '#test/fixtures/served-volume.js';
import { eventually } from '#test/support/installation.js';
import { needsFuse } from '#test/support/machine.js';
import { FakeRuntime, runIn, TestMount } from '#test/support/mounted.js';

/** TREES=n changes how many executions there are. */
const TREES = Number(process.env['TREES'] ?? 500);
const CLIENTS = 16;
const ROUNDS = 3;
const PROGRAM = fileURLToPath(
  new URL('../../../../test/fixtures/legacy-rounds.py', import.meta.url),
);
const options = needsFuse();

/** Open descriptors of this process; the FUSE thread's are among them. */
const descriptors = () => readdirSync('/proc/self/fd').length - 1; // without the one that lists
const residentKb = () =>
  Number(/^VmRSS:\s+(\d+)/m.exec(readFileSync('/proc/self/status', 'utf8'))?.[1]);

async function legacyRounds(mountPoint: string, trees: number): Promise<string[]> {
  const clients = await Promise.all(
    Array.from({ length: CLIENTS }, async (_, i) => {
      const args = [mountPoint, i, CLIENTS, trees, ROUNDS].map(String);
      const { stdout, stderr } = await runIn('/', '/usr/bin/python3', [PROGRAM, ...args]);
      return stdout === '' ? [stderr] : (JSON.parse(stdout) as string[]);
    }),
  );
  return clients.flat();
}

void t.test(`${TREES} executions on one mount, ${CLIENTS} clients at once`, options, async (t) => {
  await using mount = await TestMount.open();
  const backing = join(mount.directory, 'backing');
  const runtimes = Array.from({ length: TREES }, (_, n) => new FakeRuntime({ number: String(n) }));
  const before = { fds: descriptors(), kb: residentKb(), names: readdirSync(backing) };
  const trees = await Promise.all(runtimes.map(async (runtime) => await mount.tree(runtime)));
  const [first] = trees;
  if (first === undefined) throw new Error('no tree');
  const idle = { fds: descriptors(), kb: residentKb() };

  const started = performance.now();
  t.same(await legacyRounds(join(first.root, '..'), TREES), [], 'no call failed');
  const seconds = (performance.now() - started) / 1000;
  t.ok(
    runtimes.every(
      (runtime, n) => runtime.calls.at(-1) === `output {"tree": ${n}, "round": ${ROUNDS - 1}}`,
    ),
    'every execution has its own output',
  );
  t.ok(
    runtimes.every(({ calls }) => calls.length === ROUNDS),
    'and each close made one commit',
  );
  const used = { fds: descriptors(), kb: residentKb() };
  t.comment(
    `per execution: ${each(idle.fds - before.fds)} descriptors and ${each(idle.kb - before.kb)} KiB when idle, ` +
      `${each(used.fds - before.fds)} and ${each(used.kb - before.kb)} KiB after ${ROUNDS} rounds; ` +
      `${Math.round((TREES * ROUNDS) / seconds)} rounds/s`,
  );
  t.equal(readdirSync(backing).length, before.names.length + TREES, 'a state directory for each');

  await Promise.all(trees.map(async (tree) => await tree[Symbol.asyncDispose]()));
  await eventually('the backing directory is as before', () => {
    return readdirSync(backing).length === before.names.length;
  });
  await eventually('descriptors are as before', () => descriptors() <= before.fds, 5000).catch(
    () => {},
  );
  t.ok(descriptors() <= before.fds, `descriptors: ${before.fds} before, ${descriptors()} after`);
  t.comment(`${residentKb() - before.kb} KiB more than at the start, after all are gone`);
});

const each = (amount: number): string => (amount / TREES).toFixed(2);

void t.test('no inode outlives its execution', options, async (t) => {
  await using served = await ServedVolume.open();
  const { volume, backing } = served.bare;
  const inodes = volume.inodes.size;
  const names = readdirSync(backing);
  const count = 40;

  await t.test('after it was used', async (t) => {
    const trees = Array.from({ length: count }, (_, n) =>
      served.bare.tree(`tree-${n}`, new FakeRuntime({ number: String(n) })),
    );
    t.same(await legacyRounds(served.mountPoint, count), []);
    t.ok(volume.inodes.size > inodes + count * 6, 'there were some');
    await Promise.all(trees.map(async (tree) => await tree[Symbol.asyncDispose]()));
    t.equal(volume.inodes.size, inodes, 'the table is as before');
    t.same(readdirSync(backing), names);
  });

  await t.test('when files of it are still open', async (t) => {
    const tree = served.bare.tree('tree-open', new FakeRuntime({ number: '1' }));
    const work = join(served.mountPoint, 'tree-open/work');
    const client = runIn(work, '/usr/bin/python3', [
      '-c',
      `import os, time
fds = [os.open(n, os.O_RDWR | os.O_CREAT) for n in ('variables.json', 'output.json', 'a')]; os.unlink('a')
for fd in fds: os.write(fd, b'{}')
os.mkdir('ready')
end = time.time() + 10
while os.path.exists('${work}') and time.time() < end: time.sleep(0.02)
for fd in fds:
    try: os.close(fd)
    except OSError: pass`,
    ]);
    await eventually('the client is ready', async () => {
      return (await runIn(work, 'test', ['-e', 'ready'])).code === 0;
    });
    await tree[Symbol.asyncDispose]();
    await client;
    await sleep(50);
    t.equal(volume.inodes.size, inodes);
    t.same(readdirSync(backing), names);
  });

  await t.test('when it is removed while a commit is under way', async (t) => {
    const runtime = new FakeRuntime({ number: '1' });
    const answer = runtime.hold();
    const tree = served.bare.tree('tree-busy', runtime);
    const work = join(served.mountPoint, 'tree-busy/work');
    const client = runIn(work, 'sh', [
      '-c',
      `cat variables.json; echo '{"number": 1, "x": 2}' > variables.json`,
    ]);
    await eventually('the commit is on its way', () => runtime.calls.length > 0);
    tree.documents.changed(runtime.change('other', '3')); // so that the answer asks for a fresh rendering
    await tree[Symbol.asyncDispose]();
    answer();
    await client;
    await sleep(50);
    t.equal(volume.inodes.size, inodes, 'the late answer makes no file in a tree that is gone');
    t.same(readdirSync(backing), names);
    t.same(served.bare.errors.map(String), [], 'and nothing fails behind the scenes');
  });
});
