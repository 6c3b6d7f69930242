import t from 'tap';
import { diffMembers, showSame } from '#bridge/vfs/variables-merge.js';
import { type Members, renderMembers, scanMembers } from '#bridge/wire/json-source.js';
import { UPDATED } from '#bridge/wire/names.js';
import { type Random, randomTest } from '#test/support/random.js';
import { FakeRun } from './fake-run.js';

/** The members of a text that must be an object. */
function members(text: string): Members {
  const found = scanMembers(text);
  if (found === undefined) throw new TypeError(`not an object: ${text}`);
  return found;
}

/** What changed, in one line: `a=1 -b`, sorted by key. */
function changes(base: string, written: string, guard = true): string {
  const edit = diffMembers(members(base), members(written), guard);
  return [
    ...[...edit.set].map(([key, text]) => `${key}=${text}`),
    ...[...edit.delete].map((key) => `-${key}`),
  ]
    .sort()
    .join(' ');
}

const JS_STAMP = '"2026-11-23T07:00:00.123Z"';
const PYTHON_STAMP = '"2026-11-23T07:00:00.123456"';
const BASH_STAMP = '"2026-11-23T07:00:00+00:00"';
const EARLIER_STAMP = '"2026-11-23T06:59:59+00:00"';
const BIG = '9007199254740993';

void t.test(
  'what a script wrote differs from what it read by what it set and left out',
  async (t) => {
    const table: readonly (readonly [string, string, string, string])[] = [
      ['nothing', '{"a":1}', '{"a":1}', ''],
      ['nothing of nothing', '{}', '{}', ''],
      ['a new member', '{"a":1}', '{"a":1,"b":2.0}', 'b=2.0'],
      ['a new value', '{"a":1,"b":2}', '{"a":"x","b":2}', 'a="x"'],
      ['a new type', '{"a":1}', '{"a":"1"}', 'a="1"'],
      ['a member left out', '{"a":1,"b":2}', '{"b":2}', '-a'],
      ['everything left out', '{"a":1,"b":2}', '{}', '-a -b'],
      ['everything else', '{"a":1,"b":2}', '{"c":3,"d":4}', '-a -b c=3 d=4'],
      ['null is a value, not a deletion', '{"a":1}', '{"a":null}', 'a=null'],
      ['another order', '{"a":1,"b":2}', '{"b":2,"a":1}', ''],
      ['other white space', '{"a":[1,2],"b":{"c":1}}', '{ "a" : [ 1,\n2 ], "b":{ "c" :1} }', ''],
      ['other escapes', '{"é":"\\u00e9\\/"}', '{"\\u00e9":"é/"}', ''],
      ['the last of two', '{"a":1}', '{"a":5,"a":2}', 'a=2'],
      ['__proto__', '{"a":1}', '{"a":1,"__proto__":{"x":1}}', '__proto__={"x":1}'],
      ['names of numbers', '{"2":1,"1":1}', '{"1":2}', '-2 1=2'],
      ['an empty name', '{"":1}', '{}', '-'],
    ];
    for (const [what, base, written, wanted] of table)
      t.equal(changes(base, written), wanted, what);
  },
);

void t.test('a member that a JSON library merely wrote again keeps its stored text', async (t) => {
  const base = `{"big":${BIG},"id":18446744073709551615,"price":1.50,"e":1E+2,"list":[${BIG},1.0],"s":"\\u00e9"}`;
  t.equal(changes(base, JSON.stringify(JSON.parse(base))), '', 'JavaScript');
  const python = `{"big": ${BIG}, "id": 18446744073709551615, "price": 1.5, "e": 100.0, "list": [${BIG}, 1.0], "s": "\\u00e9"}`;
  t.equal(changes(base, python), '', 'Python');
  const other = JSON.stringify({ ...(JSON.parse(base) as object), city: 'Oslo' });
  t.equal(changes(base, other), 'city="Oslo"', 'and only what it set is sent');
  t.equal(
    changes(base, base.replace(BIG, '9007199254740994')),
    'big=9007199254740994',
    'a real change is sent',
  );
  t.equal(changes('{"n":9007199254740992}', `{"n":${BIG}}`), `n=${BIG}`, 'no library counts up');
});

void t.test(
  'omission is deletion relative to what was read, never to what others made meanwhile',
  async (t) => {
    const server = members('{"mine":1,"theirs":2}');
    const read = members('{"mine":1}');
    const edit = diffMembers(read, members('{}'), true);
    t.strictSame([...edit.delete], ['mine']);
    t.ok(server.has('theirs') && !edit.delete.has('theirs'));
    t.equal(changes('{}', '{}'), '', 'who read nothing deletes nothing');
    t.equal(changes('{}', '{"a":1}'), 'a=1');
  },
);

void t.test('the helpers’ time stamp is never stored and never deleted', async (t) => {
  for (const stamp of [JS_STAMP, PYTHON_STAMP, BASH_STAMP, '1', 'null', '{"a":1}'])
    for (const guard of [true, false]) {
      const stamped = `{"a":1,"b":2,"${UPDATED}":${stamp}}`;
      t.equal(changes('{"a":1,"b":2}', stamped, guard), '', `${stamp} added`);
      t.equal(changes(stamped, '{"a":1,"b":2}', guard), '', `${stamp} left out`);
      t.equal(changes(stamped, '{}', guard), '-a -b', `${stamp} left out with everything`);
      t.equal(changes(stamped, `{"a":1,"b":2,"${UPDATED}":"x"}`, guard), '', `${stamp} changed`);
    }
  t.equal(changes('{"a":1}', '{"a":1,"__upd\\u0061ted__":1}'), '', 'in whatever spelling');
});

void t.test('the bash helper without jq sets one key and means one key', async (t) => {
  const base = '{"a":"1","b":2,"c":[3]}';
  const helper = (key: string, value: string, stamp = BASH_STAMP) =>
    `{\n  "${key}": ${value},\n  "${UPDATED}": ${stamp}\n}\n`;
  t.equal(changes(base, helper('d', '"x"')), 'd="x"', 'a new key');
  t.equal(changes(base, helper('b', '"x"')), 'b="x"', 'a known key');
  t.equal(changes(base, helper('a', '"1"')), '', 'the value it had');
  t.equal(changes(base, helper('d', '""')), 'd=""', 'an empty value');
  t.equal(
    changes(`${base.slice(0, -1)},"${UPDATED}":${EARLIER_STAMP}}`, helper('d', '"x"')),
    'd="x"',
    'once more',
  );
  for (const zone of ['+05:45', '-11:00', '+00:00']) {
    const stamp = BASH_STAMP.replace('+00:00', zone);
    t.equal(changes(base, helper('d', '"x"', stamp)), 'd="x"', zone);
  }
  t.equal(changes('{}', helper('d', '"x"')), 'd="x"', 'the first key of all');
});

void t.test(
  'everything that is not exactly the bash helper without jq means what it says',
  async (t) => {
    const base = '{"a":"1","b":2}';
    const table: readonly (readonly [string, string, string, string])[] = [
      ['JavaScript', base, `{"d":"x","${UPDATED}":${JS_STAMP}}`, '-a -b d="x"'],
      [
        'JavaScript on a full second',
        base,
        `{"d":"x","${UPDATED}":"2026-11-23T07:00:00.000Z"}`,
        '-a -b d="x"',
      ],
      ['Python', base, `{"d":"x","${UPDATED}":${PYTHON_STAMP}}`, '-a -b d="x"'],
      [
        'Python on a full second',
        base,
        `{"d":"x","${UPDATED}":"2026-11-23T07:00:00"}`,
        '-a -b d="x"',
      ],
      ['a value that is no string', base, `{"d":1,"${UPDATED}":${BASH_STAMP}}`, '-a -b d=1'],
      ['two keys', base, `{"d":"x","e":"y","${UPDATED}":${BASH_STAMP}}`, '-a -b d="x" e="y"'],
      ['no key', base, `{"${UPDATED}":${BASH_STAMP}}`, '-a -b'],
      ['no stamp', base, '{"d":"x"}', '-a -b d="x"'],
      ['a stamp that is no time', base, `{"d":"x","${UPDATED}":"now"}`, '-a -b d="x"'],
      [
        'a stamp with something after it',
        base,
        `{"d":"x","${UPDATED}":"2026-11-23T07:00:00+00:00 "}`,
        '-a -b d="x"',
      ],
    ];
    for (const [what, from, written, wanted] of table)
      t.equal(changes(from, written), wanted, what);
  },
);

void t.test('with the guard off a document of one key deletes the rest, as it did', async (t) => {
  const written = `{"d":"x","${UPDATED}":${BASH_STAMP}}`;
  t.equal(changes('{"a":"1","b":2}', written, false), '-a -b d="x"');
  t.equal(changes('{"a":"1","b":2}', written, true), 'd="x"');
});

void t.test(
  'two documents show the same when only stamps, order and spelling differ',
  async (t) => {
    const table: readonly (readonly [string, string, boolean])[] = [
      ['{}', '{}', true],
      ['{"a":1}', '{ "a": 1.0 }', true],
      ['{"a":1,"b":2}', '{"b":2,"a":1}', true],
      [`{"a":1,"${UPDATED}":1}`, '{"a":1}', true],
      ['{"a":1}', `{"a":1,"${UPDATED}":1}`, true],
      [`{"a":1,"${UPDATED}":1}`, `{"a":1,"${UPDATED}":2}`, true],
      [`{"${UPDATED}":1}`, '{}', true],
      ['{"a":1}', '{}', false],
      ['{}', '{"a":1}', false],
      ['{"a":1}', '{"a":2}', false],
      ['{"a":1}', '{"b":1}', false],
      ['{"a":1}', '{"a":1,"b":2}', false],
      ['{"a":1,"b":2}', '{"a":1}', false],
      [`{"a":1,"${UPDATED}":1}`, '{"a":1,"b":2}', false],
      [`{"${UPDATED}":1}`, '{"a":1}', false],
      ['{"a":1}', `{"${UPDATED}":1}`, false],
      ['{"a":null}', '{}', false],
    ];
    for (const [a, b, same] of table)
      t.equal(showSame(members(a), members(b)), same, `${a} and ${b}`);
    t.equal(
      showSame(members('{"n":9007199254740992}'), members(`{"n":${BIG}}`)),
      true,
      'what JavaScript made of it',
    );
    t.equal(
      showSame(members(`{"n":${BIG}}`), members('{"n":9007199254740992}')),
      false,
      'not the other way round',
    );
  },
);

const helperText = (key: string, value: string, stamp: string) =>
  `{\n  "${key}": "${value}",\n  "${UPDATED}": "${stamp}"\n}\n`;

void t.test(
  'after the bash helper without jq set a key, the file shows the whole document again',
  async (t) => {
    await using run = new FakeRun(t, { a: '"1"', b: BIG });
    await run.rewrite(helperText('x', 'new', '2026-11-23T07:00:00+00:00'));
    t.strictSame(Object.fromEntries(run.server.variables), { a: '"1"', b: BIG, x: '"new"' });
    t.equal(
      run.read(),
      `{\n  "a": "1",\n  "b": ${BIG},\n  "x": "new",\n  "${UPDATED}": "2026-11-23T07:00:00+00:00"\n}`,
    );
    await run.rewrite(helperText('y', 'newer', '2026-11-23T07:00:01+00:00'));
    t.strictSame(Object.fromEntries(run.server.variables), {
      a: '"1"',
      b: BIG,
      x: '"new"',
      y: '"newer"',
    });
  },
);

void t.test(
  'two keys set by the bash helper without jq within one second are both stored',
  async (t) => {
    await using run = new FakeRun(t, { a: '"1"' });
    for (const key of ['x', 'y', 'z'])
      await run.rewrite(helperText(key, 'new', '2026-11-23T07:00:00+00:00'));
    t.strictSame(Object.fromEntries(run.server.variables), {
      a: '"1"',
      x: '"new"',
      y: '"new"',
      z: '"new"',
    });
  },
);

void t.test(
  'a key set twice to one value within a second by the bash helper without jq deletes nothing',
  async (t) => {
    await using run = new FakeRun(t, { a: '"1"', b: BIG });
    const again = helperText('status', 'running', '2026-11-23T07:00:00+00:00');
    await run.rewrite(again);
    run.read(); // cronium_getVariable
    await run.rewrite(again);
    t.strictSame(Object.fromEntries(run.server.variables), {
      a: '"1"',
      b: BIG,
      status: '"running"',
    });
  },
);

void t.test('a script that writes {} deletes what it read, and no more', async (t) => {
  await using run = new FakeRun(t, { a: '1', b: '2' });
  run.read();
  run.server.variables.set('theirs', '3');
  await run.rewrite('{}');
  t.strictSame(Object.fromEntries(run.server.variables), { theirs: '3' });
});

/** Who writes variables.json, and how. */
const WRITERS = ['javascript', 'python', 'editor', 'bash'] as const;
type Writer = (typeof WRITERS)[number];

/** One execution: what it read, what its document says now, and what it means to change. */
class Execution {
  readonly writer: Writer;
  #base: Members = new Map();
  #document: Members = new Map();
  /** Changes since the last commit, by key; null = deleted. */
  readonly #meant = new Map<string, string | null>();

  constructor(writer: Writer) {
    this.writer = writer;
  }

  read(server: Members): void {
    this.#base = members(renderMembers(server));
    this.#document = new Map(this.#base);
    this.#meant.clear();
  }

  set(key: string, text: string): void {
    if (this.writer === 'bash') this.#meant.clear(); // it writes one key a time
    this.#document.set(key, text);
    this.#meant.set(key, text);
  }

  delete(random: Random): void {
    const known = [...this.#document.keys()].filter((key) => key !== UPDATED);
    if (known.length === 0 || this.writer === 'bash') return;
    const key = random.pick(known);
    this.#document.delete(key);
    if (this.#base.has(key)) this.#meant.set(key, null);
    else this.#meant.delete(key);
  }

  /** Writes the document and commits it to `server`; does to `truth` what was meant. Returns whether it wrote. */
  commit(server: Map<string, string>, truth: Map<string, string>, now: Date): boolean {
    const text = this.#text(now.toISOString());
    if (text === undefined) return false;
    const written = members(text);
    const edit = diffMembers(this.#base, written, true);
    for (const [key, value] of edit.set) server.set(key, value);
    for (const key of edit.delete) server.delete(key);
    for (const [key, value] of this.#meant) {
      if (value === null) truth.delete(key);
      else truth.set(key, value);
    }
    this.#meant.clear();
    this.#base = written;
    this.#document = new Map(written);
    return true;
  }

  #text(now: string): string | undefined {
    const stamp = (text: string) => JSON.stringify(text);
    switch (this.writer) {
      case 'editor':
        return renderMembers(this.#document);
      case 'python':
        return renderMembers(new Map(this.#document).set(UPDATED, stamp(now.slice(0, -1))));
      case 'javascript': {
        const text = renderMembers(new Map(this.#document).set(UPDATED, stamp(now)));
        return JSON.stringify(JSON.parse(text), null, 2);
      }
      case 'bash': {
        const [set] = this.#meant;
        if (set === undefined) return undefined;
        const [key, text] = set;
        return renderMembers([
          [key, text ?? ''],
          [UPDATED, stamp(`${now.slice(0, -5)}+00:00`)],
        ]);
      }
      default:
        return this.writer satisfies never;
    }
  }
}

/** A value nobody has set before: of a kind that its writer writes as it is, and that JavaScript rounds when it can. */
function newValue(writer: Writer, random: Random, serial: number): string {
  const plain = `"value ${serial}"`;
  if (writer === 'bash') return plain;
  if (writer === 'javascript') return random.pick([plain, `${serial}`]);
  const big = BigInt(BIG) + BigInt(serial) * 2n;
  return random.pick([plain, `${serial}.50`, `${big}`, `{"n": [${big}, "\\u0041"]}`]);
}

randomTest(
  'executions that read, write and commit in any order lose no key and bring none back',
  async (t, random) => {
    let commits = 0;
    for (let round = 0; round < 100; round++) {
      const server = new Map([
        ['start', BIG],
        ['other', '1.0'],
      ]);
      const truth = new Map(server);
      const executions = Array.from(
        { length: 2 + random.int(3) },
        () => new Execution(random.pick(WRITERS)),
      );
      for (const execution of executions) execution.read(server);
      const history: string[] = [];
      for (let step = 0; step < 60; step++) {
        const execution = random.pick(executions);
        const action = random.pick(['read', 'set', 'set', 'delete', 'commit', 'commit']);
        history.push(`${executions.indexOf(execution)} ${execution.writer} ${action}`);
        const serial = round * 1000 + step;
        if (action === 'read') execution.read(server);
        if (action === 'set')
          execution.set(`key ${random.int(6)}`, newValue(execution.writer, random, serial));
        if (action === 'delete') execution.delete(random);
        if (
          action === 'commit' &&
          execution.commit(server, truth, new Date(Date.UTC(2026, 0) + serial * 1000))
        )
          commits++;
        const sorted = (map: Map<string, string>) =>
          [...map]
            .map(([key, text]) => `${key}: ${text}`)
            .sort()
            .join('; ');
        if (sorted(server) === sorted(truth)) continue;
        t.equal(sorted(server), sorted(truth), `round ${round}: ${history.slice(-12).join(', ')}`);
        return;
      }
    }
    t.ok(commits > 1000, `${commits} commits`);
  },
);
