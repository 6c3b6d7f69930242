import t from 'tap';
import { TestInstallation } from '#test/support/installation.js';
import { needsMachine } from '#test/support/machine.js';

/** One legacy script a language, all doing the same: no line knows of containers, mounts or servers. */
const SCRIPTS = {
  sh: `
name=$(cronium_input | jq -r .name)
echo "hello $name from event $(cronium_event | jq -r .name)"
echo "to stderr" >&2
before=$(cronium_getVariable visits)
cronium_setVariable visits "$(( \${before:-0} + 1 ))" > /dev/null
cronium_output "{\\"greeted\\": \\"$name\\", \\"visit\\": $(cronium_getVariable visits)}"
cronium_setCondition true > /dev/null
`,
  py: `
import sys
name = cronium.input()['name']
print('hello', name, 'from event', cronium.event()['name'])
print('to stderr', file=sys.stderr)
visits = int(cronium.getVariable('visits') or 0) + 1
cronium.setVariable('visits', visits)
cronium.output({'greeted': name, 'visit': cronium.getVariable('visits')})
cronium.setCondition(True)
`,
  js: `
const { name } = cronium.input();
console.log('hello', name, 'from event', cronium.event().name);
console.error('to stderr');
const visits = Number(cronium.getVariable('visits') ?? 0) + 1;
cronium.setVariable('visits', visits);
cronium.output({ greeted: name, visit: cronium.getVariable('visits') });
cronium.setCondition(true);
`,
} as const;

const options = await needsMachine();

void t.test('an unmodified legacy script does its whole job in a container', options, async (t) => {
  await using cronium = await TestInstallation.up(undefined, '--warm', '2');

  for (const [extension, text] of Object.entries(SCRIPTS)) {
    const run = async () =>
      await cronium.run(
        extension,
        text,
        '--user',
        `user-${extension}`,
        '--input',
        '{"name": "Ada"}',
        '--event',
        '{"name": "nightly"}',
      );
    await t.test(
      `${extension}: input and event come in, output, condition and variables go out`,
      async (t) => {
        const first = await run();
        t.match(first, {
          status: 'succeeded',
          exitCode: 0,
          signal: null,
          stdout: 'hello Ada from event nightly\n',
          stderr: 'to stderr\n',
          output: { greeted: 'Ada', visit: 1 },
          condition: true,
          warnings: [],
        });
        t.same(Object.keys(first.variables.set), ['visits']);
        t.same(first.variables.deleted, []);
      },
    );
    await t.test(`${extension}: the second run sees what the first one stored`, async (t) => {
      const second = await run();
      t.match(second, { status: 'succeeded', output: { greeted: 'Ada', visit: 2 } });
      const shown = await cronium.cronium(['exec', 'show', second.executionId, '--json']);
      t.match(JSON.parse(shown.stdout), {
        record: { status: 'succeeded', runtime: String },
        output: { greeted: 'Ada', visit: 2 },
        condition: true,
      });
    });
  }

  await t.test(
    'event.json has exactly the keys scripts were promised, in their order',
    async (t) => {
      const { stdout } = await cronium.run(
        'js',
        'console.log(Object.keys(cronium.event()).join())',
      );
      t.equal(
        stdout.trim(),
        'id,name,description,type,runLocation,createdAt,updatedAt,userId,server,successCount,failureCount,lastRunAt',
      );
    },
  );

  await t.test(
    'the environment is the contract’s, and the launch leaves no trace in it',
    async (t) => {
      const names = (text: string) => text.trim().split('\n').sort().join(' ');
      const expected = 'HOME LANG MINE PATH TMPDIR TZ';
      const bash = await cronium.run('sh', 'env | cut -d= -f1', '--env', 'MINE=1');
      t.equal(
        names(bash.stdout.replace(/^(PWD|SHLVL|_)\n/gm, '')),
        expected,
        'bash, which adds three of its own',
      );
      const python = await cronium.run(
        'py',
        "import os\nprint(*os.environ, sep='\\n')",
        '--env',
        'MINE=1',
      );
      t.equal(names(python.stdout), expected, 'python');
      const node = await cronium.run(
        'js',
        "console.log(Object.keys(process.env).join('\\n'))",
        '--env',
        'MINE=1',
      );
      t.equal(names(node.stdout), expected, 'node');
    },
  );

  await t.test(
    'scripts that the old prelude broke run, and errors name the author’s lines',
    async (t) => {
      const runs = {
        shebang: await cronium.run('js', '#!/usr/bin/env node\nconsole.log(typeof cronium.input)'),
        'a const of their own': await cronium.run(
          'js',
          "const cronium = require('./cronium.js');\nconsole.log(typeof cronium.input)",
        ),
        'ES module': await cronium.run(
          'js',
          "import fs from 'node:fs';\nconsole.log(typeof cronium.input, await 1)",
        ),
        'from __future__': await cronium.run(
          'py',
          'from __future__ import annotations\nprint(callable(cronium.input))',
        ),
      };
      t.match(runs.shebang, { status: 'succeeded', stdout: 'function\n' });
      t.match(runs['a const of their own'], { status: 'succeeded', stdout: 'function\n' });
      t.match(runs['ES module'], { status: 'succeeded', stdout: 'function 1\n' });
      t.match(runs['from __future__'], { status: 'succeeded', stdout: 'True\n' });
      const failing = await cronium.run('py', '\n\nraise ValueError("here")');
      t.match(failing, { status: 'failed', exitCode: 1, stderr: /line 3, in <module>/ });
      const failingJs = await cronium.run('js', '\nthrow new Error("here")');
      t.match(failingJs, { status: 'failed', stderr: /script_\d+\.js:2\n/ });
      const failingSh = await cronium.run('sh', '\n\nno-such-command');
      t.match(failingSh, { status: 'failed', exitCode: 127, stderr: /line 3: no-such-command/ });
    },
  );

  await t.test(
    '--compat exact brings the old executor back: prelude, string values only, stderr is failure',
    async (t) => {
      const shifted = await cronium.run('py', 'raise ValueError("here")', '--compat', 'exact');
      t.match(shifted.stderr, /line 3, in <module>/);
      const noisy = await cronium.run('sh', 'echo fine; echo oops >&2', '--compat', 'exact');
      t.match(noisy, { status: 'failed', exitCode: 0 });
      const typed = await cronium.run(
        'py',
        'cronium.setVariable("n", 1)',
        '--compat',
        'exact',
        '--user',
        'exact',
      );
      t.same(typed.variables.set, {});
      t.match(typed.warnings, [
        /^Warning: Failed to persist variable changes: every value must be a string/,
      ]);
    },
  );

  await t.test(
    '--commit on-success keeps all of a good run’s variables and none of a bad one’s',
    async (t) => {
      const text = (code: number) =>
        `cronium_setVariable a 1 >/dev/null; cronium_setVariable b 2 >/dev/null; cronium_output '"o"'; exit ${code}`;
      const args = ['--commit', 'on-success', '--user', 'careful'];
      const bad = await cronium.run('sh', text(3), ...args);
      t.match(bad, {
        status: 'failed',
        exitCode: 3,
        output: 'o',
        variables: { set: {}, deleted: [] },
      });
      t.equal((await cronium.cronium(['var', 'export', '--user', 'careful'])).stdout, '{}\n');
      const good = await cronium.run('sh', text(0), ...args);
      t.same(good.variables, { set: { a: '1', b: '2' }, deleted: [] });
      t.equal((await cronium.cronium(['var', 'get', 'b', '--user', 'careful'])).stdout, '2\n');
    },
  );

  await t.test(
    'numbers keep their digits on the way through script, server and command',
    async (t) => {
      const document = '{"big": 9223372036854775807, "one": 1.0, "tiny": 1e-400}';
      await cronium.cronium(['var', 'import', document, '--user', 'exact-numbers']);
      // A JavaScript script reads, changes another member and writes everything back, through doubles.
      const rewrite = await cronium.run(
        'js',
        "cronium.setVariable('other', 1)",
        '--user',
        'exact-numbers',
      );
      t.same(rewrite.variables.set, { other: 1 });
      t.equal(
        (await cronium.cronium(['var', 'export', '--user', 'exact-numbers'])).stdout,
        '{\n  "big": 9223372036854775807,\n  "one": 1.0,\n  "tiny": 1e-400,\n  "other": 1\n}\n',
      );
      const raw = await cronium.cronium([
        'run',
        '--json',
        '--user',
        'exact-numbers',
        cronium.script('sh', 'cat variables.json > output.json'),
      ]);
      t.match(raw.stdout, /"output":\{\s*"big": 9223372036854775807,\s*"one": 1\.0,/);
    },
  );

  await t.test('what is not JSON is kept as text, and said in the legacy words', async (t) => {
    const broken = await cronium.run(
      'sh',
      'echo "{oops" > output.json; echo "{oops" > variables.json; cat variables.json',
    );
    t.match(broken, { status: 'succeeded', stdout: '{oops\n', output: null });
    t.match(broken.warnings.join('\n'), /Warning: Failed to parse output\.json: /);
    t.match(broken.warnings.join('\n'), /Warning: Failed to persist variable changes: /);
    const shown = await cronium.cronium(['exec', 'show', broken.executionId, '--json']);
    t.match(JSON.parse(shown.stdout), { record: { rawOutput: '{oops\n' } });
  });

  await t.test(
    'a background child that still holds stdout is waited for, and what it stores counts',
    async (t) => {
      const children = {
        sh: '(sleep 1; echo late; cronium_setVariable late bash >/dev/null) & echo parent',
        py: 'import subprocess\nsubprocess.Popen(["sh", "-c", "sleep 1; echo late; echo \'{\\"late\\": 1}\' > variables.json"])\nprint("parent")',
        js: 'require("child_process").spawn("sh", ["-c", "sleep 1; echo late; echo \'{\\"late\\": 1}\' > variables.json"], { stdio: "inherit", detached: true }).unref();\nconsole.log("parent"); process.exitCode = 3;',
      };
      for (const [extension, text] of Object.entries(children)) {
        const run = await cronium.run(extension, text, '--user', `late-${extension}`);
        t.equal(run.stdout, 'parent\nlate\n', extension);
        t.equal(
          run.exitCode,
          extension === 'js' ? 3 : 0,
          `${extension}: the script's own exit code`,
        );
        t.same(Object.keys(run.variables.set), ['late'], extension);
      }
      const deaf = await cronium.run('sh', 'sleep 60 >/dev/null 2>&1 & echo done');
      t.ok(deaf.durationMs < 20_000, 'one that holds neither stdout nor stderr is not');
    },
  );

  await t.test('SIGTERM reaches the script, which may still clean up', async (t) => {
    const run = await cronium.run(
      'sh',
      "trap 'echo bye; cronium_output 1; exit 7' TERM; echo up; while :; do sleep 0.1; done",
      '--timeout',
      '1s',
    );
    t.match(run, { status: 'timed-out', exitCode: 7, stdout: 'up\nbye\n', output: 1 });
  });
});
