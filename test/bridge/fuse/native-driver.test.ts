import { cpSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import t from 'tap';
import { abortConnection, mountedAt } from '#bridge/fuse/mount.js';
import { NativeDriver } from '#bridge/fuse/native-driver.js';
import { ExecutionTree } from '#bridge/vfs/execution-tree.js';
import { Volume } from '#bridge/vfs/volume.js';
import { BridgeError } from '#bridge/wire/errors.js';
import { needsFuse } from '#test/support/machine.js';
import { FakeRuntime, runIn, TestMount } from '#test/support/mounted.js';
import { isDocumented } from '#test/support/native-limits.js';

const options = needsFuse();
const silent = { info: () => {}, warn: () => {} };

/** A driver with its volume in this process, so that a test can look inside. */
class Bare implements AsyncDisposable {
  readonly directory = mkdtempSync(join(tmpdir(), 'cronium-native-'));
  readonly mountPoint = join(this.directory, 'mnt');
  readonly volume = new Volume(join(this.directory, 'backing'));
  readonly runtime = new FakeRuntime({ a: '1' });
  readonly driver: NativeDriver;
  readonly work = join(this.mountPoint, 'one/work');

  constructor() {
    mkdirSync(this.mountPoint);
    ExecutionTree.create(
      this.volume,
      join(this.directory, 'backing'),
      {
        id: 'one',
        uid: 1000,
        gid: 1000,
        quota: { bytesMax: 1e8, inodesMax: 1000 },
        input: '{}',
        event: '{}',
        variables: this.runtime.variables,
        merged: [],
        policy: { commit: 'live', exact: false, strict: false },
        files: [],
      },
      this.runtime,
    );
    this.driver = new NativeDriver(this.volume, this.mountPoint, silent);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.driver.close();
    rmSync(this.directory, { recursive: true, force: true });
  }
}

void t.test('the driver fuse-native', options, async (t) => {
  await t.test(
    'leaves no inode and no handle behind, and hides what is removed while open',
    async (t) => {
      await using bare = new Bare();
      await bare.driver.ready;
      const before = bare.volume.inodes.size;
      const { stdout, stderr } = await runIn(bare.work, 'python3', [
        '-c',
        `
import os
for i in range(50):
    os.mkdir('d'); f = open('d/x', 'w+'); f.write('text'); f.flush(); os.link('d/x', 'd/y'); os.symlink('x', 'd/l'); os.rename('d/y', 'd/z')
    open('over', 'w').close(); g = open('over'); os.rename('d/z', 'over'); g.close()
    os.unlink('d/x'); os.unlink('over'); assert sorted(os.listdir('d')) == ['l'], os.listdir('d')
    f.seek(0); assert f.read() == 'text' and os.fstat(f.fileno()).st_nlink == 0; f.truncate(2); assert os.fstat(f.fileno()).st_size == 2
    f.close(); os.unlink('d/l'); os.rmdir('d')
    e = os.open('.', os.O_RDONLY); os.listdir(e); os.close(e)
print(os.stat('variables.json').st_uid, os.listdir('.tmp'))
`,
      ]);
      t.equal(stderr, '');
      t.equal(stdout, '1000 []\n', 'what is made belongs to the directory’s owner');
      // RELEASE is asynchronous.
      for (let i = 0; i < 100 && bare.volume.inodes.size > before; i++)
        await new Promise((resolve) => setTimeout(resolve, 20));
      t.equal(bare.volume.inodes.size, before);
    },
  );

  await t.test('says when it was unmounted, and when it was aborted, from outside', async (t) => {
    await using unmounted = new Bare();
    await unmounted.driver.ready;
    // The driver itself may be looking at the mount just now.
    await runIn('/', 'sh', ['-c', 'until umount "$0"; do sleep 0.05; done', unmounted.mountPoint]);
    t.equal(await unmounted.driver.ended, undefined);
    await using aborted = new Bare();
    await aborted.driver.ready;
    abortConnection(aborted.mountPoint);
    t.equal(await aborted.driver.ended, undefined);
    await aborted.driver.close();
    t.equal(mountedAt(aborted.mountPoint), undefined);
  });

  await t.test('a mount that cannot be made is an error with a next step', async (t) => {
    const backing = mkdtempSync(join(tmpdir(), 'cronium-native-'));
    const driver = new NativeDriver(new Volume(backing), '/proc/self/status', silent);
    t.match(await driver.ended, {
      code: 'unavailable',
      message: /cannot mount \/proc\/self\/status/,
    });
    await driver.close();
    rmSync(backing, { recursive: true });
  });

  await t.test(
    'a rename that is refused has removed the open file it was to replace',
    async (t) => {
      t.ok(isDocumented('rename(2) onto an open file, refused'));
      await using mount = await TestMount.open({ driver: 'fuse-native' });
      const runtime = new FakeRuntime();
      await using tree = await mount.tree(runtime);
      await tree.bash(`echo 1 > output.json; echo 2 > t`);
      runtime.failure = new BridgeError('quota', 'refused');
      const kept = await tree.bash(`mv t output.json 2>/dev/null; echo *; cat output.json`);
      t.equal(
        kept.stdout,
        'event.json input.json output.json t variables.json\n1\n',
        'not when it is closed',
      );
      const lost = await tree.bash(
        `exec 3< output.json; mv t output.json 2>/dev/null; echo *; cat <&3`,
      );
      t.equal(lost.stdout, 'event.json input.json t variables.json\n1\n');
    },
  );

  await t.test('children of the serving process inherit its /dev/fuse', async (t) => {
    t.ok(isDocumented('keeping /dev/fuse to itself'));
    await using bare = new Bare();
    await bare.driver.ready;
    const { stdout } = await runIn('/', 'sh', ['-c', 'ls -l /proc/self/fd']);
    t.match(stdout, /-> \/dev\/fuse\n/);
  });
});

void t.test('a missing or unfit package is an error with a next step', async (t) => {
  const dist = fileURLToPath(new URL('../../../', import.meta.url));
  const copy = mkdtempSync(join(tmpdir(), 'cronium-native-'));
  try {
    for (const file of [
      'bridge/fuse/fuse-native.js',
      'bridge/fuse/mount.js',
      'bridge/wire/errors.js',
      'bridge/wire/limits.js',
    ]) {
      mkdirSync(dirname(join(copy, 'dist', file)), { recursive: true });
      cpSync(join(dist, file), join(copy, 'dist', file));
    }
    cpSync(join(dist, '../package.json'), join(copy, 'package.json'));
    const attempt = async () =>
      await runIn(copy, process.execPath, [
        '--input-type=module',
        '-e',
        `import { loadFuseNative } from './dist/bridge/fuse/fuse-native.js';
         try { loadFuseNative(); console.log('loaded'); } catch ({ name, code, message }) { console.log(name, code, message); }`,
      ]);
    t.match(
      (await attempt()).stdout,
      /^BridgeError unavailable the package fuse-native is not installed: install it with/,
    );
    const fake = join(copy, 'node_modules/fuse-native');
    mkdirSync(fake, { recursive: true });
    writeFileSync(join(fake, 'package.json'), '{"name": "fuse-native", "main": "index.js"}');
    writeFileSync(join(fake, 'index.js'), 'throw new Error("No native build was found");');
    t.match(
      (await attempt()).stdout,
      /^BridgeError unavailable fuse-native does not load on this machine \(No native build was found\): install libfuse 2/,
    );
  } finally {
    rmSync(copy, { recursive: true });
  }
});
