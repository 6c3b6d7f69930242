import { spawn } from 'node:child_process';
import t from 'tap';
import { DRIVERS } from '#bridge/wire/control.js';
import { BridgeError } from '#bridge/wire/errors.js';
import { eventually, finished } from '#test/support/installation.js';
import { needsFuse } from '#test/support/machine.js';
import { FakeRuntime, TestMount } from '#test/support/mounted.js';
import { isDocumented, type NativeLimit } from '#test/support/native-limits.js';

const options = needsFuse();

/** The ways of replacing a file that fuse-native refuses: a listed one that works there fails the test. */
const NATIVE_CANNOT: Readonly<Record<string, NativeLimit>> = {
  mmap: { row: 'mmap(2) with MAP_SHARED', prints: /No such device/ },
};

/** The test of signals below asserts it; with the kernel driver a dying caller is answered at once. */
const NO_INTERRUPTS = 'interrupting a call that waits';

/** The test of sibling processes asserts it: all processes of an execution share one base. */
const NO_IDENTITY = 'the caller’s pid';

void t.test('what fuse-native cannot do is documented', async (t) => {
  for (const { row } of Object.values(NATIVE_CANNOT)) t.ok(isDocumented(row), row);
  for (const row of [NO_INTERRUPTS, NO_IDENTITY]) t.ok(isDocumented(row), row);
});

for (const driver of DRIVERS)
  void t.test(`the five files on a real mount, driver ${driver}`, options, async (t) => {
    await using mount = await TestMount.open({ driver });

    await t.test(
      'what is written is committed at close, and never at the empty close before it',
      async (t) => {
        const runtime = new FakeRuntime();
        await using tree = await mount.tree(runtime);
        await tree.bash(
          `echo '{"n": 1.0}' > output.json; echo '{"a": 1}' > variables.json; echo '{"condition": "false"}' > condition.json`,
        );
        t.same(runtime.calls, ['output {"n": 1.0}', 'variables a=1', 'condition true']);
      },
    );

    await t.test(
      'variables.json is one member a line in stored order, and reads back as written',
      async (t) => {
        await using tree = await mount.tree(
          new FakeRuntime({ b: '1.0', a: '"x"', c: '{"deep": [1]}' }),
        );
        const { stdout } = await tree.bash(
          `cat variables.json; echo; echo '{ "z":1 }' > variables.json; cat variables.json`,
        );
        t.equal(stdout, '{\n  "b": 1.0,\n  "a": "x",\n  "c": {"deep": [1]}\n}\n{ "z":1 }\n');
      },
    );

    await t.test('every way of replacing a file ends in the same commit', async (t) => {
      const ways: Record<string, string> = {
        'write in place': `echo '{"k":1}' > variables.json`,
        'write and rename': `echo '{"k":1}' > t; mv t variables.json`,
        'hard link': `rm variables.json; echo '{"k":1}' > t; ln t variables.json`,
        'remove and create': `rm variables.json; echo '{"k":1}' > variables.json`,
        append: `printf '{' > variables.json; printf '"k"' >> variables.json; printf ':1}' >> variables.json`,
        'truncate and write': `truncate -s 0 variables.json; echo '{"k":1}' >> variables.json`,
        'sed -i': `echo '{"k":2}' > variables.json; sed -i s/2/1/ variables.json`,
        'jq and mv': `jq '.k=1' variables.json > t && mv t variables.json`,
        'cp over': `echo '{"k":1}' > t; cp t variables.json`,
        'through /cronium': `echo '{"k":1}' > ../variables.json`,
        'renamed in /cronium': `echo '{"k":1}' > output.json; mv ../output.json ../variables.json`,
        dd: `printf '{"k":1}' | dd of=variables.json status=none`,
        'python r+': `python3 -c "f=open('variables.json','r+'); f.seek(0); f.truncate(); f.write('{\\"k\\":1}'); f.close()"`,
        'os.replace': `python3 -c "import os; open('t','w').write('{\\"k\\":1}'); os.replace('t','variables.json')"`,
        fsync: `python3 -c "import os; f=open('variables.json','w'); f.write('{\\"k\\":1}'); f.flush(); os.fsync(f.fileno()); os._exit(0)"`,
        mmap: `python3 -c "
import mmap, os
fd = os.open('variables.json', os.O_RDWR); os.ftruncate(fd, 7); m = mmap.mmap(fd, 7); os.close(fd); m[:] = b'{\\"k\\":1}'; m.close()"`,
      };
      for (const [name, script] of Object.entries(ways)) {
        const limit = driver === 'fuse-native' ? NATIVE_CANNOT[name] : undefined;
        await t.test(limit === undefined ? name : `${name}: not here`, async (t) => {
          const runtime = new FakeRuntime();
          await using tree = await mount.tree(runtime);
          const { stderr, code } = await tree.bash(script);
          await tree.mounted.finish(true);
          if (limit === undefined) {
            t.equal(code, 0, stderr);
            t.equal(runtime.values.get('k'), '1');
          } else {
            t.not(code, 0, 'it still cannot');
            t.match(stderr, limit.prints, limit.row);
            t.not(runtime.values.get('k'), '1');
          }
        });
      }
    });

    await t.test(
      'a symbolic link at a legacy name counts for what it leads to at the end',
      async (t) => {
        const runtime = new FakeRuntime();
        await using tree = await mount.tree(runtime);
        await tree.bash(
          `mkdir d; ln -s d/real output.json; echo '[1]' > output.json; ln -s /etc/passwd condition.json`,
        );
        t.match(await tree.mounted.finish(true), { output: '[1]', condition: null });
      },
    );

    await t.test('a deleted file commits nothing', async (t) => {
      const runtime = new FakeRuntime({ a: '1' });
      await using tree = await mount.tree(runtime);
      await tree.bash(
        'rm variables.json; exec 3> output.json; rm output.json; echo 1 >&3; exec 3>&-',
      );
      t.match(await tree.mounted.finish(true), { output: null, warnings: [] });
      t.same(runtime.calls, []);
      t.equal(runtime.values.get('a'), '1');
    });

    await t.test('omission is deletion, but only of what the script had read', async (t) => {
      const runtime = new FakeRuntime({ a: '1', b: '2' });
      await using tree = await mount.tree(runtime);
      const child = tree.bash(
        `read -r -d '' seen < <(cat variables.json); touch seen; until [ -e go ]; do sleep 0.02; done; echo '{"a": 1}' > variables.json; cat variables.json`,
      );
      await waitForFile(tree.work, 'seen');
      tree.mounted.changed(runtime.change('c', '3')); // somebody else, after the script read
      await tree.bash('touch go');
      const { stdout } = await child;
      t.same(runtime.calls, ['variables -b'], 'b was read and left out; c was never seen');
      t.equal(stdout, '{\n  "a": 1,\n  "c": 3\n}', 'and what others added shows at the next open');
    });

    await t.test(
      'a pushed change shows at the next open; who has the old file open keeps reading that',
      async (t) => {
        const runtime = new FakeRuntime({ a: '1' });
        await using tree = await mount.tree(runtime);
        const child = tree.bash(
          `exec 3< variables.json; cat variables.json > /dev/null; touch ready; until [ -e go ]; do sleep 0.02; done; cat <&3; cat variables.json ../variables.json; stat -c %s variables.json`,
        );
        await waitForFile(tree.work, 'ready');
        tree.mounted.changed(runtime.change('a', '"longer than before"'));
        await tree.bash('touch go');
        const { stdout } = await child;
        const fresh = '{\n  "a": "longer than before"\n}';
        t.equal(stdout, `{\n  "a": 1\n}${fresh}${fresh}${fresh.length}\n`);
      },
    );

    await t.test('two writers at once each commit their own document', async (t) => {
      const runtime = new FakeRuntime({ base: '0' });
      await using tree = await mount.tree(runtime);
      await tree.python(`
import os
a = os.open('variables.json', os.O_WRONLY | os.O_TRUNC); os.write(a, b'{"base":0,"first":')
b = os.open('variables.json', os.O_WRONLY | os.O_TRUNC); os.write(b, b'{"base":0,"second":2}')
os.write(a, b'1}'); os.close(a); os.close(b)`);
      t.same(
        [...runtime.values],
        [
          ['base', '0'],
          ['first', '1'],
          ['second', '2'],
        ],
      );
      t.equal((await tree.bash('jq -c "[.first, .second]" variables.json')).stdout, '[1,2]\n');
    });

    await t.test(
      'the bash helper without jq sets one key and does not delete the others',
      async (t) => {
        const runtime = new FakeRuntime({ a: '1', b: '2' });
        await using tree = await mount.tree(runtime);
        await tree.bash(
          `cat variables.json >/dev/null; echo '{"c": "3", "__updated__": "2026-01-01T00:00:00+00:00"}' > variables.json`,
        );
        t.same(runtime.calls, ['variables c="3"']);
        t.match(
          (await tree.bash('cat variables.json')).stdout,
          /"a": 1,\n {2}"b": 2,\n {2}"c": "3",\n {2}"__updated__": "2026/,
        );
      },
    );

    await t.test(
      'a refused commit is close(2)’s error, and the text stays for a second try',
      async (t) => {
        const runtime = new FakeRuntime();
        await using tree = await mount.tree(runtime);
        const attempt = `
import errno, os
fd = os.open('output.json', os.O_WRONLY | os.O_CREAT); os.write(fd, b'1')
for _ in range(2):
    try: os.close(os.dup(fd)); print('ok')
    except OSError as e: print(errno.errorcode[e.errno])
print(open('output.json').read())`;
        const codes = {
          quota: 'EDQUOT',
          unavailable: 'ETIMEDOUT',
          denied: 'EACCES',
          no_space: 'ENOSPC',
          token_expired: 'EKEYEXPIRED',
        } as const;
        for (const [code, name] of Object.entries(codes)) {
          runtime.failure = new BridgeError(code as keyof typeof codes, 'refused');
          t.equal((await tree.python(attempt)).stdout, `${name}\n${name}\n1\n`);
        }
        runtime.failure = undefined;
        t.equal((await tree.python(attempt)).stdout, 'ok\nok\n1\n');
        t.match(await tree.mounted.finish(true), {
          output: '1',
          warnings: [/Warning: Failed to store output\.json: refused/],
        });
      },
    );

    await t.test(
      driver === 'kernel'
        ? 'while the server is silent a writer waits, a signal does not tear its close, SIGKILL frees it at once'
        : 'while the server is silent a writer waits, a signal does not tear its close, and not even SIGKILL frees it',
      async (t) => {
        const runtime = new FakeRuntime();
        const open = runtime.hold();
        await using tree = await mount.tree(runtime);
        const program = `
import os, signal, sys
signal.signal(signal.SIGUSR1, lambda *_: print('signalled', flush=True))
fd = os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT); os.write(fd, b'{"condition":1}'); print('closing', flush=True)
os.close(fd); print('closed', flush=True)`;
        const writer = (name: string) =>
          spawn(
            '/bin/sh',
            ['-c', 'cd "$0" && exec python3 -c "$1" "$2"', tree.work, program, name],
            {
              stdio: ['ignore', 'pipe', 'inherit'],
            },
          );
        const patient = writer('output.json');
        const doomed = writer('condition.json');
        const results = [finished(patient), finished(doomed)];
        await eventually('both wait for the server', () => runtime.calls.length === 2);
        t.equal(
          (await tree.bash('echo other > file; cat file')).stdout,
          'other\n',
          'others go on meanwhile',
        );
        patient.kill('SIGUSR1');
        doomed.kill('SIGKILL');
        if (driver === 'fuse-native') {
          const silence = new Promise((resolve) => setTimeout(resolve, 1500, 'still there'));
          t.equal(await Promise.race([results[1], silence]), 'still there', NO_INTERRUPTS);
          open();
        }
        t.match(
          await results[1],
          { code: null, stdout: 'closing\n' },
          'the killed one is gone, with the kernel driver while the server is still silent',
        );
        open();
        const alive = await results[0];
        t.match(
          alive,
          { code: 0, stdout: /^closing\n(signalled\nclosed|closed\nsignalled)\n$/ },
          'the patient one was not told an error',
        );
      },
    );

    await t.test(
      'output and condition: what is not valid is kept, and said at the end',
      async (t) => {
        const runtime = new FakeRuntime();
        await using tree = await mount.tree(runtime);
        await tree.bash(
          `echo 'not json' > output.json; echo true > condition.json; echo '[1]' > variables.json`,
        );
        const outcome = await tree.mounted.finish(true);
        t.match(outcome, { output: null, rawOutput: 'not json\n', condition: null });
        t.match(
          outcome.warnings.join('\n'),
          /Failed to parse output\.json: [^]*Failed to parse condition\.json|Failed to persist variable changes: variables\.json is not a JSON object/,
        );
        t.equal(outcome.warnings.length, 3);
        t.same(runtime.calls, []);
      },
    );

    await t.test('only the five names may be made in /cronium itself', async (t) => {
      await using tree = await mount.tree(new FakeRuntime());
      const { stdout } = await tree.bash(`
      cd ..; for c in 'touch x' 'mkdir x' 'mkdir output.json' 'rmdir work' 'mv work w' 'ln work/input.json i'; do $c 2>/dev/null && echo "$c"; done
      touch output.json && ls work/output.json; rm work/output.json; ls output.json 2>/dev/null; ls -a work | grep -c json`);
      t.equal(stdout, 'work/output.json\n3\n');
    });

    await t.test(
      driver === 'kernel'
        ? 'a sibling process that rewrites what it read earlier deletes nothing that came since'
        : 'a sibling process that rewrites what it read earlier deletes what came since',
      async (t) => {
        const runtime = new FakeRuntime({ a: '1' });
        await using tree = await mount.tree(runtime);
        const { stderr } = await tree.bash(`
          (cat variables.json > /dev/null; touch read; until [ -e wrote ]; do sleep 0.02; done; echo '{"a":1,"d":4}' > variables.json) &
          (until [ -e read ]; do sleep 0.02; done; cat variables.json > /dev/null; echo '{"a":1,"c":3}' > variables.json; touch wrote) & wait`);
        t.equal(stderr, '');
        const kept = driver === 'kernel' ? ['a', 'c', 'd'] : ['a', 'd'];
        t.same([...runtime.values.keys()], kept, driver === 'kernel' ? '' : NO_IDENTITY);
      },
    );

    await t.test(
      'a reader whose file is rewritten between its open and its read deletes nothing',
      async (t) => {
        const runtime = new FakeRuntime({ a: '1', b: '2' });
        await using tree = await mount.tree(runtime);
        // Once, eight writers at once in one script lost a key this way.
        const { stderr } = await tree.python(`
import os
reader = os.open('variables.json', os.O_RDONLY)
writer = os.open('variables.json', os.O_WRONLY | os.O_TRUNC); os.write(writer, b'{"a":1')
os.read(reader, 1000); os.close(reader); os.close(writer)
w = os.open('variables.json', os.O_WRONLY | os.O_TRUNC); os.write(w, b'{"a":1,"c":3}'); os.close(w)`);
        t.equal(stderr, '');
        t.same([...runtime.values.keys()], ['a', 'b', 'c']);
      },
    );
  });

async function waitForFile(directory: string, name: string): Promise<void> {
  const child = spawn('/bin/sh', [
    '-c',
    'until [ -e "$0/$1" ]; do sleep 0.02; done',
    directory,
    name,
  ]);
  await finished(child);
}
