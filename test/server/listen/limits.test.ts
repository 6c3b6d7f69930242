import { setTimeout as sleep } from 'node:timers/promises';
import { connect as tlsConnect } from 'node:tls';
import t from 'tap';
import { WebSocket } from 'ws';
import { Connection } from '#bridge/client/connection.js';
import { Link } from '#bridge/client/link.js';
import { encodeFrame } from '#bridge/wire/frames.js';
import { PROTOCOL_VERSION } from '#bridge/wire/protocol.js';
import { InProcessServer } from '#test/support/in-process-server.js';
import { eventually } from '#test/support/installation.js';

const open = async (server: InProcessServer) =>
  await Connection.open({ address: server.address, tls: server.tls('host'), software: 'test' });

void t.test(
  'beyond the limit a connection is refused early, with a hint when to come',
  async (t) => {
    await using server = await InProcessServer.start({ limits: { connectionsMax: 2 } });
    using first = await open(server);
    using second = await open(server);
    const error: unknown = await open(server).catch((e: unknown) => e);
    t.match(error, {
      code: 'unavailable',
      message: /2 connections are open, which is the limit; try again later/,
      retryAfterMs: 5000,
    });
    const { ca } = server.tls('host');
    const stranger = tlsConnect({ ...server.address, ca, servername: 'localhost' });
    stranger.write(
      'GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n',
    );
    let text = '';
    for await (const chunk of stranger) text += String(chunk);
    t.match(
      text,
      /^HTTP\/1\.1 401 .*a client certificate is needed\n$/s,
      'strangers hear no figures',
    );
    t.match(await first.call('server.status', {}), { software: 'test' }, 'those inside go on');
    second[Symbol.dispose]();
    await eventually('there is room', () => server.listener?.connections === 1);
    using third = await open(server);
    t.match(await third.call('server.status', {}), { software: 'test' });
  },
);

void t.test('a link that found no room comes in when there is some', async (t) => {
  await using server = await InProcessServer.start({ limits: { connectionsMax: 1 } });
  const first = await open(server);
  await using link = new Link({
    address: server.address,
    tls: server.tls('host'),
    software: 'test',
  });
  await eventually('it was refused', () => /which is the limit/.test(link.status.problem ?? ''));
  first[Symbol.dispose]();
  await link.connection(10_000);
  t.equal(link.status.connected, true);
});

/** A peer that asks for large answers and reads none of them. */
async function deafPeer(server: InProcessServer): Promise<WebSocket> {
  const ws = await greeted(server);
  ws.pause();
  let id = 2;
  const asking = setInterval(() => {
    if (ws.readyState === WebSocket.OPEN)
      ws.send(encodeFrame([0, id++, 'variable.list', 0, 10_000, { namespace: { user: 'ada' } }]));
  }, 1);
  ws.once('close', () => clearInterval(asking));
  t.teardown(() => clearInterval(asking));
  return ws;
}

async function greeted(server: InProcessServer): Promise<WebSocket> {
  const { certPath: _, ...credentials } = server.tls('operator');
  const ws = new WebSocket('wss://localhost/', {
    perMessageDeflate: false,
    createConnection: () =>
      tlsConnect({ ...credentials, ...server.address, servername: 'localhost' }),
  });
  ws.on('error', () => {});
  await new Promise((resolve) => ws.once('open', resolve));
  ws.send(encodeFrame([0, 1, 'hello', 0, 1000, { protocol: PROTOCOL_VERSION, software: 'test' }]));
  await new Promise((resolve) => ws.once('message', resolve));
  return ws;
}

const MEGABYTE = 1024 * 1024;
const LARGE = {
  variables: [{ key: 'large', text: 'x'.repeat(MEGABYTE), version: 1, order: 1, updatedAt: 0 }],
};
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
const serve = async (op: string): Promise<unknown> => (op === 'variable.list' ? LARGE : STATUS);

void t.test('who does not read is cut off, and others do not notice', async (t) => {
  await using server = await InProcessServer.start({
    serve,
    limits: { unsentBytesMax: 8 * MEGABYTE },
  });
  using healthy = await open(server);
  const deaf = await deafPeer(server);
  await eventually('it was cut off', () => server.listener?.connections === 1);
  t.match(await healthy.call('server.status', {}), { software: 'test' });
  deaf.terminate();
});

void t.test('of many who read too little together the slowest is cut off', async (t) => {
  await using server = await InProcessServer.start({
    serve,
    limits: { unsentBytesOfAllMax: 4 * MEGABYTE },
  });
  using healthy = await open(server);
  const deaf = [await deafPeer(server), await deafPeer(server)];
  await eventually('they were cut off', () => server.listener?.connections === 1);
  await sleep(10);
  t.match(await healthy.call('server.status', {}), { software: 'test' });
  for (const ws of deaf) ws.terminate();
});
