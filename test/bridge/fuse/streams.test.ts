import { type ChildProcess, spawn } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import t from 'tap';
import { Directory } from '#bridge/vfs/inode.js';
import { ServedVolume } from '#test/fixtures/served-volume.js';
import { TestStreamFile } from '#test/fixtures/test-stream.js';
import { eventually, finished } from '#test/support/installation.js';
import { needsFuse } from '#test/support/machine.js';
import { FakeRuntime, runIn } from '#test/support/mounted.js';

/** Files whose reads wait: what the kernel makes of read, signals, O_NONBLOCK, select, poll and epoll on them. */
const options = needsFuse();

const spawnPython = (directory: string, script: string): ChildProcess =>
  spawn('/bin/sh', ['-c', 'cd "$0" && exec python3 -c "$1"', directory, script], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });

const stateOf = (pid: number | undefined): string =>
  /^State:\t(\S)/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1] ?? '?';

void t.test('streams', options, async (t) => {
  await using served = await ServedVolume.open();
  const { bare } = served;
  const runtime = new FakeRuntime();
  bare.tree('tree', runtime);
  const work = bare.work('tree');
  if (!(work.parent instanceof Directory)) throw new Error('no root');
  const stream = new TestStreamFile(work.tree, 0o644, { uid: 0, gid: 0 });
  work.add('news', stream);
  const directory = join(served.mountPoint, 'tree/work');
  const opened = async (count: number) =>
    await eventually(`${count} have it open`, () => stream.opened.length === count);

  await t.test('a read waits, gets what comes, and the end is the end', async (t) => {
    const client = spawnPython(
      directory,
      `import os
fd = os.open('news', os.O_RDONLY); print(os.read(fd, 3), os.read(fd, 100), os.read(fd, 100), os.read(fd, 100))
try: os.lseek(fd, 1, 0)
except OSError as e: print(e.errno)
print(os.fstat(fd).st_size)`,
    );
    const result = finished(client);
    await opened(1);
    stream.feed('first');
    await sleep(50);
    stream.feed('second\n');
    await sleep(50);
    stream.end();
    t.equal((await result).stdout, `b'fir' b'st' b'second\\n' b''\n29\n0\n`);
    await opened(0);
  });

  await t.test('cat, head and a shell loop read it', async (t) => {
    const commands = ['cat news', 'head -n 1 news', 'read -r line < news; echo "$line"'];
    const results = commands.map(
      async (command) => await runIn(directory, 'bash', ['-c', command]),
    );
    await opened(3);
    stream.feed('a line\n');
    await sleep(100);
    stream.end();
    for (const result of results) t.equal((await result).stdout, 'a line\n');
    await opened(0);
  });

  await t.test('O_NONBLOCK, at open or later, gives EAGAIN; writing is refused', async (t) => {
    const { stdout } = await runIn(directory, 'python3', [
      '-c',
      `import os
fd = os.open('news', os.O_RDONLY | os.O_NONBLOCK)
try: os.read(fd, 1)
except BlockingIOError as e: print(e.errno)
late = os.open('news', os.O_RDONLY); os.set_blocking(late, False)
try: os.read(late, 1)
except BlockingIOError as e: print(e.errno)
try: os.open('news', os.O_WRONLY)
except OSError as e: print(e.errno)`,
    ]);
    t.equal(stdout, '11\n11\n13\n');
  });

  await t.test('a handled signal ends the read with EINTR; nothing is lost by it', async (t) => {
    const client = spawnPython(
      directory,
      `import os, signal
class Alarm(Exception): pass
def on(*_): raise Alarm
signal.signal(signal.SIGALRM, on); signal.setitimer(signal.ITIMER_REAL, 0.2)
fd = os.open('news', os.O_RDONLY)
try: os.read(fd, 100)
except Alarm: print('interrupted', flush=True)
print(os.read(fd, 100))`,
    );
    let text = '';
    client.stdout?.on('data', (chunk: Buffer) => {
      text += chunk.toString();
    });
    const result = finished(client);
    await eventually('the read was interrupted', () => text.includes('interrupted'));
    stream.feed('whole');
    t.equal((await result).stdout, "interrupted\nb'whole'\n");
  });

  for (const signal of ['SIGINT', 'SIGTERM', 'SIGKILL'] as const) {
    await t.test(`${signal} ends a process that waits, at once`, async (t) => {
      const client = spawn('/bin/sh', ['-c', 'cd "$0" && exec cat news', directory], {
        stdio: 'ignore',
      });
      const result = finished(client);
      await opened(1);
      await sleep(50);
      t.match(stateOf(client.pid), /[SD]/, 'it waits');
      client.kill(signal);
      t.equal((await result).code, null);
      await opened(0);
    });
  }

  await t.test('select, poll and both kinds of epoll wake up, again and again', async (t) => {
    const client = spawnPython(
      directory,
      `import os, select, sys
fd = os.open('news', os.O_RDONLY | os.O_NONBLOCK)
def told(what): print(what, os.read(fd, 100).decode(), flush=True)
print('ready', select.select([fd], [], [], 0)[0], flush=True)
select.select([fd], [], []); told('select')
p = select.poll(); p.register(fd, select.POLLIN); p.poll(); told('poll'); print(p.poll(0), flush=True)
e = select.epoll(); e.register(fd, select.EPOLLIN); e.poll(); told('level'); e.poll(); told('level'); e.close()
e = select.epoll(); e.register(fd, select.EPOLLIN | select.EPOLLET); e.poll(); told('edge'); e.poll(); told('edge')
r = os.open('variables.json', os.O_RDONLY); print(select.select([r], [r], [], 0)[0] == [r])`,
    );
    let text = '';
    client.stdout?.on('data', (chunk: Buffer) => {
      text += chunk.toString();
    });
    const result = finished(client);
    const said = ['ready []\n'];
    for (const way of ['select', 'poll', 'level', 'level', 'edge', 'edge']) {
      const soFar = said.join('');
      await eventually(`it waits for ${way}`, () => text === soFar);
      await sleep(30);
      stream.feed(String(said.length));
      said.push(`${way} ${said.length}\n`);
      if (way === 'poll') said.push('[]\n');
    }
    t.equal((await result).stdout, `${said.join('')}True\n`);
  });

  await t.test('removing the tree ends what its readers wait for', async (t) => {
    const tree = bare.tree('gone', new FakeRuntime());
    const gone = bare.work('gone');
    const late = new TestStreamFile(gone.tree, 0o644, { uid: 0, gid: 0 });
    gone.add('news', late);
    const client = spawn(
      '/bin/sh',
      ['-c', 'cd "$0" && exec cat news', join(served.mountPoint, 'gone/work')],
      { stdio: 'ignore' },
    );
    const result = finished(client);
    await eventually('it is open', () => late.opened.length === 1);
    await sleep(50);
    await tree[Symbol.asyncDispose]();
    t.equal((await result).code, 1, 'cat reports an error');
  });

  t.same(bare.errors, []);
});
