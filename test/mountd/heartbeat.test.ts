import { setTimeout as sleep } from 'node:timers/promises';
import t from 'tap';
import { beat, FIRST_BEATS_MAX, Pulse, SILENT_BEATS_MAX } from '#mountd/heartbeat.js';
import { eventually } from '#test/support/installation.js';

const EVERY_MS = 5;

void t.test(
  'a beat is sent when the other thread has answered, and asked for once at a time',
  async (t) => {
    let sent = 0;
    let asked = 0;
    let answer: (how: 'yes' | 'no') => void = () => {};
    using _beating = beat(
      () => sent++,
      async () => {
        asked++;
        await new Promise<void>((resolve, reject) => {
          answer = (how) => (how === 'yes' ? resolve() : reject(new Error('it has ended')));
        });
      },
      EVERY_MS,
    );
    await eventually('it was asked', () => asked === 1);
    await sleep(10 * EVERY_MS);
    t.same([asked, sent], [1, 0], 'a thread that hangs is not asked again, and nothing is sent');
    answer('yes');
    await eventually('it goes on', () => asked === 2);
    t.equal(sent, 1);
    answer('no');
    await eventually('a refusal is an answer', () => sent === 2);
  },
);

void t.test('silence is told once, after so many beats; a first one may take longer', async (t) => {
  const told: string[] = [];
  using late = new Pulse(() => told.push('late'), { everyMs: EVERY_MS });
  using alive = new Pulse(() => told.push('alive'), { everyMs: EVERY_MS });
  using dead = new Pulse(() => told.push('dead'), { everyMs: EVERY_MS });
  void late;
  dead.beat();
  const beating = setInterval(() => alive.beat(), EVERY_MS);
  t.teardown(() => clearInterval(beating));
  await eventually('silence was noticed', () => told.length === 2);
  t.same(told, ['dead', 'late'], 'the one that had begun to beat is given up first');
  await sleep(2 * FIRST_BEATS_MAX * EVERY_MS);
  t.same(told, ['dead', 'late'], 'once; and never for one that beats');
  t.ok(SILENT_BEATS_MAX < FIRST_BEATS_MAX);
});

void t.test('a supervisor that was stopped itself does not take the other for dead', async (t) => {
  let silent = 0;
  using pulse = new Pulse(() => silent++, { everyMs: EVERY_MS });
  pulse.beat();
  // As after SIGSTOP, or a suspended machine: long ago, but of one turn.
  const until = Date.now() + 3 * SILENT_BEATS_MAX * EVERY_MS;
  while (Date.now() < until);
  await sleep(2 * EVERY_MS);
  pulse.beat();
  t.equal(silent, 0);
});
