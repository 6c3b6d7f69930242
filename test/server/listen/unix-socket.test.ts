import { X509Certificate } from 'node:crypto';
import { existsSync, readFileSync, renameSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import t from 'tap';
import { Connection, type ServerAddress, type TlsFiles } from '#bridge/client/connection.js';
import { BridgeError } from '#bridge/wire/errors.js';
import { thumbprintOf } from '#server/auth/identity.js';
import { Listener } from '#server/listen/listener.js';
import { InProcessServer } from '#test/support/in-process-server.js';

const NOBODY = { host: '127.0.0.1', port: 1 };

const open = async (address: ServerAddress, tls: TlsFiles) =>
  await Connection.open({ address, tls, software: 'test' });

void t.test('a host on the same machine is served over the unix socket', async (t) => {
  await using server = await InProcessServer.start();
  t.equal((statSync(server.socketPath).mode & 0o777).toString(8), '600');
  t.ok(statSync(server.socketPath).isSocket());
  // Nobody listens on the port, so an answer came over the socket.
  using connection = await open({ ...NOBODY, socketPath: server.socketPath }, server.tls('host'));
  t.match(await connection.call('server.status', {}), { software: 'test' });
  t.equal(server.listener?.connections, 1);
});

void t.test('without a socket, or with one that is dead, the port is taken', async (t) => {
  await using server = await InProcessServer.start();
  const missing = `${server.socketPath}-missing`;
  const dead = await deadSocket(`${server.socketPath}-dead`);
  const text = `${server.socketPath}-text`;
  writeFileSync(text, 'no socket');
  for (const socketPath of [missing, dead, text, undefined]) {
    using connection = await open({ ...server.address, socketPath }, server.tls('host'));
    t.match(await connection.call('server.status', {}), { software: 'test' }, String(socketPath));
  }
  await t.rejects(open({ ...NOBODY, socketPath: dead }, server.tls('host')), {
    code: 'unavailable',
    message: /^no server answers at 127\.0\.0\.1:1; start it with: cronium up$/,
  });
});

void t.test('whom the port refuses the unix socket refuses in the same words', async (t) => {
  await using server = await InProcessServer.start();
  await server.issueAs('foreign', 'host', { ca: 'other-ca' });
  await server.issueAs('old', 'host', { notAfter: new Date(Date.now() - 60_000) });
  await server.issueAs('server-role', 'server');
  await server.issueAs('revoked', 'host');
  server.revoked.add(thumbprintOf(new X509Certificate(server.tls('revoked').cert).raw));
  for (const [who, message] of [
    ['foreign', /the client certificate comes from another CA/],
    ['old', /the certificate has expired/],
    ['server-role', /names neither a host nor an operator|certificate is not valid/],
    ['revoked', /the client certificate was revoked/],
  ] as const) {
    const refusals = [];
    for (const address of [server.address, { ...NOBODY, socketPath: server.socketPath }]) {
      const error: unknown = await open(address, server.tls(who)).catch((e: unknown) => e);
      t.match(error, { code: 'denied', message }, `${who} at ${Object.values(address).join(' ')}`);
      refusals.push(
        String(error).replace(`${server.address.host}:${server.address.port}`, server.socketPath),
      );
    }
    t.equal(refusals[0], refusals[1]);
  }
  const { key: _, cert: __, ...bare } = server.tls('host');
  await t.rejects(
    open({ ...NOBODY, socketPath: server.socketPath }, bare as TlsFiles),
    { code: 'denied', message: /a client certificate is needed/ },
    'nor is the file’s mode enough',
  );
  t.equal(server.listener?.connections, 0);
});

void t.test('the server behind the socket must be ours too', async (t) => {
  await using server = await InProcessServer.start();
  await using other = await InProcessServer.start();
  await t.rejects(
    open({ ...server.address, socketPath: other.socketPath }, server.tls('host')),
    { code: 'denied', message: /shows a certificate that our CA did not issue/ },
    'and then the port is not asked either: something is wrong',
  );
});

void t.test('the socket is gone with its server, and a dead server’s is replaced', async (t) => {
  await using server = await InProcessServer.start();
  await server.pause();
  t.notOk(existsSync(server.socketPath));
  await deadSocket(server.socketPath);
  await server.resume();
  using connection = await open({ ...NOBODY, socketPath: server.socketPath }, server.tls('host'));
  t.match(await connection.call('server.status', {}), { software: 'test' });
});

void t.test('a socket that answers, and a file that is no socket, are left alone', async (t) => {
  await using server = await InProcessServer.start();
  const second = async (socketPath: string) =>
    await Listener.open({
      host: '127.0.0.1',
      port: 0,
      socketPath,
      tls: server.serverTls,
      log: server.log,
      health: () => 'ok',
      metrics: () => Promise.reject(new Error('none')),
      connect: () => {
        throw new BridgeError('denied', 'nobody');
      },
    });
  await t.rejects(second(server.socketPath), {
    code: 'unavailable',
    message: /^another server answers on .*; stop it first$/,
  });
  using connection = await open({ ...NOBODY, socketPath: server.socketPath }, server.tls('host'));
  t.match(await connection.call('server.status', {}), { software: 'test' }, 'the first goes on');
  const file = `${server.socketPath}-file`;
  writeFileSync(file, 'precious');
  await t.rejects(second(file), { code: 'invalid', message: /in the way and no socket/ });
  t.equal(readFileSync(file, 'utf8'), 'precious');
  rmSync(file);
});

void t.test('a renewed certificate is shown to the next connection, on both ways', async (t) => {
  await using server = await InProcessServer.start();
  using before = await open(server.address, server.tls('host'));
  await server.issueAs('server', 'server', { ca: 'new-ca' });
  await server.issueAs('new-host', 'host', { ca: 'new-ca' });
  server.listener.reloadCertificate(server.tls('server', 'new-ca'));
  for (const address of [server.address, { ...NOBODY, socketPath: server.socketPath }]) {
    await t.rejects(open(address, server.tls('host')), { code: 'denied' });
    using after = await open(address, server.tls('new-host', 'new-ca'));
    t.match(await after.call('server.status', {}), { software: 'test' });
  }
  t.match(await before.call('server.status', {}), { software: 'test' }, 'what is open stays');
});

void t.test('who becomes unwelcome is put out at once, and nobody else', async (t) => {
  await using server = await InProcessServer.start();
  using host = await open(server.address, server.tls('host'));
  using operator = await open(server.address, server.tls('operator'));
  const reason = new BridgeError('denied', 'the client certificate was revoked');
  t.equal(
    server.listener.disconnect(({ role }) => role === 'host', reason),
    1,
  );
  t.match(await host.closed, { message: /the client certificate was revoked/ });
  t.match(await operator.call('server.status', {}), { software: 'test' });
});

/** What a server that was killed leaves behind. */
async function deadSocket(path: string): Promise<string> {
  const child = createServer();
  await new Promise<void>((resolve) => child.listen(`${path}.live`, resolve));
  // Renamed, so that closing does not remove it.
  renameSync(`${path}.live`, path);
  await new Promise((resolve) => child.close(resolve));
  return path;
}
