import { createHash } from 'node:crypto';
import t from 'tap';
import { isClean } from '#test/support/clean.js';
import { finished, TestInstallation } from '#test/support/installation.js';
import { needsMachine } from '#test/support/machine.js';

/** What happens at a limit: the right status, a sentence, and all that was committed until then. */
const options = await needsMachine();

const LINES = 1_000_000;
const SECRET = 'correct horse battery staple';

void t.test('limits', options, async (t) => {
  await using cronium = await TestInstallation.up(undefined, '--warm', '2');

  await t.test('a million lines come in order, and a secret in two writes is masked', async (t) => {
    await cronium.cronium(['var', 'set', 'pass', SECRET, '--string', '--secret', '--user=loud']);
    const script = cronium.script(
      'py',
      `
import sys
out, err = sys.stdout.buffer, sys.stderr.buffer
for start in range(0, ${LINES}, 1000):
    out.write(b''.join(b'line %d\\n' % i for i in range(start, start + 1000)))
    err.write(b'note %d\\n' % start)
    if start % 100000 == 0:
        for half in (b'${SECRET.slice(0, 9)}', b'${SECRET.slice(9)}'):
            out.write(half)
            out.flush()
        out.write(b'\\n')
`,
    );
    const child = cronium.spawn(['run', '--timeout=10m', '--user=loud', script]);
    let [next, secrets, rest, errors] = [0, 0, '', 0];
    const hash = createHash('sha256');
    child.stdout?.setEncoding('utf8').on('data', (chunk: string) => {
      const lines = (rest + chunk).split('\n');
      rest = lines.pop() ?? '';
      for (const line of lines)
        if (line === `line ${next}`) next++;
        else if (line === '*'.repeat(SECRET.length) || line === '***') secrets++;
        else {
          errors++;
          hash.update(line);
        }
    });
    let notes = '';
    child.stderr?.setEncoding('utf8').on('data', (chunk: string) => {
      notes += chunk;
    });
    const code = await new Promise((resolve) => child.on('close', resolve));
    t.equal(code, 0, notes.slice(-500));
    t.equal(next, LINES, 'every line, in order');
    t.equal(secrets, 10, 'every secret');
    t.equal(errors, 0, `no other line (${hash.digest('hex')})`);
    const found = [...notes.matchAll(/^note (\d+)$/gm)].map(([, n]) => Number(n));
    t.same(
      found,
      Array.from({ length: LINES / 1000 }, (_, i) => i * 1000),
      'of stderr, too',
    );
  });

  await t.test('a script that prints more than it may is stopped', async (t) => {
    const text = 'echo \'{"kept": 1}\' >output.json; yes';
    const script = cronium.script('sh', text);
    const { code, stdout, stderr } = await finished(
      cronium.spawn(['run', '--log-limit', '100k', script]),
    );
    t.equal(code, 1);
    t.equal(stdout, 'y\n'.repeat(51_200), 'what it may is shown');
    t.match(stderr, /^Warning: the script printed more than 102400 bytes and was stopped/m);
    t.match(stderr, /^killed after/m);
    t.match(stderr, /^output {5}\{"kept": ?1\}$/m);
    const both = await cronium.run('sh', 'echo 12345; echo 67890 >&2', '--log-limit', '12');
    t.match(both, { status: 'succeeded', stdout: '12345\n', stderr: '67890\n' }, 'just enough');
  });

  await t.test('a script that fails for want of room has the status disk-full', async (t) => {
    const text = (end: string) => `
import os, json
json.dump({'kept': 1}, open('output.json', 'w'))
try:
    fd = os.open('big', os.O_CREAT | os.O_RDWR)
    os.posix_fallocate(fd, 0, 2 << 30)
except OSError as e:
    print(e.errno)
    ${end}
`;
    const warning = /^Warning: a write was refused for want of room/;
    const failed = await cronium.run('py', text('raise'));
    t.match(failed, { status: 'disk-full', exitCode: 1, stdout: '28\n', output: { kept: 1 } });
    t.match(failed.warnings, [warning]);
    const { stdout } = await cronium.cronium(['exec', 'show', failed.executionId, '--json']);
    t.match(JSON.parse(stdout), { record: { status: 'disk-full' } }, 'the server knows it, too');
    const coped = await cronium.run('py', text('pass'));
    t.match(coped, { status: 'succeeded', exitCode: 0, output: { kept: 1 } });
    t.match(coped.warnings, [warning]);
    const other = await cronium.run('sh', 'exit 3');
    t.match(other, { status: 'failed', exitCode: 3, warnings: [] });
  });

  await t.test(
    'a number that was cut at the largest size of an output comes with a warning',
    async (t) => {
      const run = await cronium.run(
        'py',
        `
import os
fd = os.open('output.json', os.O_CREAT | os.O_WRONLY)
try:
    for _ in range(12):
        os.write(fd, b'1' * (1 << 20))
except OSError as e:
    print(e.errno)
os.close(fd)
`,
      );
      t.match(run, { status: 'succeeded', stdout: '27\n' });
      t.match(run.warnings, [
        /^Warning: output.json has 10485760 bytes, which is the most it may have/,
      ]);
    },
  );

  await isClean(t, cronium);
});
