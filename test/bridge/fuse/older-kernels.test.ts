import { join } from 'node:path';
import t from 'tap';
import { INIT_BITS } from '#bridge/fuse/abi.js';
import type { InitFlag } from '#bridge/fuse/session.js';
import { ServedVolume } from '#test/fixtures/served-volume.js';
import { eventually } from '#test/support/installation.js';
import { needsFuse } from '#test/support/machine.js';
import { FakeRuntime, runIn } from '#test/support/mounted.js';

/**
 * The oldest kernel we serve is Linux 5.4 (protocol 7.31). What later ones added is negotiated; here the running kernel is
 * told that we do without, and then behaves as an older one does. The answers must not change.
 */
const options = needsFuse();

/** Bits that Linux 5.4 does not have, include/uapi/linux/fuse.h: from 7.33 (KILLPRIV_V2), 7.36 (INIT_EXT) and later on. */
const NEWER_THAN_5_4: readonly InitFlag[] = [
  'HANDLE_KILLPRIV_V2',
  'INIT_EXT',
  'DIRECT_IO_ALLOW_MMAP',
  'NO_EXPORT_SUPPORT',
  'HAS_RESEND',
];

const SCRIPT = `
import hashlib, json, mmap, os, subprocess
print(json.load(open('variables.json')), sorted(os.listdir('.')))
with open('variables.json', 'w') as f: json.dump({'a': 2, 'b': [1.50]}, f)
fd = os.open('variables.json', os.O_RDWR | os.O_TRUNC); os.write(fd, b'{"a": 3}'); os.close(fd); print(open('variables.json').read())
data = bytes(range(256)) * 12288; open('big', 'wb').write(data); print(hashlib.sha1(open('big', 'rb').read()).hexdigest() == hashlib.sha1(data).hexdigest())
fd = os.open('big', os.O_RDWR); m = mmap.mmap(fd, 8192); m[0:3] = b'map'; m.flush(); print(os.pread(fd, 5, 0)); os.close(fd)
open('s', 'w').close(); os.chmod('s', 0o4755)
if os.fork() == 0: os.setuid(1000); os._exit(0)
os.wait(); os.chown('s', 1000, 1000); print(oct(os.stat('s').st_mode)); os.chmod('s', 0o6777)
pid = os.fork()
if pid == 0: os.setgid(77); os.setuid(77); open('s', 'a').write('x'); os._exit(0)
os.waitpid(pid, 0); print(oct(os.stat('s').st_mode), os.stat('s').st_size)
os.mkdir('d')
for i in range(300): open('d/%d' % i, 'w').write('x' * i)
print(len(os.listdir('d')), sum(e.stat().st_size for e in os.scandir('d'))); open('s', 'w').write('short'); print(os.stat('s').st_size)
os.rename('s', 'output.json')
`;
const EXPECTED = `{'a': 1} ['.tmp', 'event.json', 'input.json', 'variables.json']
{"a": 3}
True
b'map\\x03\\x04'
0o100755
0o100777 1
300 44850
5
`;

const OPTIONAL = (Object.keys(INIT_BITS) as InitFlag[]).filter((flag) => flag !== 'ATOMIC_O_TRUNC');

const CASES: Readonly<Record<string, readonly InitFlag[]>> = {
  'all it offers': [],
  'what Linux 5.4 has': NEWER_THAN_5_4,
  'nothing but what we need': OPTIONAL,
  ...Object.fromEntries(OPTIONAL.map((flag) => [`no ${flag}`, [flag]])),
};

void t.test('a kernel without what we need is refused, with the reason', options, async (t) => {
  await t.rejects(ServedVolume.open({ without: ['ATOMIC_O_TRUNC'] }), {
    message: /without ATOMIC_O_TRUNC: Linux 5.4 or later is needed/,
  });
});

for (const [what, without] of Object.entries(CASES)) {
  void t.test(`a kernel with ${what} gives the same answers`, options, async (t) => {
    await using served = await ServedVolume.open({ without });
    const runtime = new FakeRuntime({ a: '1' });
    const tree = served.bare.tree('tree', runtime);
    const work = join(served.mountPoint, 'tree/work');
    const { stdout, stderr } = await runIn(work, 'python3', ['-c', SCRIPT]);
    t.equal(stdout, EXPECTED, stderr);
    t.same(runtime.calls, ['variables a=2 b=[1.5]', 'variables a=3 -b'], 'the same commits');
    tree.documents.changed(runtime.change('a', '"pushed"'));
    await eventually('a push shows', async () => {
      return (await runIn(work, 'cat', ['variables.json'])).stdout === '{\n  "a": "pushed"\n}';
    });
    t.same(served.bare.errors, []);
    await tree[Symbol.asyncDispose]();
  });
}
