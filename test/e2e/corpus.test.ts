import { readdirSync, readFileSync } from 'node:fs';
import { extname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import Docker from 'dockerode';
import t, { type Test } from 'tap';
import type { Connection } from '#bridge/client/connection.js';
import { ExecutionId, VariableKey } from '#bridge/wire/names.js';
import type { EventDocument } from '#bridge/wire/protocol.js';
import { EXPECTED, type Expectation, type Outcome } from '#test/corpus/expected.js';
import {
  type Extension,
  type Job,
  type Result,
  runByLegacyRules,
  type WarningKind,
} from '#test/corpus/reference.js';
import { sourceMembers } from '#test/corpus/source-members.js';
import { type RunJson, TestInstallation } from '#test/support/installation.js';
import { needsMachine } from '#test/support/machine.js';

/** Scripts at once: what two processors and the Docker engine do without making each run slow. */
const PARALLEL = 4;

const SCRIPTS = fileURLToPath(new URL('../../../test/corpus/scripts/', import.meta.url));
const names = readdirSync(SCRIPTS).sort();

/** What a script finds in event.json unless its expectation says otherwise. */
const EVENT: EventDocument = {
  id: 7,
  name: 'nightly',
  description: null,
  type: 'SCRIPT',
  runLocation: 'LOCAL',
  createdAt: '2024-01-02T03:04:05.000Z',
  updatedAt: '2024-02-03T04:05:06.000Z',
  userId: 'ada',
  server: null,
  successCount: 3,
  failureCount: 1,
  lastRunAt: null,
};

const options = await needsMachine();

void t.test('every script says what it covers, and every one has its expectation', async (t) => {
  t.same(names, Object.keys(EXPECTED).sort());
  for (const name of names)
    t.match(readFileSync(join(SCRIPTS, name), 'utf8'), /^(#!.*\n)?(#|\/\/) \S/, name);
});

void t.test(
  'the corpus: what a legacy script did in a plain directory, it does on the mount',
  options,
  async (t) => {
    await using cronium = await TestInstallation.up(undefined, '--warm', '2');
    const docker = new Docker({ socketPath: '/var/run/docker.sock' });
    using server = await cronium.installation.operator();
    t.jobs = PARALLEL;
    await Promise.all(
      Object.entries(EXPECTED).map(
        async ([name, expectation]) =>
          await t.test(name, { buffered: true }, async (t) => {
            const job = jobOf(name, expectation);
            const legacy = { ...expectation, ...expectation.differs?.legacy };
            await compare(t, 'in a plain directory', runByLegacyRules(docker, job), job, legacy);
            const run = runOnTheMount(cronium, server, name, job);
            await compare(t, 'on the mount', run, job, expectation);
          }),
      ),
    );
    const count = (extension: string) => names.filter((name) => name.endsWith(extension)).length;
    const differing = Object.values(EXPECTED).filter(({ differs }) => differs !== undefined);
    t.comment(
      `${names.length} scripts (bash ${count('.sh')}, python ${count('.py')}, node ${count('.js')}), ` +
        `${differing.length} of them with a deliberate difference from legacy`,
    );
  },
);

function jobOf(name: string, expectation: Expectation): Job {
  return {
    extension: extname(name).slice(1) as Extension,
    script: readFileSync(join(SCRIPTS, name)),
    input: expectation.input ?? '{}',
    event: { ...EVENT, ...expectation.event },
    env: expectation.env ?? {},
    given: expectation.given ?? {},
    exact: expectation.exact ?? false,
    commit: expectation.commit ?? 'live',
  };
}

async function compare(
  t: Test,
  where: string,
  running: Promise<Result>,
  job: Job,
  expected: Outcome,
): Promise<void> {
  const { stderr, ...result } = await running;
  const exitCode = expected.exitCode ?? 0;
  const wanted: Omit<Result, 'stderr'> = {
    succeeded: expected.succeeded ?? exitCode === 0,
    exitCode,
    stdout: expected.stdout ?? '',
    output: expected.output ?? null,
    condition: expected.condition ?? null,
    variables: Object.entries(expected.variables ?? job.given),
    warnings: expected.warnings ?? [],
  };
  t.strictSame(result, wanted, where);
  const complaint = expected.stderr ?? '';
  if (complaint instanceof RegExp) t.match(stderr, complaint, `${where}: stderr`);
  else t.equal(stderr, complaint, `${where}: stderr`);
}

/** The script through the command and real containers, each as a user of its own. */
async function runOnTheMount(
  cronium: TestInstallation,
  server: Connection,
  name: string,
  job: Job,
): Promise<Result> {
  // What `cronium var import` and `var list` call; starting the command for it would double the time of the test.
  const namespace = { user: name };
  const set = Object.entries(job.given).map(([key, text]): [VariableKey, string] => [
    VariableKey.parse(key),
    text,
  ]);
  if (set.length > 0) await server.call('variable.edit', { namespace, set, delete: [] });
  const { stdout } = await cronium.cronium([
    'run',
    '--json',
    '--user',
    name,
    '--input',
    job.input,
    '--event',
    JSON.stringify(job.event),
    ...Object.entries(job.env).flatMap(([key, value]) => ['--env', `${key}=${value}`]),
    '--commit',
    job.commit,
    ...(job.exact ? ['--compat', 'exact'] : []),
    join(SCRIPTS, name),
  ]);
  const run = JSON.parse(stdout) as RunJson;
  const shown = sourceMembers(stdout);
  const stored = await server.call('variable.list', { namespace });
  const variables = new Map(
    stored.variables.map(({ key, text }) => [key as string, text ?? 'null']),
  );
  const executionId = ExecutionId.parse(run.executionId);
  const recorded = await server.call('execution.get', { executionId });

  // What the command shows and what the server keeps must agree.
  const output = shown?.get('output');
  if (output !== (recorded.output ?? 'null') || run.condition !== recorded.condition)
    throw new Error(
      `the server has output ${recorded.output} and condition ${recorded.condition}: ${stdout}`,
    );
  const replayed = new Map(Object.entries(job.given));
  const changes = sourceMembers(shown?.get('variables') ?? '{}');
  for (const [key, text] of sourceMembers(changes?.get('set') ?? '{}') ?? [])
    replayed.set(key, text);
  for (const key of run.variables.deleted) replayed.delete(key);
  if (!isSame(replayed, variables))
    throw new Error(`the changes shown do not lead to the stored variables: ${stdout}`);

  return {
    succeeded: run.status === 'succeeded',
    exitCode: run.exitCode ?? -1,
    stdout: run.stdout,
    stderr: withoutWarnings(run, job.extension),
    output: recorded.output,
    condition: run.condition,
    variables: [...variables],
    warnings: run.warnings.map(kindOf),
  };
}

/** What the script itself wrote: a bash script's warnings stand in its error output, once each, and no other's do. */
function withoutWarnings({ stderr, warnings }: RunJson, extension: Extension): string {
  let rest = stderr;
  for (const warning of warnings) {
    const parts = rest.split(`${warning}\n`);
    if (parts.length !== (extension === 'sh' ? 2 : 1))
      throw new Error(`${JSON.stringify(warning)} is ${parts.length - 1} times in ${stderr}`);
    rest = parts.join('');
  }
  return rest;
}

const WARNINGS: readonly (readonly [RegExp, WarningKind])[] = [
  [/^Warning: Failed to persist variable changes: ./, 'variables'],
  [/^Warning: Failed to parse output\.json: ./, 'output'],
  [/^Warning: Failed to parse condition\.json: ./, 'condition'],
];

/** An unknown warning stands for itself, so that it fails the comparison and is read. */
const kindOf = (warning: string): string =>
  WARNINGS.find(([words]) => words.test(warning))?.[1] ?? warning;

const isSame = (a: ReadonlyMap<string, string>, b: ReadonlyMap<string, string>): boolean =>
  a.size === b.size && [...a].every(([key, text]) => b.get(key) === text);
