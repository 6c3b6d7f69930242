import { spawn } from 'node:child_process';
import { setTimeout as sleep } from 'node:timers/promises';
import t from 'tap';
import { BridgeError } from '#bridge/wire/errors.js';
import { eventually, finished } from '#test/support/installation.js';
import { needsFuse } from '#test/support/machine.js';
import { FakeRuntime, runIn, TestMount } from '#test/support/mounted.js';

/** What one script does must end in its own errors, never in somebody else's. Each test tells what once went wrong. */
const options = needsFuse();

void t.test('a rude client hurts itself only', options, async (t) => {
  await using mount = await TestMount.open();
  const neighbour = await mount.tree(new FakeRuntime());
  const neighbourAnswers = async () => (await neighbour.bash('cat input.json')).stdout;

  for (const [what, fill] of Object.entries({
    bytes: 'dd if=/dev/zero of=big bs=64k 2>/dev/null',
    files: 'i=0; while : 2>/dev/null > f$i; do i=$((i+1)); done',
  })) {
    await t.test(
      `a quota full of ${what}, and then a push: the change shows, the loop goes on`,
      async (t) => {
        const runtime = new FakeRuntime({ a: '1' });
        await using tree = await mount.tree(runtime, {
          quota: { bytesMax: 200_000, inodesMax: 50 },
        });
        await tree.bash(fill);
        tree.mounted.changed(runtime.change('a', '"news"'));
        t.match((await tree.bash('cat variables.json')).stdout, /"a": "news"/);
        t.equal(await neighbourAnswers(), '{}');
      },
    );
  }

  await t.test(
    'a document cannot outgrow what can be committed: EFBIG at the write, not minutes at the close',
    async (t) => {
      const runtime = new FakeRuntime();
      await using tree = await mount.tree(runtime);
      const { stdout } = await tree.python(`
import errno, os
fd = os.open('output.json', os.O_WRONLY | os.O_CREAT)
try:
    while True: os.write(fd, b'[' * 1048576)
except OSError as e: print(errno.errorcode[e.errno], os.fstat(fd).st_size)
os.close(fd)
open('scratch', 'wb').write(b'x' * 11 * 1048576); print('scratch', os.stat('scratch').st_size)
for call in (lambda: os.rename('scratch', 'variables.json'), lambda: os.truncate('output.json', 11 * 1048576)):
    try: call()
    except OSError as e: print(errno.errorcode[e.errno])
print(sorted(n for n in os.listdir('.') if n in ('scratch', 'variables.json')))`);
      t.equal(
        stdout,
        `EFBIG 10485760\nscratch ${11 * 1048576}\nEFBIG\nEFBIG\n['scratch', 'variables.json']\n`,
      );
    },
  );

  await t.test(
    'a handled signal and then SIGKILL: the process that waits for the server dies all the same',
    async (t) => {
      const runtime = new FakeRuntime();
      const open = runtime.hold();
      await using tree = await mount.tree(runtime);
      const child = spawn(
        '/bin/sh',
        [
          '-c',
          'cd "$0" && exec python3 -c "$1"',
          tree.work,
          `
import os, signal
signal.signal(signal.SIGUSR1, lambda *_: None)
fd = os.open('output.json', os.O_WRONLY | os.O_CREAT); os.write(fd, b'1'); print('closing', flush=True); os.close(fd)`,
        ],
        { stdio: ['ignore', 'pipe', 'inherit'] },
      );
      const dead = finished(child);
      await new Promise((resolve) => child.stdout.once('data', resolve));
      await sleep(100);
      child.kill('SIGUSR1');
      await sleep(100);
      child.kill('SIGKILL');
      t.match(await dead, { code: null, stdout: 'closing\n' });
      open();
    },
  );

  await t.test(
    'a rename or link whose commit is refused has not happened, and can be tried again',
    async (t) => {
      const runtime = new FakeRuntime({ a: '1' });
      await using tree = await mount.tree(runtime);
      runtime.failure = new BridgeError('quota', 'refused');
      const first = await tree.bash(`
      echo '{"a": 2}' > t; mv t variables.json 2>&1 | grep -o 'quota exceeded'; ls t; cat t variables.json; echo
      echo 5 > o; ln o output.json 2>&1 | grep -o 'quota exceeded'; ls output.json 2>&1 | grep -o 'No such file'; stat -c %h o`);
      t.equal(
        first.stdout,
        'quota exceeded\nt\n{"a": 2}\n{\n  "a": 1\n}\nquota exceeded\nNo such file\n1\n',
        first.stderr,
      );
      runtime.failure = undefined;
      const second = await tree.bash(
        'mv t variables.json && ln o output.json && cat variables.json output.json; ls t',
      );
      t.match(second, { stdout: '{"a": 2}\n5\n', stderr: /No such file/ });
      t.same(runtime.calls.slice(-2), ['variables a=2', 'output 5']);
    },
  );

  await t.test(
    'fsync on a duplicate waits for the commit that a close of the other one started',
    async (t) => {
      const runtime = new FakeRuntime();
      const open = runtime.hold();
      await using tree = await mount.tree(runtime);
      const running = tree.python(`
import os, threading, time
fd = os.open('output.json', os.O_WRONLY | os.O_CREAT); os.write(fd, b'1'); copy = os.dup(fd)
threading.Thread(target=os.close, args=(fd,)).start(); time.sleep(0.2)
started = time.monotonic(); os.fsync(copy); print(time.monotonic() - started > 0.3)`);
      await eventually('it closes one', () => runtime.calls.length === 1);
      await sleep(1200);
      open();
      t.equal((await running).stdout, 'True\n');
      t.same(runtime.calls, ['output 1']);
    },
  );

  await t.test('two creators of one name through the two directories both succeed', async (t) => {
    await using tree = await mount.tree(new FakeRuntime());
    const loop = (path: string) =>
      `import os\nbad = 0\nfor i in range(1500):\n  try: os.close(os.open('${path}', os.O_CREAT | os.O_WRONLY))\n  except OSError as e: bad += e.errno != 2\n  try: os.unlink('${path}')\n  except FileNotFoundError: pass\nprint(bad)`;
    const results = await Promise.all([
      tree.python(loop('output.json')),
      tree.python(loop('../output.json')),
    ]);
    t.same(
      results.map(({ stdout }) => stdout),
      ['0\n', '0\n'],
    );
  });

  await t.test(
    'a handle opened before its file came to a legacy name commits at its close',
    async (t) => {
      const runtime = new FakeRuntime();
      await using tree = await mount.tree(runtime);
      await tree.python(
        "import os\nf = open('t', 'w'); os.replace('t', 'output.json'); f.write('7'); f.close()",
      );
      t.same(runtime.calls, ['output 7']);
    },
  );

  await t.test(
    'a refused close is tried once, and not again behind the script’s back',
    async (t) => {
      const runtime = new FakeRuntime();
      runtime.failure = new BridgeError('denied', 'refused');
      await using tree = await mount.tree(runtime);
      await tree.bash('echo 1 > output.json');
      await tree.mounted.finish(true);
      t.same(runtime.calls, ['output 1']);
    },
  );

  await t.test(
    'thousands of open files take a bounded number of descriptors from us',
    async (t) => {
      await using tree = await mount.tree(new FakeRuntime());
      const ours = async () =>
        Number((await runIn('/', 'sh', ['-c', `ls /proc/${process.pid}/fd | wc -l`])).stdout);
      const before = await ours();
      const running = tree.bash(
        `ulimit -n 3000; for i in $(seq 10 2500); do eval "exec $i<>f$i"; echo $i >&$i; done; touch ready; until [ -e go ]; do sleep 0.02; done; cat f10 f2500`,
      );
      await tree.bash('until [ -e ready ]; do sleep 0.05; done');
      t.ok((await ours()) < before + 300, `${before} before, ${await ours()} with 2490 files open`);
      await tree.bash('touch go');
      t.equal((await running).stdout, '10\n2500\n');
    },
  );

  await t.test(
    'attributes and links count against the quota, since they take memory',
    async (t) => {
      await using tree = await mount.tree(new FakeRuntime(), {
        quota: { bytesMax: 1_000_000, inodesMax: 100 },
      });
      const { stdout } = await tree.python(`
import os, errno
def until(f):
    try:
        for i in range(10**6): f(i)
    except OSError as e: return i, errno.errorcode[e.errno]
open('a', 'w').close()
n, e = until(lambda i: os.setxattr('a', 'user.%d' % i, b'x' * 60000)); print(n < 20, e)
for name in os.listxattr('a'): os.removexattr('a', name)
print(os.statvfs('.').f_bavail * 4096 > 900000)
n, e = until(lambda i: os.link('a', 'l%d' % i)); print(n < 100, e)`);
      t.equal(stdout, 'True ENOSPC\nTrue\nTrue ENOSPC\n');
    },
  );

  await t.test('sixty writers of large documents leave no memory behind', async (t) => {
    await using tree = await mount.tree(new FakeRuntime());
    const rss = () => process.memoryUsage.rss() / 1024 / 1024;
    await tree.python(`open('output.json','w').write('"' + 'x' * 9_000_000 + '"')`);
    const before = rss();
    await tree.python(
      `for i in range(60): open('output.json','w').write('"' + 'x' * 9_000_000 + '"')`,
    );
    t.ok(rss() - before < 400, `${Math.round(before)} MiB before, ${Math.round(rss())} after`);
  });

  t.equal(await neighbourAnswers(), '{}', 'the neighbour never noticed');
  await neighbour[Symbol.asyncDispose]();
});
