import t from 'tap';
import type { Log } from '#bridge/wire/control.js';
import { ExecutionId } from '#bridge/wire/names.js';
import type { LogsRequest } from '#bridge/wire/watch.js';
import { KeptLogs, type LogReader } from '#mountd/kept-logs.js';
import { randomTest } from '#test/support/random.js';

const ID = ExecutionId.parse('00000000-0000-4000-8000-000000000001');
const idOf = (n: number) =>
  ExecutionId.parse(`00000000-0000-4000-8000-${String(n).padStart(12, '0')}`);
const never = new AbortController().signal;

const log = (text: string, stream: Log['stream'] = 'stdout'): Log => ({
  stream,
  data: Buffer.from(text),
});

/** What a reader gets until there is no more; `<n>` stands for n bytes that are missing. */
async function readAll(reader: LogReader): Promise<string> {
  let text = '';
  for (;;) {
    const kept = await reader.next(never);
    if (kept === undefined) return text;
    if (kept.omitted !== undefined) text += `<${kept.omitted}>`;
    if (kept.log !== undefined) text += Buffer.from(kept.log.data).toString();
  }
}

/** Each call at another moment. */
function logsAt(options: ConstructorParameters<typeof KeptLogs>[0] = {}) {
  let now = 0;
  const logs = new KeptLogs({ ...options, now: () => (now += 1000) });
  const read = async (from: Partial<LogsRequest> = {}) =>
    await readAll(logs.reader({ executionId: ID, follow: false, ...from }));
  return { logs, read };
}

void t.test('what was printed is there until some minutes after the end', async (t) => {
  const { logs, read } = logsAt({ keptMs: 50 });
  t.throws(() => logs.reader({ executionId: ID, follow: false }), { code: 'not_found' });
  logs.begin(ID);
  logs.add(ID, log('out\n'));
  logs.add(ID, log('err\n', 'stderr'));
  t.equal(await read(), 'out\nerr\n');
  t.equal(logs.statusOf(ID), undefined);
  logs.end(ID, 'succeeded');
  logs.add(ID, log('too late\n'));
  t.equal(await read(), 'out\nerr\n');
  t.equal(logs.statusOf(ID), 'succeeded');
  const reader = logs.reader({ executionId: ID, follow: true });
  await new Promise((resolve) => setTimeout(resolve, 100));
  t.throws(() => logs.statusOf(ID), { code: 'not_found', message: /nothing .* is kept here/ });
  t.equal(logs.bytes, 0);
  t.equal(await readAll(reader), '<8>', 'who was slow hears what is missing');
  t.same(reader.result, { status: 'succeeded', omitted: 8 });
});

void t.test('who follows gets what comes, to the end', async (t) => {
  const { logs } = logsAt();
  logs.begin(ID);
  logs.add(ID, log('one '));
  const reader = logs.reader({ executionId: ID, follow: true });
  const all = readAll(reader);
  await new Promise((resolve) => setImmediate(resolve));
  logs.add(ID, log('two '));
  await new Promise((resolve) => setImmediate(resolve));
  t.same(reader.result, { status: null, omitted: 0 });
  logs.add(ID, log('three'));
  logs.end(ID, 'killed');
  t.equal(await all, 'one two three');
  t.same(reader.result, { status: 'killed', omitted: 0 });

  logs.begin(idOf(2));
  const gone = new AbortController();
  const waiting = logs.reader({ executionId: idOf(2), follow: true }).next(gone.signal);
  gone.abort();
  t.equal(await waiting, undefined, 'or until they go');
  const lost = logs.reader({ executionId: idOf(2), follow: true }).next(never);
  logs.forget(idOf(2));
  await t.rejects(lost, { code: 'not_found' }, 'or until nobody can tell any more');
});

void t.test('the last lines, over both streams', async (t) => {
  const { logs, read } = logsAt();
  logs.begin(ID);
  t.equal(await read({ tail: 3 }), '');
  logs.add(ID, log('1\n2\n'));
  logs.add(ID, log('3\n', 'stderr'));
  logs.add(ID, log('4\nfi'));
  logs.add(ID, log('ve'));
  t.equal(await read({ tail: 0 }), '');
  t.equal(await read({ tail: 1 }), 'five');
  t.equal(await read({ tail: 2 }), '4\nfive');
  t.equal(await read({ tail: 3 }), '3\n4\nfive');
  t.equal(await read({ tail: 4 }), '2\n3\n4\nfive');
  t.equal(await read({ tail: 9 }), '1\n2\n3\n4\nfive');
  logs.add(ID, log('\n'));
  t.equal(await read({ tail: 1 }), 'five\n', 'the end of a line begins no other');
  const { received } = logs.reader({ executionId: ID, follow: false, tail: 1 }).start;
  t.same(received, { stdout: 6, stderr: 2 });
});

void t.test('who comes back gets what he has not had, also from another process', async (t) => {
  const { logs, read } = logsAt();
  logs.begin(ID);
  logs.add(ID, log('abc'));
  logs.add(ID, log('xyz', 'stderr'));
  logs.add(ID, { ...log('Warning\n', 'stderr'), isWarning: true });
  logs.add(ID, log('def'));
  t.equal(await read({ received: { stdout: 4, stderr: 1 } }), 'yzef', 'no warning twice');
  t.equal(await read({ received: { stdout: 3, stderr: 3 } }), 'Warning\ndef');
  const ahead = logs.reader({ executionId: ID, follow: true, received: { stdout: 8, stderr: 3 } });
  const rest = readAll(ahead);
  await new Promise((resolve) => setImmediate(resolve));
  logs.add(ID, log('gh'));
  logs.add(ID, log('ij'));
  logs.end(ID, 'succeeded');
  t.equal(await rest, 'ij', 'what the process before has read is read again, and not passed on');
});

void t.test('of what is too much the oldest goes, and how much is said', async (t) => {
  const { logs, read } = logsAt({ bytesMax: 100_000 });
  logs.begin(ID);
  const reader = logs.reader({ executionId: ID, follow: true });
  for (let i = 0; i < 200; i++) logs.add(ID, log(`${i}`.padEnd(999, '.') + '\n'));
  const text = await read();
  const [, missing = ''] = /^<(\d+)>/.exec(text) ?? [];
  t.equal(Number(missing) + text.length - missing.length - 2, 200_000);
  t.ok(text.endsWith(`199${'.'.repeat(996)}\n`));
  t.ok(logs.bytes <= 100_000);
  logs.end(ID, 'succeeded');
  t.equal(await readAll(reader), text, 'a slow follower misses the same');
  t.equal(await read({ tail: 2 }), text.slice(-2000));
});

void t.test('together they have a limit: those that ended first go first', async (t) => {
  const { logs } = logsAt({ bytesMax: 100_000, allBytesMax: 320_000 });
  const print = (n: number) => {
    logs.begin(idOf(n));
    for (let i = 0; i < 90; i++) logs.add(idOf(n), log('.'.repeat(1000)));
  };
  for (const n of [1, 2, 3, 4]) print(n);
  for (const n of [2, 1, 3]) logs.end(idOf(n), 'succeeded');
  print(5);
  t.throws(() => logs.statusOf(idOf(2)), { code: 'not_found' });
  t.equal(logs.statusOf(idOf(1)), 'succeeded');
  for (const n of [6, 7, 8, 9]) print(n);
  t.throws(() => logs.statusOf(idOf(1)), { code: 'not_found' });
  t.throws(() => logs.statusOf(idOf(3)), { code: 'not_found' });
  for (const n of [4, 5, 6, 7, 8, 9])
    t.equal(logs.statusOf(idOf(n)), undefined, 'what runs is not forgotten, but has less');
  t.ok(logs.bytes <= 320_000, `${logs.bytes} bytes`);
});

randomTest(
  'readers of any pace get every byte or are told that it is missing',
  async (t, random) => {
    let now = 0;
    const logs = new KeptLogs({ bytesMax: 150_000, allBytesMax: 400_000, now: () => now });
    const ids = [1, 2, 3, 4, 5].map(idOf);
    const printed = new Map(ids.map((id) => [id, { stdout: '', stderr: '' }]));
    for (const id of ids) logs.begin(id);
    const readers = ids.flatMap((id) =>
      [0, 1].map(() => ({
        id,
        reader: logs.reader({ executionId: id, follow: true }),
        /** By stream: where it is, as far as it can tell. */
        at: { stdout: 0, stderr: 0 },
        read: 0,
        omitted: 0,
      })),
    );
    let wrong = 0;
    const step = async (one: (typeof readers)[number]): Promise<boolean> => {
      const stopped = new AbortController();
      stopped.abort();
      const kept = await one.reader.next(stopped.signal);
      if (kept === undefined) return false;
      one.omitted += kept.omitted ?? 0;
      const { log: found, received } = kept;
      if (found !== undefined) {
        const text = Buffer.from(found.data).toString('latin1');
        const end = received[found.stream];
        const expected = printed.get(one.id)?.[found.stream].slice(end - text.length, end);
        if (text !== expected || end - text.length < one.at[found.stream]) wrong++;
        one.read += text.length;
      }
      one.at = { ...received };
      return true;
    };
    let most = 0;
    for (let round = 0; round < 4_000; round++) {
      now += random.int(20);
      const id = random.pick(ids);
      const stream = random.chance(0.3) ? 'stderr' : 'stdout';
      const data = random.bytes(random.chance(0.1) ? random.int(60_000) : random.int(300));
      const all = printed.get(id);
      if (all !== undefined) all[stream] += data.toString('latin1');
      logs.add(id, { stream, data });
      most = Math.max(most, logs.bytes);
      for (let steps = random.int(4); steps > 0; steps--) await step(random.pick(readers));
    }
    for (const id of ids) logs.end(id, 'succeeded');
    for (const one of readers) while (await step(one));
    t.equal(wrong, 0, 'every byte where it belongs');
    t.ok(most <= 400_000, `at most ${most} bytes`);
    for (const { id, read, omitted, reader } of readers) {
      const { stdout = '', stderr = '' } = printed.get(id) ?? {};
      t.equal(read + omitted, stdout.length + stderr.length, 'nothing is lost without a word');
      t.equal(reader.result.omitted, omitted);
    }
  },
);
