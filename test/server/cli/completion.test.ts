import { spawn } from 'node:child_process';
import { mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { type AddressInfo, createServer, type Server } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import t, { type Test } from 'tap';
import { VariableKey } from '#bridge/wire/names.js';
import { type Command, command } from '#server/cli/command.js';
import { modelsOf, placeOf } from '#server/cli/completion-model.js';
import { completionScript, SHELLS } from '#server/cli/completion-scripts.js';
import { InProcessServer } from '#test/support/in-process-server.js';
import { eventually, finished } from '#test/support/installation.js';

// Each question starts a process, on a machine that may have other things to do.
t.setTimeout(120_000);

const CRONIUM = fileURLToPath(new URL('../../../../bin/cronium', import.meta.url));

/** A state directory whose server is at `port`, with the certificates that lie in `pki`. */
function stateAt(t: Test, port: number, pki?: string): string {
  const state = mkdtempSync(join(tmpdir(), 'cronium-completion-'));
  t.teardown(() => rmSync(state, { recursive: true, force: true }));
  writeFileSync(
    join(state, 'settings.json'),
    JSON.stringify({ listen: { host: '127.0.0.1', port } }),
  );
  if (pki !== undefined) symlinkSync(pki, join(state, 'pki'));
  return state;
}

/** What bash offers when Tab is pressed at the end of each line, given in words as readline cuts them. */
async function tabs(lines: readonly (readonly string[])[], state: string): Promise<string[][]> {
  const quoted = (word: string) => `'${word.replaceAll("'", "'\\''")}'`;
  const text = [
    'set -u',
    'source <("$1" completion bash)',
    'tab() {',
    '  COMP_WORDS=("$@") COMP_CWORD=$(($# - 1))',
    '  _cronium',
    '  printf "%s\\n" ${COMPREPLY[@]+"${COMPREPLY[@]}"} --',
    '}',
    ...lines.map((words) => `tab "$1" ${words.map(quoted).join(' ')}`),
  ].join('\n');
  const bash = spawn('bash', ['-c', text, 'bash', CRONIUM], {
    env: { ...process.env, CRONIUM_STATE: state },
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  const { code, stdout, stderr } = await finished(bash);
  if (code !== 0 || stderr !== '') throw new Error(`bash: ${code} ${stderr}`);
  return stdout
    .split(/^--\n/m)
    .slice(0, -1)
    .map((offered) => offered.split('\n').slice(0, -1));
}

/** Words with single spaces between them; an underscore is a space within one. */
type Case = readonly [line: string, offered: string];
const wordsOf = (text: string) => text.split(' ').map((word) => word.replaceAll('_', ' '));

/** A machine that is busy may not answer in time: then nothing is offered, and Tab is pressed again. */
async function offers(t: Test, cases: readonly Case[], state = '/nonexistent'): Promise<void> {
  let left: readonly Case[] = cases;
  await eventually('something is offered', async () => {
    const asked = left;
    const lines = asked.map(([line]) => wordsOf(line));
    const found = await tabs(lines, state);
    left = asked.filter(([, offered], i) => offered !== '' && found[i]?.length === 0);
    for (const [i, one] of asked.entries()) {
      const [line, offered] = one;
      if (!left.includes(one)) t.same(found[i], offered === '' ? [] : wordsOf(offered), line);
    }
    return left.length === 0;
  });
}

void t.test('bash completes commands, options and their words', async (t) => {
  await offers(t, [
    ['sta', 'status'],
    ['quota ', 'show set list'],
    ['var po', 'policy'],
    ['run --com', '--commit --compat'],
    ['run --commit ', 'live on-success'],
    ['run --commit = on', 'on-success'],
    ['run --commit =', 'live on-success'],
    ['var policy key m', 'max min'],
    ['var policy --user ada key a', 'add append'],
    ['quota set --v', '--variables'],
    ['completion ', 'bash zsh fish'],
    ['nothing ', ''],
  ]);
  const [first = [], hidden] = await tabs([[''], ['__comp']], '/nonexistent');
  for (const word of ['up', 'run', 'var', 'quota'])
    t.equal(first.filter((one) => one === word).length, 1, `${word} is offered once`);
  t.same(hidden, [], 'what is for programs is not offered');
});

void t.test('bash completes the keys of the user or organisation on the line', async (t) => {
  await using server = await InProcessServer.start();
  const state = stateAt(t, server.address.port, server.directory);
  const set = async (namespace: { user: string } | { org: string }, ...keys: string[]) =>
    await server.variables.edit(
      namespace,
      { set: keys.map((key) => [VariableKey.parse(key), '1'] as const), delete: [] },
      { by: 'operator:test' },
    );
  await set({ user: 'default' }, 'city', 'country', 'two words', 'a:b', 'other');
  await set({ org: 'acme' }, 'cargo');
  await offers(
    t,
    [
      ['var get c', 'city country'],
      ['var get --org acme ', 'cargo'],
      ['var get --org = acme ca', 'cargo'],
      ['var delete city co', 'country'],
      ['var get tw', 'two\\_words'],
      ['var get "two_w', 'two_words'],
      ['var get a : ', 'b'],
      ['var set city ', ''],
    ],
    state,
  );
});

void t.test('bash completes the ids of executions', async (t) => {
  await using server = await InProcessServer.start();
  const state = stateAt(t, server.address.port, server.directory);
  const executionId = await server.executions.create(EXECUTION, {
    name: 'test-host',
    thumbprints: ['none'],
  });
  await offers(
    t,
    [
      [`exec show ${executionId.slice(0, 4)}`, executionId],
      ['run --input-from first = ', executionId],
    ],
    state,
  );
});

void t.test(
  'without a server, or with one that is silent, nothing is offered and nothing is said',
  async (t) => {
    const asks = async (state: string) => {
      const started = Date.now();
      const child = spawn(process.execPath, [CRONIUM, '__complete', '--', 'var', 'get', 'c'], {
        env: { ...process.env, CRONIUM_STATE: state },
        stdio: ['ignore', 'pipe', 'pipe'],
      });
      t.same(await finished(child), { code: 0, stdout: '', stderr: '' });
      return Date.now() - started;
    };
    await using server = await InProcessServer.start();
    const silent = await listening(createServer());
    t.teardown(() => silent.close());
    const { port } = silent.address() as AddressInfo;
    await asks('/nonexistent');
    await asks(stateAt(t, 1, server.directory));
    // The handshake would be given 10 s otherwise.
    t.ok((await asks(stateAt(t, port, server.directory))) < 5000, 'soon');
  },
);

async function listening(server: Server): Promise<Server> {
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  return server;
}

const EXECUTION = {
  user: 'ada',
  variablesOf: { user: 'ada' },
  runtime: 'bash',
  timeoutMs: 1000,
  event: {
    id: 1,
    name: 'test',
    description: null,
    type: 'BASH',
    runLocation: 'local',
    createdAt: '',
    updatedAt: '',
    userId: 1,
    server: null,
    successCount: 0,
    failureCount: 0,
    lastRunAt: null,
  },
};

const EXAMPLE: Command = command({
  name: 'cert issue',
  summary: 'Issue one',
  usage:
    'cronium cert issue ROLE NAME... [-n COUNT] (--days N | --out DIR) [--level LEVEL] [--json]',
  help: '',
  options: {
    count: { type: 'string', short: 'n' },
    days: { type: 'string' },
    out: { type: 'string' },
    level: { type: 'string' },
    json: { type: 'boolean', default: false },
  },
  choices: { ROLE: ['host', 'operator'], level: ['high', 'low'] },
  run: async () => await Promise.resolve(0),
});

void t.test('a command declares the words that its usage does not show', async (t) => {
  const models = modelsOf([EXAMPLE]);
  const at = (...words: string[]) => placeOf(models, ['cert', 'issue', ...words])?.source;
  t.same(at(), { kind: 'words', words: ['host', 'operator'] });
  t.same(at('--days', '3'), { kind: 'words', words: ['host', 'operator'] });
  t.same(at('-n', '3'), { kind: 'words', words: ['host', 'operator'] });
  t.same(at('-n'), { kind: 'none' });
  t.same(at('-'), { kind: 'none' });
  t.same(at('--json', '--level'), { kind: 'words', words: ['high', 'low'] });
  t.same(at('--out'), { kind: 'file' });
  t.same(at('host'), { kind: 'none' });
  t.same(at('host', 'a', 'b'), { kind: 'none' });
  t.equal(placeOf(models, ['cert']), undefined);
});

void t.test('the scripts of all shells name every command and every option', async (t) => {
  for (const shell of SHELLS) {
    const script = completionScript(shell, modelsOf([EXAMPLE]));
    for (const word of ['cert', 'issue', 'days', 'level', 'high', 'operator'])
      t.match(script, new RegExp(`\\b${word}\\b`), `${shell}: ${word}`);
  }
});
