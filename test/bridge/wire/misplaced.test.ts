import { setTimeout as sleep } from 'node:timers/promises';
import t from 'tap';
import { z } from 'zod';
import { decodeFrames, encodeFrame, type Frame } from '#bridge/wire/frames.js';
import { COMMIT_MEMBERS_MAX } from '#bridge/wire/limits.js';
import { misplaced } from '#bridge/wire/misplaced.js';
import { Peer } from '#bridge/wire/peer.js';
import { SERVER_OPERATIONS } from '#bridge/wire/protocol.js';

const zeros = (length: number): unknown[] => Array.from({ length }, () => 0);

const Row = z.strictObject({
  name: z.string(),
  of: z
    .union([z.strictObject({ user: z.string() }), z.strictObject({ org: z.string() })])
    .optional(),
  pairs: z.array(z.tuple([z.string(), z.string().nullable()])).max(3),
  list: z.array(z.int()),
  data: z.custom<Uint8Array>((value) => value instanceof Uint8Array).nullable(),
});
const row = {
  name: 'x'.repeat(1_000_000),
  pairs: [['a', null]],
  list: [1, 2],
  data: Buffer.alloc(1_000_000),
};

void t.test('what an operation may be given is never called misplaced', async (t) => {
  t.equal(Row.safeParse(row).success, true);
  for (const good of [
    row,
    { ...row, of: { user: 'ada' } },
    { ...row, of: { org: 'acme' } },
    { ...row, data: null },
    { ...row, list: zeros(COMMIT_MEMBERS_MAX) },
  ])
    t.equal(misplaced(Row, good), false);
});

void t.test('bytes, lists and crowds where an object or few things are wanted are', async (t) => {
  const crowd = Object.fromEntries(Array.from({ length: 2000 }, (_, i) => [`k${i}`, 0]));
  for (const bad of [
    Buffer.alloc(9),
    [1],
    crowd,
    { ...row, of: Buffer.alloc(9) },
    { ...row, of: [] },
    { ...row, of: crowd },
    { ...row, pairs: zeros(COMMIT_MEMBERS_MAX + 1) },
    { ...row, list: zeros(COMMIT_MEMBERS_MAX + 1) },
  ])
    t.equal(misplaced(Row, bad), true);
  for (const small of [
    null,
    'x',
    1,
    { ...row, name: crowd },
    { ...row, list: {} },
    { ...row, data: 1 },
  ])
    t.equal(misplaced(Row, small), false, 'zod says at once what is wrong with others');
});

void t.test('megabytes in the wrong place of any operation are refused at once', async (t) => {
  const answers: Frame[] = [];
  const peer = new Peer(
    (bytes) => answers.push(...decodeFrames(bytes)),
    {},
    SERVER_OPERATIONS,
    async () => t.fail('it was served'),
  );
  const bytes = Buffer.alloc(2_000_000);
  const list = zeros(300_000);
  for (const op of Object.keys(SERVER_OPERATIONS))
    for (const large of [bytes, list])
      for (const params of [large, { namespace: large }, { event: large }, { set: large }]) {
        const message = encodeFrame([0, 1, op, 0, 1000, params]);
        const started = performance.now();
        peer.receive(message);
        const ms = performance.now() - started;
        if (ms > 500) t.fail(`${op} took ${Math.round(ms)} ms`);
      }
  await sleep(5);
  t.equal(answers.length, Object.keys(SERVER_OPERATIONS).length * 8);
  for (const answer of answers) {
    t.equal(answer[0] === 2 && answer[2], 'invalid');
    t.match(answer[3], /^\P{Cc}{5,700}$/u);
  }
});
