import { spawn } from 'node:child_process';
import { createHash, randomUUID } from 'node:crypto';
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { isClean } from '#test/support/clean.js';
import {
  eventually,
  type Finished,
  finished,
  type RunJson,
  TestInstallation,
} from '#test/support/installation.js';
import { needsMachine } from '#test/support/machine.js';
import { killProcess } from '#test/support/processes.js';

const options = await needsMachine();

/** Docker remembers every driver it has met until it is restarted: one for each clone of this repository, and not for each run. */
const DRIVER = `cronium-test-${createHash('sha256').update(process.cwd()).digest('hex').slice(0, 8)}`;

interface PreparedJson {
  executionId: string;
  volume: { driver: string; source: string; target: string };
  user: string;
  workdir: string;
  env: Record<string, string>;
  dockerArgs: string[];
}

type ResultJson = Omit<RunJson, 'stdout' | 'stderr'>;

/** Somebody who knows the commands `cronium` and `docker`, and nothing of ours. */
class Orchestrator {
  readonly cronium: TestInstallation;

  constructor(cronium: TestInstallation) {
    this.cronium = cronium;
  }

  async create(...args: string[]): Promise<PreparedJson> {
    const { stdout, stderr } = await this.cronium.cronium(['exec', 'create', '--json', ...args]);
    if (stdout === '') throw new Error(`exec create: ${stderr}`);
    return JSON.parse(stdout) as PreparedJson;
  }

  /** `docker run` to its end, or with `-d` to its start. */
  async docker(
    { dockerArgs }: Pick<PreparedJson, 'dockerArgs'>,
    more: readonly string[],
    ...command: string[]
  ): Promise<Finished> {
    return await docker('run', ...more, ...dockerArgs, ...command);
  }

  async finish(
    { executionId }: Pick<PreparedJson, 'executionId'>,
    exitCode: number | 'none' | null,
    ...args: string[]
  ): Promise<ResultJson> {
    const finish = ['exec', 'finish', executionId, '--exit-code', String(exitCode), '--json'];
    const { stdout, stderr } = await this.cronium.cronium([...finish, ...args]);
    if (stdout === '') throw new Error(`exec finish: ${stderr}`);
    return JSON.parse(stdout) as ResultJson;
  }

  /** What Docker lists. */
  async volumes(): Promise<string> {
    return (await docker('volume', 'ls', '-q', '--filter', `driver=${DRIVER}`)).stdout;
  }
}

const docker = async (...args: string[]): Promise<Finished> =>
  await finished(spawn('docker', args, { stdio: ['ignore', 'pipe', 'pipe'] }));

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
  await using cronium = await TestInstallation.up(undefined, '--volume-plugin', DRIVER);
  const own = new Orchestrator(cronium);

  for (const [runtime, { file, text }] of Object.entries(LEGACY))
    await t.test(`an unmodified ${runtime} script on docker run`, async (t) => {
      const script = cronium.script(file, text);
      const user = `--user=${runtime}`;
      const prepared = await own.create('--script', script, '--input={"n":21}', user);
      t.match(prepared, {
        volume: { driver: DRIVER, source: prepared.executionId, target: '/cronium' },
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
    const mount = `type=volume,volume-driver=${DRIVER},src=${executionId},target=/cronium,volume-nocopy`;
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

  await t.test('what is not finished in time ends, also under a container', async (t) => {
    const prepared = await own.create('--runtime=bash', '--timeout=10s');
    const name = `cronium-test-${randomUUID()}`;
    await own.docker(prepared, ['-d', '--name', name], 'cronium-bash', 'bash', '-c', HOLD);
    t.teardown(async () => await docker('rm', '-f', name));
    const { executionId } = prepared;
    await eventually('it has ended', async () => {
      const { stdout } = await cronium.cronium(['exec', 'show', executionId, '--json']);
      return (JSON.parse(stdout) as { record: { status?: string } }).record.status === 'timed-out';
    });
    t.equal(await own.volumes(), '');
    const seen = await docker('exec', name, 'ls', '/cronium');
    t.not(seen.code, 0, 'its files are gone');
    t.match(await own.finish(prepared, 0), {
      status: 'timed-out',
      exitCode: null,
      warnings: [/was not finished in time/],
    });
    t.equal((await docker('rm', '-f', name)).code, 0, 'Docker can remove its container');
    t.match(await cronium.run('sh', 'echo well'), { stdout: 'well\n' });
  });

  await t.test('an operator cancels one, and one is finished by force', async (t) => {
    const [cancelled, forced] = [await own.create(), await own.create()];
    const name = `cronium-test-${randomUUID()}`;
    await own.docker(forced, ['-d', '--name', name], 'cronium-bash', 'sleep', '100');
    t.teardown(async () => await docker('rm', '-f', name));
    t.match(await cronium.cronium(['exec', 'cancel', cancelled.executionId, '--reason=typo']), {
      code: 0,
      stderr: /was killed/,
    });
    t.match(await own.finish(cancelled, 0), { status: 'killed', warnings: [/cancelled.*typo/] });
    t.match(await own.finish(forced, 'none', '--force'), { status: 'failed', exitCode: null });
  });

  await t.test('the serving process is killed: scripts and volumes go on', async (t) => {
    const [waiting, running] = [
      await own.create('--runtime=bash'),
      await own.create('--runtime=bash'),
    ];
    const rounds = `set -e
for i in $(seq 20); do echo $i >> lines; [[ $(cronium_setVariable n $i) == true ]]; done
${HOLD}
cronium_output "$(wc -l < lines)"`;
    const ran = own.docker(running, ['--rm'], 'cronium-bash', 'bash', '-c', rounds);
    await eventually('it runs', async () => (await containerOn(running.executionId)) !== '');
    const { serving } = cronium.mountdPids;
    killProcess(serving, 'SIGKILL');
    await eventually('another one serves', async () => {
      using control = await cronium.installation.control();
      const status = await control.call('status', {}).catch(() => undefined);
      return status !== undefined && status.pid !== serving;
    });
    const second = await own.docker(running, ['--rm'], 'cronium-bash', 'true');
    t.match(second, { code: 125, stderr: /is mounted in another container/ }, 'it is known still');
    t.match(
      await own.docker(waiting, ['--rm'], 'cronium-bash', 'bash', '-c', 'cronium_output 1'),
      { code: 0, stderr: '' },
      'what waited for its container can be mounted',
    );
    await docker('exec', await containerOn(running.executionId), 'touch', 'go');
    t.match(await ran, { code: 0, stderr: '' });
    t.match(await own.finish(waiting, 0), { status: 'succeeded', output: 1 });
    t.match(await own.finish(running, 0), {
      status: 'succeeded',
      output: 20,
      variables: { set: { n: '20' } },
      warnings: [],
    });
  });

  await t.test('it is killed when an end is known, and the server does not know it', async (t) => {
    const prepared = await own.create('--runtime=bash');
    const { executionId } = prepared;
    await own.docker(prepared, ['--rm'], 'cronium-bash', 'bash', '-c', 'cronium_output 1');
    const server = cronium.serverPid;
    killProcess(server, 'SIGSTOP');
    const finishing = own.finish(prepared, 0);
    const record = join(cronium.state, 'mountd/prepared', `${executionId}.json`);
    await eventually('its end is noted', () => readFileSync(record, 'utf8').includes('"ended"'));
    killProcess(cronium.mountdPids.serving, 'SIGKILL');
    killProcess(server, 'SIGCONT');
    t.match(await finishing, { status: 'succeeded', output: 1, warnings: [] });
    const { stdout } = await cronium.cronium(['exec', 'show', executionId, '--json']);
    t.match((JSON.parse(stdout) as { record: object }).record, {
      status: 'succeeded',
      exitCode: 0,
    });
  });

  await t.test('a name is for one installation', async (t) => {
    await using other = new TestInstallation();
    t.match(await other.cronium(['up', '--volume-plugin', DRIVER]), {
      code: 1,
      stderr: /another installation.* serves Docker's volume driver .*--no-volume-plugin/,
    });
    t.equal((await other.cronium(['up'])).code, 0, 'and is not kept');
    t.match(await other.cronium(['exec', 'create']), {
      code: 1,
      stderr: /serves no volumes to Docker.*cronium up --volume-plugin/,
    });
  });

  await t.test('a clean stop loses what was not finished, and leaves nothing', async (t) => {
    t.equal(await own.volumes(), '', 'nothing is left of all the above');
    await isClean(t, cronium);
    const { executionId } = await own.create();
    t.match(await cronium.cronium(['status']), { code: 0, stdout: /prepared, to be finished/ });
    t.equal((await cronium.cronium(['down'])).code, 0);
    t.notOk(existsSync(`/run/docker/plugins/${DRIVER}.sock`));
    t.equal((await cronium.cronium(['up'])).code, 0, 'the driver is kept in the settings');
    t.ok(existsSync(`/run/docker/plugins/${DRIVER}.sock`));
    const { stdout } = await cronium.cronium(['exec', 'show', executionId, '--json']);
    t.match((JSON.parse(stdout) as { record: object }).record, {
      status: 'lost',
      warnings: [/mountd was stopped before the execution was finished/],
    });
    t.same(readdirSync(join(cronium.state, 'mountd/prepared')), []);
    await isClean(t, cronium);
  });
});

/** The name of the container that runs on a volume; empty when there is none. */
async function containerOn(volume: string): Promise<string> {
  const filters = ['--filter', `volume=${volume}`, '--format', '{{.Names}}'];
  return (await docker('ps', ...filters)).stdout.trim();
}
