import { X509Certificate } from 'node:crypto';
import { Agent, type RequestOptions, request } from 'node:https';
import { connect as tlsConnect } from 'node:tls';
import t from 'tap';
import { Connection } from '#bridge/client/connection.js';
import { thumbprintOf } from '#server/auth/identity.js';
import { InProcessServer } from '#test/support/in-process-server.js';

interface Answer {
  readonly status: number | undefined;
  readonly type: string | undefined;
  readonly allow: string | undefined;
  readonly body: string;
}

/** One request, with the certificate `as` or with none. */
async function ask(
  server: InProcessServer,
  path: string,
  as?: string,
  { body, ...options }: RequestOptions & { body?: string } = {},
): Promise<Answer> {
  const { ca, cert, key } = server.tls(as ?? 'host');
  const credentials = as === undefined ? { ca } : { ca: server.tls('host').ca, cert, key };
  const agent = new Agent({ ...credentials, servername: 'localhost' });
  return await new Promise((resolve, reject) => {
    const asked = request({ ...server.address, path, agent, ...options }, (response) => {
      let text = '';
      response.on('data', (chunk: Buffer) => {
        text += chunk.toString();
      });
      response.on('end', () => {
        agent.destroy();
        const { statusCode: status, headers } = response;
        resolve({ status, type: headers['content-type'], allow: headers.allow, body: text });
      });
    });
    asked.on('error', reject);
    asked.end(body);
  });
}

void t.test('/health tells anybody how the server is, and nothing else', async (t) => {
  await using server = await InProcessServer.start();
  const health = { type: 'application/json', body: '{"status":"ok"}' };
  for (const as of [undefined, 'host', 'operator'])
    t.match(await ask(server, '/health', as), { status: 200, ...health }, as ?? 'nobody');
  t.match(await ask(server, '/health?verbose=1'), { status: 200, ...health });
  server.health = 'read-only';
  t.match(await ask(server, '/health'), { status: 503, body: '{"status":"read-only"}' });
  t.match(
    await ask(server, '/health', undefined, { socketPath: server.socketPath }),
    { status: 503 },
    'over the unix socket too',
  );
});

void t.test('/metrics are for operators and auditors, others are told why not', async (t) => {
  await using server = await InProcessServer.start();
  await server.issueAs('old', 'operator', { notAfter: new Date(Date.now() - 60_000) });
  await server.issueAs('foreign', 'operator', { ca: 'other-ca' });
  await server.issueAs('revoked', 'operator');
  server.revoked.add(thumbprintOf(new X509Certificate(server.tls('revoked').cert).raw));
  const { address } = server;
  using connection = await Connection.open({ address, tls: server.tls('host'), software: 'test' });
  await connection.call('server.status', {});
  await t.rejects(connection.call('execution.get', { executionId: EXECUTION }), { code: 'denied' });
  const good = await ask(server, '/metrics', 'operator');
  t.match(good, { status: 200, type: /^text\/plain; version=0\.0\.4/ });
  for (const line of [
    'cronium_call_seconds_count{op="server.status",outcome="ok"} 1',
    'cronium_call_seconds_count{op="execution.get",outcome="denied"} 1',
    'cronium_call_seconds_bucket{le="10",op="hello",outcome="ok"} 1',
    'cronium_connections 1',
    'cronium_store_version ',
    'process_cpu_seconds_total ',
  ])
    t.ok(good.body.includes(line), line);
  for (const [as, status, body] of [
    [undefined, 401, 'a client certificate is needed\n'],
    ['host', 403, 'metrics are for an operator or auditor; test-host is a host\n'],
    ['old', 401, 'the client certificate has expired\n'],
    ['foreign', 401, 'the client certificate comes from another CA\n'],
    ['revoked', 401, 'the client certificate was revoked\n'],
  ] as const)
    t.match(await ask(server, '/metrics', as), { status, body }, as ?? 'nobody');
});

const EXECUTION = '7b0f4e6e-9f5a-4c8e-8a52-0d8b7c1f2a33' as never;

void t.test('other methods, paths and bodies change nothing', async (t) => {
  await using server = await InProcessServer.start();
  for (const method of ['POST', 'PUT', 'DELETE', 'HEAD', 'OPTIONS'])
    for (const path of ['/health', '/metrics'])
      t.match(
        await ask(server, path, 'operator', { method }),
        { status: 405, allow: 'GET' },
        `${method} ${path}`,
      );
  for (const path of ['/', '/healthz', '/metrics/', '//health', '/%68ealth', '/../health'])
    t.match(
      await ask(server, path, 'operator'),
      { status: 426, body: 'this is a WebSocket server\n' },
      path,
    );
  t.match(
    await ask(server, '/health', undefined, {
      method: 'GET',
      headers: { 'content-length': 5 },
      body: 'hello',
    }),
    { status: 200 },
    'a body is not read',
  );
});

void t.test('a body without an end is not waited for', async (t) => {
  await using server = await InProcessServer.start();
  const { ca } = server.tls('host');
  const socket = tlsConnect({ ...server.address, ca, servername: 'localhost' });
  socket.on('error', () => {});
  socket.write('GET /health HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n');
  const pouring = setInterval(() => socket.write('1000\r\n' + 'x'.repeat(4096) + '\r\n'), 1);
  t.teardown(() => clearInterval(pouring));
  let text = '';
  socket.on('data', (chunk: Buffer) => {
    text += chunk.toString();
  });
  await new Promise((resolve) => socket.once('close', resolve));
  t.match(text, /^HTTP\/1\.1 200 OK\r\n/);
});
