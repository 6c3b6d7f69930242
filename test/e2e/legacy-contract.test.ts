import t from 'tap';
import type { RunRequest } from '#bridge/wire/control.js';
import { type RunJson, TestInstallation } from '#test/support/installation.js';
import { needsMachine } from '#test/support/machine.js';

/** What the contract says of policies, warnings and chains, in real containers against a real server. */
const options = await needsMachine();

/** At once: more than the machine has processors for, so that their commits meet. */
const CONTAINERS = 50;

void t.test('the legacy contract', options, async (t) => {
  await using cronium = await TestInstallation.up(undefined, '--warm', '2');

  const exported = async (user: string) =>
    JSON.parse((await cronium.cronium(['var', 'export', '--user', user])).stdout) as Record<
      string,
      unknown
    >;

  await t.test(
    'a warning of a bash script stands in its error output, when it happens',
    async (t) => {
      const long = 'k'.repeat(300);
      const result = await cronium.run(
        'sh',
        `echo before >&2; echo '{"${long}": 1}' > variables.json; sleep 1.5; echo after >&2; echo nonsense > output.json`,
      );
      // The script's own lines come through Docker and the warning does not, so only a pause tells their order.
      const [refused = '', unparsed = ''] = result.warnings;
      t.match(refused, /^Warning: Failed to persist variable changes: .*at most 255 bytes$/);
      t.match(unparsed, /^Warning: Failed to parse output\.json: /);
      const places = [refused, 'after\n', unparsed].map((text) => result.stderr.indexOf(text));
      t.ok(!places.includes(-1), result.stderr);
      t.same(
        places,
        [...places].sort((a, b) => a - b),
        'in the order in which they happened',
      );
      for (const warning of result.warnings)
        t.equal(result.stderr.split(warning).length, 2, 'each once');
      t.equal(result.warnings.length, 2);
      t.equal(result.status, 'succeeded');
      const python = await cronium.run('py', "open('output.json', 'w').write('nonsense')");
      t.equal(python.stderr, '', 'other languages raise an error where a close fails');
      t.equal(python.warnings.length, 1);
    },
  );

  await t.test('--strict: closing what is no valid document fails, and says why', async (t) => {
    const script = `
import errno, json
def attempt(name, text):
    try:
        with open(name, 'w') as f: f.write(text)
        print(name, 'ok')
    except OSError as e: print(name, errno.errorcode[e.errno])
for text in ('{"a": 1', '[1]', '{"a": 1}'): attempt('variables.json', text)
for text in ('nonsense', '', '{"x": 1}'): attempt('output.json', text)
for text in ('true', '{"condition": 1}'): attempt('condition.json', text)
`;
    const strict = await cronium.run('py', script, '--strict', '--user', 'strict');
    t.equal(
      strict.stdout,
      [
        'variables.json EINVAL\nvariables.json EINVAL\nvariables.json ok',
        'output.json EINVAL\noutput.json ok\noutput.json ok',
        'condition.json EINVAL\ncondition.json ok\n',
      ].join('\n'),
    );
    t.match(strict, { output: { x: 1 }, condition: true, variables: { set: { a: 1 } } });
    t.ok(strict.warnings.some((text) => /Failed to parse output.json/.test(text)));
    const lenient = await cronium.run('py', script, '--user', 'lenient');
    t.notMatch(lenient.stdout, /EINVAL/);
    t.same(lenient.warnings, []);
  });

  await t.test(
    `${CONTAINERS} containers at once, twice: every variable is kept, and a counter with the policy "add" has counted all`,
    async (t) => {
      const user = 'crowd';
      await cronium.cronium(['var', 'set', 'counter', '0', '--user', user]);
      const set = await cronium.cronium(['var', 'policy', 'counter', 'add', '--user', user]);
      t.equal(set.code, 0, set.stderr);
      using control = await cronium.installation.control();
      const request = (n: number): RunRequest => ({
        script: {
          name: 'count.sh',
          data: Buffer.from(
            `cronium_setVariable own_${n} ${n}; cronium_setVariable counter $(( $(cronium_getVariable counter) + 1 ))`,
          ),
        },
        runtime: 'bash',
        input: '{}',
        event: {},
        user,
        variablesOf: 'user',
        env: {},
        timeoutMs: 120_000,
        memoryBytes: 64 * 1024 * 1024,
        cpus: 1,
        commit: n % 2 === 0 ? 'live' : 'on-success',
        exact: false,
        strict: false,
      });
      const failed: string[] = [];
      for (let batch = 0; batch < 2; batch++) {
        const numbers = Array.from({ length: CONTAINERS }, (_, i) => batch * CONTAINERS + i);
        const results = await Promise.all(
          numbers.map(
            async (n) =>
              await control.call('run', request(n), { channel: n + 1, deadlineMs: 240_000 }),
          ),
        );
        for (const { status, warnings } of results)
          if (status !== 'succeeded' || warnings.length > 0)
            failed.push(`${status} ${warnings.join()}`);
      }
      t.same(failed, []);
      const { counter, ...own } = await exported(user);
      t.equal(counter, String(2 * CONTAINERS));
      t.same(
        own,
        Object.fromEntries(
          Array.from({ length: 2 * CONTAINERS }, (_, n) => [`own_${n}`, String(n)]),
        ),
      );
    },
  );

  await t.test('merge policies: what scripts do with lists, and what does not fit', async (t) => {
    const user = 'lists';
    await cronium.cronium([
      'var',
      'import',
      '{"tags": ["a"], "log": "", "best": 5}',
      '--user',
      user,
    ]);
    for (const [key, policy] of [
      ['tags', 'union'],
      ['log', 'append'],
      ['best', 'max'],
    ] as const)
      await cronium.cronium(['var', 'policy', key, policy, '--user', user]);
    const list = await cronium.cronium(['var', 'policy', '--user', user, '--json']);
    t.same(JSON.parse(list.stdout), { tags: 'union', log: 'append', best: 'max' });

    const script = (tag: string, score: number) => `
import json, time, os
v = json.load(open('variables.json')); time.sleep(0.5)
v['tags'].append('${tag}'); v['log'] += '${tag};'; v['best'] = ${score}
json.dump(v, open('variables.json', 'w'))
`;
    await Promise.all(
      (
        [
          ['x', 9],
          ['y', 7],
        ] as const
      ).map(async ([tag, score]) => await cronium.run('py', script(tag, score), '--user', user)),
    );
    const { tags, log, best } = await exported(user);
    t.same([...(tags as string[])].sort(), ['a', 'x', 'y']);
    t.match(log, /^(x;y;|y;x;)$/);
    t.equal(best, 9);

    const misfit = await cronium.run(
      'py',
      `import json; v = json.load(open('variables.json')); v['best'] = 'high'; json.dump(v, open('variables.json', 'w'))`,
      '--user',
      user,
    );
    t.match(misfit.warnings, [/"best" is merged by "max", so it must be a number/]);
    t.equal((await exported(user))['best'], 9);
  });

  await t.test('chains: one predecessor, several by name, and what is refused', async (t) => {
    const output = async (json: string) =>
      (await cronium.run('sh', `cronium_output '${json}'`)).executionId;
    const show = async (...from: string[]) =>
      await cronium.cronium([
        'run',
        '--json',
        ...from.flatMap((one) => ['--input-from', one]),
        cronium.script('sh', 'cat input.json'),
      ]);
    const stdoutOf = async (...from: string[]) =>
      (JSON.parse((await show(...from)).stdout) as RunJson).stdout;

    const [object, list, number, none] = await Promise.all([
      output('{"n": 1.50, "big": 12345678901234567890}'),
      output('[1, 2]'),
      output('42'),
      cronium.run('sh', 'true').then(({ executionId }) => executionId),
    ]);
    t.equal(await stdoutOf(object), '{"n": 1.50, "big": 12345678901234567890}');
    t.equal(await stdoutOf(list), '[1, 2]');
    t.equal(await stdoutOf(number), '{}');
    t.equal(await stdoutOf(none), '{}');
    t.equal(
      await stdoutOf(`first=${object}`, `second=${number}`, `third=${none}`),
      '{\n  "first": {"n": 1.50, "big": 12345678901234567890},\n  "second": 42,\n  "third": null\n}',
    );
    for (const [from, why] of [
      [[object, 'nonsense'], /"nonsense": that is no execution id/],
      [[`a=${object}`, `a=${list}`], /two outputs would be called "a"/],
      [['00000000-0000-4000-8000-000000000000'], /there is no execution/],
    ] as const) {
      const refused = await show(...from);
      t.not(refused.code, 0);
      t.match(refused.stderr, why);
    }
  });
});
