import type { ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import t from 'tap';
import type { ExecutionUsage } from '#bridge/wire/watch.js';
import { dispatch } from '#server/cli/command.js';
import { USAGE_COMMANDS } from '#server/cli/usage-commands.js';
import type { Rates } from '#server/cli/usage-rates.js';
import { isClean } from '#test/support/clean.js';
import {
  eventually,
  finished,
  type RunJson,
  TestInstallation,
} from '#test/support/installation.js';
import { needsMachine } from '#test/support/machine.js';
import { killProcess } from '#test/support/processes.js';

const options = await needsMachine();

const MIB = 1024 * 1024;

interface Started {
  readonly id: string;
  /** Scripts wait for a file of this name. */
  readonly go: () => void;
  readonly ended: Promise<RunJson>;
}

/** Starts a run; resolves when mountd says that it runs. */
async function started(
  cronium: TestInstallation,
  extension: string,
  text: string,
): Promise<Started> {
  const child = cronium.spawn(['run', '--json', '--timeout=120s', cronium.script(extension, text)]);
  const ended = finished(child).then(({ stdout }) => JSON.parse(stdout) as RunJson);
  await cronium.runningContainer();
  using control = await cronium.installation.control();
  const [one] = (await control.call('status', {})).executions;
  if (one === undefined) throw new Error('nothing runs');
  const id = one.executionId;
  return { id, ended, go: () => writeFileSync(join(cronium.mountPoint, id, 'work/go'), '') };
}

/** Resolves when the command has printed something, which whoever reads it reads as well. */
async function says(child: ChildProcess): Promise<void> {
  if (child.stdout !== null) await once(child.stdout, 'data');
}

/** The JSON objects of a command's lines. */
const objects = <T>(text: string): T[] =>
  text
    .split('\n')
    .filter(Boolean)
    .map((line) => JSON.parse(line) as T);

interface PieceJson {
  readonly at: string;
  readonly stream: 'stdout' | 'stderr';
  readonly text: string;
}
type SampleJson = ExecutionUsage & { readonly rates: Rates };

const numbered = (word: string, count: number) =>
  Array.from({ length: count }, (_, i) => `${word} ${i + 1}\n`).join('');

void t.test('executions are watched while they run', options, async (t) => {
  await using cronium = await TestInstallation.up();

  await t.test('every line comes once and in order, without secrets', async (t) => {
    await cronium.cronium(['var', 'set', 'password', '"hunter2"', '--secret']);
    const { id, go, ended } = await started(
      cronium,
      'sh',
      `
echo ready
until [[ -e go ]]; do sleep 0.05; done
for i in $(seq 100); do
  echo "line $i"; echo "error $i" >&2
  printf hun; sleep 0.01; printf 'ter2\\n'
done
`,
    );
    const [plain, json] = [[], ['--json']].map((args) =>
      cronium.spawn(['exec', 'logs', '-f', ...args, id]),
    ) as [ChildProcess, ChildProcess];
    const [followed, pieces] = [finished(plain), finished(json)];
    await Promise.all([says(plain), says(json)]);
    go();
    const run = await ended;
    t.match(run, { status: 'succeeded', stdout: /^ready\nline 1\n\*\*\*\nline 2\n/ });
    const { code, stdout, stderr } = await followed;
    t.equal(code, 0);
    t.equal(stdout, run.stdout);
    t.equal(stderr, `${numbered('error', 100)}execution ${id} has ended: succeeded\n`);
    const parsed = objects<PieceJson>((await pieces).stdout);
    const textOf = (stream: string) =>
      parsed.map((piece) => (piece.stream === stream ? piece.text : '')).join('');
    t.equal(textOf('stdout'), run.stdout);
    t.equal(textOf('stderr'), run.stderr);

    const logs = async (...args: string[]) => await cronium.cronium(['exec', 'logs', id, ...args]);
    t.match(
      await logs(),
      { code: 0, stdout: run.stdout, stderr: run.stderr },
      'after the end, too',
    );
    const tail = await logs('--tail', '1');
    t.match(tail.stdout + tail.stderr, /^(\*\*\*|error 100)\n$/);
    const stamped = (await logs('-t')).stdout;
    t.equal(stamped.replace(/^\d{4}-\d\d-\d\dT[\d:.]{12}Z /gm, ''), run.stdout);
    t.match(await logs('--tail', 'x'), { code: 2, stderr: /write a number of lines/ });
    await isClean(t, cronium);
  });

  await t.test('who follows and does not read holds nothing back', async (t) => {
    const lines = 200_000;
    const line = 'x'.repeat(99);
    const { id, go, ended } = await started(
      cronium,
      'py',
      `
import os, time
print('r' * 99, flush=True)
while not os.path.exists('go'): time.sleep(0.05)
for i in range(1, ${lines}): print('${line}')
`,
    );
    const follower = cronium.spawn(['exec', 'logs', '-f', id]); // nobody reads its output
    const gone = cronium.spawn(['exec', 'logs', '-f', id]);
    if (follower.stdout !== null) await once(follower.stdout, 'readable'); // it follows
    await says(gone);
    go();
    gone.kill('SIGKILL');
    const run = await ended;
    t.match(run, { status: 'succeeded', warnings: [] });
    t.equal(run.stdout.length, lines * 100, 'the script came to its end');
    const { code, stdout, stderr } = await finished(follower);
    t.equal(code, 0);
    const missing = [...stderr.matchAll(/^\((\d+) bytes of output are missing here/gm)];
    const omitted = missing.reduce((sum, [, bytes]) => sum + Number(bytes), 0);
    t.ok(omitted > 0, 'who reads late misses some');
    t.equal(stdout.length + omitted, lines * 100, 'and hears of every byte');
    await isClean(t, cronium);
  });

  await t.test('processor time, memory, files: what an execution uses is seen', async (t) => {
    const { id, go, ended } = await started(
      cronium,
      'py',
      `
import os
filled = bytearray(64 << 20)
for i in range(0, len(filled), 4096): filled[i] = 1
for i in range(50): open('f%d' % i, 'w').write('.' * 1000)
while not os.path.exists('go'):
    for i in range(1_000_000): pass
`,
    );
    const stats = async (...args: string[]) => {
      const { stdout } = await cronium.cronium(['exec', 'stats', id, '--json', ...args]);
      const [sample] = objects<SampleJson>(stdout);
      if (sample === undefined) throw new Error('no sample');
      return sample;
    };
    let sample: SampleJson | undefined;
    await eventually(
      'it is busy, as far as others on this machine let it',
      async () => {
        sample = await stats();
        return (sample.rates.cpuPercent ?? 0) > 50 && (sample.operations?.writes ?? 0) >= 50;
      },
      60_000,
    );
    t.match(sample, {
      executionId: id,
      runtime: 'python',
      container: {
        cpu: { limit: 1 },
        memory: { limit: 256 * MIB },
        pids: { limit: 128 },
        oomKills: 0,
      },
      scratch: { bytesMax: 1024 * MIB, inodesMax: 100_000 },
    });
    t.ok((sample?.container?.memory.now ?? 0) > 64 * MIB, 'memory');
    t.ok((sample?.operations?.opens ?? 0) >= 50, 'opens');
    t.ok((sample?.operations?.bytesWritten ?? 0) >= 50_000, 'written bytes');
    t.ok((sample?.scratch?.bytes ?? 0) >= 50_000, 'scratch');
    t.ok((sample?.scratch?.inodes ?? 0) >= 50, 'files');
    t.match(await cronium.cronium(['exec', 'stats', id]), {
      code: 0,
      stdout: /^cpu .*\nmemory .*limit 256 MiB/m,
    });

    const { stdout, code } = await cronium.cronium(['top', '--json', '-n', '1']);
    t.equal(code, 0);
    const [shown] = objects<{ at: string; executions: SampleJson[] }>(stdout);
    t.same(
      shown?.executions.map(({ executionId }) => executionId),
      [id],
    );
    const table = await cronium.cronium(['top', '-n', '2', '--interval', '200ms']);
    t.equal(table.stdout.split(id).length, 3, 'two tables');

    const watching = cronium.spawn(['exec', 'stats', id, '--watch', '--interval', '100ms']);
    const watched = finished(watching);
    const topped = cronium.spawn(['top', '--interval', '100ms']);
    const toppedEnd = finished(topped);
    await Promise.all([says(topped), says(watching)]);
    topped.kill('SIGINT');
    t.match(await toppedEnd, { code: 0, stdout: /EXECUTION/, stderr: '' }, 'Ctrl-C is no failure');
    go();
    t.match(await ended, { status: 'succeeded' });
    t.match(await watched, { code: 0, stderr: /has ended/ });
    await isClean(t, cronium);
    t.match(await cronium.cronium(['exec', 'stats', id]), {
      code: 1,
      stderr: /has ended \(succeeded\) and uses nothing any more/,
    });
    const shownOn: string[] = [];
    const drawn = await dispatch(USAGE_COMMANDS, ['top', '-n', '2', '--interval', '100ms'], {
      out: (text) => shownOn.push(String(text)),
      err: () => {},
      stdin: async () => Buffer.alloc(0),
      env: { CRONIUM_STATE: cronium.state },
      signal: new AbortController().signal,
      screen: () => ({ columns: 7, rows: 24 }),
    });
    t.equal(drawn, 0);
    t.same(shownOn, ['nothing\n', '\x1b[1A\r\x1b[Jnothing\n'], 'in place, and no wider');
  });

  await t.test('what mountd does not know the server does', async (t) => {
    const unknown = '00000000-0000-4000-8000-000000000000';
    for (const name of ['logs', 'stats'])
      t.match(await cronium.cronium(['exec', name, unknown]), {
        code: 1,
        stderr: `there is no execution ${unknown}; see: cronium exec list\n`,
      });
    const { executionId } = await cronium.run('sh', 'echo before');
    const { serving } = cronium.mountdPids;
    killProcess(serving, 'SIGKILL');
    await eventually('another one serves', () => cronium.mountdPids.serving !== serving);
    await eventually('what has ended is not kept any more', async () => {
      const { code, stderr } = await cronium.cronium(['exec', 'logs', executionId]);
      return code === 1 && /has ended \(succeeded, .*: what it printed is kept for/.test(stderr);
    });
    t.match(await cronium.cronium(['exec', 'logs']), { code: 2, stderr: /which execution\?/ });
    t.match(await cronium.cronium(['top', '-n', '0']), { code: 2, stderr: /a number from 1/ });
  });

  await t.test('mountd is killed: nothing is lost or told twice', async (t) => {
    const { id, go, ended } = await started(
      cronium,
      'sh',
      `
echo 'line 0'
until [[ -e go ]]; do sleep 0.05; done
for i in $(seq 200); do echo "line $i"; echo "error $i" >&2; : > file; sleep 0.02; done
`,
    );
    const following = cronium.spawn(['exec', 'logs', '-f', id]);
    const watching = cronium.spawn(['exec', 'stats', id, '--json', '--watch', '--interval=200ms']);
    const [followed, watched] = [finished(following), finished(watching)];
    await Promise.all([says(following), says(watching)]);
    go();
    for (let kills = 0; kills < 3; kills++) {
      await sleep(700);
      const { serving } = cronium.mountdPids;
      killProcess(serving, 'SIGKILL');
      await eventually('another one serves', () => cronium.mountdPids.serving !== serving);
    }
    const run = await ended;
    t.match(run, { status: 'succeeded', warnings: [] });
    t.equal(run.stdout, `line 0\n${numbered('line', 200)}`);
    t.match(await followed, {
      code: 0,
      stdout: run.stdout,
      stderr: `${numbered('error', 200)}execution ${id} has ended: succeeded\n`,
    });
    const { stdout } = await cronium.cronium(['exec', 'logs', id]);
    t.equal(stdout, run.stdout, 'and they are whole in the new process');
    const rates = objects<SampleJson>((await watched).stdout).flatMap((sample) =>
      Object.values(sample.rates),
    );
    t.ok(rates.length > 0 && rates.every((rate) => rate === null || rate >= 0), 'no negative rate');
    await isClean(t, cronium);
  });
});
