import { spawn } from 'node:child_process';
import { cpSync, mkdirSync, readdirSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import t from 'tap';
import { isClean } from '#test/support/clean.js';
import {
  eventually,
  finished,
  type RunJson,
  TestInstallation,
} from '#test/support/installation.js';
import { needsMachine } from '#test/support/machine.js';
import { killProcess } from '#test/support/processes.js';
import { SmallDisk } from '#test/support/small-disk.js';

const options = await needsMachine();

/** On a busy machine, a process that nobody had stand by takes seconds to load. */
const START_MS = 30_000;

interface Marks {
  readonly supervisor: { readonly pid: number };
  readonly serving: { readonly pid: number };
}

/** Who serves and who watches, once it answers. */
async function marksOf(cronium: TestInstallation): Promise<Marks> {
  let marks: Marks | undefined;
  await eventually('mountd serves', async () => {
    const read = JSON.parse(
      readFileSync(join(cronium.state, 'run/mountd-serving.json'), 'utf8'),
    ) as Marks;
    using control = await cronium.installation.control(START_MS);
    marks = read;
    const status = await control.call('status', {}).catch(() => undefined); // killed meanwhile
    return status?.pid === read.serving.pid;
  });
  if (marks === undefined) throw new Error('nobody serves');
  return marks;
}

/** Kills the serving process; resolves when another one answers. */
async function replaceServing(cronium: TestInstallation): Promise<void> {
  const { serving } = await marksOf(cronium);
  killProcess(serving.pid, 'SIGKILL');
  await eventually('another one serves', async () => {
    return (await marksOf(cronium)).serving.pid !== serving.pid;
  });
}

/** Starts a run, and gives its end; resolves when its container is there. */
async function started(
  cronium: TestInstallation,
  extension: string,
  text: string,
  ...args: string[]
) {
  const child = cronium.spawn([
    'run',
    '--json',
    '--timeout=120s',
    ...args,
    cronium.script(extension, text),
  ]);
  const ended = finished(child);
  await cronium.runningContainer();
  return async (): Promise<RunJson> => JSON.parse((await ended).stdout) as RunJson;
}

/** Names, appended lines, exclusive creation, and a variable in every round; complains at the first surprise. */
const ROUNDS = `
set -e
for i in $(seq 150); do
  mkdir d; ( set -C; echo $i > once ); mv once d/moved; echo "line $i" >> lines
  [[ $(< d/moved) == $i ]]; rm d/moved; rmdir d
  [[ $(cronium_setVariable n $i) == true ]]
  echo "said $i"
  sleep 0.02
done
cmp lines <(seq -f 'line %g' 150)
cronium_output '{"ended": true}'
`;
const SAID = Array.from({ length: 150 }, (_, i) => `said ${i + 1}\n`).join('');

void t.test('whoever of mountd dies, scripts go on', options, async (t) => {
  await using cronium = await TestInstallation.up();

  await t.test('the serving process is killed again and again: no call fails', async (t) => {
    const ended = await started(cronium, 'sh', ROUNDS);
    let kills = 0;
    const killer = (async () => {
      for (; kills < 8; kills++) {
        await sleep(150 + 50 * kills);
        killProcess((await marksOf(cronium)).serving.pid, 'SIGKILL');
      }
    })();
    const run = await ended();
    await killer;
    t.match(run, { status: 'succeeded', exitCode: 0, output: { ended: true }, warnings: [] });
    t.equal(run.stderr, '');
    t.equal(run.stdout, SAID, 'no line is lost or told twice');
    t.match(run.variables, { set: { n: '150' } });
    await isClean(t, cronium);
  });

  await t.test('the supervisor is killed: another one is called', async (t) => {
    const ended = await started(cronium, 'sh', ROUNDS);
    for (let kills = 0; kills < 3; kills++) {
      const before = await marksOf(cronium);
      killProcess(before.supervisor.pid, 'SIGKILL');
      await eventually('there is another one', async () => {
        const now = await marksOf(cronium);
        return now.supervisor.pid !== before.supervisor.pid;
      });
    }
    const run = await ended();
    t.match(run, { status: 'succeeded', exitCode: 0, output: { ended: true }, warnings: [] });
    t.equal(run.stdout, SAID);
    t.equal((await cronium.cronium(['status'])).code, 0, '`status` finds the new one');
    await isClean(t, cronium);
  });

  await t.test('a serving process that hangs is replaced, and the script goes on', async (t) => {
    const ended = await started(cronium, 'sh', ROUNDS, '--timeout=120s');
    const { serving } = await marksOf(cronium);
    const since = Date.now();
    killProcess(serving.pid, 'SIGSTOP');
    const run = await ended();
    t.match(run, { status: 'succeeded', output: { ended: true }, stdout: SAID });
    t.comment(`it ended ${Date.now() - since} ms after the process had stopped`);
    await isClean(t, cronium);
  });

  await t.test('who holds locks, files without names and mappings keeps them', async (t) => {
    const ended = await started(
      cronium,
      'py',
      `
import fcntl, mmap, os, time
held = open('held', 'w+')
fcntl.flock(held, fcntl.LOCK_EX)
nameless = open('nameless', 'w+'); os.unlink('nameless'); nameless.write('before '); nameless.flush()
os.mkdir('left'); left = os.open('left', os.O_RDONLY); os.rmdir('left')
mapped = open('mapped', 'w+b'); mapped.truncate(8192); pages = mmap.mmap(mapped.fileno(), 8192); pages[0:6] = b'before'
sparse = open('sparse', 'wb'); sparse.seek(1 << 20); sparse.write(b'end'); sparse.flush()
os.setxattr('held', 'user.mark', b'\\x00\\xff')
os.link('held', 'linked'); os.symlink('held', 'pointing'); os.chmod('held', 0o640); os.utime('held', (1, 2))
names = set(); os.mkdir('many'); [open('many/%d' % i, 'w').close() for i in range(500)]
listing = os.scandir('many'); names.add(next(listing).name)
print('ready', flush=True)
while not os.path.exists('go'): time.sleep(0.05)
pid = os.fork()
if pid == 0:
    other = open('held')
    try: fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB); os._exit(1)
    except BlockingIOError: os._exit(0)
assert os.waitpid(pid, 0)[1] == 0, 'the lock is gone'
nameless.write('after'); nameless.seek(0); assert nameless.read() == 'before after'
assert os.fstat(nameless.fileno()).st_nlink == 0
assert os.fstat(left).st_nlink == 0 and os.listdir(left) == []
pages[6:11] = b' then'; pages.flush(); assert open('mapped', 'rb').read(11) == b'before then'
assert os.path.getsize('sparse') == (1 << 20) + 3 and os.stat('sparse').st_blocks == 8
fd = os.open('sparse', os.O_RDONLY); assert os.lseek(fd, 0, os.SEEK_DATA) == 1 << 20
assert os.getxattr('held', 'user.mark') == b'\\x00\\xff'
kept = os.stat('held'); assert (kept.st_nlink, kept.st_mode & 0o777, kept.st_mtime) == (2, 0o640, 2), kept
assert os.readlink('pointing') == 'held'
names.update(entry.name for entry in listing); assert len(names) == 500, len(names)
print('held on')
`,
    );
    await sleep(1_000);
    await replaceServing(cronium);
    const [id = ''] = readdirSync(join(cronium.state, 'mountd/mnt'));
    writeFileSync(join(cronium.mountPoint, id, 'work/go'), '');
    const run = await ended();
    t.match(run, { status: 'succeeded', stderr: '' });
    t.match(run.stdout, /held on/);
    await isClean(t, cronium);
  });

  await t.test('who waits for a lock or at a FIFO goes on waiting', async (t) => {
    const ended = await started(
      cronium,
      'sh',
      `
mkfifo pipe; touch lock
( flock 9; until [[ -e go ]]; do sleep 0.05; done ) 9< lock &
until ! flock --nonblock lock true; do sleep 0.05; done
( read -r line < pipe; echo "read $line" ) &
reader=$!
( flock 9; echo locked ) 9< lock &
waiting=$!
echo ready
until [[ -e go ]]; do sleep 0.05; done
wait $waiting
echo through > pipe
wait $reader
`,
    );
    await sleep(1_500); // all of them wait
    for (let kills = 0; kills < 2; kills++) await replaceServing(cronium);
    const [id = ''] = readdirSync(join(cronium.state, 'mountd/mnt'));
    writeFileSync(join(cronium.mountPoint, id, 'work/go'), '');
    const run = await ended();
    t.match(run, {
      status: 'succeeded',
      stderr: '',
      stdout: 'ready\nlocked\nread through\n',
    });
    await isClean(t, cronium);
  });

  await t.test('a damaged journal ends its execution; the others go on', async (t) => {
    const spoilt = await started(cronium, 'sh', 'sleep 60');
    const [id = ''] = readdirSync(join(cronium.state, 'mountd/mnt'));
    const whole = cronium.spawn(['run', '--json', cronium.script('sh', 'sleep 3; echo whole')]);
    const wholeEnded = finished(whole);
    await eventually('both run', async () => (await cronium.containers()).length === 2);
    const { serving } = await marksOf(cronium);
    const tree = join(cronium.state, 'mountd/scratch', id);
    const [journal = ''] = readdirSync(tree).filter((name) => name.startsWith('journal.'));
    const text = readFileSync(join(tree, journal), 'latin1');
    writeFileSync(join(tree, journal), text.replace('work', 'wort'), 'latin1');
    killProcess(serving.pid, 'SIGKILL');
    const run = await spoilt();
    t.match(run, {
      executionId: id,
      status: 'lost',
      warnings: [/its files cannot be taken over: group \d+ of its journal is damaged/],
    });
    t.match(JSON.parse((await wholeEnded).stdout), { status: 'succeeded', stdout: 'whole\n' });
    const { stdout } = await cronium.cronium(['exec', 'show', id, '--json']);
    t.match((JSON.parse(stdout) as { record: object }).record, { status: 'lost' });
    await isClean(t, cronium);
  });

  await t.test(
    'a close that waits for the server goes on waiting in the next process',
    async (t) => {
      const script = 'cronium_setVariable before 1; cronium_setVariable waited 1; echo done';
      await cronium.cronium(['var', 'policy', 'waited', 'add']);
      const server = cronium.serverPid;
      const ended = await started(
        cronium,
        'sh',
        `until [[ -e go ]]; do sleep 0.05; done; ${script}`,
        '--timeout=100s',
      );
      const [id = ''] = readdirSync(join(cronium.state, 'mountd/mnt'));
      killProcess(server, 'SIGSTOP');
      try {
        writeFileSync(join(cronium.mountPoint, id, 'work/go'), '');
        await sleep(1_000);
        killProcess((await marksOf(cronium)).serving.pid, 'SIGKILL');
        await sleep(1_500);
      } finally {
        killProcess(server, 'SIGCONT');
      }
      const run = await ended();
      t.match(run, { status: 'succeeded', stdout: 'true\ntrue\ndone\n', stderr: '' });
      const { stdout } = await cronium.cronium(['var', 'get', 'waited']);
      t.equal(stdout, '1\n', 'added once');
      await isClean(t, cronium);
    },
  );

  await t.test('and its container can be killed at every moment', async (t) => {
    const server = cronium.serverPid;
    const ended = await started(
      cronium,
      'sh',
      'sleep 1; cronium_setVariable never 1',
      '--timeout=100s',
    );
    killProcess(server, 'SIGSTOP');
    try {
      await sleep(1_500);
      const { serving } = await marksOf(cronium);
      const { Id } = await cronium.runningContainer();
      killProcess(serving.pid, 'SIGKILL');
      const since = Date.now();
      const killed = finished(spawn('docker', ['kill', Id]));
      t.match(await killed, { code: 0 });
      await eventually('the container is down', async () =>
        (await cronium.containers()).every(({ State }) => State !== 'running'),
      );
      t.comment(`it was down after ${Date.now() - since} ms`);
    } finally {
      killProcess(server, 'SIGCONT');
    }
    t.match(await ended(), { status: 'killed', signal: 'SIGKILL' });
    await isClean(t, cronium);
  });

  await t.test('another version takes over, or says that it cannot', async (t) => {
    using control = await cronium.installation.control();
    const { pid } = await control.call('status', {});
    await t.rejects(control.call('upgrade', { supervisor: '/', config: '{}', journalFormat: 99 }), {
      code: 'conflict',
      message: /reads journals of format 99.*have format 2/,
    });
    t.equal((await control.call('status', {})).pid, pid, 'nothing has changed');
    const root = new URL('../../../', import.meta.url).pathname;
    const other = join(cronium.directory, 'other');
    mkdirSync(other);
    cpSync(join(root, 'dist'), join(other, 'dist'), { recursive: true });
    symlinkSync(join(root, 'node_modules'), join(other, 'node_modules'));
    for (const name of ['helpers-legacy', 'bin'])
      cpSync(join(root, name), join(other, name), { recursive: true });
    const packed = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8')) as object;
    writeFileSync(join(other, 'package.json'), JSON.stringify({ ...packed, version: '99.0.0' }));
    // It could not start, which was found out when the old one had left: what ran was lost.
    t.match(
      await finished(spawn(join(other, 'bin/cronium'), ['upgrade', '--state', cronium.state])),
      {
        code: 1,
        stderr: /this version is not complete: .*seccomp\.json is missing; nothing has changed/,
      },
    );
    t.equal((await control.call('status', {})).pid, pid, 'the old one serves');
    cpSync(join(root, 'images'), join(other, 'images'), { recursive: true });
    const ended = await started(cronium, 'sh', ROUNDS);
    const upgraded = spawn(join(other, 'bin/cronium'), ['upgrade', '--state', cronium.state]);
    t.match(await finished(upgraded), {
      code: 0,
      stderr: 'cronium-bridge/99.0.0 serves now; executions that go on: 1\n',
    });
    t.match(await ended(), { status: 'succeeded', stdout: SAID, output: { ended: true } });
    const { stdout } = await cronium.cronium(['status', '--json']);
    t.match(JSON.parse(stdout), { well: true, mountd: { software: 'cronium-bridge/99.0.0' } });
    await isClean(t, cronium);
  });

  await t.test('nobody comes back for a run whose command died with mountd', async (t) => {
    const child = cronium.spawn(['run', cronium.script('sh', 'sleep 60')]);
    const ended = finished(child);
    await cronium.runningContainer();
    const { serving } = await marksOf(cronium);
    child.kill('SIGKILL');
    killProcess(serving.pid, 'SIGKILL');
    await ended;
    await eventually(
      'its container is stopped',
      async () => (await cronium.containers()).length === 0,
      40_000,
    );
    await isClean(t, cronium);
  });
});

void t.test(
  'what could not be noted on a full disk is lost with mountd; the others go on',
  options,
  async (t) => {
    using disk = new SmallDisk();
    await using cronium = await TestInstallation.up(disk.state);
    const busy = await started(
      cronium,
      'sh',
      'i=0; until [[ -e no ]]; do : > f$((i++)); sleep 0.01; done; echo unreachable',
    );
    const [id = ''] = readdirSync(join(cronium.state, 'mountd/mnt'));
    const quiet = cronium.spawn([
      'run',
      '--json',
      cronium.script('sh', 'sleep 8; cronium_output 1; echo whole'),
    ]);
    const quietEnded = finished(quiet);
    // Not before: a disk that is full while one is being started ends that one, too.
    const runs = join(cronium.state, 'mountd/runs');
    await eventually('both were started', () => {
      const names = readdirSync(runs).filter((name) => name.endsWith('.json'));
      const records = names.map((name) => readFileSync(join(runs, name), 'utf8'));
      return records.filter((text) => text.includes('"isStarted":true')).length === 2;
    });
    disk.fill();
    const tree = join(cronium.state, 'mountd/scratch', id);
    await eventually('its journal is given up', () =>
      readdirSync(tree).every((name) => !name.startsWith('journal.')),
    );
    await replaceServing(cronium);
    disk.empty();
    t.match(await busy(), {
      executionId: id,
      status: 'lost',
      warnings: [/its files could not be kept/],
    });
    t.match(JSON.parse((await quietEnded).stdout), {
      status: 'succeeded',
      stdout: 'whole\n',
      output: 1,
    });
    const { stdout } = await cronium.cronium(['exec', 'show', id, '--json']);
    t.match((JSON.parse(stdout) as { record: object }).record, { status: 'lost' });
    await isClean(t, cronium);
  },
);
