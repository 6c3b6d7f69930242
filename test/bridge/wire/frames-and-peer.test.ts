import { execFile } from 'node:child_process';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import t from 'tap';
import { z } from 'zod';
import { BridgeError, type Code } from '#bridge/wire/errors.js';
import { decodeFrames, encodeFrame, type Frame, parse } from '#bridge/wire/frames.js';
import { MESSAGE_BYTES_MAX, MESSAGE_FRAMES_MAX, PENDING_CALLS_MAX } from '#bridge/wire/limits.js';
import { type Call, type Handlers, Peer, type Serve, serveTable } from '#bridge/wire/peer.js';
import type { Operations } from '#bridge/wire/protocol.js';
import { shown } from '#test/bridge/wire/shown.js';
import { randomTest } from '#test/support/random.js';

const run = promisify(execFile);
const UUID = '11111111-2222-4333-8444-555555555555';

/** What was sent in this turn of the event loop is on its way then. */
const turn = () => new Promise((resolve) => setImmediate(resolve));

/** The one frame of a message. */
function decodeFrame(bytes: Uint8Array): Frame {
  const [frame, ...more] = decodeFrames(bytes);
  if (frame === undefined || more.length > 0) throw new Error(`${1 + more.length} frames, not one`);
  return frame;
}

/** What `body` failed with; it must be a BridgeError. */
async function errorOf(body: Promise<unknown> | (() => unknown)): Promise<BridgeError> {
  try {
    await (typeof body === 'function' ? body() : body);
  } catch (error) {
    if (error instanceof BridgeError) return error;
    throw error;
  }
  throw new Error('it did not fail');
}

const codeOf = async (body: Promise<unknown> | (() => unknown)): Promise<Code> =>
  (await errorOf(body)).code;

// ---------------------------------------------------------------- frames

void t.test('a frame arrives as it was sent', async (t) => {
  const everyByte = Buffer.from(Array.from({ length: 256 }, (_, i) => i));
  const table: readonly (readonly [string, Frame])[] = [
    ['a call', [0, 1, 'variables.commit', 7, 30_000, { set: [['a', '1.0']], delete: ['b'] }]],
    ['a call without parameters', [0, 0, 'hello', 0, 1, null]],
    ['a result', [1, 2, { version: 3, changes: [] }]],
    ['a failure', [2, 3, 'denied', 'no: "é😀"', null]],
    ['a failure with a hint', [2, 3, 'rate_limited', 'later', 250]],
    ['a push', [3, 4, 'variables.changed', { changes: [{ key: 'a', text: null }] }]],
    ['the largest id', [1, Number.MAX_SAFE_INTEGER, '']],
    [
      'numbers',
      [1, 1, [0, -1, 1.5, 127, 128, 65_536, 2 ** 32, Date.UTC(2026, 0), -(2 ** 40), 1e300, -0.1]],
    ],
    ['small numbers that another codec mode reads as records', [3, 64, 't', [64, 65, 100, 127]]],
    ['texts', [1, 1, ['', 'a\0b', '\u2028', '\ufeff', '"\\u0041"', 'é😀', 'x'.repeat(70_000)]]],
    ['truth', [1, 1, [true, false, null]]],
    ['a document of 10 MiB', [1, 1, 'x'.repeat(10 * 1024 * 1024)]],
    ['nested values', [1, 1, { a: [[[{ b: { c: [] } }]]] }]],
  ];
  for (const [what, frame] of table) t.strictSame(decodeFrame(encodeFrame(frame)), frame, what);

  const bytes = decodeFrame(encodeFrame([1, 1, { data: everyByte }]));
  t.strictSame(Buffer.from((bytes[2] as { data: Uint8Array }).data), everyByte, 'bytes stay bytes');
});

void t.test('frames that were encoded before others stay as they were', async (t) => {
  const frames = Array.from({ length: 500 }, (_, i): Frame => [1, i, 'x'.repeat(i * 7)]);
  const encoded = frames.map(encodeFrame);
  t.strictSame(encoded.map(decodeFrame), frames);
});

/** MessagePack by hand. */
const U32 = (head: number, value: number) =>
  Buffer.from([head, value >>> 24, value >>> 16, value >>> 8, value]);
const concat = (...parts: (Uint8Array | readonly number[])[]) =>
  Buffer.concat(parts.map((part) => Buffer.from(part)));
const PUSH_HEAD = [0x94, 0x03, 0x01, 0xa1, 0x74]; // [3, 1, 't', …
const pack = (value: unknown): Uint8Array => encodeFrame(value as Frame);

const HOSTILE: readonly (readonly [string, Uint8Array])[] = [
  ['nothing', Buffer.alloc(0)],
  ['one byte', Buffer.from([0x94])],
  ['the byte MessagePack never uses', Buffer.from([0xc1])],
  ['text', Buffer.from('GET / HTTP/1.1\r\n\r\n')],
  ['JSON', Buffer.from('[0,1,"hello",0,1000,{}]')],
  ['a frame and text', concat(pack([1, 1, null]), pack('x'))],
  ['a frame and a bad one', concat(pack([1, 1, null]), pack([1, -1, null]))],
  ['a frame and half of one', concat(pack([1, 1, null]), pack([1, 2, 'text']).subarray(0, 5))],
  [
    'more frames than a message may have',
    Buffer.alloc(4 * (MESSAGE_FRAMES_MAX + 1), pack([1, 1, null])),
  ],
  ['as many small frames as fit', Buffer.alloc(MESSAGE_BYTES_MAX, pack([1, 1, null]))],
  ['as many bytes as fit, each a value of its own', Buffer.alloc(MESSAGE_BYTES_MAX, 0x01)],
  ['a frame and one byte more', concat(pack([1, 1, null]), [0x00])],
  ['an array of 4 billion', U32(0xdd, 0xffff_ffff)],
  ['a map of 4 billion', concat(PUSH_HEAD, U32(0xdf, 0xffff_ffff))],
  ['a string of 4 GiB', concat(PUSH_HEAD, U32(0xdb, 0xffff_ffff))],
  ['bytes of 4 GiB', concat(PUSH_HEAD, U32(0xc6, 0xffff_ffff))],
  ['an extension of 4 GiB', concat(PUSH_HEAD, U32(0xc9, 0xffff_ffff), [0x01])],
  [
    'arrays of 15 million in each other',
    concat(PUSH_HEAD, ...Array.from({ length: 60 }, () => U32(0xdd, 15_000_000))),
  ],
  [
    'arrays of 15 million in each other, with bytes enough for one',
    concat(
      PUSH_HEAD,
      ...Array.from({ length: 60 }, () => U32(0xdd, 15_000_000)),
      Buffer.alloc(15_100_000),
    ),
  ],
  [
    'an array of as many empty arrays as fit',
    concat(PUSH_HEAD, U32(0xdd, 30_000_000), Buffer.alloc(30_000_000, 0x90)),
  ],
  [
    'and of as many small maps',
    concat(
      PUSH_HEAD,
      U32(0xdd, 10_000_000),
      Buffer.alloc(30_000_000, Buffer.from('81a0c0', 'hex')),
    ),
  ],
  ['a million arrays in each other', concat(PUSH_HEAD, Buffer.alloc(1_000_000, 0x91))],
  ['as many as a message holds', Buffer.alloc(MESSAGE_BYTES_MAX, 0x91)],
  [
    'a million maps in each other',
    concat(PUSH_HEAD, Buffer.from('81a161'.repeat(1_000_000), 'hex')),
  ],
  ['a regular expression', concat(PUSH_HEAD, [0xc7, 0x03, 0x78, 0x92, 0xa1, 0x61])],
  ['a reference into the message', concat(PUSH_HEAD, [0xd6, 0x70, 0x00, 0x00, 0x00, 0x01])],
  ['more than a message may have', Buffer.alloc(MESSAGE_BYTES_MAX + 1)],
  ['no array', pack({ 0: 0 })],
  ['a text for a frame', pack('hello')],
  ['null', pack(null)],
  ['an empty array', pack([])],
  ['an array in an array', pack([[0, 1, 'hello', 0, 1000, {}]])],
  ['kind 4', pack([4, 1, null])],
  ['kind -1', pack([-1, 1, null])],
  ['kind 0.5', pack([0.5, 1, null])],
  ['kind "0"', pack(['0', 1, 'hello', 0, 1000, {}])],
  ['kind 2^63', concat([0x93, 0xcf, 0x80, 0, 0, 0, 0, 0, 0, 0, 0x01, 0xc0])],
  ['kind null', pack([null, 1, null])],
  ['kind "push"', pack(['push', 1, null])],
  ['a call without its end', pack([0, 1, 'hello'])],
  ['a call with too much', pack([0, 1, 'hello', 0, 1000, {}, 1])],
  ['a text for an id', pack([1, '1', null])],
  ['a negative id', pack([1, -1, null])],
  ['half an id', pack([1, 1.5, null])],
  ['NaN for an id', pack([1, Number.NaN, null])],
  ['an id of 2^53', pack([1, 2 ** 53, null])],
  ['an id of 2^64-1', concat([0x93, 0x01, 0xcf], Buffer.alloc(8, 0xff), [0xc0])],
  ['a number for an operation', pack([0, 1, 7, 0, 1000, {}])],
  ['a list for an operation', pack([0, 1, ['hello'], 0, 1000, {}])],
  ['an operation of 65 characters', pack([0, 1, 'x'.repeat(65), 0, 1000, {}])],
  ['a negative channel', pack([0, 1, 'hello', -1, 1000, {}])],
  ['no deadline', pack([0, 1, 'hello', 0, null, {}])],
  ['a deadline of 0', pack([0, 1, 'hello', 0, 0, {}])],
  ['a deadline of a year', pack([0, 1, 'hello', 0, 365 * 86_400_000, {}])],
  ['a failure without a message', pack([2, 1, 'denied'])],
  ['a failure with an object for a message', pack([2, 1, 'denied', {}, null])],
  ['a failure of the first protocol, without a place for a hint', pack([2, 1, 'denied', 'no'])],
  ['a failure with a text for a hint', pack([2, 1, 'denied', 'no', '5'])],
  ['a failure with a hint in the past', pack([2, 1, 'denied', 'no', -1])],
  ['a failure with a hint of a year', pack([2, 1, 'denied', 'no', 365 * 86_400_000])],
  ['a failure with a message of 8193 characters', pack([2, 1, 'denied', 'x'.repeat(8193), null])],
  ['a push without a topic', pack([3, 1])],
];

void t.test(
  'what is not a frame is a BridgeError in one line, and the next frame is read as ever',
  async (t) => {
    for (const [what, bytes] of HOSTILE) {
      const { code, message } = await errorOf(() => decodeFrame(bytes));
      t.ok(code === 'invalid' || code === 'too_large', `${what}: ${code}`);
      t.match(message, /^[^\n]{1,300}$/, what);
      t.strictSame(
        decodeFrame(pack([3, 65, 't', [64, 127]])),
        [3, 65, 't', [64, 127]],
        `after ${what}`,
      );
    }
  },
);

void t.test('a good frame that is larger than a message may be is too large', async (t) => {
  const frameOf = (length: number) =>
    concat(PUSH_HEAD, U32(0xdb, length), Buffer.alloc(length, 'x'));
  const room = MESSAGE_BYTES_MAX - frameOf(0).length;
  t.equal(String(decodeFrame(frameOf(room))[3]).length, room, 'the largest message there is');
  t.equal(await codeOf(() => decodeFrame(frameOf(room + 1))), 'too_large');
});

void t.test('every frame cut short anywhere is refused', async (t) => {
  const frame = pack([
    0,
    300,
    'variables.commit',
    7,
    30_000,
    { set: [['a', '1.0']], delete: ['é'], n: 2 ** 40 },
  ]);
  for (let length = 0; length < frame.length; length++)
    t.equal(
      await codeOf(() => decodeFrame(frame.subarray(0, length))),
      'invalid',
      `${length} bytes of it`,
    );
});

void t.test(
  'a message cannot teach the codec anything that changes how the next one is read',
  async (t) => {
    // msgpackr's private extension: "from now on 0x40 stands for an object with the member a".
    const lesson = concat(PUSH_HEAD, [0xd4, 0x72, 0x40, 0x91, 0xa1, 0x61, 0x05]);
    t.strictSame(decodeFrame(lesson), [3, 1, 't', { a: 5 }], 'within its own message it counts');
    t.strictSame(decodeFrame(pack([3, 64, 't', 64])), [3, 64, 't', 64]);
  },
);

void t.test('__proto__ in a frame does not reach a prototype', async (t) => {
  const frame = decodeFrame(
    concat(PUSH_HEAD, [0x81, 0xa9], Buffer.from('__proto__'), [0x81, 0xa1, 0x70, 0x01]),
  );
  t.equal(Reflect.get({}, 'p'), undefined);
  t.equal(Object.getPrototypeOf(frame[3]), Object.prototype);
});

randomTest(
  'random bytes and frames with flipped bits are frames or BridgeErrors, nothing else',
  async (t, random) => {
    const seeds = [
      pack([
        0,
        300,
        'variables.commit',
        7,
        30_000,
        { set: [['a', '1.0']], delete: ['é'], n: 2 ** 40 },
      ]),
      pack([2, 1, 'denied', 'no', null]),
      pack([
        3,
        4,
        'variables.changed',
        { changes: [{ key: 'a', text: null, version: 9, order: 1.5 }] },
      ]),
      pack([1, 2, { list: [1, -1, 1.5, true, null], data: Buffer.from([1, 2, 3]) }]),
    ];
    let refused = 0;
    for (let i = 0; i < 5000; i++) {
      let bytes = random.bytes(random.int(64));
      if (random.chance(0.7)) {
        bytes = Buffer.from(random.pick(seeds));
        for (let flips = 1 + random.int(3); flips > 0; flips--)
          bytes[random.int(bytes.length)] = random.int(256);
      }
      try {
        decodeFrame(bytes);
      } catch (error) {
        refused++;
        if (!(error instanceof BridgeError))
          throw new Error(`${bytes.toString('hex')} gives ${String(error)}`);
      }
    }
    t.ok(refused > 1000, `${refused} of 5000 were refused`);
    t.strictSame(decodeFrame(pack([3, 65, 't', 127])), [3, 65, 't', 127], 'the codec still works');
  },
);

void t.test(
  'parse says in one sentence what is wrong, and names at most three places',
  async (t) => {
    const schema = z.strictObject({
      a: z.string(),
      b: z.int(),
      c: z.array(z.strictObject({ d: z.null() })),
      e: z.uuid(),
    });
    t.strictSame(parse(schema, { a: '', b: 1, c: [], e: UUID }, 'op'), {
      a: '',
      b: 1,
      c: [],
      e: UUID,
    });
    const all = await errorOf(() => parse(schema, { a: 1, b: 'x', c: [{ d: 1 }], e: '' }, 'op'));
    t.equal(all.code, 'invalid');
    t.match(all.message, /^op: a: [^;\n]+; b: [^;\n]+; c\.0\.d: [^;\n]+$/);
    const more = await errorOf(() =>
      parse(schema, { a: '', b: 1, c: [], e: UUID, extra: 1 }, 'op'),
    );
    t.match(more.message, /^op: [^\n]*extra[^\n]*$/);
    t.match((await errorOf(() => parse(schema, null, 'op'))).message, /^op: [^\n]+$/);
  },
);

// ---------------------------------------------------------------- peers

const OPERATIONS = {
  echo: {
    caller: 'any',
    params: z.strictObject({ text: z.string() }),
    result: z.strictObject({ text: z.string() }),
  },
  /** Ends when told to. */
  wait: {
    caller: 'any',
    params: z.strictObject({ name: z.string() }),
    result: z.strictObject({ name: z.string() }),
  },
  fail: { caller: 'any', params: z.strictObject({ how: z.string() }), result: z.null() },
  lie: { caller: 'any', params: z.null(), result: z.int() },
  /** Known to callers only. */
  newer: { caller: 'any', params: z.null(), result: z.null() },
} as const satisfies Operations;
type Known = Omit<typeof OPERATIONS, 'newer'>;
const { newer: _, ...SERVED } = OPERATIONS;

interface Waiting {
  readonly signal: AbortSignal;
  readonly channel: number;
  readonly answer: () => void;
}

/** Two ends that hand each other bytes in later turns of the event loop, as sockets do. */
class TwoEnds {
  readonly client: Peer<typeof OPERATIONS, Record<never, never>>;
  readonly server: Peer<Record<never, never>, Known>;
  readonly waiting = new Map<string, Waiting>();
  /** What the end that received it could not read: a socket would be closed then. */
  readonly broken: unknown[] = [];
  sentByClient = 0;
  sentByServer = 0;
  served = 0;

  constructor() {
    const handlers: Handlers<Known> = {
      echo: async ({ params }) => params,
      wait: ({ params, signal, channel }) =>
        new Promise((resolve) => {
          const answer = () => resolve(params);
          this.waiting.set(params.name, { signal, channel, answer });
        }),
      fail: ({ params }) => Promise.reject(FAILURES[params.how] ?? new Error('no such failure')),
      lie: () => Promise.resolve('not a number' as unknown as number),
    };
    const table = serveTable(handlers);
    const serve: Serve = (op, call) => {
      this.served++;
      return table(op, call);
    };
    this.client = new Peer(
      (bytes) => {
        this.sentByClient++;
        this.#deliver(bytes, () => this.server);
      },
      OPERATIONS,
      {},
    );
    this.server = new Peer<Record<never, never>, Known>(
      (bytes) => {
        this.sentByServer++;
        this.#deliver(bytes, () => this.client);
      },
      {},
      SERVED,
      serve,
    );
  }

  /** Resolves when `name` is being served. */
  async waitingFor(name: string): Promise<Waiting> {
    for (;;) {
      const waiting = this.waiting.get(name);
      if (waiting !== undefined) return waiting;
      await sleep(1);
    }
  }

  #deliver(bytes: Uint8Array, to: () => { receive(bytes: Uint8Array): void }): void {
    const copy = Buffer.from(bytes);
    setImmediate(() => {
      try {
        to().receive(copy);
      } catch (error) {
        this.broken.push(error);
      }
    });
  }
}

const FAILURES: Readonly<Record<string, Error>> = {
  denied: new BridgeError('denied', 'not for you'),
  quota: new BridgeError('quota', 'enough'),
  unforeseen: new TypeError('x is not a function'),
  long: new BridgeError('invalid', 'x'.repeat(20_000)),
  full: Object.assign(new Error('no space'), { code: 'ENOSPC' }),
};

void t.test('every call gets its own result, in whatever order they come', async (t) => {
  const ends = new TwoEnds();
  const names = ['a', 'b', 'c', 'd', 'e'];
  const calls = names.map((name) => ends.client.call('wait', { name }));
  for (const name of ['d', 'a', 'e', 'c', 'b']) (await ends.waitingFor(name)).answer();
  t.strictSame(
    await Promise.all(calls),
    names.map((name) => ({ name })),
  );
  const many = Array.from({ length: 1000 }, (_, i) => ends.client.call('echo', { text: `${i}` }));
  t.strictSame(
    (await Promise.all(many)).map(({ text }) => text),
    many.map((_, i) => `${i}`),
  );
  t.strictSame(ends.broken, []);
});

void t.test(
  'a call says on which channel it is made, and 0 is the connection itself',
  async (t) => {
    const ends = new TwoEnds();
    const calls = [
      ends.client.call('wait', { name: 'a' }, { channel: 42 }),
      ends.client.call('wait', { name: 'b' }),
    ];
    t.equal((await ends.waitingFor('a')).channel, 42);
    t.equal((await ends.waitingFor('b')).channel, 0);
    for (const { answer } of ends.waiting.values()) answer();
    await Promise.all(calls);
  },
);

void t.test('what the other end throws arrives with its code and its words', async (t) => {
  const ends = new TwoEnds();
  const failure = (how: string) => errorOf(ends.client.call('fail', { how }));
  t.match(await failure('denied'), { code: 'denied', message: 'not for you' });
  t.match(await failure('quota'), { code: 'quota', message: 'enough' });
  t.match(await failure('unforeseen'), {
    code: 'internal',
    message: 'unexpected: x is not a function',
  });
  t.match(await failure('full'), { code: 'no_space' });
  const long = await failure('long');
  t.equal(long.code, 'invalid');
  t.equal(long.message.length, 8192, 'cut to what a frame may hold');
  t.strictSame(await ends.client.call('echo', { text: 'still here' }), { text: 'still here' });
});

void t.test('an error code from a newer version stays readable', async (t) => {
  const client = new Peer(
    () => setImmediate(() => client.receive(pack([2, 1, 'melted', 'too hot', null]))),
    OPERATIONS,
    {},
  );
  const error = await errorOf(client.call('echo', { text: '' }));
  t.match(error, { code: 'internal', message: 'melted: too hot' });
});

void t.test('at the deadline the call fails and its server is told to stop', async (t) => {
  const ends = new TwoEnds();
  const started = performance.now();
  const call = ends.client.call('wait', { name: 'a' }, { deadlineMs: 60 });
  const { signal } = await ends.waitingFor('a');
  t.equal(signal.aborted, false);
  t.match(await errorOf(call), { code: 'timeout', message: /wait .*60 ms/ });
  t.ok(performance.now() - started >= 55, 'not before');
  await sleep(60);
  t.equal(signal.aborted, true);
});

void t.test('an answer after the deadline is ignored and disturbs no other call', async (t) => {
  const ends = new TwoEnds();
  const late = ends.client.call('wait', { name: 'late' }, { deadlineMs: 20 });
  const next = ends.client.call('wait', { name: 'next' });
  t.equal(await codeOf(late), 'timeout');
  (await ends.waitingFor('late')).answer();
  t.strictSame(await ends.client.call('echo', { text: 'x' }), { text: 'x' });
  (await ends.waitingFor('next')).answer();
  t.strictSame(await next, { name: 'next' });
  t.strictSame(ends.broken, []);
});

void t.test('answers nobody asked for, and second answers, are ignored', async (t) => {
  const sent: Frame[] = [];
  const client = new Peer((bytes) => sent.push(...decodeFrames(bytes)), OPERATIONS, {});
  const call = client.call('echo', { text: 'x' });
  await turn();
  const id = sent[0]?.[1] ?? -1;
  for (const answer of [
    [1, id + 1, { text: 'y' }],
    [2, 99, 'denied', 'no', null],
    [1, 0, null],
  ])
    client.receive(pack(answer));
  client.receive(pack([1, id, { text: 'mine' }]));
  client.receive(pack([1, id, { text: 'again' }]));
  client.receive(pack([2, id, 'denied', 'again', null]));
  t.strictSame(await call, { text: 'mine' });
});

void t.test(
  'an interrupted call fails at once, also when it was interrupted before it was made',
  async (t) => {
    const ends = new TwoEnds();
    const abort = new AbortController();
    const call = ends.client.call('wait', { name: 'a' }, { signal: abort.signal });
    await ends.waitingFor('a');
    abort.abort();
    t.equal(await codeOf(call), 'interrupted');
    const sent = ends.sentByClient;
    t.equal(
      await codeOf(ends.client.call('echo', { text: '' }, { signal: abort.signal })),
      'interrupted',
    );
    t.equal(ends.sentByClient, sent, 'nothing was sent for it');
    (await ends.waitingFor('a')).answer();
    t.strictSame(await ends.client.call('echo', { text: 'x' }), { text: 'x' });
  },
);

void t.test('closing fails every waiting call with the reason, and every later one', async (t) => {
  const ends = new TwoEnds();
  const calls = ['a', 'b', 'c'].map((name) => errorOf(ends.client.call('wait', { name })));
  await ends.waitingFor('c');
  ends.client.close(new BridgeError('unavailable', 'the cable is out'));
  ends.client.close(new BridgeError('internal', 'closed twice'));
  for (const error of await Promise.all(calls))
    t.match(error, { code: 'unavailable', message: 'the cable is out' });
  const sent = ends.sentByClient;
  t.match(await errorOf(ends.client.call('echo', { text: '' })), {
    code: 'unavailable',
    message: 'the cable is out',
  });
  ends.client.push(0, 't', null);
  t.equal(ends.sentByClient, sent, 'nothing was sent any more');
});

void t.test('closing tells what is being served to stop, and sends no answer', async (t) => {
  const ends = new TwoEnds();
  const call = ends.client.call('wait', { name: 'a' }, { deadlineMs: 100 });
  const waiting = await ends.waitingFor('a');
  ends.server.close(new BridgeError('unavailable', 'going down'));
  t.equal(waiting.signal.aborted, true);
  t.match(waiting.signal.reason, { code: 'unavailable' });
  waiting.answer();
  t.equal(await codeOf(call), 'timeout');
  t.equal(ends.sentByServer, 0);
});

void t.test('an operation the other end does not have is refused by name', async (t) => {
  const ends = new TwoEnds();
  t.match(await errorOf(ends.client.call('newer', null)), {
    code: 'invalid',
    message: 'unknown operation "newer"',
  });
  const answers: Frame[] = [];
  const serve: Serve = async () => t.fail('it was served');
  const server = new Peer<Record<never, never>, Known>(
    (bytes) => answers.push(...decodeFrames(bytes)),
    {},
    SERVED,
    serve,
  );
  const names = ['', 'ECHO', 'toString', 'constructor', '__proto__', 'hasOwnProperty', 'a\nb'];
  for (const [id, op] of names.entries()) server.receive(pack([0, id, op, 0, 1000, null]));
  await sleep(10);
  for (const [id, op] of names.entries()) {
    const message = `unknown operation ${JSON.stringify(op)}`;
    t.strictSame(
      answers.find((frame) => frame[1] === id),
      [2, id, 'invalid', message, null],
      shown(op),
    );
  }
});

void t.test('an end that serves nothing refuses every call', async (t) => {
  const answers: Frame[] = [];
  const client = new Peer((bytes) => answers.push(...decodeFrames(bytes)), OPERATIONS, {});
  client.receive(pack([0, 5, 'echo', 0, 1000, { text: '' }]));
  await sleep(5);
  t.strictSame(answers, [[2, 5, 'invalid', 'unknown operation "echo"', null]]);
});

void t.test(
  'parameters that do not fit are refused in one sentence and never reach the handler',
  async (t) => {
    const answers: Frame[] = [];
    let served = 0;
    const serve: Serve = async () => {
      served++;
      return { text: '' };
    };
    const server = new Peer<Record<never, never>, Known>(
      (bytes) => answers.push(...decodeFrames(bytes)),
      {},
      SERVED,
      serve,
    );
    const wrong = [
      null,
      undefined,
      1,
      'x',
      [],
      {},
      { text: 1 },
      { text: null },
      { text: 'x', more: 1 },
      [['text', 'x']],
    ];
    for (const [id, params] of wrong.entries())
      server.receive(pack([0, id, 'echo', 0, 1000, params]));
    await sleep(10);
    t.equal(answers.length, wrong.length);
    t.equal(served, 0);
    for (const [kind, , code, message] of answers) {
      t.strictSame([kind, code], [2, 'invalid']);
      t.match(message, /^echo: [^\n]{5,200}$/);
    }
    server.receive(pack([0, 99, 'echo', 0, 1000, { text: 'x' }]));
    await sleep(5);
    t.equal(served, 1, 'good ones do');
  },
);

void t.test(
  'an answer of the wrong shape is an error of its call, not a wrong value',
  async (t) => {
    const ends = new TwoEnds();
    t.match(await errorOf(ends.client.call('lie', null)), {
      code: 'invalid',
      message: /^the answer to lie: [^\n]+$/,
    });
  },
);

void t.test('pushes arrive in order, with channel and topic, between calls', async (t) => {
  const ends = new TwoEnds();
  const seen: unknown[] = [];
  ends.client.onPush = (...push) => seen.push(push);
  ends.server.push(1, 'first', { a: 1 });
  ends.server.push(2, 'second', null);
  const call = ends.client.call('echo', { text: 'x' });
  for (let i = 0; i < 100; i++) ends.server.push(3, 'many', i);
  await call;
  t.strictSame(seen.slice(0, 2), [
    [1, 'first', { a: 1 }],
    [2, 'second', null],
  ]);
  t.strictSame(
    seen.slice(2),
    Array.from({ length: 100 }, (_, i) => [3, 'many', i]),
  );
  ends.server.onPush = (...push) => seen.push(push);
  ends.client.push(9, 'back', 'y');
  await sleep(5);
  t.strictSame(seen.at(-1), [9, 'back', 'y'], 'both ways');
});

void t.test(
  'more waiting calls than the limit are refused at once, and there is room again afterwards',
  async (t) => {
    const client = new Peer(() => {}, OPERATIONS, {});
    const calls = Array.from({ length: PENDING_CALLS_MAX }, () =>
      codeOf(client.call('echo', { text: '' })),
    );
    t.equal(await codeOf(client.call('echo', { text: '' })), 'rate_limited');
    client.receive(pack([2, 1, 'denied', 'no', null]));
    t.equal(await calls[0], 'denied');
    const again = codeOf(client.call('echo', { text: '' }));
    client.close(new BridgeError('unavailable', 'over'));
    t.equal(await again, 'unavailable');
    t.strictSame(new Set((await Promise.all(calls)).slice(1)), new Set(['unavailable']));
  },
);

void t.test(
  'an end serves no more calls at once than the limit, and goes on when some have ended',
  async (t) => {
    const codes: unknown[] = [];
    const release: (() => void)[] = [];
    const serve = (_op: string, { params }: Call<unknown>) =>
      new Promise<unknown>((resolve) => release.push(() => resolve(params)));
    const server = new Peer<Record<never, never>, Known>(
      (bytes) => codes.push(...decodeFrames(bytes).map((frame) => frame[2])),
      {},
      SERVED,
      serve,
    );
    const call = pack([0, 1, 'echo', 0, 60_000, { text: '' }]);
    for (let i = 0; i < PENDING_CALLS_MAX + 2; i++) server.receive(call);
    await until(() => codes.length >= 2);
    t.strictSame(codes, ['rate_limited', 'rate_limited']);
    for (const go of release) go();
    await until(() => codes.length >= PENDING_CALLS_MAX + 2);
    t.equal(codes.length, PENDING_CALLS_MAX + 2);
    server.receive(call);
    await until(() => release.length > PENDING_CALLS_MAX);
    t.equal(release.length, PENDING_CALLS_MAX + 1, 'the next one is served');
    server.close(new BridgeError('unavailable', 'over'));
  },
);

void t.test('a call that cannot be sent fails and leaves nothing waiting', async (t) => {
  let down = true;
  const client = new Peer(
    () => {
      if (down) throw new Error('socket hang up');
      setImmediate(() => client.receive(pack([1, 2, { text: 'x' }])));
    },
    OPERATIONS,
    {},
  );
  t.match(await errorOf(client.call('echo', { text: '' })), {
    code: 'internal',
    message: /socket hang up/,
  });
  down = false;
  t.strictSame(await client.call('echo', { text: '' }), { text: 'x' });
});

void t.test(
  'hostile bytes make receive throw a BridgeError, and waiting calls go on',
  async (t) => {
    const ends = new TwoEnds();
    const call = ends.client.call('wait', { name: 'a' });
    const waiting = await ends.waitingFor('a');
    for (const [what, bytes] of HOSTILE) {
      t.ok((await errorOf(() => ends.client.receive(bytes))).message, `to the caller: ${what}`);
      t.ok((await errorOf(() => ends.server.receive(bytes))).message, `to the server: ${what}`);
    }
    waiting.answer();
    t.strictSame(await call, { name: 'a' });
  },
);

randomTest('a server end survives calls made of chance', async (t, random) => {
  const ends = new TwoEnds();
  const names = ['echo', 'wait', 'fail', 'lie', 'newer', '', '__proto__'];
  const values = [
    null,
    undefined,
    0,
    -1,
    1.5,
    '',
    'x',
    true,
    [],
    {},
    { text: '' },
    { name: 'n' },
    { how: 'denied' },
  ];
  for (let i = 0; i < 2000; i++) {
    const value = () => random.pick<unknown>([...values, ...names]);
    const frame = random.chance(0.5)
      ? [0, random.int(1000), random.pick(names), random.int(3), 1 + random.int(50), value()]
      : Array.from({ length: random.int(7) }, value);
    try {
      ends.server.receive(pack(frame));
    } catch (error) {
      if (!(error instanceof BridgeError))
        throw new Error(`${JSON.stringify(frame)} gives ${String(error)}`);
    }
  }
  await sleep(50);
  t.strictSame(await ends.client.call('echo', { text: 'alive' }), { text: 'alive' });
});

const TOO_LONG = 'x'.repeat(MESSAGE_BYTES_MAX);

void t.test('a call larger than a message fails alone, and the link stays', async (t) => {
  const ends = new TwoEnds();
  const other = ends.client.call('wait', { name: 'other' });
  const waiting = await ends.waitingFor('other');
  t.equal(
    await codeOf(ends.client.call('echo', { text: TOO_LONG }, { deadlineMs: 500 })),
    'too_large',
  );
  t.strictSame(
    ends.broken.map(String),
    [],
    'the other end did not get what makes it close the link',
  );
  waiting.answer();
  t.strictSame(await other, { name: 'other' });
});

void t.test(
  'an answer larger than a message fails its call alone, and the link stays',
  async (t) => {
    const broken: unknown[] = [];
    const server = new Peer<Record<never, never>, Known>(
      (bytes) => {
        try {
          client.receive(bytes);
        } catch (error) {
          broken.push(error);
        }
      },
      {},
      SERVED,
      async () => ({ text: TOO_LONG }),
    );
    const client = new Peer((bytes) => server.receive(bytes), OPERATIONS, {});
    t.equal(await codeOf(client.call('echo', { text: '' }, { deadlineMs: 500 })), 'too_large');
    t.strictSame(broken.map(String), []);
  },
);

void t.test('an answer that cannot be encoded or sent does not end the process', async (t) => {
  const program = (send: string, answer: string) => `
    import { z } from 'zod';
    import { Peer } from '${import.meta.resolve('#bridge/wire/peer.js')}';
    import { encodeFrame } from '${import.meta.resolve('#bridge/wire/frames.js')}';
    const OPERATIONS = { op: { caller: 'any', params: z.null(), result: z.unknown() } };
    const server = new Peer(${send}, {}, OPERATIONS, async () => ${answer});
    server.receive(encodeFrame([0, 1, 'op', 0, 1000, null]));
    setTimeout(() => console.log('alive'), 20);`;
  const cwd = fileURLToPath(new URL('.', import.meta.url)); // zod is looked for from here
  const outcome = async (source: string) => {
    const ended = run(process.execPath, ['--input-type=module', '--eval', source], { cwd });
    return await ended.then(
      ({ stdout }) => stdout.trim(),
      ({ stderr }: { stderr: string }) => stderr,
    );
  };
  const [good, long, gone] = await Promise.all([
    outcome(program('() => {}', '1')),
    outcome(program('() => {}', '2n ** 100n')),
    outcome(program("() => { throw new Error('not open') }", '1')),
  ]);
  t.equal(good, 'alive', 'a good answer');
  t.equal(long, 'alive', 'a number of 100 bits');
  t.equal(gone, 'alive', 'a socket that is gone');
});

void t.test(
  'a closed end keeps no process alive, and many calls at once draw no warning',
  async (t) => {
    const program = `
    import { z } from 'zod';
    import { BridgeError } from '${import.meta.resolve('#bridge/wire/errors.js')}';
    import { encodeFrame } from '${import.meta.resolve('#bridge/wire/frames.js')}';
    import { Peer } from '${import.meta.resolve('#bridge/wire/peer.js')}';
    const OPERATIONS = { op: { caller: 'any', params: z.null(), result: z.null() } };
    const server = new Peer(() => {}, {}, OPERATIONS, () => new Promise(() => {}));
    for (let id = 0; id < 50; id++) server.receive(encodeFrame([0, id, 'op', 0, 60_000, null]));
    setTimeout(() => server.close(new BridgeError('unavailable', 'over')), 20);`;
    const cwd = fileURLToPath(new URL('.', import.meta.url)); // zod is looked for from here
    const ended = run(process.execPath, ['--input-type=module', '--eval', program], {
      cwd,
      timeout: 3000,
    });
    const stderr = await ended.then(
      (done) => done.stderr,
      ({ killed }: { killed: boolean }) => (killed ? 'still alive after 3 s' : 'failed'),
    );
    t.equal(stderr, '');
  },
);

void t.test('an end that was closed serves no call that arrives afterwards', async (t) => {
  const ends = new TwoEnds();
  ends.server.close(new BridgeError('unavailable', 'going down'));
  ends.server.receive(pack([0, 1, 'echo', 0, 1000, { text: '' }]));
  await sleep(5);
  t.equal(ends.served, 0);
});

/** Waits as long as a busy machine may take. */
async function until(done: () => boolean): Promise<void> {
  for (const deadline = performance.now() + 10_000; !done() && performance.now() < deadline; )
    await sleep(5);
}
