import t from 'tap';
import {
  type Action,
  type Answer,
  apply,
  check,
  type Event,
  START,
  type State,
} from '#test/support/linearizability.js';
import { type Random, randomTest } from '#test/support/random.js';

/** A call from `began` to `ended`; without an answer nobody knows what became of it. */
function call(began: number, ended: number, action: Action, answer?: Answer): Event {
  return answer === undefined
    ? { began, ended: Number.POSITIVE_INFINITY, action }
    : { began, ended, action, answer };
}
const set = (text: string, ifVersion?: number): Action => ({ do: 'set', text, ifVersion });
const add = (by: number): Action => ({ do: 'add', by });
const get: Action = { do: 'get' };
const gone: Action = { do: 'delete' };
const done = (version: number): Answer => ({ is: 'done', version });
const value = (text: string, version: number): Answer => ({ is: 'value', version, text });
const absent: Answer = { is: 'absent' };
const conflict: Answer = { is: 'conflict' };

const GOOD: Readonly<Record<string, readonly Event[]>> = {
  nothing: [],
  'one after the other': [
    call(1, 2, get, absent),
    call(3, 4, set('1'), done(5)),
    call(5, 6, get, value('1', 5)),
    call(7, 8, add(2), value('3', 6)),
    call(9, 10, gone, done(7)),
    call(11, 12, get, absent),
    call(13, 14, add(1), value('1', 9)),
  ],
  'a reading during a change sees it or does not': [
    call(1, 10, set('1'), done(1)),
    call(2, 3, get, absent),
    call(4, 5, get, value('1', 1)),
  ],
  'changes at once, in the order of their versions': [
    call(1, 10, set('1'), done(2)),
    call(2, 9, set('2'), done(1)),
    call(11, 12, get, value('1', 2)),
  ],
  'of two that compare one succeeds': [
    call(1, 2, set('1'), done(1)),
    call(3, 8, set('2', 1), conflict),
    call(4, 9, set('3', 1), done(2)),
  ],
  'a change without an answer is seen much later': [
    call(1, 2, set('1'), done(1)),
    call(3, 4, set('2')),
    call(5, 6, get, value('1', 1)),
    call(7, 8, get, value('2', 3)),
    call(9, 10, set('3', 3), done(4)),
  ],
  'a change without an answer never happened': [
    call(1, 2, set('1'), done(1)),
    call(3, 4, set('2')),
    call(5, 6, get, value('1', 1)),
  ],
  'a conflict with a change nobody has an answer of': [
    call(1, 2, set('1'), done(1)),
    call(3, 4, set('2')),
    call(5, 6, set('3', 1), conflict),
    call(7, 8, get, value('2', 2)),
  ],
  'what is not there is at version 0': [
    call(1, 2, set('1', 0), done(1)),
    call(3, 4, set('2', 0), conflict),
    call(5, 6, { do: 'delete', ifVersion: 1 }, done(2)),
    call(7, 8, set('2', 0), done(3)),
  ],
  'deleting what is not there changes nothing': [
    call(1, 2, gone, done(40)),
    call(3, 4, set('1'), done(2)),
  ],
};

const BAD: Readonly<Record<string, readonly Event[]>> = {
  'a stale reading': [
    call(1, 2, set('1'), done(1)),
    call(3, 4, set('2'), done(2)),
    call(5, 6, get, value('1', 1)),
  ],
  'a reading before there was anything to read': [
    call(1, 2, get, value('1', 1)),
    call(3, 4, set('1'), done(1)),
  ],
  'readings that go back': [
    call(1, 10, set('1'), done(1)),
    call(2, 3, get, value('1', 1)),
    call(4, 5, get, absent),
  ],
  'a value under another’s version': [
    call(1, 2, set('1'), done(1)),
    call(3, 4, set('2'), done(2)),
    call(5, 6, get, value('2', 1)),
  ],
  'a lost update': [
    call(1, 2, set('1'), done(1)),
    call(3, 10, add(1), value('2', 2)),
    call(4, 9, add(1), value('2', 3)),
  ],
  'two answers with one version': [call(1, 2, set('1'), done(1)), call(3, 4, set('2'), done(1))],
  'an answer with a later change’s version': [
    call(1, 2, set('1'), done(2)),
    call(3, 4, set('2'), done(2)),
  ],
  'two that compare with one version succeed': [
    call(1, 2, set('1'), done(1)),
    call(3, 8, set('2', 1), done(2)),
    call(4, 9, set('3', 1), done(3)),
  ],
  'one that compares is refused although nothing has changed': [
    call(1, 2, set('1'), done(1)),
    call(3, 4, set('2', 1), conflict),
    call(5, 6, get, value('1', 1)),
  ],
  'one that was refused and happened all the same': [
    call(1, 2, set('1'), done(1)),
    call(3, 4, set('2', 7), conflict),
    call(5, 6, get, value('2', 3)),
  ],
  'a call made again that was done twice': [
    call(1, 2, set('1'), done(1)),
    // One call, though it was sent twice.
    call(3, 6, add(1), value('3', 3)),
    call(7, 8, get, value('3', 3)),
  ],
  'a call without an answer that was done twice': [
    call(1, 2, set('1'), done(1)),
    call(3, 4, add(1)),
    call(5, 6, get, value('2', 2)),
    call(7, 8, get, value('3', 3)),
  ],
  'a change that vanishes': [call(1, 2, set('1'), done(1)), call(3, 4, get, absent)],
  'a deleted value that comes back': [
    call(1, 2, set('1'), done(1)),
    call(3, 4, gone, done(2)),
    call(5, 6, get, value('1', 1)),
  ],
  'versions that go back': [call(1, 2, set('1'), done(5)), call(3, 4, set('2'), done(4))],
};

void t.test('a history that one variable could have made is accepted', async (t) => {
  for (const [what, history] of Object.entries(GOOD))
    t.strictSame(check(history), { ok: true }, what);
});

void t.test(
  'a history that none could have made is refused, and shows where it stops',
  async (t) => {
    for (const [what, history] of Object.entries(BAD)) {
      const verdict = check(history);
      if (verdict.ok) t.fail(what);
      else t.ok(verdict.order.length < history.length && verdict.stuck.length > 0, what);
    }
  },
);

/** A true history: each call is done at some moment, and began before and ended after it. */
function trueHistory(random: Random, count: number): Event[] {
  const history: Event[] = [];
  let state: State = START;
  let version = 0;
  for (let i = 0; i < count; i++) {
    const moment = 100 * (i + 1);
    const ifVersion = random.chance(0.4) ? random.pick([0, version, version, 1]) : undefined;
    const action = random.pick<Action>([
      get,
      set(String(random.int(3)), ifVersion),
      add(1 + random.int(2)),
      { do: 'delete', ifVersion },
    ]);
    const answers: Answer[] =
      action.do === 'get' || action.do === 'add'
        ? [
            absent,
            ...['0', '1', '2', '3', '4', '5', '6', '7', '8', '9', '10', '11', '12'].map((text) =>
              value(text, action.do === 'get' ? (state.version ?? 0) : version + 1),
            ),
          ]
        : [done(version + 1), conflict];
    const answer = answers.find((one) => apply(state, { action, answer: one, began: 0, ended: 1 }));
    if (answer === undefined || (action.do === 'add' && answer.is === 'absent')) continue;
    const after = apply(state, { action, answer, began: 0, ended: 1 });
    if (after === undefined) continue;
    if (action.do !== 'get' && answer.is !== 'conflict') version++;
    state = after;
    const began = moment - random.int(250);
    const ended = moment + random.int(250);
    if (random.chance(0.1)) history.push(call(began, ended, action));
    else history.push(call(began, ended, action, answer));
  }
  return history;
}

/** One answer is another one. */
function spoilt(random: Random, history: readonly Event[]): Event[] {
  const at = random.int(history.length);
  const change = (answer: Answer): Answer => {
    const step = random.pick([-2, -1, 1, 2]);
    if (answer.is === 'value')
      return random.chance(0.5)
        ? value(String(Number(answer.text) + step), answer.version)
        : value(answer.text, Math.max(1, answer.version + step));
    if (answer.is === 'done') return random.chance(0.3) ? conflict : done(answer.version + step);
    return answer.is === 'absent' ? value('0', 1) : done(1);
  };
  return history.map((event, i) =>
    i === at && event.answer !== undefined ? { ...event, answer: change(event.answer) } : event,
  );
}

/** By trying every order. */
function isPossible(events: readonly Event[], state: State = START): boolean {
  if (events.every(({ answer }) => answer === undefined)) return true;
  const end = Math.min(...events.map(({ ended }) => ended));
  return events.some((event) => {
    if (event.began > end) return false;
    const after = apply(state, event);
    return (
      after !== undefined &&
      isPossible(
        events.filter((one) => one !== event),
        after,
      )
    );
  });
}

randomTest(
  'true histories are accepted; spoilt ones are judged as by trying every order',
  async (t, random) => {
    let [accepted, refused] = [0, 0];
    for (let i = 0; i < 400; i++) {
      const history = trueHistory(random, 1 + random.int(7));
      if (!check(history).ok) throw new Error(`refused: ${JSON.stringify(history)}`);
      if (history.length === 0) continue;
      const bad = spoilt(random, history);
      const verdict = check(bad).ok;
      if (verdict !== isPossible(bad)) throw new Error(`${verdict}: ${JSON.stringify(bad)}`);
      if (verdict) accepted++;
      else refused++;
    }
    t.ok(refused > 50, `${refused} refused`);
    t.ok(accepted > 20, `${accepted} accepted`);
  },
);

randomTest('a long history is judged at once', async (t, random) => {
  const history = trueHistory(random, 2000);
  t.strictSame(check(history), { ok: true });
  t.ok(history.length > 1000);
});
