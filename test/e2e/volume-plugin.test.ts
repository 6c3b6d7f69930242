import { randomUUID } from 'node:crypto';
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { eventually } from '#test/support/installation.js';
import { needsMachine } from '#test/support/machine.js';
import {
  containerOn,
  docker,
  Orchestrator,
  type PreparedJson,
} from '#test/support/orchestrator.js';

const options = await needsMachine();

/** The language's own word for reading input, setting a variable and a condition, and giving an output: as legacy scripts have them. */
const LEGACY = {
  bash: {
    file: 'sh',
    text: `n=$(cronium_input | jq .n)
cronium_setVariable seen "$n" > /dev/null
cronium_setCondition true > /dev/null
cronium_output "{\\"twice\\": $((n * 2))}"
echo "bash printed $n"`,
  },
  python: {
    file: 'py',
    text: `n = cronium.input()['n']
cronium.setVariable('seen', n)
cronium.setCondition(True)
cronium.output({'twice': n * 2})
print('python printed', n)`,
  },
  node: {
    file: 'js',
    text: `const { n } = cronium.input();
cronium.setVariable('seen', n);
cronium.setCondition(true);
cronium.output({ twice: n * 2 });
console.log('node printed', n);`,
  },
} as const;

/** Holds the volume until it is told to go on, by a file. */
const HOLD = 'until [ -e go ]; do sleep 0.05; done';

void t.test("containers of others, on Docker's volumes", options, async (t) => {
  await using own = await Orchestrator.up('volumes');
  const { cronium, driver } = own;

  for (const [runtime, { file, text }] of Object.entries(LEGACY))
    await t.test(`an unmodified ${runtime} script on docker run`, async (t) => {
      const script = cronium.script(file, text);
      const user = `--user=${runtime}`;
      const prepared = await own.create('--script', script, '--input={"n":21}', user);
      t.match(prepared, {
        volume: { driver, source: prepared.executionId, target: '/cronium' },
        user: '1000:1000',
        workdir: '/cronium/work',
      });
      t.equal(await own.volumes(), `${prepared.executionId}\n`);
      const name = script.split('/').at(-1) ?? '';
      const image = `cronium-${runtime}:latest`;
      const ran = await own.docker(prepared, ['--rm'], image, runtime, name);
      t.match(ran, { code: 0, stdout: `${runtime} printed 21\n`, stderr: '' });
      const result = await own.finish(prepared, ran.code);
      t.match(result, {
        executionId: prepared.executionId,
        status: 'succeeded',
        exitCode: 0,
        output: { twice: 42 },
        condition: true,
        warnings: [],
      });
      t.same(Object.keys(result.variables.set), ['seen']);
      t.notOk('stdout' in result, 'what it printed is its own affair');
      t.equal(await own.volumes(), '', 'its volume is gone');
    });

  await t.test('with the arguments of a person, who types only what is needed', async (t) => {
    const { executionId, env, dockerArgs } = await own.create('--runtime=node', '--bare');
    t.equal(dockerArgs.length, 3 + Object.keys(env).length, 'mount, user, directory, environment');
    const mount = `type=volume,volume-driver=${driver},src=${executionId},target=/cronium,volume-nocopy`;
    const { code } = await docker(
      'run',
      '--rm',
      `--mount=${mount}`,
      '--user=1000:1000',
      '--workdir=/cronium/work',
      ...Object.entries(env).map(([name, value]) => `--env=${name}=${value}`),
      'cronium-node:latest',
      'node',
      '--eval=cronium.output({ typed: true })',
    );
    t.equal(code, 0);
    t.match(await own.finish({ executionId }, code), { output: { typed: true } });
    const talked = await cronium.cronium(['exec', 'create', '--runtime=bash']);
    t.match(talked, { code: 0, stdout: /^[0-9a-f-]{36}\n$/, stderr: /docker run --rm --mount=/ });
    const last = { executionId: talked.stdout.trim() };
    t.match(await own.finish(last, 'none', '--reason=was not needed'), {
      status: 'failed',
      exitCode: null,
      warnings: ['Warning: finished by whoever ran it: was not needed'],
    });
  });

  await t.test('an exit code that is not 0 stores nothing with on-success', async (t) => {
    const user = `--user=fails-${randomUUID()}`;
    const prepared = await own.create('--runtime=bash', '--commit=on-success', user);
    const script = `cronium_setVariable kept 1 > /dev/null; cronium_output '{"half": true}'; exit 3`;
    const { code } = await own.docker(prepared, ['--rm'], 'cronium-bash', 'bash', '-c', script);
    t.equal(code, 3);
    t.match(await own.finish(prepared, code), {
      status: 'failed',
      exitCode: 3,
      output: { half: true },
      variables: { set: {} },
    });
    t.equal((await cronium.cronium(['var', 'list', user, '--json'])).stdout.trim(), '[]');
    const killed = await own.create();
    t.match(await own.finish(killed, 137), { status: 'killed', signal: 'SIGKILL' });
  });

  await t.test('two at once do not see each other; one is for one container', async (t) => {
    const [one, two] = [await own.create('--runtime=bash'), await own.create('--runtime=bash')];
    const hold = `ls /cronium/work; echo mine > mine; ${HOLD}; cronium_output "\\"$(cat mine)\\""`;
    const run = async (prepared: PreparedJson) =>
      await own.docker(prepared, ['--rm'], 'cronium-bash', 'bash', '-c', hold);
    const running = [run(one), run(two)];
    const work = ({ executionId }: PreparedJson, name: string) =>
      join(cronium.mountPoint, executionId, 'work', name);
    await eventually('both run', () => [one, two].every((each) => existsSync(work(each, 'mine'))));

    const second = await own.docker(one, ['--rm'], 'cronium-bash', 'true');
    t.match(second, { code: 125, stderr: /is mounted in another container.*exec create/ });
    const early = ['exec', 'finish', one.executionId, '--exit-code', '0'];
    t.match(await cronium.cronium(early), {
      code: 1,
      stderr: /is still mounted in container [a-z_]+: stop that first, or add --force/,
    });
    const goOn = async ({ executionId }: PreparedJson) =>
      await docker('exec', await containerOn(executionId), 'touch', 'go');
    await goOn(one);
    await goOn(two);
    for (const { code, stdout } of await Promise.all(running)) {
      t.equal(code, 0);
      t.notMatch(stdout, /mine/);
    }
    for (const each of [one, two])
      t.match(await own.finish(each, 0), { status: 'succeeded', output: 'mine' });
  });

  await t.test('one after the other may have it, as when an orchestrator retries', async (t) => {
    const prepared = await own.create('--runtime=bash');
    const retry = '[ -e tried ] && cronium_output 2; touch tried; [ -s output.json ]';
    const run = async () =>
      (await own.docker(prepared, ['--rm'], 'cronium-bash', 'bash', '-c', retry)).code;
    t.same([await run(), await run()], [1, 0]);
    t.match(await own.finish(prepared, 0), { status: 'succeeded', output: 2 });
  });

  await t.test('what was not prepared, or has ended, is refused in words', async (t) => {
    const prepared = await own.create();
    const first = await own.finish(prepared, 0);
    t.same(await own.finish(prepared, 1), first, 'asked again, the answer is the same');
    for (const executionId of [prepared.executionId, randomUUID()]) {
      const dockerArgs = prepared.dockerArgs.map((word) =>
        word.replace(prepared.executionId, executionId),
      );
      const { code, stderr } = await own.docker({ dockerArgs }, ['--rm'], 'cronium-bash', 'true');
      t.equal(code, 125);
      t.match(stderr, `no execution ${executionId} is prepared here, or it has ended`);
    }
    t.match(await cronium.cronium(['exec', 'finish', randomUUID(), '--exit-code=0']), {
      code: 1,
      stderr: /is not prepared here.*cronium exec show/,
    });
    for (const [args, stderr] of [
      [['exec', 'finish', prepared.executionId], /--exit-code CODE or none/],
      [['exec', 'finish', prepared.executionId, '--exit-code=256'], /from 0 to 255, or none/],
      [
        ['exec', 'create', '--script', cronium.script('json', '').replace(/[^/]*$/, 'input.json')],
        /rename/,
      ],
      [['up', '--no-volume-plugin', '--volume-plugin'], /exclude each other/],
    ] as const)
      t.match(await cronium.cronium(args), { code: 2, stderr });
    t.match(await cronium.cronium(['up', '--no-volume-plugin']), {
      code: 1,
      stderr: /mountd runs already/,
    });
  });

  t.equal(await own.volumes(), '', 'nothing is left of all the above');
});
