import { setTimeout as sleep } from 'node:timers/promises';
import t, { type Test } from 'tap';
import { neighbour, type Program, programs } from '#test/corpus-hostile/programs.js';
import { isClean } from '#test/support/clean.js';
import {
  eventually,
  finished,
  type RunJson,
  TestInstallation,
} from '#test/support/installation.js';
import { needsMachine } from '#test/support/machine.js';

/** Attacks at once: on two processors they disturb each other enough. */
const PARALLEL = 3;
/** How long the neighbour works in peace, to compare. */
const PEACE_MS = 4_000;

interface Quantiles {
  readonly n: number;
  readonly p50?: number;
  readonly p99?: number;
}

interface Experience {
  readonly errors: string[];
  readonly files: { readonly before: Quantiles; readonly attacked: Quantiles };
  readonly variables: { readonly before: Quantiles; readonly attacked: Quantiles };
}

const options = await needsMachine();

void t.test('what hostile programs try comes to what they say', options, async (t) => {
  await using cronium = await TestInstallation.up(undefined, '--warm', '2');
  const all = programs();
  t.ok(all.length >= 40, `${all.length} programs`);
  const served = cronium.mountdPids.serving;
  const server = cronium.serverPid;
  const say = async (phase: string) =>
    await cronium.cronium(['var', 'set', 'phase', phase, '--string', '--user', 'neighbour']);

  const working = finished(
    cronium.spawn([
      'run',
      '--json',
      '--timeout=10m',
      '--user=neighbour',
      cronium.script('py', neighbour()),
    ]),
  );
  let known = { NEIGHBOUR: '' };
  await eventually('the neighbour runs', async () => {
    const [neighbour] = (await cronium.mountdStatus()).executions;
    if (neighbour?.containerName === undefined) return false;
    known = { NEIGHBOUR: neighbour.executionId };
    return true;
  });
  await sleep(PEACE_MS);
  await say('attacked');

  const queue = all.filter(({ isAlone }) => !isAlone);
  await Promise.all(
    Array.from({ length: PARALLEL }, async () => {
      for (let next = queue.shift(); next !== undefined; next = queue.shift())
        await attack(t, cronium, next, known);
    }),
  );
  for (const alone of all.filter(({ isAlone }) => isAlone)) await attack(t, cronium, alone, known);

  await say('over');
  const { stdout } = await working;
  const run = JSON.parse(stdout) as RunJson;
  t.match(run, { status: 'succeeded', exitCode: 0, warnings: [] }, 'the neighbour has ended well');
  const { errors, files, variables } = run.output as Experience;
  t.same(errors, [], 'the neighbour had no errors');
  for (const [what, of] of Object.entries({ files, variables }))
    for (const [when, { n, p50, p99 }] of Object.entries(of))
      t.comment(`neighbour, ${what}, ${when}: ${n} rounds, p50 ${p50} ms, p99 ${p99} ms`);

  t.equal(cronium.mountdPids.serving, served, 'mountd serves as it did');
  t.equal(cronium.serverPid, server, 'the server serves as it did');
  await isClean(t, cronium);
});

async function attack(
  t: Test,
  cronium: TestInstallation,
  { name, ...program }: Program,
  known: Readonly<Record<string, string>>,
): Promise<void> {
  const options = program.options.map((one) =>
    one.replace(/\$([A-Z]+)/, (_all, key: string) => known[key] ?? ''),
  );
  const { secret } = program;
  if (secret !== undefined)
    await cronium.cronium([
      'var',
      'set',
      'password',
      secret,
      '--string',
      '--secret',
      '--user',
      name,
    ]);
  const run = await cronium.run(program.extension, program.text, '--user', name, ...options);
  await t.test(name, (t) => {
    const { status, exitCode } = run;
    t.ok(
      program.outcomes.some((one) => one.status === status && one.exitCode === exitCode),
      `${status} ${exitCode}, after ${run.durationMs} ms`,
    );
    matches(t, 'stdout', run.stdout, program.stdout);
    matches(t, 'stderr', run.stderr, program.stderr);
    matches(t, 'warnings', run.warnings.join('\n'), program.warnings);
    if (program.output !== undefined) t.equal(JSON.stringify(run.output), program.output, 'output');
    if (secret !== undefined) t.notOk(JSON.stringify(run).includes(secret), 'the secret is masked');
    t.end();
  });
}

/** Shows the beginning of what is wrong: some of them print a lot. */
function matches(t: Test, what: string, text: string, pattern: RegExp): void {
  t.ok(pattern.test(text), `${what}: ${pattern}`, { found: text.slice(0, 2_000) });
}
