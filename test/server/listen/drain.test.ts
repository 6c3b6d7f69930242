import { connect } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import { connect as tlsConnect } from 'node:tls';
import t from 'tap';
import { Connection } from '#bridge/client/connection.js';
import { Channels, ExecutionChannel } from '#bridge/client/execution-channel.js';
import { Link } from '#bridge/client/link.js';
import { asBridgeError } from '#bridge/wire/errors.js';
import type { EventDocument } from '#bridge/wire/protocol.js';
import { InProcessServer } from '#test/support/in-process-server.js';
import { randomTest } from '#test/support/random.js';

const STATUS = {
  software: 'test',
  startedAt: 0,
  connections: 0,
  channels: 0,
  pid: 1,
  restarts: 0,
  storeVersion: 0,
  problems: [],
};

const open = async (server: InProcessServer) =>
  await Connection.open({ address: server.address, tls: server.tls('host'), software: 'test' });

randomTest(
  'with 200 calls under way while the server stops, each is answered or fails as unavailable',
  async (t, random) => {
    let served = 0;
    await using server = await InProcessServer.start({
      limits: { drainMs: 300 },
      serve: async () => {
        served++;
        await sleep(random.int(450));
        return STATUS;
      },
    });
    const connections = await Promise.all([open(server), open(server)]);
    let pausing: Promise<void> | undefined;
    let answered = 0;
    const codes = new Map<string, number>();
    let made = 0;
    const calls = Array.from({ length: 200 }, async () => {
      await sleep(random.int(100));
      if (made++ === 150) pausing = server.pause();
      try {
        await random.pick(connections).call('server.status', {}, { deadlineMs: 20_000 });
        answered++;
      } catch (error) {
        const { code } = asBridgeError(error);
        codes.set(code, (codes.get(code) ?? 0) + 1);
      }
    });
    const started = performance.now();
    await Promise.all(calls);
    await pausing;
    const ms = performance.now() - started;
    t.comment(`${served} served, ${answered} answered, refused: ${JSON.stringify([...codes])}`);
    t.strictSame([...codes.keys()], ['unavailable']);
    t.ok(answered > 20, `${answered} were answered`);
    t.equal(answered + (codes.get('unavailable') ?? 0), 200);
    t.ok(ms < 2000, `over after ${Math.round(ms)} ms`);
    for (const connection of connections) connection[Symbol.dispose]();
  },
);

void t.test('a call under way when the server stops gets its answer', async (t) => {
  await using server = await InProcessServer.start({
    serve: async () => {
      await sleep(200);
      return STATUS;
    },
  });
  using connection = await open(server);
  const call = connection.call('server.status', {});
  await sleep(50);
  const pausing = server.pause();
  t.match(await call, STATUS);
  await pausing;
  t.match(await connection.closed, { message: /the server is shutting down/ });
});

void t.test('a server that stops takes no new connection and says why', async (t) => {
  const stuck = new AbortController();
  await using server = await InProcessServer.start({
    limits: { drainMs: 200 },
    serve: async (_op, { signal }) => {
      await sleep(60_000, undefined, { signal: AbortSignal.any([signal, stuck.signal]) });
      return STATUS;
    },
  });
  using connection = await open(server);
  const call = connection.call('server.status', {}).catch((e: unknown) => e);
  // One that has shaken hands before, and asks only now.
  const { ca, cert, key } = server.tls('host');
  const early = tlsConnect({ ...server.address, ca, cert, key, servername: 'localhost' });
  await new Promise((resolve) => early.once('secureConnect', resolve));
  early.write('GET / HTTP/1.1\r\nHost: x\r\n');
  await sleep(50);
  const started = performance.now();
  const pausing = server.pause();
  await sleep(20);
  early.write('Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n');
  early.write('Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n');
  let text = '';
  for await (const chunk of early) text += String(chunk);
  t.match(text, /^HTTP\/1\.1 503 Service Unavailable\r\n/);
  t.match(text, /\r\nRetry-After: 1\r\n/);
  t.match(text, /the server is shutting down\n$/);
  t.match(await call, { code: 'unavailable' }, 'a call that takes too long is not waited for');
  await pausing;
  t.ok(performance.now() - started < 8_000, 'the call would have taken longer');
  await t.rejects(open(server), { code: 'unavailable', message: /no server answers/ });
});

void t.test(
  'sockets that say nothing, half a handshake or no close do not hold it up',
  async (t) => {
    const server = await InProcessServer.start();
    const { ca, cert, key } = server.tls('host');
    const silent = connect(server.address.port, server.address.host);
    const local = connect(server.socketPath);
    const idle = tlsConnect({ ...server.address, ca, cert, key, servername: 'localhost' });
    for (const socket of [silent, local, idle]) socket.on('error', () => {});
    await Promise.all([
      new Promise((resolve) => silent.once('connect', resolve)),
      new Promise((resolve) => local.once('connect', resolve)),
      new Promise((resolve) => idle.once('secureConnect', resolve)),
    ]);
    const deaf = await open(server);
    silent.write(Buffer.from([0x16, 0x03, 0x01, 0x02, 0x00]));
    const started = performance.now();
    await server[Symbol.asyncDispose]();
    t.ok(performance.now() - started < 8_000, 'the handshake would have taken longer');
    t.match(await deaf.closed, { code: 'unavailable' });
    for (const socket of [silent, local, idle]) socket.destroy();
  },
);

const event: EventDocument = {
  id: 1,
  name: 'test',
  description: null,
  type: 'BASH',
  runLocation: 'LOCAL',
  createdAt: '',
  updatedAt: '',
  userId: 1,
  server: null,
  successCount: 0,
  failureCount: 0,
  lastRunAt: null,
};

void t.test(
  'scripts do not notice a restart: what is refused is asked of the next server',
  async (t) => {
    await using server = await InProcessServer.start();
    await using link = new Link({
      address: { ...server.address, socketPath: server.socketPath },
      tls: server.tls('host'),
      software: 'test',
    });
    const channels = new Channels(link);
    const ears = { changed: () => {}, refreshed: () => {}, cancelled: () => {} };
    const create = async () =>
      await ExecutionChannel.create(
        link,
        channels,
        { user: 'ada', variablesOf: { user: 'ada' }, runtime: 'bash', event, timeoutMs: 1000 },
        ears,
      );
    using channel = await create();
    let restarts = 0;
    const restarting = (async () => {
      for (; restarts < 3; restarts++) {
        await sleep(100);
        await server.pause();
        await server.resume();
      }
    })();
    let writes = 0;
    while (restarts < 3) {
      await channel.setOutput(`${writes++}`);
      if (writes % 10 === 0) (await create())[Symbol.dispose]();
      await sleep(1);
    }
    await restarting;
    t.comment(`${writes} writes, ${restarts} restarts`);
    t.ok(writes > 10, 'and none of them failed');
  },
);
