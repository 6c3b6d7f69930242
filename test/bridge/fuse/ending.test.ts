import { type ChildProcess, spawn } from 'node:child_process';
import { join } from 'node:path';
import t from 'tap';
import { abortConnection, unmount } from '#bridge/fuse/mount.js';
import { ServedVolume } from '#test/fixtures/served-volume.js';
import { finished } from '#test/support/installation.js';
import { needsFuse } from '#test/support/machine.js';
import { FakeRuntime, runIn } from '#test/support/mounted.js';

/** How a mount ends: unmounted, detached while in use, aborted with a call under way. Each is told once, and nobody hangs. */
const options = needsFuse();

/** A process in `work` that has written output.json and waits in close(2) for a server that is silent. */
async function waiting(served: ServedVolume, runtime: FakeRuntime): Promise<ChildProcess> {
  served.bare.tree('tree', runtime);
  const child = spawn(
    '/bin/sh',
    [
      '-c',
      'cd "$0" && echo go && echo 1 | dd of=output.json status=none',
      join(served.mountPoint, 'tree/work'),
    ],
    { stdio: ['ignore', 'pipe', 'pipe'] },
  );
  await new Promise((resolve) => child.stdout.once('data', resolve));
  while (runtime.calls.length === 0) await new Promise((resolve) => setTimeout(resolve, 10));
  return child;
}

void t.test('unmounted: the session ends without an error', options, async (t) => {
  await using served = await ServedVolume.open();
  served.bare.tree('tree', new FakeRuntime());
  t.equal((await runIn('/', 'ls', [join(served.mountPoint, 'tree')])).code, 0);
  await unmount(served.mountPoint);
  t.equal(await served.ended, undefined);
});

void t.test('aborted with a close under way: it fails, the commit goes on', options, async (t) => {
  await using served = await ServedVolume.open();
  const runtime = new FakeRuntime();
  const release = runtime.hold();
  const child = await waiting(served, runtime);
  const result = finished(child);
  abortConnection(served.mountPoint);
  t.not((await result).code, 0, 'the waiting process has an error');
  t.equal(await served.ended, undefined, 'abort is an end like another');
  release();
  t.match((await runIn('/', 'ls', [join(served.mountPoint, 'tree')])).stderr, /not connected/);
  t.same(served.bare.errors, []);
});

void t.test(
  'detached while a call waits: it is still answered, then the session ends',
  options,
  async (t) => {
    await using served = await ServedVolume.open();
    const runtime = new FakeRuntime();
    const release = runtime.hold();
    const child = await waiting(served, runtime);
    const result = finished(child);
    await unmount(served.mountPoint); // in use: it is detached
    release();
    t.equal((await result).code, 0, 'its close is what it would have been');
    t.equal(await served.ended, undefined);
    t.same(runtime.calls, ['output 1']);
  },
);
