import { randomUUID, X509Certificate } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import { type TLSSocket, connect as tlsConnect } from 'node:tls';
import t, { type Test } from 'tap';
import { WebSocket } from 'ws';
import { Connection, type TlsFiles } from '#bridge/client/connection.js';
import { Channels, ExecutionChannel } from '#bridge/client/execution-channel.js';
import { Link } from '#bridge/client/link.js';
import { BridgeError } from '#bridge/wire/errors.js';
import { encodeFrame } from '#bridge/wire/frames.js';
import { type ExecutionId, VariableKey } from '#bridge/wire/names.js';
import type { Capability } from '#bridge/wire/protocol/credentials.js';
import { VARIABLES_CHANGED } from '#bridge/wire/protocol.js';
import { accessOf } from '#server/auth/access.js';
import { thumbprintOf } from '#server/auth/identity.js';
import { InProcessServer } from '#test/support/in-process-server.js';

const DAY_MS = 24 * 60 * 60 * 1000;
const BY = 'operator:test';
/** Reaching the other side, with two loaded cores; what has not happened by then does not happen at once. */
const AT_ONCE_MS = 2000;

const NAMESPACE = { user: 'ada' };
const key = (name: string) => VariableKey.parse(name);

async function startServer(t: Test): Promise<InProcessServer> {
  const server = await InProcessServer.start();
  t.teardown(async () => await server[Symbol.asyncDispose]());
  return server;
}

const thumbprintOfFile = ({ cert }: TlsFiles) => thumbprintOf(new X509Certificate(cert).raw);

const connect = async (server: InProcessServer, tls: TlsFiles): Promise<Connection> =>
  await Connection.open({ address: server.address, tls, software: 'test' });

/** `connected`, or the sentence of the refusal. */
async function verdict(server: InProcessServer, tls: TlsFiles): Promise<string> {
  try {
    using _connection = await connect(server, tls);
    return 'connected';
  } catch (error) {
    return error instanceof BridgeError ? `${error.code}: ${error.message}` : String(error);
  }
}

const codeOf = async (call: Promise<unknown>): Promise<string> =>
  await call.then(
    () => 'done',
    (error: unknown) => (error instanceof BridgeError ? error.code : String(error)),
  );

const soon = async <T>(promise: Promise<T>): Promise<T | 'not at once'> =>
  await Promise.race([promise, sleep(AT_ONCE_MS, 'not at once' as const, { ref: false })]);

async function eventually(what: () => boolean): Promise<boolean> {
  for (let i = 0; i < 100 && !what(); i++) await sleep(50);
  return what();
}

const create = async (connection: Connection) =>
  await connection.call('execution.create', {
    user: 'ada',
    variablesOf: NAMESPACE,
    runtime: 'bash',
    timeoutMs: 60_000,
    event: {
      id: 1,
      name: 'test',
      description: null,
      type: 'manual',
      runLocation: 'local',
      createdAt: '',
      updatedAt: '',
      userId: 'ada',
      server: null,
      successCount: 0,
      failureCount: 0,
      lastRunAt: null,
    },
  });

void t.test('who comes with a certificate that does not count is told why', async (t) => {
  const server = await startServer(t);
  const base = { name: 'h', role: 'host' } as const;
  const revoked = await server.issue(base);
  await server.revocations.revokeCertificate(thumbprintOfFile(revoked), 'lost', BY);
  const foreign = await server.issue(base, true);
  const table: readonly (readonly [string, TlsFiles, RegExp])[] = [
    ['good', await server.issue(base), /^connected$/],
    ['revoked', revoked, /^denied: .*the client certificate was revoked/],
    [
      'foreign',
      { ...foreign, ca: server.tls('host').ca },
      /^denied: .*the client certificate comes from another CA/,
    ],
    [
      'expired',
      await server.issue({ ...base, notAfter: new Date(Date.now() - 60_000) }),
      /^denied: .*has expired/,
    ],
    [
      'not yet valid',
      await server.issue({ ...base, notBefore: new Date(Date.now() + DAY_MS) }),
      /^denied: .*the client certificate is not valid yet/,
    ],
    ['of the server', server.tls('server'), /^denied: /],
  ];
  for (const [what, tls, expected] of table) t.match(await verdict(server, tls), expected, what);
});

void t.test('a revoked certificate is refused after a restart too', async (t) => {
  const server = await startServer(t);
  await server.revocations.revokeCertificate(thumbprintOfFile(server.tls('host')), 'lost', BY);
  await server.pause();
  await server.resume();
  t.match(await verdict(server, server.tls('host')), /was revoked/);
  t.equal(await verdict(server, server.tls('operator')), 'connected');
});

void t.test(
  'revoking a certificate closes its open connections at once, and no others',
  async (t) => {
    const server = await startServer(t);
    const twin = await server.issue({ name: 'test-host', role: 'host' });
    using first = await connect(server, server.tls('host'));
    using second = await connect(server, server.tls('host'));
    using other = await connect(server, twin);
    await server.revocations.revokeCertificate(thumbprintOfFile(server.tls('host')), 'lost', BY);
    for (const connection of [first, second]) {
      t.match(await soon(connection.closed), { message: /was revoked/ });
      t.equal(await codeOf(connection.call('server.status', {})), 'unavailable');
    }
    t.equal(await codeOf(other.call('server.status', {})), 'done', 'another one of the same name');
    t.match(await verdict(server, server.tls('host')), /was revoked/);
  },
);

void t.test('who does not mind the close is served nothing more, and cut off', async (t) => {
  const server = await startServer(t);
  const tls = await server.issue({ name: 'rude', role: 'operator' });
  const { ws, socket } = await raw(server, tls);
  ws.send(encodeFrame([0, 1, 'hello', 0, 5000, { protocol: 1, software: 'rude' }]));
  await new Promise((resolve) => ws.once('message', resolve));
  socket.pause(); // it never sees the close
  const edit = { namespace: NAMESPACE, set: [['k', '1']], delete: [] };
  await server.revocations.revokeCertificate(thumbprintOfFile(tls), 'lost', BY);
  ws.send(encodeFrame([0, 2, 'variable.edit', 0, 5000, edit]));
  await sleep(300);
  t.strictSame(await server.variables.list(NAMESPACE), []);
  t.ok(await eventually(() => server.connections === 0), 'the server does not wait for it');
  ws.terminate();
});

void t.test('a TLS session from before the revocation cannot be resumed past it', async (t) => {
  const server = await startServer(t);
  const { cert: _, key: __, ...bare } = server.tls('host');
  const sessions: Buffer[] = [];
  const { ws, socket } = await raw(server, server.tls('host'));
  socket.on('session', (session: Buffer) => sessions.push(session));
  ws.send(encodeFrame([0, 1, 'hello', 0, 5000, { protocol: 1, software: 'test' }]));
  await new Promise((resolve) => ws.once('message', resolve));
  const now = socket.getSession();
  if (now !== undefined) sessions.push(now);
  t.ok(sessions.length > 0, 'the client has something to resume');
  await server.revocations.revokeCertificate(thumbprintOfFile(server.tls('host')), 'lost', BY);
  ws.terminate();
  for (const session of sessions) {
    const without = await raw(server, { ...bare, session }).catch((e: unknown) => String(e));
    t.match(without, /401/, 'a session without a certificate');
    const along = await raw(server, { ...server.tls('host'), session }).catch((e: unknown) =>
      String(e),
    );
    t.match(along, /401/, 'a session with the revoked certificate');
    const fresh = await server.issue({ name: 'new', role: 'host' });
    const other = await raw(server, { ...fresh, session });
    t.notOk(other.socket.isSessionReused(), 'a good certificate comes in by itself');
    other.ws.terminate();
  }
});

void t.test(
  'the server’s certificate changes under open connections, whose calls go on',
  async (t) => {
    const server = await startServer(t);
    using before = await connect(server, server.tls('operator'));
    let calls = 0;
    let stop = false;
    const calling = (async () => {
      while (!stop) {
        await before.call('server.status', {});
        calls++;
      }
    })();
    const shown: string[] = [];
    const show = async () => {
      const { ws, socket } = await raw(server, server.tls('operator'));
      shown.push(socket.getPeerX509Certificate()?.fingerprint256 ?? '');
      ws.terminate();
    };
    await show();
    for (let i = 0; i < 3; i++) {
      await server.issue({ name: 'server', role: 'server', file: 'server' });
      server.reloadCertificate();
      await show();
    }
    t.equal(new Set(shown).size, 4, 'every new connection is shown the newest');
    const until = calls + 10;
    t.ok(await eventually(() => calls > until), 'the old connection goes on');
    stop = true;
    await calling;
    t.match(
      await verdict(server, await server.issue({ name: 'h', role: 'host' }, true)),
      /^denied/,
      'client certificates are still asked for and checked',
    );
    t.match(
      await raw(server, { ca: server.tls('host').ca }).catch((e: unknown) => String(e)),
      /401/,
    );
  },
);

void t.test(
  'a new certificate that does not fit its key is refused, and the old one serves on',
  async (t) => {
    const server = await startServer(t);
    const other = await server.issue({ name: 'server', role: 'server' });
    const { listener } = server;
    const own = server.tls('server');
    await server.issue({ name: 'server', role: 'server' }, true);
    const foreignAuthority = server.tls('foreign-ca').cert;
    for (const bad of [
      { ...own, key: other.key },
      { ...own, cert: 'nonsense' },
      { ...own, key: '' },
      { ...own, ca: 'nonsense' },
      { ...own, ca: foreignAuthority },
    ])
      t.throws(() => listener.reloadCertificate(bad), { code: 'invalid', message: /stays in use/ });
    t.equal(await verdict(server, server.tls('host')), 'connected');
  },
);

void t.test('a revoked token: its channel is closed at once and it opens no other', async (t) => {
  const server = await startServer(t);
  using host = await connect(server, server.tls('host'));
  using operator = await connect(server, server.tls('operator'));
  const by: readonly (readonly [string, (jti: string, execution: ExecutionId) => string])[] = [
    ['its own id', (jti) => jti],
    ['its execution', (_, execution) => execution],
  ];
  for (const [what, idOf] of by) {
    const [{ token, executionId }, bystander] = [await create(host), await create(host)];
    const { channel } = await host.call('execution.open', { token });
    const other = await host.call('execution.open', { token: bystander.token });
    const heard: unknown[] = [];
    host.onPush = (number) => heard.push(number);
    const renewed = await host.call('token.renew', {}, { channel });
    const record = (await server.tokenRecords.list()).find(
      (one) => one.executionId === executionId,
    );
    if (record === undefined) throw new Error('the token is not on record');
    t.match(record, { profile: 'local', mode: 'rw', by: 'host:test-host' });

    await server.revocations.revokeToken(idOf(record.jti, executionId), 'runs wild', BY);
    const call = host.call('condition.set', { condition: true }, { channel });
    t.equal(await codeOf(call), 'denied', `by ${what}: the open channel`);
    t.equal(await codeOf(host.call('token.renew', {}, { channel })), 'denied', 'no renewal');
    for (const old of [token, renewed.token])
      t.equal(await codeOf(host.call('execution.open', { token: old })), 'denied', 'no opening');
    await operator.call('variable.edit', {
      namespace: NAMESPACE,
      set: [[key(`after-${what.length}`), '1']],
      delete: [],
    });
    await host.call('server.status', {});
    t.strictSame(
      [heard.includes(channel), heard.includes(other.channel)],
      [false, true],
      'and it hears no changes; the bystander does',
    );
    const fine = host.call('condition.set', { condition: true }, { channel: other.channel });
    t.equal(await codeOf(fine), 'done', 'another execution goes on');
  }
});

void t.test(
  'a renewal under way when its token is revoked yields nothing that works',
  async (t) => {
    const server = await startServer(t);
    using host = await connect(server, server.tls('host'));
    const { token, executionId } = await create(host);
    const { channel } = await host.call('execution.open', { token });
    const renewal = host.call('token.renew', {}, { channel }).catch(() => undefined);
    await server.revocations.revokeToken(executionId, '', BY);
    const renewed = await renewal;
    if (renewed !== undefined)
      t.equal(await codeOf(host.call('execution.open', { token: renewed.token })), 'denied');
    t.equal(await codeOf(host.call('token.renew', {}, { channel })), 'denied');
  },
);

void t.test('a narrow token sees and changes what its scopes name, and nothing else', async (t) => {
  const server = await startServer(t);
  using host = await connect(server, server.tls('host'));
  using operator = await connect(server, server.tls('operator'));
  const set = async (names: readonly string[]) =>
    await operator.call('variable.edit', {
      namespace: NAMESPACE,
      set: names.map((name) => [key(name), '1']),
      delete: [],
    });
  await set(['app_a', 'app_b', 'secret']);
  await operator.call('policy.set', { namespace: NAMESPACE, key: key('secret'), policy: 'add' });
  await operator.call('policy.set', { namespace: NAMESPACE, key: key('app_a'), policy: 'add' });
  const { executionId } = await create(host);
  const mint = async (cap: readonly Capability[], mode: 'rw' | 'ro' = 'rw') => {
    const grant = { executionId, namespace: NAMESPACE, profile: 'local', mode, cap } as const;
    const { token } = await server.tokens.mint(grant, thumbprintOfFile(server.tls('host')));
    return await host.call('execution.open', { token });
  };
  const commit = (channel: number, change: { set?: string[]; delete?: string[] }) =>
    codeOf(
      host.call(
        'variables.commit',
        {
          set: (change.set ?? []).map((name) => [key(name), '2']),
          delete: (change.delete ?? []).map(key),
          bases: [],
          commitId: randomUUID(),
        },
        { channel },
      ),
    );

  const narrow = await mint([
    { area: 'variables', access: 'r', keys: ['app_*'] },
    { area: 'variables', access: 'rw', keys: ['app_a'] },
  ]);
  t.strictSame(narrow.variables.map((variable) => variable.key).sort(), ['app_a', 'app_b']);
  t.strictSame(narrow.merged, ['app_a'], 'not even the names of the others');
  const pushed: string[] = [];
  host.onPush = (channel, topic, value) => {
    if (channel !== narrow.channel || topic !== VARIABLES_CHANGED) return;
    for (const change of (value as { changes: { key: string }[] }).changes) pushed.push(change.key);
  };
  await set(['secret', 'app_b']);
  await set(['secret']);
  await host.call('server.status', {});
  t.strictSame(pushed, ['app_b']);
  const { channel } = narrow;
  t.equal(await commit(channel, { set: ['app_a'] }), 'done');
  t.equal(await commit(channel, { set: ['app_b'] }), 'denied');
  t.equal(await commit(channel, { set: ['app_a', 'secret'] }), 'denied', 'all or nothing');
  t.equal(await commit(channel, { delete: ['secret'] }), 'denied');
  t.equal(await codeOf(host.call('output.set', { text: '1' }, { channel })), 'denied');

  const blind = await mint([{ area: 'output', access: 'rw' }]);
  t.strictSame([blind.variables, blind.merged], [[], []]);
  t.equal(await commit(blind.channel, {}), 'denied', 'a commit of nothing is one too');

  const readOnly = await mint(accessOf('local').cap, 'ro');
  t.equal(readOnly.variables.length, 3, 'read-only mode reads');
  const inReadOnly = { channel: readOnly.channel };
  t.equal(await commit(readOnly.channel, { set: ['app_a'] }), 'read_only');
  t.equal(await codeOf(host.call('output.set', { text: '1' }, inReadOnly)), 'read_only');
  t.equal(await codeOf(host.call('condition.set', { condition: true }, inReadOnly)), 'read_only');
});

void t.test(
  'a host whose certificate is rotated keeps its executions over a reconnection',
  async (t) => {
    const server = await startServer(t);
    const old = thumbprintOfFile(server.tls('host'));
    // As mountd should have it: files are read at every connection.
    const link = new Link({
      address: server.address,
      software: 'test',
      get tls() {
        return server.tls('host');
      },
    });
    t.teardown(async () => await link[Symbol.asyncDispose]());
    const connection = await link.connection();
    using channel = await ExecutionChannel.create(
      link,
      new Channels(link),
      {
        user: 'ada',
        variablesOf: NAMESPACE,
        runtime: 'bash',
        timeoutMs: 60_000,
        event: {
          id: 1,
          name: 'test',
          description: null,
          type: 'manual',
          runLocation: 'local',
          createdAt: '',
          updatedAt: '',
          userId: 'ada',
          server: null,
          successCount: 0,
          failureCount: 0,
          lastRunAt: null,
        },
      },
      { changed: () => {}, refreshed: () => {}, cancelled: () => {} },
    );
    const fresh = thumbprintOfFile(
      await server.issue({ name: 'test-host', role: 'host', file: 'host' }),
    );
    await channel.setOutput('"by the old certificate"');
    await server.pause();
    await server.resume();
    await connection.closed;
    t.equal(await codeOf(channel.setOutput('1')), 'denied', 'unless an operator says so');
    await server.successions.succeed(old, fresh, BY);
    await channel.setOutput('"by the new certificate"');
    t.match(await server.executions.get(channel.executionId), {
      output: '"by the new certificate"',
    });
    await server.revocations.revokeCertificate(old, 'rotated', BY);
    await channel.setOutput('"still"');
    t.pass('revoking the old one does not touch what is open on the new one');
  },
);

/** A WebSocket without our client above it, and the TLS socket under it. */
async function raw(
  server: InProcessServer,
  tls: { ca: string; cert?: string; key?: string; session?: Buffer },
): Promise<{ ws: WebSocket; socket: TLSSocket }> {
  let socket: TLSSocket | undefined;
  const { host, port } = server.address;
  const ws = new WebSocket(`wss://${host}:${port}/`, {
    perMessageDeflate: false,
    createConnection: () => {
      const { ca, cert, key: privateKey, session } = tls;
      socket = tlsConnect({
        ca,
        cert,
        key: privateKey,
        session,
        host,
        port,
        servername: 'localhost',
        ALPNProtocols: ['http/1.1'],
      });
      return socket;
    },
  });
  await new Promise((resolve, reject) => {
    ws.once('open', resolve);
    ws.once('error', reject);
  });
  if (socket === undefined) throw new Error('no connection was made');
  return { ws, socket };
}
