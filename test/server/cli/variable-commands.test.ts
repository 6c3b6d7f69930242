import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import t from 'tap';
import { VARIABLE_COMMANDS } from '#server/cli/variable-commands.js';
import { MORE_VARIABLE_COMMANDS } from '#server/cli/variable-set-commands.js';
import { Desk } from '#test/support/desk.js';

const open = async () => await Desk.open([...VARIABLE_COMMANDS, ...MORE_VARIABLE_COMMANDS]);

void t.test(
  'what is said of a variable is kept, shown, and refuses what does not fit',
  async (t) => {
    await using desk = await open();
    const on = async (verb: string, ...args: string[]) =>
      await desk.run(['var', verb, 'limits', ...args, '--user', 'ada']);
    const schema = '{"type": "object", "required": ["cpu"]}';
    const labels = ['--label', 'team=a', '--label', 'tier=1=2'];
    const more = ['--schema', schema, '--expires', '7d', ...labels];
    const set = await on('set', '{"cpu": 2.0}', '--type', 'object', ...more, '--json');
    t.equal(set.code, 0, set.stderr);
    const { version } = JSON.parse(set.stdout) as { version: number };
    const shown = await on('show');
    for (const line of [
      'value    {"cpu": 2.0}',
      'type     object',
      `schema   ${schema}`,
      'label    team=a',
      'label    tier=1=2',
      `version  ${version}`,
    ])
      t.ok(shown.stdout.includes(`${line}\n`), line);
    t.match(shown.stdout, /^updated {2}20.* by operator:test-operator$/m);
    const json = JSON.parse((await on('show', '--json')).stdout);
    t.match(json, {
      key: 'limits',
      value: { cpu: 2 },
      type: 'object',
      schema: { type: 'object' },
      labels: { team: 'a', tier: '1=2' },
      version,
    });
    const life = Date.parse((json as { expiresAt: string }).expiresAt) - Date.now();
    t.ok(Math.abs(life - 7 * 86_400_000) < 60_000, 'it expires in seven days');

    const wrongType = await on('set', '[]');
    t.match(wrongType, { code: 2, stderr: /must be of type object; see: cronium var show limits/ });
    const misfit = await on('set', '{"mem": 1}');
    t.match(misfit, { code: 2, stderr: /does not fit its schema: .*'cpu'/ });
    for (const bad of ['{"type": 5}', '{"tipe": "object"}', '5']) {
      const refused = await on('set', '1', '--schema', bad);
      t.match(refused, { code: 2, stderr: /the schema cannot be used/ }, bad);
    }

    const freed = await on(
      'set',
      '5',
      '--type',
      'none',
      '--schema',
      'none',
      '--expires',
      'never',
      '--no-labels',
    );
    t.equal(freed.code, 0, freed.stderr);
    const after = JSON.parse((await on('show', '--json')).stdout);
    t.strictSame(Object.keys(after as object), ['key', 'value', 'version', 'updatedAt', 'by']);
    t.equal((await on('set', '"5"')).code, 0, 'anything fits');
  },
);

void t.test('a variable that has expired is not there', async (t) => {
  await using desk = await open();
  await desk.run(['var', 'set', 'otp', '1', '--expires', '300ms']);
  t.equal((await desk.run(['var', 'get', 'otp'])).stdout, '1\n');
  await sleep(350);
  t.match(await desk.run(['var', 'get', 'otp']), { code: 1, stderr: /no variable "otp"/ });
  t.equal((await desk.run(['var', 'list', '--json'])).stdout, '[]\n');
});

void t.test('a secret is shown to whoever asks for it, and to nobody else', async (t) => {
  await using desk = await open();
  const run = async (...args: string[]) => await desk.run(['var', ...args]);
  await run('set', 'password', 'hunter2', '--secret');
  await sleep(1100); // what stands for less than a second is not kept
  await run('set', 'password', 'hunter3');
  await run('set', 'city', 'Oslo');
  for (const args of [
    ['list'],
    ['list', '--json'],
    ['show', 'password'],
    ['show', 'password', '--json'],
  ])
    t.notMatch((await run(...args)).stdout, /hunter/, args.join(' '));
  for (const args of [['get', 'password', '--json'], ['history', 'password'], ['export']])
    t.notMatch((await run(...args)).stdout, /hunter/, args.join(' '));
  t.equal(
    (await run('list')).stdout,
    'password = (secret)\ncity = Oslo\n'.replace('Oslo', '"Oslo"'),
  );
  const listed = JSON.parse((await run('list', '--json')).stdout) as Record<string, unknown>[];
  t.match(listed, [
    { key: 'password', secret: true },
    { key: 'city', value: 'Oslo' },
  ]);
  t.notOk('value' in (listed[0] ?? {}));
  t.match(await run('get', 'password'), { code: 1, stderr: /is secret; to see it: .*--reveal/ });
  t.equal((await run('get', 'password', '--reveal')).stdout, 'hunter3\n');
  t.match((await run('show', 'password', '--reveal')).stdout, /^value {4}"hunter3"$/m);
  t.match((await run('history', 'password', '--reveal')).stdout, /"hunter2"$/m);
  await run('set', 'password', 'open', '--no-secret');
  t.equal((await run('get', 'password')).stdout, 'open\n');
});

void t.test('bytes come out as they went in', async (t) => {
  await using desk = await open();
  const bytes = Buffer.from([0, 255, 10, 13, 128, 0]);
  const file = join(desk.server.directory, 'blob');
  writeFileSync(file, bytes);
  for (const [source, stdin] of [
    [`@${file}`, ''],
    ['-', bytes],
  ] as const) {
    const set = await desk.run(['var', 'set', 'blob', source, '--type', 'bytes'], stdin);
    t.equal(set.code, 0, set.stderr);
    t.ok((await desk.run(['var', 'get', 'blob'])).bytes.equals(bytes), source);
  }
  const json = JSON.parse((await desk.run(['var', 'get', 'blob', '--json'])).stdout);
  t.match(json, { value: bytes.toString('base64'), type: 'bytes' });
  t.match(await desk.run(['var', 'set', 'blob', 'no base64!']), {
    code: 2,
    stderr: /must be bytes in base64/,
  });
});

void t.test('compare and set tells the present version', async (t) => {
  await using desk = await open();
  const set = async (...args: string[]) => await desk.run(['var', 'set', 'n', ...args]);
  t.equal((await set('1', '--if-version', '0')).code, 0);
  const version = String(
    (JSON.parse((await desk.run(['var', 'get', 'n', '--json'])).stdout) as { version: number })
      .version,
  );
  const again = await set('2', '--if-version', '0', '--json');
  t.equal(again.code, 1);
  t.match(again.stderr, `n is at version ${version}, not 0`);
  t.strictSame(JSON.parse(again.stdout), { key: 'n', conflict: true, version: Number(version) });
  t.equal((await set('2', '--if-version', version)).code, 0);
  await desk.run(['var', 'delete', 'n']);
  t.match(await set('3', '--if-version', version), { code: 1, stderr: /n is not set/ });
  t.match(await set('3', '--if-version', 'x'), { code: 2, stderr: /whole number/ });
});

void t.test(
  'numbers are added to and arrays appended to; negative numbers are values',
  async (t) => {
    await using desk = await open();
    const run = async (...args: string[]) => await desk.run(['var', ...args]);
    t.equal((await run('add', 'n', '0.1')).stdout, '0.1\n');
    t.equal((await run('add', 'n', '0.2')).stdout, '0.3\n');
    t.equal((await run('add', 'n', '-5')).stdout, '-4.7\n');
    t.match(JSON.parse((await run('add', 'n', '-.5', '--json')).stdout || '{}'), {});
    t.match(await run('add', 'n', 'x'), { code: 2, stderr: /write a number/ });
    await run('set', 'n', '-7');
    t.equal((await run('get', 'n')).stdout, '-7\n');
    await run('append', 'list', '["a"]');
    await run('append', 'list', '[1.0, {}]');
    t.equal((await run('get', 'list')).stdout, '["a",1.0, {}]\n');
    await run('append', 'text', 'one, ');
    await run('append', 'text', 'two');
    t.equal((await run('get', 'text')).stdout, 'one, two\n');
    t.match(await run('append', 'list', 'x'), { code: 2, stderr: /only elements can be appended/ });
  },
);

void t.test('an earlier value is listed and can be had again', async (t) => {
  await using desk = await open();
  const run = async (...args: string[]) => await desk.run(['var', ...args]);
  t.match(await run('history', 'city'), { code: 0, stdout: '', stderr: /no earlier value/ });
  await run('set', 'city', 'Oslo');
  await sleep(1100); // what stands for less than a second is not kept
  await run('set', 'city', 'Bergen');
  const [earlier] = JSON.parse((await run('history', 'city', '--json')).stdout) as {
    version: number;
    value: string;
  }[];
  t.match(earlier, { value: 'Oslo' });
  const restored = await run('restore', 'city', String(earlier?.version));
  t.equal(restored.code, 0, restored.stderr);
  t.equal((await run('get', 'city')).stdout, 'Oslo\n');
  t.match(await run('restore', 'city', '1'), { code: 1, stderr: /see: cronium var history city/ });
});

void t.test('list by prefix', async (t) => {
  await using desk = await open();
  for (const key of ['db_host', 'db_port', 'url']) await desk.run(['var', 'set', key, '1']);
  t.equal(
    (await desk.run(['var', 'list', '--prefix', 'db_'])).stdout,
    'db_host = 1\ndb_port = 1\n',
  );
});

void t.test('sharing is said, listed and taken back', async (t) => {
  await using desk = await open();
  const share = async (...args: string[]) =>
    await desk.run(['var', 'share', ...args, '--org', 'acme']);
  t.match(await share(), { code: 0, stderr: /org:acme shares nothing/ });
  t.equal((await share('db_', '--with-user', 'ada', '--access', 'r')).code, 0);
  t.equal((await share('all', '--with-org', 'other', '--access', 'rw')).code, 0);
  t.equal((await share('all*', '--with-user', 'bob', '--access', 'r')).code, 0);
  t.equal((await share()).stdout, 'db_*  user:ada  r\nall  org:other  rw\nall*  user:bob  r\n');
  t.strictSame(JSON.parse((await share('--json')).stdout), [
    { prefix: 'db_', with: 'user:ada', access: 'r' },
    { prefix: '', with: 'org:other', access: 'rw' },
    { prefix: 'all', with: 'user:bob', access: 'r' },
  ]);
  t.equal((await share('db_', '--with-user', 'ada', '--access', 'rw')).code, 0);
  t.match((await share()).stdout, 'db_*  user:ada  rw\n');
  t.equal((await share('db_', '--with-user', 'ada', '--remove')).code, 0);
  t.match(await share('db_', '--with-user', 'ada', '--remove'), { code: 1, stderr: /not shared/ });
  t.match(await share('db_'), { code: 2, stderr: /with whom/ });
  t.match(await share('db_', '--with-user', 'ada'), { code: 2, stderr: /--access r or/ });
  t.match(await share('db_', '--with-user', 'ada', '--access', 'w'), { code: 2 });
  t.match(await share('--remove'), { code: 2, stderr: /which keys/ });
});

void t.test('mistakes in the command line are told before the server is asked', async (t) => {
  await using desk = await open();
  const misuse = async (args: readonly string[], sentence: RegExp) =>
    t.match(await desk.run(['var', 'set', 'k', '1', ...args]), { code: 2, stderr: sentence });
  await misuse(['--type', 'integer'], /use one of string, number/);
  await misuse(['--secret', '--no-secret'], /exclude each other/);
  await misuse(['--label', 'a=1', '--no-labels'], /exclude each other/);
  await misuse(['--label', 'a'], /write NAME=VALUE/);
  await misuse(['--schema', '{'], /not valid JSON/);
  await misuse(['--expires', 'soon'], /write how long/);
  await misuse(['--expires', '2020-01-01'], /that is over/);
  await misuse(['--expires', '2030-13-41'], /no such time/);
  await misuse(['--expires', '99999d'], /the longest is/);
  await misuse(['--type', 'bytes', '--string'], /exclude each other/);
  t.equal((await desk.run(['var', 'list'])).stdout, '');
});
