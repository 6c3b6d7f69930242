import { setTimeout as sleep } from 'node:timers/promises';
import t from 'tap';
import { BridgeError } from '#bridge/wire/errors.js';
import { eventually } from '#test/support/installation.js';
import { needsFuse } from '#test/support/machine.js';
import { FakeRuntime, TestMount } from '#test/support/mounted.js';

/** What exactly is committed, in which order, and how often, when things come in between. Each test tells what once went wrong. */
const options = needsFuse();

/** An edit as text: what is set, deleted, and what was read of it. */
const shown = ({ edits }: FakeRuntime) =>
  edits.map(({ set, delete: deleted, bases }) => {
    const short = ([key, text]: readonly [string, string | null]) => `${key}=${text?.slice(0, 8)}`;
    return `${set.map(short).join(' ')} | ${deleted.join(' ')} | ${bases.map(short).join(' ')}`;
  });

const EDIT = `
import json, os, sys
def edit(change):
    d = json.load(open('variables.json')); change(d)
    with open('variables.json', 'w') as f: json.dump(d, f)
`;

void t.test('commits', options, async (t) => {
  await using mount = await TestMount.open();

  for (const size of [100, 400_000])
    await t.test(
      `a reader beside a commit under way builds on what is being written (${size} bytes)`,
      async (t) => {
        // With a large document everything it had read was set again, over what others had set meanwhile.
        const runtime = new FakeRuntime({
          counter: '10',
          shared: '"old"',
          pad: JSON.stringify('x'.repeat(size)),
        });
        const release = runtime.hold();
        await using tree = await mount.tree(runtime, { merged: ['counter'] });
        const first = tree.python(`${EDIT}edit(lambda d: d.update(p1=1))`);
        await eventually('its commit is under way', () => runtime.edits.length === 1);
        const second = tree.python(`${EDIT}edit(lambda d: d.update(counter=d['counter'] + 1))`);
        await sleep(500); // the second has read; of a large document it is stored after the first
        release();
        await Promise.all([first, second]);
        t.same(shown(runtime), ['p1=1 |  | ', 'counter=11 |  | counter=10']);
      },
    );

  await t.test('a reader that opens while the file is empty still adds one, not all', async (t) => {
    const runtime = new FakeRuntime({ counter: '10', p: '0' });
    await using tree = await mount.tree(runtime, { merged: ['counter'] });
    const { code, stderr } = await tree.python(`
import json, os, subprocess, sys
d = json.load(open('variables.json')); d['p'] = 1
f = os.open('variables.json', os.O_WRONLY | os.O_TRUNC)
p = subprocess.Popen([sys.executable, '-c', '''
import json, os, sys
fd = os.open('variables.json', os.O_RDONLY); print('opened', flush=True); sys.stdin.readline()
d = json.loads(os.read(fd, 100000)); os.close(fd); d['counter'] += 1
fd = os.open('variables.json', os.O_WRONLY | os.O_TRUNC); os.write(fd, json.dumps(d).encode()); os.close(fd)
'''], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
p.stdout.readline(); os.write(f, json.dumps(d).encode()); os.close(f); p.stdin.write(b'go\\n'); p.stdin.flush(); p.wait()`);
    t.equal(code, 0, stderr);
    t.match(shown(runtime)[1], /^counter=11.* \|  \| counter=10$/);
  });

  await t.test(
    'a commit whose answer was lost is made again as it was, before any other',
    async (t) => {
      // Under a new id and the old base one change was merged twice.
      const runtime = new FakeRuntime({ counter: '10' });
      runtime.failure = new BridgeError('timeout', 'no answer');
      await using tree = await mount.tree(runtime, { merged: ['counter'] });
      const { stdout } = await tree.python(`${EDIT}
try: edit(lambda d: d.update(counter=d['counter'] + 1))
except OSError as e: print(e.errno)`);
      t.equal(stdout, '110\n');
      runtime.failure = undefined;
      await tree.python(`${EDIT}edit(lambda d: d.update(counter=d['counter'] + 1, other=1))`);
      await tree.mounted.finish(true);
      t.same(shown(runtime), [
        'counter=11 |  | counter=10',
        'counter=11 |  | counter=10',
        'counter=12 other=1 |  | counter=11',
      ]);
      const [lost, again, next] = runtime.edits.map(({ id }) => id);
      t.equal(again, lost);
      t.not(next, lost);
    },
  );

  await t.test('what was unsettled when the script ended is settled then', async (t) => {
    const runtime = new FakeRuntime({ a: '1' });
    runtime.failure = new BridgeError('unavailable', 'away');
    await using tree = await mount.tree(runtime);
    await tree.bash(`echo '{"a": 2}' > variables.json; rm variables.json`);
    runtime.failure = undefined;
    const { variables } = await tree.mounted.finish(true);
    t.same(variables.set, [['a', '2']]);
    t.equal(new Set(runtime.edits.map(({ id }) => id)).size, 1);
  });

  await t.test(
    'on-success: what could not be committed at the end is refused at the close',
    async (t) => {
      // It was kept in memory and written to the disk without any limit: the mount went down for everybody.
      const runtime = new FakeRuntime({ a: '1' });
      await using tree = await mount.tree(runtime, {
        policy: { commit: 'on-success', exact: false, strict: false },
      });
      const { stdout } = await tree.python(`
import errno
for i in range(4):
    try:
        with open('variables.json', 'w') as f: f.write('{"k%d": "%s", "__updated__": "2026-01-01T00:00:00+00:00"}' % (i, 'x' * 9_000_000))
        print('ok')
    except OSError as e: print(errno.errorcode[e.errno])`);
      t.equal(stdout, 'ok\nok\nEDQUOT\nEDQUOT\n');
      await tree.mounted.finish(true);
      t.same(
        runtime.edits.at(-1)?.set.map(([key]) => key),
        ['k0', 'k1'],
      );
    },
  );

  await t.test('on-success: a merged key that was deleted and then set starts anew', async (t) => {
    const runtime = new FakeRuntime({ counter: '10' });
    await using tree = await mount.tree(runtime, {
      merged: ['counter'],
      policy: { commit: 'on-success', exact: false, strict: false },
    });
    await tree.bash(`
      cat variables.json > /dev/null; echo '{}' > variables.json
      cat variables.json > /dev/null; echo '{"counter": 5}' > variables.json`);
    await tree.mounted.finish(true);
    t.same(shown(runtime), ['counter=5 | counter | counter=undefined']);
  });

  await t.test(
    'a small output that was closed later is stored later than a large one',
    async (t) => {
      const runtime = new FakeRuntime();
      await using tree = await mount.tree(runtime);
      await tree.python(`
import threading, time
big = open('output.json', 'w'); big.write('[' + ','.join('"%020d"' % i for i in range(350_000)) + ']'); big.flush()
closer = threading.Thread(target=big.close); closer.start()
time.sleep(0.02)
with open('small', 'w') as f: f.write('"small"')
import os; os.rename('small', 'output.json'); closer.join()`);
      const { output } = await tree.mounted.finish(true);
      t.equal(output, '"small"');
      t.equal(runtime.calls.at(-1), 'output "small"');
    },
  );

  await t.test(
    'a symbolic link at the end leads to what counts, stored before or not',
    async (t) => {
      const runtime = new FakeRuntime();
      await using tree = await mount.tree(runtime);
      await tree.bash(
        'echo 1 > output.json; mv output.json a.json; echo 2 > output.json; ln -sf a.json output.json',
      );
      t.equal((await tree.mounted.finish(true)).output, '1');
    },
  );

  await t.test(
    'strict: an output that was spoilt and refused is none, and its text is kept',
    async (t) => {
      const runtime = new FakeRuntime();
      await using tree = await mount.tree(runtime, {
        policy: { commit: 'live', exact: false, strict: true },
      });
      await tree.bash('echo 1 > output.json; echo more >> output.json');
      const outcome = await tree.mounted.finish(true);
      t.match(outcome, { output: null, rawOutput: '1\nmore\n' });
      t.equal(outcome.warnings.length, 1);
    },
  );

  await t.test(
    'names nobody could use are refused at the close; any other is kept as it is',
    async (t) => {
      const runtime = new FakeRuntime();
      await using tree = await mount.tree(runtime);
      const { stdout } = await tree.python(`
import errno
for text in ('{"": 1}', '{"a\\\\nb": 1}', '{"k": NaN}', '{"k": Infinity}', '{"k": 1} // x', '\ufeff{"k": 1}', '{"k": ', '{"__proto__": 1, "constructor": 2, "ü \\\\"": 3}'):
    try:
        with open('variables.json', 'w') as f: f.write(text)
        print('ok')
    except OSError as e: print(errno.errorcode[e.errno])`);
      t.equal(stdout, 'EINVAL\nEINVAL\nok\nok\nok\nok\nok\nok\n');
      const { warnings } = await tree.mounted.finish(true);
      t.same(shown(runtime), ['__proto__=1 constructor=2 ü "=3 |  | ']);
      t.match(warnings, [/variable "": a variable key cannot be empty/, /variable "a\\nb"/]);
    },
  );

  await t.test('reserving room in variables.json changes nothing of it', async (t) => {
    const runtime = new FakeRuntime({ a: '1' });
    await using tree = await mount.tree(runtime);
    await tree.bash('fallocate -n -l 4096 variables.json');
    tree.mounted.changed(runtime.change('a', '"news"'));
    await eventually('a push still shows', async () => {
      return (await tree.bash('cat variables.json')).stdout.includes('news');
    });
    t.same(runtime.edits, []);
  });
});
