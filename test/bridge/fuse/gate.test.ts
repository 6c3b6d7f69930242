import { type ChildProcess, spawn } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { ExecutionTree } from '#bridge/vfs/execution-tree.js';
import { WaitingTree } from '#bridge/vfs/waiting-tree.js';
import { ServedVolume } from '#test/fixtures/served-volume.js';
import { eventually, finished } from '#test/support/installation.js';
import { needsFuse } from '#test/support/machine.js';
import { FakeRuntime } from '#test/support/mounted.js';
import { killProcess } from '#test/support/processes.js';

/** A tree that waits for its execution, as the kernel and a shell that stands at its gate see it. */
const options = needsFuse();

const QUOTA = { bytesMax: 16 * 1024 * 1024, inodesMax: 1000 };
const OWNER = { uid: 0, gid: 0 };
const GATE = '.launch/gate';

const shellIn = (directory: string, script: string): ChildProcess =>
  spawn('/bin/sh', ['-c', `cd "$0" && ${script}`, directory], {
    stdio: ['ignore', 'pipe', 'pipe'],
  });

const cpuTicks = (pid: number): number => {
  const [, after = ''] = readFileSync(`/proc/${pid}/stat`, 'utf8').split(') ');
  const fields = after.split(' ');
  return Number(fields[11]) + Number(fields[12]);
};

void t.test('a tree that waits', options, async (t) => {
  await using served = await ServedVolume.open();
  const { volume, backing } = served.bare;
  let count = 0;
  const waitingTree = (owner = OWNER) =>
    new WaitingTree(volume, backing, {
      id: `waits-${count++}`,
      ...owner,
      quota: QUOTA,
      files: [],
      gate: GATE,
    });
  const specOf = (id: string, runtime: FakeRuntime) => ({
    id,
    ...OWNER,
    quota: QUOTA,
    input: '{"n": 1}',
    event: '{}',
    variables: runtime.variables,
    merged: [],
    policy: { commit: 'live', exact: false, strict: false } as const,
    files: [{ path: '.launch/start', mode: 0o444, data: Buffer.from('echo started') }],
  });
  const at = (index: number) => join(served.mountPoint, `waits-${index}`);

  await t.test(
    'who stands at its gate goes on in the execution that takes its place',
    async (t) => {
      const index = count;
      const waiting = waitingTree();
      t.equal(waiting.isManned, false);
      t.throws(() => waiting.open(), /its container has gone/);
      const shell = shellIn(
        `${at(index)}/work`,
        `true <../${GATE} && . ../.launch/start && cat input.json && ls -A && echo made >output.json && find . -type d`,
      );
      const result = finished(shell);
      await waiting.reached;
      t.equal(waiting.isManned, true);
      const before = cpuTicks(shell.pid ?? 0);
      const runtime = new FakeRuntime({ colour: '"red"' });
      const tree = ExecutionTree.adopt(
        volume,
        waiting,
        specOf(`waits-${index}`, runtime),
        runtime,
        false,
      );
      t.equal(shell.exitCode, null, 'it still waits');
      t.ok(cpuTicks(shell.pid ?? 0) - before <= 1, 'without work for the processor');
      waiting.open();
      const { code, stdout, stderr } = await result;
      t.equal(stderr, '');
      t.equal(code, 0);
      t.same(stdout.split('\n'), [
        'started',
        '{"n": 1}.tmp',
        'event.json',
        'input.json',
        'variables.json',
        '.',
        './.tmp',
        '',
      ]);
      t.same(runtime.calls, [], 'what is no JSON is not committed');
      const late = await finished(shellIn(`${at(index)}/work`, `cat ../${GATE} variables.json`));
      t.same(late, { code: 0, stdout: late.stdout, stderr: '' }, 'an open gate is a file');
      t.match(late.stdout, /"colour": "red"/);
      await tree[Symbol.asyncDispose]();
    },
  );

  await t.test('a signal ends the wait, and then nobody stands there', async (t) => {
    for (const signal of ['SIGTERM', 'SIGKILL'] as const) {
      const index = count;
      await using waiting = waitingTree();
      const shell = shellIn(at(index), `exec cat ${GATE}`);
      const result = finished(shell);
      await waiting.reached;
      killProcess(shell.pid, signal);
      t.equal((await result).code, null, signal);
      await eventually('it has left', () => !waiting.isManned);
      t.throws(() => waiting.open(), /its container has gone/);
    }
  });

  await t.test('two who stand there both go on', async (t) => {
    const index = count;
    await using waiting = waitingTree();
    const shells = [1, 2].map(
      async () => await finished(shellIn(at(index), `cat ${GATE}; echo on`)),
    );
    await waiting.reached;
    waiting.open();
    for (const { stdout } of await Promise.all(shells)) t.equal(stdout, 'on\n');
  });

  await t.test('who is not its owner does not wait', async (t) => {
    const index = count;
    await using waiting = waitingTree({ uid: 1000, gid: 1000 });
    const { code, stderr } = await finished(shellIn(at(index), `exec cat ${GATE}`));
    t.equal(code, 1);
    t.match(stderr, /Permission denied/);
    t.equal(waiting.isManned, false);
  });

  await t.test('when it is removed the wait fails', async (t) => {
    const index = count;
    const waiting = waitingTree();
    const result = finished(shellIn(at(index), `exec cat ${GATE}`));
    await waiting.reached;
    await waiting[Symbol.asyncDispose]();
    const { code, stderr } = await result;
    t.equal(code, 1);
    t.match(stderr, /Stale file handle/);
  });
});
