import { type ChildProcess, spawn } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import t, { type Test } from 'tap';
import { eventually, finished } from '#test/support/installation.js';
import { needsFuse } from '#test/support/machine.js';
import { FakeRuntime, TestMount, type TestTree } from '#test/support/mounted.js';

/**
 * The server is silent, and somebody waits for it in every call that can wait. Whoever is killed must go, and everybody
 * else must be answered meanwhile.
 */
const options = needsFuse();

/** A dead process is gone within milliseconds; a process that is stuck stays for good. */
const GONE_MS = 10_000;

/**
 * Each ends in a call that waits: for the server, or for another process. `commits`: how many are then under way.
 * `locks`: the kernel holds the directory's lock for it, as in every file system, and new names there wait too.
 */
const WAITS: Readonly<Record<string, { script: string; commits: number; locks?: boolean }>> = {
  'close of output.json': { script: `w('output.json', '1')`, commits: 1 },
  'close of variables.json': { script: `w('variables.json', '{"a": 2}')`, commits: 1 },
  'close of condition.json': { script: `w('condition.json', '{"condition": true}')`, commits: 1 },
  'fsync of output.json': {
    script: `fd = os.open('output.json', os.O_CREAT | os.O_WRONLY); os.write(fd, b'1'); os.fsync(fd)`,
    commits: 1,
  },
  'rename onto variables.json': {
    script: `w('t', '{"a": 3}'); os.rename('t', 'variables.json')`,
    commits: 1,
    locks: true,
  },
  'link onto output.json': {
    script: `w('t', '5'); os.link('t', 'output.json')`,
    commits: 1,
    locks: true,
  },
  'dup2 over a changed document': {
    script: `fd = os.open('output.json', os.O_CREAT | os.O_WRONLY); os.write(fd, b'1'); os.dup2(0, fd)`,
    commits: 1,
  },
  'a close in one thread while another runs': {
    script: `import threading; threading.Thread(target=lambda: w('output.json', '1')).start(); time.sleep(100)`,
    commits: 1,
  },
  'a second close of the same description': {
    script: `fd = os.open('output.json', os.O_CREAT | os.O_WRONLY); os.write(fd, b'1'); c = os.dup(fd)
if os.fork() == 0: os.close(fd); os._exit(0)
time.sleep(0.2); os.close(c)`,
    commits: 1,
  },
  'flock that another holds': {
    script: `f = open('l', 'w'); fcntl.flock(f, fcntl.LOCK_EX)
if os.fork() == 0: fcntl.flock(open('l', 'w'), fcntl.LOCK_EX)
else: time.sleep(100)`,
    commits: 0,
  },
  'open of a FIFO that nobody writes to': {
    script: `os.mkfifo('p'); os.open('p', os.O_RDONLY)`,
    commits: 0,
  },
  'accept on a unix socket': {
    script: `import socket; s = socket.socket(socket.AF_UNIX); s.bind('s'); s.listen(); s.accept()`,
    commits: 0,
  },
};

const PRELUDE = `import fcntl, os, sys, time
def w(name, text):
    with open(name, 'w') as f: f.write(text)
`;

/** In a process group of its own, so that all of it can be killed. */
function start(tree: TestTree, script: string): ChildProcess {
  return spawn(
    '/bin/sh',
    ['-c', 'cd "$0" && exec python3 -c "$1"', tree.work, `${PRELUDE}${script}`],
    { stdio: ['ignore', 'pipe', 'inherit'], detached: true },
  );
}

async function endsWithin(t: Test, child: ChildProcess, ended: Promise<unknown>, what: string) {
  const inTime = await Promise.race([
    ended.then(() => true),
    sleep(GONE_MS, false, { ref: false }),
  ]);
  t.ok(inTime, `${what}: ${inTime ? 'gone' : statusOf(child.pid)}`);
}

const statusOf = (pid: number | undefined): string => {
  try {
    return /^State:.*/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[0] ?? '';
  } catch {
    return 'gone';
  }
};

void t.test('with a silent server', options, async (t) => {
  await using mount = await TestMount.open();
  const neighbour = await mount.tree(new FakeRuntime());
  const answers = async (tree: TestTree) =>
    (await tree.bash('echo here > f && cat f && rm f && ls / > /dev/null && cat input.json'))
      .stdout;

  for (const [what, { script, commits, locks = false }] of Object.entries(WAITS)) {
    await t.test(`killed in ${what}`, async (t) => {
      const runtime = new FakeRuntime({ a: '1' });
      const release = runtime.hold();
      await using tree = await mount.tree(runtime);
      const child = start(tree, script);
      const ended = finished(child);
      await eventually('it waits', () => runtime.calls.length >= commits);
      await sleep(300);
      const sameExecution = answers(tree);
      if (!locks)
        t.equal(await sameExecution, 'here\n{}', 'others of the same execution are answered');
      t.equal(await answers(neighbour), 'here\n{}', 'and so are other executions');
      process.kill(-(child.pid ?? 0), 'SIGKILL');
      await endsWithin(t, child, ended, 'killed');
      t.equal(await sameExecution, 'here\n{}', 'and nobody waits for it any more');
      release();
    });
  }

  for (const [what, end] of Object.entries({
    'exits by itself': 'os._exit(0)',
    'is killed while it has the file open': 'os.kill(os.getpid(), 9)',
    'ends by a signal of its own': 'os.abort()',
  })) {
    await t.test(`a process that ${what}, with a changed document open`, async (t) => {
      const runtime = new FakeRuntime();
      const release = runtime.hold();
      await using tree = await mount.tree(runtime);
      const child = start(
        tree,
        `import resource; resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
fd = os.open('output.json', os.O_CREAT | os.O_WRONLY); os.write(fd, b'1'); ${end}`,
      );
      await endsWithin(t, child, finished(child), 'nobody could have killed it any more');
      t.same(runtime.calls, ['output 1'], 'its commit is under way');
      release();
      const outcome = await tree.mounted.finish(true);
      t.equal(outcome.output, '1', 'and is part of the outcome');
    });
  }

  await t.test('a busy main thread delays commits, not the file system', async (t) => {
    await using tree = await mount.tree(new FakeRuntime());
    const child = start(
      tree,
      `print('go', flush=True); end = time.monotonic() + 1; n = 0
while time.monotonic() < end: w('f%d' % n, 'x'); os.unlink('f%d' % n); n += 1
print(n)`,
    );
    const result = finished(child);
    await new Promise((resolve) => child.stdout?.once('data', resolve));
    for (const end = performance.now() + 1500; performance.now() < end; );
    const [, count] = (await result).stdout.split('\n').map(Number);
    t.ok(
      (count ?? 0) > 100,
      `${count} files made and removed while the main thread did nothing else`,
    );
  });

  t.equal(await answers(neighbour), 'here\n{}');
});
