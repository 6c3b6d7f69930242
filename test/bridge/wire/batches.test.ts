import { setTimeout as sleep, setImmediate as turn } from 'node:timers/promises';
import t from 'tap';
import { z } from 'zod';
import { BridgeError } from '#bridge/wire/errors.js';
import { decodeFrames, encodeFrame, type Frame } from '#bridge/wire/frames.js';
import {
  BATCH_BYTES,
  MESSAGE_FRAMES_MAX,
  RETRY_AFTER_MS_MAX,
  SERVED_BYTES_MAX,
} from '#bridge/wire/limits.js';
import { type Call, Peer, type Serve } from '#bridge/wire/peer.js';
import type { Operations } from '#bridge/wire/protocol.js';
import { hasMoreValues } from '#bridge/wire/value-count.js';
import { randomTest } from '#test/support/random.js';

const OPERATIONS = {
  echo: {
    caller: 'any',
    params: z.strictObject({ text: z.string() }),
    result: z.strictObject({ text: z.string() }),
  },
} as const satisfies Operations;
type Known = typeof OPERATIONS;

/** An end that calls, and the messages it sent. */
function caller() {
  const messages: Uint8Array[] = [];
  const peer = new Peer((bytes) => messages.push(Buffer.from(bytes)), OPERATIONS, {});
  return { peer, messages, frames: () => messages.flatMap((message) => decodeFrames(message)) };
}

/** An end that serves, and the messages it sent. */
function server(serve: Serve) {
  const messages: Uint8Array[] = [];
  const send = (bytes: Uint8Array) => messages.push(Buffer.from(bytes));
  const peer = new Peer<Record<never, never>, Known>(send, {}, OPERATIONS, serve);
  return { peer, messages, frames: () => messages.flatMap((message) => decodeFrames(message)) };
}

const call = (id: number, text = '', deadlineMs = 60_000): Frame => [
  0,
  id,
  'echo',
  0,
  deadlineMs,
  { text },
];
const messageOf = (frames: readonly Frame[]): Uint8Array =>
  Buffer.concat(frames.map((frame) => encodeFrame(frame)));
const ignored = (promise: Promise<unknown>) => void promise.catch(() => {});

void t.test(
  'what is sent within one turn of the event loop is one message, in order',
  async (t) => {
    const { peer, messages, frames } = caller();
    for (let i = 0; i < 64; i++) {
      ignored(peer.call('echo', { text: `${i}` }));
      if (i % 3 === 0) peer.push(1, 'between', i);
    }
    t.equal(messages.length, 0, 'nothing before the turn ends');
    await turn();
    t.equal(messages.length, 1);
    const expected: unknown[] = [];
    for (let i = 0; i < 64; i++) {
      expected.push([0, `${i}`]);
      if (i % 3 === 0) expected.push([3, i]);
    }
    t.strictSame(
      frames().map((frame) =>
        frame[0] === 0 ? [0, (frame[5] as { text: string }).text] : [frame[0], frame[3]],
      ),
      expected,
    );
    ignored(peer.call('echo', { text: 'later' }));
    await turn();
    t.equal(messages.length, 2, 'the next turn’s are another');
    peer.close(new BridgeError('unavailable', 'over'));
  },
);

void t.test('the calls of one message are served in order and answered with few', async (t) => {
  const order: unknown[] = [];
  const { peer, messages, frames } = server(async (_op, { params }) => {
    order.push((params as { text: string }).text);
    await sleep(1);
    return params;
  });
  const texts = Array.from({ length: 64 }, (_, i) => `${i}`);
  peer.receive(messageOf(texts.map((text, i) => call(i, text))));
  t.strictSame(order, texts);
  for (let i = 0; i < 1000 && frames().length < 64; i++) await sleep(5);
  t.equal(frames().length, 64);
  t.ok(messages.length <= 32, `${messages.length} messages for 64 answers`);
});

void t.test('a batch goes out at once when it has its size, and stays below it', async (t) => {
  const { peer, messages } = caller();
  const text = 'x'.repeat(1000);
  for (let i = 0; i < 200; i++) peer.push(1, 't', text);
  t.ok(messages.length >= 2, 'before the turn ends');
  await turn();
  const sizes = messages.map(({ byteLength }) => byteLength);
  t.ok(Math.max(...sizes) <= BATCH_BYTES, `${Math.max(...sizes)} bytes`);
  t.ok(Math.min(...sizes.slice(0, -1)) > BATCH_BYTES - 1100, 'and is nearly full');
  t.equal(messages.flatMap((message) => decodeFrames(message)).length, 200);
});

void t.test('a large frame goes out at once and alone, behind what was before it', async (t) => {
  const { peer, messages } = caller();
  peer.push(1, 'first', null);
  peer.push(1, 'large', 'x'.repeat(BATCH_BYTES));
  t.equal(messages.length, 2);
  peer.push(1, 'last', null);
  await turn();
  t.strictSame(
    messages.map((message) => decodeFrames(message).map((frame) => frame[2])),
    [['first'], ['large'], ['last']],
  );
});

void t.test('no message has more frames than the other end takes', async (t) => {
  const { peer, messages } = caller();
  for (let i = 0; i < 2 * MESSAGE_FRAMES_MAX + 5; i++) peer.push(1, '', null);
  await turn();
  t.strictSame(
    messages.map((message) => decodeFrames(message).length),
    [MESSAGE_FRAMES_MAX, MESSAGE_FRAMES_MAX, 5],
  );
});

void t.test('of a message with a bad frame nothing is taken', async (t) => {
  let served = 0;
  const { peer } = server(async () => served++);
  const bad = Buffer.concat([messageOf([call(1), call(2)]), Buffer.from([0xc1])]);
  t.throws(() => peer.receive(bad), { code: 'invalid' });
  await turn();
  t.equal(served, 0);
});

void t.test('an end that is closed by one frame of a message ignores the rest', async (t) => {
  const { peer } = caller();
  const topics: string[] = [];
  peer.onPush = (_channel, topic) => {
    topics.push(topic);
    peer.close(new BridgeError('unavailable', 'enough'));
  };
  peer.receive(
    messageOf([
      [3, 1, 'first', null],
      [3, 1, 'second', null],
    ]),
  );
  t.strictSame(topics, ['first']);
});

void t.test('a batch that cannot be sent fails its calls, and only those', async (t) => {
  let down = true;
  const peer = new Peer(
    () => {
      if (down) throw new Error('socket hang up');
    },
    OPERATIONS,
    {},
  );
  const lost = [1, 2].map((i) => peer.call('echo', { text: `${i}` }));
  await Promise.all(
    lost.map(async (one) => await t.rejects(one, { code: 'internal', message: /socket hang up/ })),
  );
  down = false;
  const next = peer.call('echo', { text: '3' });
  await turn();
  peer.receive(messageOf([[1, 3, { text: '3' }]]));
  t.strictSame(await next, { text: '3' });
});

void t.test('bytes out of a message keep the message itself out of memory', async (t) => {
  const message = Buffer.from(
    encodeFrame([1, 1, { small: Buffer.from('ab'), large: Buffer.alloc(1_000_000) }]),
  );
  const [frame] = decodeFrames(message);
  if (frame?.[0] !== 1) throw new Error('no result');
  const { small } = frame[2] as { small: Uint8Array };
  t.equal(Buffer.from(small).toString(), 'ab');
  t.ok(small.buffer.byteLength < 10_000, `it lies in ${small.buffer.byteLength} bytes`);
});

randomTest('any frames come out of any batches as they went in', async (t, random) => {
  for (let round = 0; round < 100; round++) {
    const frames = Array.from({ length: 1 + random.int(60) }, (_, i): Frame => {
      const text = random.pick(['', 'é😀', 'x'.repeat(random.int(300)), 'key of some length']);
      const value = { text, list: [text, i, null], bytes: random.bytes(random.int(20)) };
      return random.pick<Frame>([
        [0, i, 'op', random.int(5), 1 + random.int(1000), value],
        [1, i, value],
        [2, i, 'denied', text, random.pick([null, 0, 1500])],
        [3, i, 'topic', value],
      ]);
    });
    const decoded = decodeFrames(messageOf(frames));
    // Texts are what a wrong place in the message would show in.
    t.strictSame(JSON.stringify(decoded), JSON.stringify(frames));
  }
});

randomTest('values of any kind are counted as the decoder meets them', async (t, random) => {
  const numbers = [0, 127, 128, 255, 256, 65_535, 65_536, 2 ** 32, -1, -32, -33, -129, -32_769];
  let values = 0;
  const some = (depth: number): unknown => {
    values++;
    const kind = random.int(depth === 0 ? 4 : 6);
    if (kind === 0) return random.pick([null, true, false, 1.5, ...numbers]);
    if (kind === 1) return 'é'.repeat(random.pick([0, 5, 15, 16, 127, 128, 32_768]));
    if (kind === 2) return Buffer.alloc(random.pick([0, 1, 255, 256, 65_536]));
    if (kind === 3) return random.pick<unknown>([undefined, -(2 ** 40), 2n ** 63n]);
    const items = Array.from({ length: random.pick([0, 1, 15, 16, 17]) }, () => some(depth - 1));
    if (kind === 4) return items;
    values += items.length;
    return Object.fromEntries(items.map((item, i) => [`key ${i}`, item]));
  };
  for (let round = 0; round < 50; round++) {
    values = 4; // the frame, its kind, channel and topic
    const bytes = encodeFrame([3, 1, 't', some(2)]);
    const exact = !hasMoreValues(bytes, values) && hasMoreValues(bytes, values - 1);
    if (!exact) t.fail(`${values} in ${Buffer.from(bytes).toString('hex').slice(0, 500)}`);
  }
  t.equal(hasMoreValues(Buffer.from('dd7fffffff', 'hex'), 1), false, 'cut short');
});

// ---------------------------------------------------------------- hints

void t.test('a refusal’s hint reaches the caller, within its bounds', async (t) => {
  const hints: readonly (readonly [number | undefined, number | undefined])[] = [
    [undefined, undefined],
    [0, 0],
    [1.2, 2],
    [-5, 0],
    [Number.NaN, undefined],
    [Number.POSITIVE_INFINITY, RETRY_AFTER_MS_MAX],
  ];
  for (const [given, heard] of hints) {
    const { peer, messages } = server(async () => {
      throw new BridgeError(
        'rate_limited',
        'later',
        given === undefined ? {} : { retryAfterMs: given },
      );
    });
    peer.receive(encodeFrame(call(1)));
    await sleep(1);
    const end = caller();
    const answer = end.peer.call('echo', { text: '' });
    end.peer.receive(messages[0] ?? Buffer.alloc(0));
    const error: unknown = await answer.catch((e: unknown) => e);
    t.match(error, { code: 'rate_limited', message: 'later' });
    t.equal((error as BridgeError).retryAfterMs, heard, `${given}`);
  }
});

void t.test('an end that serves too many bytes at once refuses more for now', async (t) => {
  const release: (() => void)[] = [];
  const { peer, frames } = server(
    async (_op, { params }) =>
      await new Promise((resolve) =>
        release.push(() => resolve({ ...(params as object), text: '' })),
      ),
  );
  const text = 'x'.repeat(SERVED_BYTES_MAX / 4);
  for (let id = 1; id <= 4; id++) peer.receive(encodeFrame(call(id, text)));
  await turn();
  t.match(frames(), [[2, 4, 'rate_limited', 'too many bytes in calls at once; try again', 100]]);
  t.equal(release.length, 3);
  for (const go of release) go();
  await sleep(5);
  peer.receive(encodeFrame(call(5, text)));
  t.equal(release.length, 4, 'there is room again');
  peer.close(new BridgeError('unavailable', 'over'));
});

// ---------------------------------------------------------------- draining

const closing = new BridgeError('unavailable', 'going down', { retryAfterMs: 500 });

void t.test(
  'an end that drains says so, answers what it was asked, and refuses what comes',
  async (t) => {
    const release: ((params: unknown) => void)[] = [];
    const served: Call<unknown>[] = [];
    const { peer, frames } = server(async (_op, one) => {
      served.push(one);
      return await new Promise((resolve) => release.push(() => resolve(one.params)));
    });
    peer.receive(messageOf([call(1, 'a'), call(2, 'b')]));
    let drained = false;
    const draining = peer.drain(closing).then(() => (drained = true));
    await turn();
    t.strictSame(frames(), [[3, 0, 'closing', null]]);
    peer.receive(encodeFrame(call(3, 'c')));
    await turn();
    t.strictSame(frames()[1], [2, 3, 'unavailable', 'going down', 500]);
    release[0]?.(null);
    await sleep(1);
    t.equal(drained, false, 'one is still under way');
    release[1]?.(null);
    await draining;
    t.strictSame(frames().slice(2), [
      [1, 1, { text: 'a' }],
      [1, 2, { text: 'b' }],
    ]);
    t.equal(served.length, 2);
    t.notOk(served.some(({ signal }) => signal.aborted));
  },
);

void t.test('an end with nothing to do has drained at once, a closed one too', async (t) => {
  const { peer, frames } = server(async () => null);
  await peer.drain(closing);
  t.strictSame(frames(), [[3, 0, 'closing', null]], 'and what it said is on its way');
  peer.close(new BridgeError('unavailable', 'over'));
  await peer.drain(closing);
  const busy = server(async () => await new Promise(() => {}));
  busy.peer.receive(encodeFrame(call(1)));
  const draining = busy.peer.drain(closing);
  busy.peer.close(new BridgeError('unavailable', 'over'));
  await draining;
  t.pass('closed while it drained');
});

void t.test('the other end hears that an end drains, and no push listener does', async (t) => {
  const { peer } = caller();
  const heard: string[] = [];
  peer.onClosing = () => heard.push('closing');
  peer.onPush = (channel, topic) => heard.push(`${channel} ${topic}`);
  peer.receive(
    messageOf([
      [3, 1, 'closing', null],
      [3, 0, 'closing', null],
      [3, 0, 'other', null],
    ]),
  );
  t.strictSame(heard, ['1 closing', 'closing', '0 other']);
});
