import { setTimeout as sleep } from 'node:timers/promises';
import t from 'tap';
import { eventually, finished, TestInstallation } from '#test/support/installation.js';
import { needsMachine } from '#test/support/machine.js';

/** What operators say of variables and executions, and what a script in a real container notices of it. */
const options = await needsMachine();

/** Waits until a variable is as wanted: bash without a helper, so that what is tested is the file. */
const WAIT = 'until grep -q "$1" variables.json; do sleep 0.1; done';

void t.test(
  'variables, secrets and access, from the command to the script and back',
  options,
  async (t) => {
    await using cronium = await TestInstallation.up();
    const cli = async (...args: string[]) => await cronium.cronium(args);
    const done = async (...args: string[]) => {
      const { code, stdout, stderr } = await cli(...args);
      t.equal(code, 0, `cronium ${args.join(' ')}: ${stderr}`);
      return stdout;
    };
    const json = async (...args: string[]) => JSON.parse(await done(...args, '--json')) as never;

    await t.test(
      'a value that does not fit fails at close, and the script reads why; one that fits is kept',
      async (t) => {
        const of = ['--user', 'typed'];
        const said = ['--label', 'team=a', '--schema', '{"type": "object", "required": ["cpu"]}'];
        await done('var', 'set', 'limits', '{"cpu": 1.0}', ...said, ...of);
        await done('var', 'set', 'count', '1', '--type', 'number', ...of);
        await done('var', 'set', 'otp', '"1234"', '--expires', '4s', ...of);
        const result = await cronium.run(
          'sh',
          `grep -c otp variables.json
         echo '{"limits": {"mem": 5}, "count": 1, "otp": "1234"}' > variables.json
         echo '{"limits": {"cpu": 2.0}, "count": 2, "otp": "1234"}' > variables.json
         for i in $(seq 100); do grep -q otp variables.json || { echo gone; break; }; sleep 0.1; done`,
          ...of,
        );
        t.equal(
          result.stdout,
          '1\ngone\n',
          'what has expired leaves the document of a running script',
        );
        t.match(
          result.stderr,
          /variable "limits" does not fit its schema: .*required property 'cpu'/,
        );
        t.match(result, {
          status: 'succeeded',
          variables: { set: { limits: { cpu: 2 }, count: 2 } },
        });
        t.match(await json('var', 'show', 'limits', ...of), {
          value: { cpu: 2 },
          labels: { team: 'a' },
          by: result.executionId,
        });
        t.match(await cli('var', 'get', 'otp', ...of), { code: 1 });
        const python = await cronium.run(
          'py',
          `
import json, os
document = json.load(open('variables.json'))
document['count'] = 'three'
try:
    with open('variables.json', 'w') as f: json.dump(document, f)
except OSError as e: print(e.errno)`,
          ...of,
        );
        t.equal(python.stdout, '22\n', 'EINVAL');
        t.equal(await done('var', 'get', 'count', ...of), '2\n');
      },
    );

    await t.test('what a script has overwritten can be had back', async (t) => {
      const of = ['--user', 'history'];
      await done('var', 'set', 'city', 'Oslo', ...of);
      await sleep(1100);
      const { executionId } = await cronium.run('sh', 'cronium_setVariable city Bergen', ...of);
      t.match(await json('var', 'show', 'city', ...of), { value: 'Bergen', by: executionId });
      const [earlier] = (await json('var', 'history', 'city', ...of)) as { version: number }[];
      await done('var', 'restore', 'city', String(earlier?.version), ...of);
      t.equal(await done('var', 'get', 'city', ...of), 'Oslo\n');
    });

    await t.test(
      'secrets are masked in what is printed, and in nothing that the script reads',
      async (t) => {
        const of = ['--user', 'secretive'];
        await done('var', 'set', 'password', 'hunter2', '--secret', ...of);
        await done(
          'var',
          'set',
          'service',
          '{"user": "ada.l", "token": "t0k-9"}',
          '--secret',
          ...of,
        );
        const running = cronium.run(
          'sh',
          `wait_for() { ${WAIT}; }
       printf 'hun'; sleep 0.2; printf 'ter2\\n'
       echo ada.l t0k-9 >&2
       [ "$(cronium_getVariable password)" = "$(printf %s%s hunt er2)" ] && echo the script sees it
       cronium_setVariable password 'n3w-one' >/dev/null; echo n3w-one
       wait_for later; echo l4ter-value
       printf 'the end: hun'`,
          ...of,
        );
        await eventually('the script has written', async () => {
          const shown = await cli('var', 'get', 'password', '--reveal', ...of);
          return shown.stdout === 'n3w-one\n';
        });
        await done('var', 'set', 'later', 'l4ter-value', '--secret', ...of);
        const result = await running;
        t.equal(result.stdout, '***\nthe script sees it\n***\n***\nthe end: hun');
        t.equal(result.stderr, '*** ***\n');
        t.same(result.variables, { set: {}, secrets: ['password'], deleted: [] });
        t.match(await json('var', 'list', ...of), [
          { key: 'password', secret: true },
          { key: 'service', secret: true },
          { key: 'later', secret: true },
        ]);
        const person = await finished(
          cronium.spawn([
            'run',
            ...of,
            cronium.script('sh', 'cronium_setVariable password x9x9x9'),
          ]),
        );
        t.match(person.stderr, /set {8}password = \(secret\)/);
        t.notMatch(person.stdout + person.stderr, /x9x9x9/);
        const kept = JSON.stringify(await json('exec', 'show', result.executionId));
        for (const text of [kept, cronium.log('server'), cronium.log('mountd')])
          t.notMatch(text, /hunter2|t0k-9|n3w-one|l4ter-value|x9x9x9/);
      },
    );

    await t.test(
      'cancelled from another terminal, a script ends as at Ctrl-C and says why',
      async (t) => {
        const text = `trap 'echo bye; exit 0' TERM; echo started; sleep 60 & wait`;
        const run = cronium.run('sh', text, '--user', 'cancelled');
        await cronium.runningContainer();
        const [one, ...more] = (await json('exec', 'list', '--running', '--user', 'cancelled')) as {
          executionId: string;
          status: string;
        }[];
        t.equal(one?.status, 'running');
        t.equal(more.length, 0);
        const id = one?.executionId ?? '';
        await sleep(500); // bash has set its trap
        t.match(await json('exec', 'cancel', id, '--reason', 'wrong input'), { status: 'killed' });
        const result = await run;
        t.match(result, { status: 'killed', stdout: 'started\nbye\n' }, 'its last words are heard');
        t.same(result.warnings, ['Warning: cancelled by an operator: wrong input']);
        t.match(await json('exec', 'show', id), {
          record: {
            status: 'killed',
            warnings: result.warnings,
            cancel: { reason: 'wrong input', by: 'operator:operator' },
          },
        });
        t.match(await cli('exec', 'cancel', id), { code: 1, stderr: /has ended/ });
        t.same(await json('exec', 'list', '--running'), []);
      },
    );

    await t.test(
      '--profile remote reads variables and gives results; --read-only writes nothing',
      async (t) => {
        const of = ['--user', 'guarded'];
        await done('var', 'set', 'city', 'Oslo', ...of);
        const script = `
import errno, json
def attempt(name, value):
    try:
        with open(name, 'w') as f: json.dump(value, f)
        print(name, 'ok')
    except OSError as e: print(name, errno.errorcode[e.errno])
print(json.load(open('variables.json'))['city'])
attempt('variables.json', {'city': 'Bergen'})
attempt('output.json', 1)
attempt('condition.json', {'condition': True})`;
        const remote = await cronium.run('py', script, '--profile', 'remote', ...of);
        t.equal(remote.stdout, 'Oslo\nvariables.json EACCES\noutput.json ok\ncondition.json ok\n');
        t.match(remote, {
          status: 'succeeded',
          output: 1,
          condition: true,
          variables: { set: {} },
        });
        const readOnly = await cronium.run('py', script, '--read-only', ...of);
        t.equal(
          readOnly.stdout,
          'Oslo\nvariables.json EROFS\noutput.json EROFS\ncondition.json EROFS\n',
        );
        t.match(readOnly, { output: null, condition: null, variables: { set: {} } });
        t.equal(await done('var', 'get', 'city', ...of), 'Oslo\n');
        t.match(await json('exec', 'show', readOnly.executionId), { record: { readOnly: true } });
        t.match(await cli('run', '--profile', 'far', cronium.script('sh', '')), { code: 2 });
      },
    );
  },
);
