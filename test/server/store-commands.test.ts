import { existsSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import type { Namespace } from '#bridge/wire/names.js';
import { VariableKey } from '#bridge/wire/names.js';
import { ServerProcess } from '#test/support/server-process.js';

t.setTimeout(180_000);

const ADA: Namespace = { user: 'ada' };
const BOB: Namespace = { user: 'bob' };

async function put(
  server: ServerProcess,
  namespace: Namespace,
  count: number,
  word: string,
): Promise<void> {
  using operator = await server.connect('operator');
  const set = Array.from({ length: count }, (_, i): [VariableKey, string] => [
    VariableKey.parse(`key-${i}`),
    JSON.stringify(`${word} ${i}`),
  ]);
  await operator.call('variable.edit', { namespace, set, delete: [] });
}

async function texts(server: ServerProcess, namespace: Namespace): Promise<string[]> {
  using operator = await server.connect('operator');
  const { variables } = await operator.call('variable.list', { namespace });
  return variables.map(({ text }) => text ?? '');
}

/** Every byte below the state directory's server/, to look for what must not be there. */
function bytesOnDisk(server: ServerProcess): Buffer {
  const directory = server.state.path('server');
  const files = readdirSync(directory, { recursive: true, encoding: 'utf8' })
    .map((name) => join(directory, name))
    .filter((path) => statSync(path).isFile());
  return Buffer.concat(files.map((path) => readFileSync(path)));
}

void t.test(
  'a backup of a running server is restored, here and elsewhere, and nowhere without the master key',
  async (t) => {
    await using server = await ServerProcess.make();
    await server.start();
    await put(server, ADA, 50, 'first');
    const file = join(server.directory, 'one.bak');
    t.match(await server.cronium('store', 'backup', file), {
      code: 0,
      stderr: /wrote .*one\.bak, \d+ bytes/,
    });
    t.equal(statSync(file).mode & 0o777, 0o600);
    t.notOk(readFileSync(file).includes('first 7'), 'it is encrypted');
    t.match(await server.cronium('store', 'backup', join(server.directory, 'no/such/file')), {
      code: 1,
      stderr: /^cannot write .*: ENOENT; choose another place\n$/,
    });
    t.match(await server.cronium('store', 'backup', file), { code: 2, stderr: /is there already/ });
    await put(server, ADA, 50, 'second');
    t.match(await server.cronium('store', 'restore', file), {
      code: 1,
      stderr: /the server runs; stop it first/,
    });
    await server.end('SIGTERM');

    const whole = readFileSync(file);
    const cut = join(server.directory, 'cut.bak');
    writeFileSync(cut, whole.subarray(0, whole.length - 100));
    t.match(await server.cronium('store', 'restore', cut), {
      code: 2,
      stderr: /not a whole backup/,
    });
    await server.start();
    t.equal((await texts(server, ADA))[7], '"second 7"', 'a bad backup has replaced nothing');
    await server.end('SIGTERM');

    t.match(await server.cronium('store', 'restore', file), {
      code: 0,
      stderr: /restored \d+ records as of commit \d+; what was there before is in/,
    });
    await server.start();
    t.equal((await texts(server, ADA))[7], '"first 7"');
    t.match(await server.cronium('store', 'verify'), {
      code: 0,
      stdout: /^intact: \d+ records as of commit \d+/,
    });
    await put(server, ADA, 50, 'third');
    t.equal((await texts(server, ADA))[7], '"third 7"', 'it goes on from there');

    await using other = await ServerProcess.make();
    t.match(await other.cronium('store', 'restore', file), {
      code: 1,
      stderr: /master key .* is missing/,
    });
    writeFileSync(
      other.state.path('server', 'master.key'),
      readFileSync(server.state.path('server', 'master.key')),
      { mode: 0o600 },
    );
    t.match(await other.cronium('store', 'restore', file), { code: 0 });
    await other.start();
    t.equal((await texts(other, ADA))[7], '"first 7"', 'on another machine');
  },
);

void t.test(
  'verify finds damage, running or not; the server refuses it, and serves the rest for reading when told to',
  async (t) => {
    await using server = await ServerProcess.make();
    await server.start();
    await put(server, ADA, 200, 'word');
    t.match(await server.cronium('store', 'verify', '--json'), {
      code: 0,
      stdout: /"problems":\[\]/,
    });
    t.match(await server.cronium('store', 'compact'), { code: 0 });
    await server.end('SIGTERM');
    t.match(await server.cronium('store', 'verify'), { code: 0, stdout: /^intact/ });
    const table = readdirSync(server.database).find((name) => name.endsWith('.ldb')) ?? '';
    const bytes = readFileSync(join(server.database, table));
    const at = Math.floor(bytes.length / 2);
    // More than the checksum of a block, which nobody reads.
    for (let i = at; i < at + 64; i++) bytes[i] = (bytes[i] ?? 0) ^ 0xff;
    writeFileSync(join(server.database, table), bytes);
    t.match(await server.cronium('store', 'verify'), { code: 1, stderr: /cronium store restore/ });
    await t.rejects(server.start(), { message: /is damaged.*cronium store restore/ });
    await server.end('SIGKILL');
    await server.start({ damaged: true });
    using operator = await server.connect('operator');
    t.match((await operator.call('server.status', {})).problems, [/./]);
    t.match(await server.cronium('status'), { code: 1, stdout: /the store can only be read: / });
    await t.rejects(operator.call('keys.rotate', {}), { code: 'read_only' });
    await t.rejects(
      operator.call('variable.edit', {
        namespace: BOB,
        set: [[VariableKey.parse('a'), '1']],
        delete: [],
      }),
      { code: 'read_only' },
    );
  },
);

void t.test(
  'keys are rotated while the server is in use, and old ones are of no use afterwards',
  async (t) => {
    await using server = await ServerProcess.make();
    await server.start();
    await put(server, ADA, 300, 'ada');
    await put(server, BOB, 10, 'bob');
    const before = readFileSync(server.state.path('server', 'keyring.json'));
    let running = true;
    const writing = (async () => {
      for (let i = 0; running; i++) await put(server, BOB, 10, `bob ${i}`);
    })();
    t.match(await server.cronium('keys', 'rotate'), {
      code: 0,
      stderr: /\d+ records encrypted anew, \d+ old keys dropped/,
    });
    running = false;
    await writing;
    t.equal((await texts(server, ADA)).length, 300);
    t.match(await server.cronium('store', 'verify'), { code: 0 });
    t.match(await server.cronium('keys', 'status', '--json'), {
      code: 0,
      stdout: /"state":"done"/,
    });
    t.match(await server.cronium('keys', 'rotate', '--master'), {
      code: 0,
      stderr: /new master key/,
    });
    await server.end('SIGTERM');
    await server.start();
    t.equal((await texts(server, ADA)).length, 300, 'the new master key opens it');
    await server.end('SIGTERM');
    const now = readFileSync(server.state.path('server', 'keyring.json'));
    writeFileSync(server.state.path('server', 'keyring.json'), before);
    await t.rejects(
      server.start(),
      { message: /does not open/ },
      'the old keyring does not go with it',
    );
    await server.end('SIGKILL');
    writeFileSync(server.state.path('server', 'keyring.json'), now);
    await server.start();
  },
);

void t.test(
  'an erased namespace is gone from the disk, and its name can be used again',
  async (t) => {
    await using server = await ServerProcess.make();
    await server.start();
    await put(server, ADA, 50, 'ada');
    await put(server, BOB, 5, 'bob');
    t.match(await server.cronium('namespace', 'erase', '--user', 'ada'), {
      code: 2,
      stderr: /--yes/,
    });
    t.match(await server.cronium('namespace', 'erase', '--user', 'ada', '--yes'), { code: 0 });
    t.strictSame(await texts(server, ADA), []);
    t.equal((await texts(server, BOB)).length, 5, 'others stay');
    await put(server, ADA, 2, 'new');
    await server.end('SIGTERM');
    await server.start();
    t.strictSame(await texts(server, ADA), ['"new 0"', '"new 1"']);
    t.match(await server.cronium('store', 'verify'), { code: 0 });
    t.match(await server.cronium('audit', 'tail', '--op', 'namespace.erase'), {
      stdout: /operator:operator namespace\.erase user:ada/,
    });
  },
);

void t.test('the master key may come from a command', async (t) => {
  await using server = await ServerProcess.make();
  const key = join(server.directory, 'elsewhere.key');
  writeFileSync(key, `${Buffer.alloc(32, 9).toString('base64url')}\n`, { mode: 0o600 });
  const masterKey = { command: `cat '${key}'` };
  await server.start({ masterKey });
  await put(server, ADA, 3, 'ada');
  await server.end('SIGTERM');
  t.notOk(existsSync(server.state.path('server', 'master.key')), 'no file of ours holds it');
  t.notOk(bytesOnDisk(server).includes(Buffer.alloc(32, 9)), 'nor does any other');
  writeFileSync(key, `${Buffer.alloc(32, 8).toString('base64url')}\n`);
  await t.rejects(server.start({ masterKey }), { message: /does not open/ });
  await server.end('SIGKILL');
  await t.rejects(server.start({ masterKey: { command: 'echo no key here >&2; exit 3' } }), {
    message: /no key here/,
  });
  await server.end('SIGKILL');
});

void t.test(
  'a database that is gone is missed, and can be put back whatever its path is called',
  async (t) => {
    await using server = await ServerProcess.make('database-db-state');
    await server.start();
    await put(server, ADA, 5, 'ada');
    const file = join(server.directory, 'one.bak');
    t.match(await server.cronium('store', 'backup', file), { code: 0 });
    await server.end('SIGTERM');
    for (const name of readdirSync(server.state.path('server')))
      if (name.startsWith('db')) rmSync(server.state.path('server', name), { recursive: true });
    await t.rejects(server.start(), { message: /is missing, but its keyring .* is there/ });
    await server.end('SIGKILL');
    t.match(await server.cronium('store', 'restore', file), { code: 0 });
    await server.start();
    t.equal((await texts(server, ADA)).length, 5);
  },
);
