import { readFileSync } from 'node:fs';
import t from 'tap';
import { Connection, type TlsFiles } from '#bridge/client/connection.js';
import { BridgeError } from '#bridge/wire/errors.js';
import { ExecutionId } from '#bridge/wire/names.js';
import {
  eventually,
  finished,
  type RunJson,
  TestInstallation,
} from '#test/support/installation.js';
import { needsMachine } from '#test/support/machine.js';
import { killProcess } from '#test/support/processes.js';

const options = await needsMachine();

/** Runs until the variable `go` is there, then writes. */
const WAITING = `until grep -q '"go"' variables.json; do sleep 0.1; done; echo '"after"' > output.json`;

interface CertificateRow {
  name: string;
  role: string;
  fingerprint: string;
  inUse: string | null;
  state: string;
}

async function json<T>(cronium: TestInstallation, ...args: string[]): Promise<T> {
  const { code, stdout, stderr } = await cronium.cronium([...args, '--json']);
  if (code !== 0) throw new Error(`cronium ${args.join(' ')}: ${code} ${stderr}`);
  return JSON.parse(stdout) as T;
}

/** A run in the background, once the server knows it, and what it prints at its end. */
async function waiting(
  cronium: TestInstallation,
  script: string,
): Promise<{ executionId: ExecutionId; ended: Promise<RunJson> }> {
  const child = cronium.spawn(['run', '--json', cronium.script('sh', script)]);
  const ended = finished(child).then(({ stdout }) => JSON.parse(stdout) as RunJson);
  let id: string | undefined;
  await eventually('it runs', async () => {
    const status = await cronium.cronium(['status', '--json']);
    const { mountd } = JSON.parse(status.stdout) as {
      mountd: { executions?: { executionId: string }[] };
    };
    id = mountd.executions?.[0]?.executionId;
    return id !== undefined && (await cronium.containers())[0]?.State === 'running';
  });
  return { executionId: ExecutionId.parse(id), ended };
}

const codeOf = async (call: Promise<unknown>): Promise<string> =>
  await call.then(
    () => 'done',
    (error: unknown) => (error instanceof BridgeError ? error.code : String(error)),
  );

void t.test('certificates, keys and tokens of a running installation', options, async (t) => {
  await using cronium = await TestInstallation.up();
  const { installation } = cronium;
  const address = installation.state.settings().listen;
  const connect = async (tls: TlsFiles) =>
    await Connection.open({ address, tls, software: 'test' });
  const issued = async (name: string, role: string): Promise<TlsFiles> => {
    const files = await json<{ cert: string; key: string; ca: string }>(
      cronium,
      'cert',
      'issue',
      name,
      '--role',
      role,
      '--out',
      cronium.directory,
    );
    const read = (path: string) => readFileSync(path, 'utf8');
    return {
      ca: read(files.ca),
      cert: read(files.cert),
      key: read(files.key),
      certPath: files.cert,
    };
  };

  await t.test(
    'a script runs through a rotation of everything and a crash of the server',
    async (t) => {
      using before = await connect(installation.tls('operator'));
      const { ended } = await waiting(cronium, WAITING);
      const rows = await json<CertificateRow[]>(cronium, 'cert', 'list');
      t.ok(rows.every(({ state }) => state === 'valid'));
      await json(cronium, 'cert', 'rotate');
      await json(cronium, 'token', 'rotate-key');
      t.equal(await codeOf(before.call('server.status', {})), 'done', 'what was open goes on');
      const after = await json<CertificateRow[]>(cronium, 'cert', 'list');
      t.equal(after.length, 6, 'old and new ones');
      killProcess(cronium.serverPid, 'SIGKILL');
      await before.closed;
      await eventually(
        'mountd is back',
        async () => (await cronium.cronium(['status'])).code === 0,
      );
      await cronium.cronium(['var', 'set', 'go', '1']);
      t.match(await ended, { exitCode: 0, output: 'after' });
      t.match(await cronium.run('sh', 'echo 2 > output.json'), { output: 2 });
    },
  );

  await t.test('the server shows its new certificate at once', async (t) => {
    const shown = async () => {
      const { stdout } = await cronium.cronium(['cert', 'list', '--json']);
      return (JSON.parse(stdout) as CertificateRow[]).find(({ inUse }) => inUse === 'server');
    };
    const first = await shown();
    await json(cronium, 'cert', 'rotate', 'server');
    t.not((await shown())?.fingerprint, first?.fingerprint);
  });

  await t.test(
    'a revoked certificate: its connection ends, by name; a second time is no error',
    async (t) => {
      const tls = await issued('build-7', 'host');
      using connection = await connect(tls);
      const revoked = await json<{ name: string; by: string }>(
        cronium,
        'cert',
        'revoke',
        'build-7',
        '--reason',
        'sold',
      );
      t.match(revoked, { name: 'build-7', role: 'host', by: 'operator:operator', reason: 'sold' });
      t.match(await connection.closed, { message: /was revoked/ });
      t.equal(await codeOf(connect(tls)), 'denied');
      const rows = await json<CertificateRow[]>(cronium, 'cert', 'list');
      const row = rows.find(({ name }) => name === 'build-7');
      t.match(row, { state: 'revoked', revoked: { reason: 'sold' } });
      t.match(
        await cronium.cronium(['cert', 'revoke', 'build-7']),
        { code: 2 },
        'no valid one is left',
      );
      const again = await json<{ reason: string }>(
        cronium,
        'cert',
        'revoke',
        row?.fingerprint ?? '',
      );
      t.equal(again.reason, 'sold', 'the first reason stays');
    },
  );

  await t.test(
    'the operator cannot lock itself out; two of one name have to be told apart',
    async (t) => {
      const rows = await json<CertificateRow[]>(cronium, 'cert', 'list');
      const own = rows.find(({ inUse }) => inUse === 'operator')?.fingerprint ?? '';
      const old =
        rows.find(({ name, inUse }) => name === 'operator' && inUse === null)?.fingerprint ?? '';
      t.match(await cronium.cronium(['cert', 'revoke', own]), {
        code: 2,
        stderr: /cert rotate operator/,
      });
      t.match(await cronium.cronium(['cert', 'revoke', 'operator']), { code: 2, stderr: own });
      t.match(await json(cronium, 'cert', 'revoke', old.slice(0, 12)), { fingerprint: old });
      const server = rows.find(({ inUse }) => inUse === 'server')?.fingerprint ?? '';
      t.match(await cronium.cronium(['cert', 'revoke', server]), {
        code: 2,
        stderr: /rotate server/,
      });
    },
  );

  await t.test('an auditor may look at credentials and nothing else', async (t) => {
    using auditor = await connect(await issued('ann', 'auditor'));
    t.equal(await codeOf(auditor.call('server.status', {})), 'done');
    t.equal(await codeOf(auditor.call('cert.revoked', {})), 'done');
    t.equal(await codeOf(auditor.call('token.list', {})), 'done');
    const namespace = { user: 'default' };
    const { variables } = await auditor.call('variable.list', { namespace });
    t.ok(variables.length > 0 && variables.every(({ text }) => text === null), 'names, no values');
    const edit = { namespace, set: [], delete: [] };
    t.equal(await codeOf(auditor.call('variable.edit', edit)), 'denied');
    const thumbprint = 'a'.repeat(43);
    t.equal(await codeOf(auditor.call('cert.revoke', { thumbprint, reason: '' })), 'denied');
    t.equal(await codeOf(auditor.call('server.reload', {})), 'denied');
  });

  await t.test('a token for a running script, and the end of all its tokens', async (t) => {
    await cronium.cronium(['var', 'delete', 'go']);
    await cronium.cronium(['var', 'set', 'app_a', '1']);
    const { executionId, ended } = await waiting(
      cronium,
      `until [ "$(grep -c '"go"' variables.json)" = 1 ]; do sleep 0.1; done; echo 1 > output.json || echo refused`,
    );
    const tls = await issued('build-8', 'host');
    const minted = await json<{ token: string; id: string }>(
      cronium,
      'token',
      'mint',
      executionId,
      '--host-cert',
      tls.certPath,
      '--lifetime',
      '1h',
      '--scope',
      'variables:r:app_*',
      '--profile',
      'local',
    );
    const plain = await cronium.cronium([
      'token',
      'mint',
      executionId,
      '--host-cert',
      tls.certPath,
    ]);
    t.match(plain.stdout, /^eyJ[\w.-]+\n$/, 'without --json the token alone');
    using host = await connect(tls);
    const { channel, variables } = await host.call('execution.open', { token: minted.token });
    t.strictSame(
      variables.map(({ key }) => key),
      ['app_a'],
    );
    const listed = await json<{ id: string; by: string }[]>(cronium, 'token', 'list');
    t.match(
      listed.find(({ id }) => id === minted.id),
      { executionId, profile: 'local', mode: 'rw', by: 'operator:operator', isRevoked: false },
    );
    t.notMatch(JSON.stringify(listed), minted.token);
    t.match(await json(cronium, 'token', 'revoke', minted.id), { isKnown: true });
    t.equal(await codeOf(host.call('token.renew', {}, { channel })), 'denied');
    t.equal(await codeOf(host.call('execution.open', { token: minted.token })), 'denied');
    t.equal(
      await codeOf(host.call('execution.open', { token: plain.stdout.trim() })),
      'done',
      'the other token is another one',
    );
    await cronium.cronium(['var', 'set', 'go', '1']);
    t.match(await ended, { exitCode: 0, output: 1 }, 'the script has its own');

    await cronium.cronium(['var', 'delete', 'go']);
    const second = await waiting(
      cronium,
      // Not `echo 1 >`: a shell does not look at what close(2) says.
      'while printf 1 | dd of=output.json conv=fsync; do sleep 0.1; done; echo refused',
    );
    await json(cronium, 'token', 'revoke', second.executionId, '--reason', 'tampered with');
    const result = await second.ended;
    t.match(result, { stdout: /refused/, stderr: /Permission denied/ }, 'the script hears it');
    t.match(result.warnings, [/the token was revoked/], 'and its host why');
  });
});
