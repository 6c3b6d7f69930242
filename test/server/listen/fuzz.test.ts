import { connect } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import { connect as tlsConnect } from 'node:tls';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import type { Test } from 'tap';
import { WebSocket } from 'ws';
import { Connection } from '#bridge/client/connection.js';
import { isCode } from '#bridge/wire/errors.js';
import { decodeFrames, encodeFrame, type Frame } from '#bridge/wire/frames.js';
import { MESSAGE_BYTES_MAX, MESSAGE_FRAMES_MAX } from '#bridge/wire/limits.js';
import { PROTOCOL_VERSION, SERVER_OPERATIONS } from '#bridge/wire/protocol.js';
import { InProcessServer } from '#test/support/in-process-server.js';
import { type Random, randomTest } from '#test/support/random.js';

/** `ROUNDS=n` makes it longer. */
const ROUNDS = Number(process.env['ROUNDS'] ?? 250);

/** What hostile peers may leave behind in the server, and the attacker in the same process with it, after all rounds. */
const GROWTH_BYTES_MAX = 32 * 1024 * 1024;

setFlagsFromString('--expose-gc');
const collectGarbage = runInNewContext('gc') as () => void;

function memory(): number {
  collectGarbage();
  const { heapUsed, arrayBuffers } = process.memoryUsage();
  return heapUsed + arrayBuffers;
}

const pack = (value: unknown): Buffer => Buffer.from(encodeFrame(value as Frame));
const OPERATIONS = Object.keys(SERVER_OPERATIONS);

/** Parameters that some operation takes. */
const PARAMS: readonly unknown[] = [
  {},
  { protocol: PROTOCOL_VERSION, software: 'fuzz' },
  { token: 'a.b.c' },
  { namespace: { user: 'ada' } },
  { namespace: { user: 'ada' }, key: 'k' },
  { namespace: { org: 'acme' }, set: [['k', '1.0']], delete: ['j'] },
  { set: [['k', '1']], delete: [], bases: [['k', null]], commitId: crypto.randomUUID() },
  { executionId: crypto.randomUUID() },
  { text: '1' },
  { condition: true },
];

const LEAVES: readonly unknown[] = [
  null,
  true,
  0,
  -1,
  1.5,
  Number.NaN,
  Number.POSITIVE_INFINITY,
  2 ** 53,
  2n ** 64n - 1n,
  '',
  'x',
  '\0',
  '😀',
  '\ud800',
  'x'.repeat(5000),
  Buffer.alloc(10),
  [],
  {},
  undefined,
];

function anything(random: Random, depth = 3): unknown {
  if (depth === 0 || random.chance(0.4)) return random.pick(LEAVES);
  const items = Array.from({ length: random.int(4) }, () => anything(random, depth - 1));
  if (random.chance(0.5)) return items;
  const names = ['user', 'set', 'key', 'text', 'toString', 'constructor', 'length', ''];
  return Object.fromEntries(items.map((item) => [random.pick(names), item]));
}

/** Replaces something somewhere in a copy of `value`. */
function distorted(random: Random, value: unknown): unknown {
  if (typeof value !== 'object' || value === null || random.chance(0.3)) return anything(random);
  const copy: Record<string, unknown> | unknown[] = Array.isArray(value)
    ? [...(value as unknown[])]
    : { ...value };
  const names = Object.keys(copy);
  const name = names.length === 0 ? '0' : random.pick(names);
  Reflect.set(copy, name, distorted(random, Reflect.get(copy, name)));
  if (random.chance(0.2)) Reflect.set(copy, random.pick(['extra', '7']), anything(random));
  return copy;
}

const U32 = (head: number, value: number) =>
  Buffer.from([head, value >>> 24, value >>> 16, value >>> 8, value]);
const PUSH_HEAD = Buffer.from([0x94, 0x03, 0x01, 0xa1, 0x74]);

const LARGE: readonly unknown[] = [
  Buffer.alloc(1_500_000),
  Array.from({ length: 1_500_000 }, () => 0),
  Object.fromEntries(Array.from({ length: 60_000 }, (_, i) => [`k${i}`, 0])),
];

/** Kinds of hostile messages. */
const ATTACKS: Readonly<Record<string, (random: Random) => Buffer>> = {
  'random bytes': (random) => random.bytes(random.int(200)),
  'a truncated call': (random) => {
    const bytes = goodCall(random);
    return bytes.subarray(0, random.int(bytes.length));
  },
  'a call with flipped bits': (random) => {
    const bytes = goodCall(random);
    for (let flips = 1 + random.int(4); flips > 0; flips--) {
      const at = random.int(bytes.length);
      bytes[at] = (bytes[at] ?? 0) ^ (1 << random.int(8));
    }
    return bytes;
  },
  'a call with something else in it': (random) => pack(distorted(random, goodFrame(random))),
  'parameters of another operation': (random) =>
    pack([0, random.int(99), random.pick(OPERATIONS), random.int(3), 1000, random.pick(PARAMS)]),
  'parameters of no operation': (random) =>
    pack([0, random.int(99), random.pick(OPERATIONS), random.int(3), 1000, anything(random)]),
  'an unknown operation': (random) =>
    pack([
      0,
      1,
      random.pick(['', 'x', '__proto__', 'constructor', 'toString', 'HELLO', 'variable.*']),
      0,
      1000,
      {},
    ]),
  'answers and pushes nobody asked for': (random) =>
    pack(
      random.pick<unknown>([
        [1, random.int(99), anything(random)],
        [2, random.int(99), 'denied', 'no', null],
        [3, random.int(3), random.pick(['closing', 'variables.changed', '']), anything(random)],
      ]),
    ),
  'deep nesting': (random) => {
    const [open, close] = random.pick([
      [Buffer.from([0x91]), Buffer.from([0xc0])],
      [Buffer.from('81a161', 'hex'), Buffer.from([0xc0])],
    ] as const);
    const depth = 1 + random.int(random.pick([100, 10_000, 300_000]));
    return Buffer.concat([
      random.pick([PUSH_HEAD, Buffer.from([0x96, 0, 1, 0xa1, 0x78, 0, 0x64]), Buffer.alloc(0)]),
      Buffer.alloc(depth * open.length, open),
      random.chance(0.7) ? close : Buffer.alloc(0),
    ]);
  },
  'a length far beyond the message': (random) =>
    Buffer.concat([
      random.pick([PUSH_HEAD, Buffer.alloc(0)]),
      U32(
        random.pick([0xdd, 0xdf, 0xdb, 0xc6, 0xc9]),
        random.pick([0xffff_ffff, 20_000_000, 70_000]),
      ),
      random.bytes(random.int(50)),
    ]),
  'many announced arrays in each other': (random) =>
    Buffer.concat([
      PUSH_HEAD,
      ...Array.from({ length: 60 }, () => U32(0xdd, 1_000_000)),
      Buffer.alloc(random.int(2_000_000)),
    ]),
  '__proto__ and its like': (random) => {
    const name = random.pick([
      '__proto__',
      'constructor',
      'prototype',
      'toString',
      'hasOwnProperty',
    ]);
    const map = Buffer.concat([
      Buffer.from([0x81, 0xa0 + name.length]),
      Buffer.from(name),
      pack({ polluted: true, isAdmin: true }),
    ]);
    const head = pack([0, 1, random.pick(OPERATIONS), 0, 1000, null]);
    return Buffer.concat([head.subarray(0, head.length - 1), map]);
  },
  extensions: (random) =>
    Buffer.concat([
      PUSH_HEAD,
      Buffer.from([random.pick([0xd4, 0xd5, 0xd6, 0xc7]), random.int(256), random.int(256)]),
      random.bytes(random.int(20)),
    ]),
  'many frames': (random) => {
    const one = random.pick([
      pack([1, 1, null]),
      pack([0, 1, 'x', 0, 1, null]),
      Buffer.from([0x01]),
    ]);
    const count = random.pick([10, MESSAGE_FRAMES_MAX, MESSAGE_FRAMES_MAX + 1, 50_000]);
    return Buffer.alloc(one.length * count, one);
  },
  'good calls and a bad one': (random) => {
    const good = Array.from({ length: random.int(20) }, () => goodCall(random));
    return Buffer.concat([...good, random.bytes(1 + random.int(9))]);
  },
  'megabytes where a few members are wanted': (random) => {
    const large = random.pick(LARGE);
    const params = random.pick<unknown>([
      large,
      { namespace: large },
      { namespace: { user: large }, key: 'k' },
      { namespace: { user: 'ada' }, set: large, delete: [] },
      { set: [], delete: large, bases: [], commitId: crypto.randomUUID() },
      { set: [[large, large]], delete: [], bases: [], commitId: crypto.randomUUID() },
    ]);
    return pack([0, 1, random.pick(OPERATIONS), 0, 1000, params]);
  },
  nothing: () => Buffer.alloc(0),
};

const goodFrame = (random: Random): unknown[] => [
  0,
  random.int(1000),
  random.pick(OPERATIONS),
  random.int(3),
  1 + random.int(1000),
  random.pick(PARAMS),
];
const goodCall = (random: Random): Buffer => pack(goodFrame(random));

/** A peer below `Connection`, which says what it likes. */
class Attacker {
  readonly #ws: WebSocket;
  readonly #frames: Frame[] = [];
  ended: { code: number; reason: string } | undefined;
  #changed: () => void = () => {};

  private constructor(ws: WebSocket) {
    this.#ws = ws;
    ws.on('message', (data) => {
      this.#frames.push(...decodeFrames(data as Buffer));
      this.#changed();
    });
    ws.on('error', () => {});
    ws.on('close', (code, reason) => {
      this.ended = { code, reason: reason.toString() };
      this.#changed();
    });
  }

  static async connect(server: InProcessServer, greet: boolean): Promise<Attacker> {
    const { certPath: _, ...credentials } = server.tls('host');
    const ws = new WebSocket('wss://localhost/', {
      perMessageDeflate: false,
      createConnection: () =>
        tlsConnect({ ...credentials, path: server.socketPath, servername: 'localhost' }),
    });
    const attacker = new Attacker(ws);
    await new Promise((resolve, reject) => ws.once('open', resolve).once('error', reject));
    if (greet) await attacker.say(pack([0, 1, 'hello', 0, 1000, PARAMS[1]]));
    return attacker;
  }

  /** Sends it and a good call behind it; resolves with what came back when that is answered or the connection ended. */
  async say(message: Buffer): Promise<Frame[]> {
    const id = Number.MAX_SAFE_INTEGER;
    this.#frames.length = 0;
    this.#ws.send(message);
    if (this.#ws.readyState === WebSocket.OPEN)
      this.#ws.send(encodeFrame([0, id, 'server.status', 0, 5000, {}]));
    const deadline = Date.now() + 5_000;
    while (this.ended === undefined && !this.#frames.some((frame) => frame[1] === id)) {
      if (Date.now() > deadline) throw new Error('neither answered nor closed within 5 s');
      await new Promise<void>((resolve) => {
        const timer = setTimeout(resolve, 1_000);
        this.#changed = () => {
          clearTimeout(timer);
          resolve();
        };
      });
    }
    return this.#frames.filter((frame) => frame[1] !== id);
  }

  end(): void {
    this.#ws.terminate();
  }
}

/** A good host beside, which calls all the time. */
async function healthyPeer(server: InProcessServer) {
  const { address } = server;
  const connection = await Connection.open({ address, tls: server.tls('host'), software: 'test' });
  let stopped = false;
  let calls = 0;
  const calling = (async () => {
    while (!stopped) {
      await connection.call('server.status', {}, { deadlineMs: 5_000 });
      calls++;
      await sleep(2);
    }
  })();
  calling.catch(() => {}); // heard at the end
  return {
    stop: async () => {
      stopped = true;
      await calling;
      connection[Symbol.dispose]();
      return calls;
    },
  };
}

/** Whatever came back is an error with a code and a sentence, or the answer to what was a good call by chance. */
function assertAnswers(what: string, answers: readonly Frame[]): void {
  for (const frame of answers) {
    if (frame[0] === 1) continue;
    if (frame[0] !== 2 || !isCode(frame[2]) || !/^\P{Cc}{5,1300}$/u.test(frame[3]))
      throw new Error(`${what}: ${JSON.stringify(frame).slice(0, 300)}`);
    if (frame[2] === 'internal') throw new Error(`${what}: was not foreseen: ${frame[3]}`);
  }
}

async function attack(t: Test, random: Random, greet: boolean): Promise<void> {
  await using server = await InProcessServer.start();
  const healthy = await healthyPeer(server);
  const names = Object.keys(ATTACKS);
  const ends = new Map<string, number>();
  let before = 0;
  let attacker: Attacker | undefined;
  for (let round = 0; round < ROUNDS; round++) {
    if (round === Math.min(100, ROUNDS >> 1)) before = memory(); // caches are warm
    attacker ??= await Attacker.connect(server, greet);
    const kind = names[round % names.length] ?? '';
    const message = ATTACKS[kind]?.(random) ?? Buffer.alloc(0);
    const what = `round ${round}, ${kind}: ${message.toString('hex').slice(0, 300)}`;
    try {
      assertAnswers(what, await attacker.say(message));
    } catch (cause) {
      throw new Error(what, { cause });
    }
    if (attacker.ended === undefined) continue;
    const { code, reason } = attacker.ended;
    if (code !== 1002 || reason.length < 10) throw new Error(`${what}: ${code} "${reason}"`);
    ends.set(kind, (ends.get(kind) ?? 0) + 1);
    attacker = undefined;
  }
  attacker?.end();
  const growth = memory() - before;
  t.comment(`connections closed: ${JSON.stringify(Object.fromEntries(ends))}`);
  t.ok(growth < GROWTH_BYTES_MAX, `${Math.round(growth / 1024)} KiB more in memory`);
  t.equal(Reflect.get({}, 'polluted') ?? Reflect.get({}, 'isAdmin'), undefined);
  const calls = await healthy.stop();
  t.ok(calls > 20, `${calls} calls of a good host were answered meanwhile`);
  t.ok((ends.get('random bytes') ?? 0) > 0);
}

randomTest(
  'hostile messages of a host are errors or the end of its connection',
  async (t, random) => await attack(t, random, true),
);

randomTest(
  'so are those of a peer that never said hello',
  async (t, random) => await attack(t, random, false),
);

randomTest('what is no WebSocket, no HTTP or no TLS disturbs nobody', async (t, random) => {
  await using server = await InProcessServer.start();
  const healthy = await healthyPeer(server);
  const { ca, cert, key } = server.tls('host');
  const secure = () =>
    tlsConnect({ ca, cert, key, path: server.socketPath, servername: 'localhost' });
  const upgrade =
    'GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n';
  const hello = Buffer.from('16030100', 'hex');
  const header = (opcode: number, length: bigint, masked = true) => {
    const bytes = Buffer.alloc(masked ? 14 : 10);
    bytes[0] = 0x80 | opcode;
    bytes[1] = masked ? 0xff : 0x7f;
    bytes.writeBigUInt64BE(length, 2);
    return bytes;
  };
  const kinds: Readonly<Record<string, () => readonly (string | Buffer)[]>> = {
    'random bytes': () => [random.bytes(random.int(500))],
    'half a request': () => [upgrade.slice(0, random.int(upgrade.length))],
    'a long header': () => ['GET / HTTP/1.1\r\nX: ', 'x'.repeat(100_000)],
    'a spoilt upgrade': () => {
      const bytes = Buffer.from(upgrade);
      bytes[random.int(bytes.length)] = random.int(256);
      return [bytes];
    },
    'random WebSocket frames': () => [upgrade, random.bytes(random.int(500))],
    'a frame of 2^63 bytes': () => [upgrade, header(2, 2n ** 63n - 1n)],
    'a frame just over the limit': () => [upgrade, header(2, BigInt(MESSAGE_BYTES_MAX + 1))],
    'an unmasked frame': () => [upgrade, header(2, 5n, false), 'hello'],
    'a long ping': () => [upgrade, header(9, 200n), random.bytes(200)],
    'fragments without end': () => [
      upgrade,
      ...Array.from({ length: 2000 }, (_, i) => Buffer.from([i === 0 ? 2 : 0, 0x80, 0, 0, 0, 0])),
    ],
    text: () => [upgrade, Buffer.from([0x81, 0x85, 0, 0, 0, 0]), 'hello'],
  };
  const names = Object.keys(kinds);
  for (let round = 0; round < ROUNDS / 4; round++) {
    const socket = random.chance(0.2) ? connect(server.socketPath) : secure();
    socket.on('error', () => {});
    socket.resume();
    if (random.chance(0.3)) socket.write(hello);
    for (const part of kinds[names[round % names.length] ?? '']?.() ?? []) {
      socket.write(part);
      if (random.chance(0.1)) await sleep(1);
    }
    const closed = new Promise((resolve) => socket.once('close', resolve));
    await Promise.race([closed, sleep(random.int(15))]);
    if (random.chance(0.5)) socket.destroy();
    else socket.end();
  }
  const calls = await healthy.stop();
  t.ok(calls > 20, `${calls} calls of a good host were answered meanwhile`);
});
