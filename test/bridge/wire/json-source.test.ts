import { execFileSync, spawnSync } from 'node:child_process';
import { isDeepStrictEqual } from 'node:util';
import t, { type Test } from 'tap';
import {
  checkJson,
  decodeText,
  isJson,
  isRewriteOf,
  JsonSyntaxError,
  renderMembers,
  scanMembers,
} from '#bridge/wire/json-source.js';
import { shown } from '#test/bridge/wire/shown.js';
import { type Random, randomTest } from '#test/support/random.js';

const NESTED_DEPTH = 100_000;
const nested = '['.repeat(NESTED_DEPTH) + ']'.repeat(NESTED_DEPTH);

/** The members of a text that must be an object. */
function membersOf(text: string): [string, string][] {
  const members = scanMembers(text);
  if (members === undefined) throw new TypeError(`not an object: ${text.slice(0, 80)}`);
  return [...members];
}

void t.test('decodeText reads a file as legacy Node did', async (t) => {
  const table: readonly (readonly [string, readonly number[], string])[] = [
    ['plain ASCII', [0x7b, 0x7d], '{}'],
    [
      'every length of UTF-8',
      [0x41, 0xc3, 0xa9, 0xe2, 0x82, 0xac, 0xf0, 0x9f, 0x98, 0x80],
      'Aé€😀',
    ],
    ['a byte that never occurs in UTF-8', [0x22, 0xff, 0x22], '"\ufffd"'],
    ['a continuation byte alone', [0x22, 0x80, 0x22], '"\ufffd"'],
    ['a sequence cut short by the quote', [0x22, 0xe2, 0x82, 0x22], '"\ufffd"'],
    ['a sequence cut short by the end', [0xf0, 0x9f, 0x98], '\ufffd'],
    ['an overlong slash', [0xc0, 0xaf], '\ufffd\ufffd'],
    ['a surrogate in UTF-8', [0xed, 0xa0, 0x80], '\ufffd\ufffd\ufffd'],
    ['Latin-1 é', [0x22, 0xe9, 0x22], '"\ufffd"'],
    ['a NUL', [0x00], '\0'],
    ['nothing', [], ''],
  ];
  for (const [what, bytes, text] of table) {
    t.equal(decodeText(Uint8Array.from(bytes)), text, what);
    t.equal(Buffer.from(bytes).toString('utf8'), text, `${what}: as Node reads it`);
  }
});

void t.test('a byte-order mark stays in the text and makes it invalid', async (t) => {
  const text = decodeText(Buffer.from('\ufeff{"a":1}'));
  t.equal(text.charCodeAt(0), 0xfeff);
  t.throws(() => checkJson(text), { name: 'JsonSyntaxError' });
  t.throws(() => scanMembers(text), { name: 'JsonSyntaxError' });
  t.equal(isJson(text), false);
});

void t.test('invalid UTF-8 inside a string is still a document', async (t) => {
  const bytes = Buffer.concat([Buffer.from('{"a": "x'), Buffer.from([0xff]), Buffer.from('y"}')]);
  t.strictSame(membersOf(decodeText(bytes)), [['a', '"x\ufffdy"']]);
});

void t.test('checkJson takes off surrounding white space and nothing else', async (t) => {
  for (const text of [
    '1.0',
    '-0',
    '1e400',
    '9223372036854775808',
    '""',
    '{ "a" : 1 }',
    '[ ]',
    'null',
  ])
    t.equal(checkJson(` \t\r\n${text}\n\r\t `), text, text);
  t.equal(checkJson('" x "'), '" x "', 'white space in a string is the string');
});

void t.test('what is not JSON by RFC 8259 is refused with the words of the parser', async (t) => {
  // biome-ignore format: a table
  const table = [
    '', ' ', '\n', '\ufeff{}', '\u00a0{}', '\f{}', '\v{}', '{}\0',
    'NaN', 'Infinity', '-Infinity', '{"a": NaN}', '{"a": Infinity}', '{"a": -Infinity}',
    '// c\n{}', '/* c */{}', '{"a": 1 /* c */}', '# c\n{}', '{}// c',
    '[1,]', '{"a": 1,}', '[,1]', '{,}', '[1,,2]', '{"a": 1 "b": 2}', '{"a" 1}',
    "{'a': 1}", '{a: 1}', '{1: 1}', '{"a"}', '{"a":}', '{', '}', '[', ']', '{]', '[}', '"', '{"a": "',
    '01', '-01', '+1', '.5', '1.', '1.e3', '1e', '1e+', '0x10', '1_000', '--1', '-', '1n',
    'True', 'None', 'undefined', 'nul', 'nulll', 'true false', '{}{}', '1 2',
    '"\t"', '"\n"', '"\u0000"', '"\\x41"', '"\\u12"', '"\\u{41}"', '"\\\n"', '"\\',
  ];
  for (const text of table) {
    t.throws(() => JSON.parse(text), `${shown(text)} is refused by JSON.parse`);
    t.equal(isJson(text), false, `${shown(text)} is not JSON`);
    for (const read of [checkJson, scanMembers]) {
      try {
        read(text);
        t.fail(`${read.name} takes ${shown(text)}`);
      } catch (error) {
        t.ok(
          error instanceof JsonSyntaxError && error.message.length > 0,
          `${read.name} ${shown(text)}`,
        );
      }
    }
  }
});

void t.test('scanMembers keeps the source text of every value', async (t) => {
  // biome-ignore format: a table
  const table = [
    '1.0', '1.50', '100', '1e2', '1E+2', '1e400', '-1e400', '1e-400', '-0', '-0.0', '0.0', '0e0',
    '9007199254740993', '9223372036854775808', '-9223372036854775809', '18446744073709551616',
    '123456789012345678901234567890.123456789012345678901234567890',
    'true', 'false', 'null', '""', '"a"', '"\\u0041"', '"\\/"', '"\\ud83d\\ude00"', '"😀"', '"\\ud800"',
    '"\\""', '"\\\\"', '"\\\\\\""', '"{"', '"}"', '"[,]:"', '"\\u0000"', '"\u2028"', '"\u007f"',
    '[]', '{}', '[ ]', '{ }', '[1, 2 ,3]', '{"b":1, "a" : 2}', '["}",{"]":"["}]', '[[[[]]]]',
    '{"x": {"y": [1.0, {"z": "\\\\"}]}}', '[\n  1,\n\t2\r\n]', '{"a":1,"a":2}',
  ];
  for (const text of table) {
    t.strictSame(membersOf(`{"k":${text}}`), [['k', text]], `${shown(text)} alone`);
    const among = `\r\n{ "a" :\t${text}\n,"k"\n:\n${text} , "z":0}\n`;
    const wanted = [
      ['a', text],
      ['k', text],
      ['z', '0'],
    ];
    t.strictSame(membersOf(among), wanted, `${shown(text)} among others`);
  }
});

void t.test('keys are decoded, so two spellings of a key are one key', async (t) => {
  // biome-ignore format: a table
  const table: readonly (readonly [string, string])[] = [
    ['"a"', 'a'], ['"\\u0061"', 'a'], ['""', ''], ['"\\""', '"'], ['"\\\\"', '\\'], ['"\\n"', '\n'],
    ['"\\u0000"', '\0'], ['"é"', 'é'], ['"\\u00e9"', 'é'], ['"\\ud83d\\ude00"', '😀'], ['"\\ud800"', '\ud800'],
    ['"a:b"', 'a:b'], ['"},{"', '},{'], ['"1"', '1'], ['"constructor"', 'constructor'],
  ];
  for (const [source, key] of table)
    t.strictSame(membersOf(`{${source} : 1}`), [[key, '1']], shown(source));
});

void t.test('a repeated key keeps its first place and its last value', async (t) => {
  const text = '{"a": 1, "b": 2, "\\u0061": 3, "c": 4, "b": 5, "a": 6.0}';
  t.strictSame(membersOf(text), [
    ['a', '6.0'],
    ['b', '5'],
    ['c', '4'],
  ]);
  t.equal(renderMembers(membersOf(text)), '{\n  "a": 6.0,\n  "b": 5,\n  "c": 4\n}');
});

void t.test('__proto__ is a key like any other', async (t) => {
  const text = '{"__proto__": {"polluted": 1}, "a": 2}';
  t.strictSame(membersOf(text), [
    ['__proto__', '{"polluted": 1}'],
    ['a', '2'],
  ]);
  t.equal(Reflect.get({}, 'polluted'), undefined);
  t.equal(renderMembers(membersOf(text)), '{\n  "__proto__": {"polluted": 1},\n  "a": 2\n}');
  t.equal(isRewriteOf('{"__proto__": 1}', '{"__proto__":1}'), true);
  t.equal(isRewriteOf('{"__proto__": 1}', '{"__proto__": 2}'), false);
  t.equal(isRewriteOf('{}', '{"__proto__": {}}'), false);
});

void t.test('members in the order of the text, also those with numbers for names', async (t) => {
  const keys = membersOf('{"b": 1, "2": 1, "1": 1, "a": 1, "-1": 1}').map(([key]) => key);
  t.strictSame(keys, ['b', '2', '1', 'a', '-1']);
});

void t.test('valid JSON that is not an object has no members', async (t) => {
  for (const text of ['[]', '[{"a":1}]', '"{}"', '1', 'null', 'true', ' [ ] '])
    t.equal(scanMembers(text), undefined, text);
  t.strictSame(membersOf('{}'), []);
  t.strictSame(membersOf(' { \n } '), []);
});

void t.test('100,000 levels of nesting cost no stack', async (t) => {
  t.equal(checkJson(` ${nested} `), nested);
  t.ok(
    isDeepStrictEqual(membersOf(`{"deep": ${nested}, "b": 1}`), [
      ['deep', nested],
      ['b', '1'],
    ]),
  );
  const objects = '{"k":'.repeat(NESTED_DEPTH) + '1' + '}'.repeat(NESTED_DEPTH);
  t.ok(isDeepStrictEqual(membersOf(objects), [['k', objects.slice('{"k":'.length, -1)]]));
  t.ok(isRewriteOf(nested, nested), 'the same text is the same value');
  t.equal(
    isRewriteOf(nested, `${nested} `.replace('[]', '[1]')),
    false,
    'another text is a change',
  );
  t.throws(() => checkJson(nested.slice(1)), JsonSyntaxError, 'one bracket missing');
});

void t.test('a document of 10 MiB is read whole: one value or 100,000 of them', async (t) => {
  const long = JSON.stringify('x'.repeat(10 * 1024 * 1024));
  const one = membersOf(`{"a": ${long}, "b": 1.0}`);
  t.ok(
    isDeepStrictEqual(one, [
      ['a', long],
      ['b', '1.0'],
    ]),
  );

  const many = Array.from({ length: 100_000 }, (_, i): [string, string] => [
    `key_${i}`,
    i % 2 === 0 ? `${i}.0` : JSON.stringify(`${i}`.padEnd(180, '.')),
  ]);
  const text = renderMembers(many);
  t.ok(text.length > 10 * 1024 * 1024, `${text.length} characters`);
  t.ok(isDeepStrictEqual(membersOf(text), many));
  t.ok(isRewriteOf(text, JSON.stringify(JSON.parse(text))));
});

void t.test('renderMembers writes the shape the grep helper needs', async (t) => {
  t.equal(renderMembers([]), '{}');
  t.equal(renderMembers([['a', '1.0']]), '{\n  "a": 1.0\n}');
  const members: [string, string][] = [
    ['a', '"x"'],
    ['b c', '[1, 2]'],
    ['"\n', '{"k": null}'],
    ['é\ud800', '-0'],
  ];
  const lines = [
    '{',
    '  "a": "x",',
    '  "b c": [1, 2],',
    '  "\\"\\n": {"k": null},',
    '  "é\\ud800": -0',
    '}',
  ];
  t.equal(renderMembers(members), lines.join('\n'));
  t.strictSame(membersOf(renderMembers(members)), members);
});

/** Values as scripts and other programs write them; every rewriter below must leave each of them untouched. */
// biome-ignore format: a table
const VALUES = [
  '0', '-0', '0.0', '-0.0', '1', '-1', '1.0', '1.50', '100', '1e2', '1E+2', '1.5e3', '120e-1', '10000000000',
  '9007199254740991', '9007199254740992', '9007199254740993', '-9007199254740993', '9223372036854775807',
  '9223372036854775808', '18446744073709551615', '1000000000000000128', '123456789012345678901234567890',
  '12345678901234567.0', '4503599627370497.5', '123456789012.015625', '0.1', '0.1000', '0.30000000000000004',
  '4.35', '2.675', '3.141592653589793238', '1e-7', '2.5e-8', '123e-20', '1e16', '1e17', '1e21', '1e22', '1e23',
  '100000000000000000000', '5e-324', '2.2250738585072014e-308', '1e-400', '1.7976931348623157e308',
  'true', 'false', 'null',
  '""', '"a"', '"\\u0041"', '"\\/"', '"/"', '"\\b\\f\\n\\r\\t\\"\\\\"', '"\\u000a"', '"é"', '"\\u00e9"', '"\\u00E9"',
  '"😀"', '"\\ud83d\\ude00"', '"\\u0000"', '"\u2028\u2029"', '"\u007f\u0080"', '"<>&\'"', '"1.0"', '"9007199254740993"',
  '[]', '{}', '[1, 2.0,3]', '[[],[[]],{}]', '{"b": 1, "a": 2}', '{"2": 1, "1": 2}', '{"a": 1, "a": 2.0}',
  '{"\\u0061": {"x": [9007199254740993, "\\u0041", null]}}', '{"__proto__": {"a": 1.0}}', '{"": ""}',
];

/** Finite numbers a double cannot hold. JavaScript makes null of them, jq the largest double. */
const BEYOND_DOUBLE = ['1e400', '-1e400', '1.8e308', `1${'0'.repeat(400)}`];

interface Rewriter {
  readonly name: string;
  readonly rewrite: (texts: readonly string[]) => string[];
  readonly missing: boolean;
}

const onPath = (program: string) => spawnSync(program, ['--version']).status === 0;
const lines = (text: string) => text.split('\n').slice(0, -1);
const python = (dumps: string): Rewriter => ({
  name: `python3 json.dumps(${dumps})`,
  rewrite: (texts) => {
    const program = `import json, sys
print(json.dumps([json.dumps(json.loads(text)${dumps && `, ${dumps}`}) for text in json.load(sys.stdin)]))`;
    const input = JSON.stringify(texts);
    return JSON.parse(
      execFileSync('python3', ['-c', program], { input, encoding: 'utf8' }),
    ) as string[];
  },
  missing: !onPath('python3'),
});
const jq = (...options: string[]): Rewriter => ({
  name: ['jq', ...options, '.'].join(' '),
  // -s and .[] would do, but one value after the other is what scripts run.
  rewrite: (texts) =>
    lines(
      execFileSync('jq', ['-c', ...options, '.'], { input: texts.join('\n'), encoding: 'utf8' }),
    ),
  missing: !onPath('jq'),
});
const javaScript = (space?: number): Rewriter => ({
  name: `JSON.stringify(JSON.parse(text), null, ${space ?? 0})`,
  rewrite: (texts) => texts.map((text) => JSON.stringify(JSON.parse(text), null, space)),
  missing: false,
});
const REWRITERS = [
  javaScript(),
  javaScript(2),
  python(''),
  python('indent=2'),
  python('ensure_ascii=False, sort_keys=True'),
  jq(),
  jq('-S'),
  jq('-a'),
];

function checkRewrites(t: Test, { name, rewrite }: Rewriter, texts: readonly string[]): void {
  const rewritten = rewrite(texts);
  t.equal(rewritten.length, texts.length, `${name} answered for every value`);
  for (const [i, text] of texts.entries()) {
    const after = rewritten[i] ?? '';
    t.equal(isRewriteOf(text, after), true, `${shown(text)} became ${shown(after)}`);
  }
}

for (const rewriter of REWRITERS) {
  const skip = rewriter.missing ? 'not installed here' : false;
  void t.test(
    `a value that went through ${rewriter.name} counts as untouched`,
    { skip },
    async (t) => {
      checkRewrites(t, rewriter, VALUES);
      checkRewrites(t, rewriter, [`{"all": [${VALUES.join(', ')}]}`]);
      // Whoever reads the rewritten document and writes it again changes nothing either.
      const again = rewriter.rewrite(VALUES);
      checkRewrites(
        t,
        rewriter,
        again.filter((text) => !text.includes('\n')),
      );
    },
  );
}

// Python writes Infinity, which is no JSON, so such a document is refused as a whole.
for (const rewriter of [javaScript(), jq()]) {
  const skip = rewriter.missing ? 'not installed here' : false;
  void t.test(
    `1e400 that went through ${rewriter.name} counts as untouched`,
    { skip },
    async (t) => {
      checkRewrites(t, rewriter, BEYOND_DOUBLE);
    },
  );
}

void t.test('a real change is seen, however small', async (t) => {
  // biome-ignore format: a table
  const table: readonly (readonly [string, string])[] = [
    ['1', '2'], ['1', '-1'], ['1', '10'], ['1', '0.1'], ['1', '"1"'], ['"1"', '1'], ['0', 'false'], ['0', 'null'],
    ['""', 'null'], ['true', 'false'], ['true', '"true"'], ['null', '"null"'], ['[]', '{}'], ['{}', 'null'],
    // No rewriter makes a more exact number of a rounded one.
    ['9007199254740992', '9007199254740993'], ['9007199254740993', '9007199254740994'],
    ['9007199254740991', '9007199254740992'], ['9223372036854775807', '9223372036854775808'],
    ['9223372036854776000', '9223372036854775808'], ['1.2345678901234568e+29', '123456789012345678901234567890'],
    ['0.1', '0.10000000000000002'], ['0.1', '0.1000000000000000055511151231257827'], ['0.3', '0.30000000000000004'],
    ['3.141592653589793', '3.141592653589793238'], ['1e-400', '1e-401'], ['1e400', '1e401'], ['1e400', '-1e400'],
    ['1e400', '0'], ['1e400', '1e308'], ['5e-324', '0'], ['-1e-400', '1e-400'],
    ['"a"', '"b"'], ['"a"', '"A"'], ['"a"', '"a "'], ['"é"', '"e\u0301"'], ['"\\u0041"', '"\\\\u0041"'],
    ['"\\ud800"', '"\ufffd"'], ['"1.0"', '"1"'],
    ['[1,2]', '[2,1]'], ['[1]', '[1,1]'], ['[1]', '[]'], ['[[1]]', '[1]'], ['[1]', '{"0":1}'],
    ['{"a":1}', '{}'], ['{}', '{"a":1}'], ['{"a":1}', '{"b":1}'], ['{"a":null}', '{}'], ['{"a":1}', '{"a":1,"b":2}'],
    ['{"a":1,"a":2}', '{"a":1}'], ['{"a":{"b":[1]}}', '{"a":{"b":[2]}}'], ['{"a":1}', '{"A":1}'],
    ['{"n":9007199254740992}', '{"n":9007199254740993}'], ['[[[1]],2]', '[[[1]],3]'],
  ];
  for (const [original, rewritten] of table)
    t.equal(isRewriteOf(original, rewritten), false, `${shown(original)} -> ${shown(rewritten)}`);
});

void t.test('rounding is forgiven only in the direction a rewriter rounds', async (t) => {
  t.equal(isRewriteOf('9007199254740993', '9007199254740992'), true, 'JavaScript rounded it');
  t.equal(isRewriteOf('9007199254740992', '9007199254740993'), false, 'a script counted up');
  t.equal(isRewriteOf('[9007199254740993]', '[ 9007199254740992 ]'), true, 'in a list');
  t.equal(isRewriteOf('{"n":9007199254740992}', '{"n":9007199254740993}'), false, 'in an object');
  t.equal(isRewriteOf('0.1', '0.10000000000000001'), true, 'the 17 digits of jq 1.5');
});

void t.test(
  'nesting beyond the depth that is compared: other white space counts as a change',
  async (t) => {
    const deep = (levels: number, space: string) =>
      `${'['.repeat(levels)}${space}${']'.repeat(levels)}`;
    t.equal(isRewriteOf(deep(200, ''), deep(200, ' ')), true, '200 levels are compared');
    t.equal(isRewriteOf(deep(2000, ''), deep(2000, ' ')), false, '2000 are compared as text');
    t.equal(isRewriteOf(deep(2000, ''), deep(2000, '')), true, 'and equal text is equal');
  },
);

void t.test(
  'numbers with very many digits are compared without stopping everything else',
  async (t) => {
    // One thread serves every execution of a host; a script may write 10 MiB of digits. A linear comparison takes a few ms; the limit only tells it from a quadratic one.
    const LIMIT_MS = 10_000; // quadratic would take minutes
    const table = {
      '3,000,000 zeros between two digits': `1${'0'.repeat(3_000_000)}1`,
      'an exponent of 2,000,000 digits': `1e${'9'.repeat(2_000_000)}`,
      '3,000,000 digits without a zero': '7'.repeat(3_000_000),
      '3,000,000 leading zeros of a fraction': `0.${'0'.repeat(3_000_000)}1`,
    };
    for (const [what, number] of Object.entries(table)) {
      const started = performance.now();
      const same = isRewriteOf('1', number);
      const ms = performance.now() - started;
      t.equal(same, false, what);
      t.ok(ms < LIMIT_MS, `${what}: ${Math.round(ms)} ms`);
    }
  },
);

/** A random document with what its members must be read as. */
class Author {
  readonly #random: Random;

  constructor(random: Random) {
    this.#random = random;
  }

  document(): { text: string; members: Map<string, string> } {
    const members = new Map<string, string>();
    const parts: string[] = [];
    for (let left = this.#random.int(8); left > 0; left--) {
      const again = members.size > 0 && this.#random.chance(0.15);
      const source = again
        ? JSON.stringify(this.#random.pick([...members.keys()]))
        : this.#random.chance(0.05)
          ? '"__proto__"'
          : this.#string();
      const value = this.value(4);
      members.set(JSON.parse(source) as string, value);
      parts.push(
        `${this.#space()}${source}${this.#space()}:${this.#space()}${value}${this.#space()}`,
      );
    }
    const body = parts.length === 0 ? this.#space() : parts.join(',');
    return { text: `${this.#space()}{${body}}${this.#space()}`, members };
  }

  value(depth: number): string {
    switch (this.#random.int(depth > 0 ? 5 : 3)) {
      case 0:
        return this.#random.pick(['true', 'false', 'null']);
      case 1:
        return this.#number();
      case 2:
        return this.#string();
      case 3:
        return `[${this.#list(() => this.value(depth - 1))}]`;
      default:
        return `{${this.#list(() => `${this.#string()}${this.#space()}:${this.#space()}${this.value(depth - 1)}`)}}`;
    }
  }

  #list(item: () => string): string {
    const items = Array.from(
      { length: this.#random.int(4) },
      () => `${this.#space()}${item()}${this.#space()}`,
    );
    return items.length === 0 ? this.#space() : items.join(',');
  }

  #space(): string {
    return this.#random.chance(0.6) ? '' : this.#random.pick([' ', '\n', '\t', '\r\n', '  \n ']);
  }

  #digits(count: number): string {
    return Array.from({ length: count }, () => this.#random.int(10)).join('');
  }

  /** Of a size that a double can hold, with any number of digits. */
  #number(): string {
    const sign = this.#random.chance(0.3) ? '-' : '';
    const whole = this.#random.chance(0.3)
      ? '0'
      : `${1 + this.#random.int(9)}${this.#digits(this.#random.int(25))}`;
    const fraction = this.#random.chance(0.5) ? '' : `.${this.#digits(1 + this.#random.int(22))}`;
    const exponent = this.#random.chance(0.7)
      ? ''
      : `${this.#random.pick(['e', 'E'])}${this.#random.pick(['', '+', '-'])}${this.#random.int(250)}`;
    return sign + whole + fraction + exponent;
  }

  #string(): string {
    const pieces = Array.from({ length: this.#random.int(6) }, () =>
      this.#random.chance(0.3)
        ? `\\u${this.#random.int(0x10000).toString(16).padStart(4, '0')}`
        : this.#random.pick([
            'a',
            'Z',
            '{',
            '}',
            '[',
            ']',
            ',',
            ':',
            '\\"',
            '\\\\',
            '\\/',
            '\\n',
            'é',
            '😀',
            '\u2028',
            ' ',
          ]),
    );
    return `"${pieces.join('')}"`;
  }
}

randomTest('any document reads back as itself, member for member', async (t, random) => {
  const author = new Author(random);
  for (let i = 0; i < 2000; i++) {
    const { text, members } = author.document();
    const scanned = scanMembers(text);
    const rendered = renderMembers(scanned ?? []);
    const good =
      scanned !== undefined &&
      isDeepStrictEqual(scanned, members) &&
      isDeepStrictEqual([...scanned.keys()], [...members.keys()]) &&
      isDeepStrictEqual(JSON.parse(rendered), JSON.parse(text)) &&
      isDeepStrictEqual(scanMembers(rendered), members);
    if (!good) throw new Error(`${shown(JSON.stringify(text))} reads as ${rendered}`);
  }
  t.pass('2000 documents');
});

randomTest(
  'any value written again by JavaScript counts as untouched, any other value as changed',
  async (t, random) => {
    const author = new Author(random);
    for (let i = 0; i < 2000; i++) {
      const text = author.value(4);
      const other = author.value(4);
      const value: unknown = JSON.parse(text);
      for (const space of [undefined, 2])
        if (!isRewriteOf(text, JSON.stringify(value, null, space)))
          throw new Error(`untouched: ${JSON.stringify(text)}`);
      if (
        isRewriteOf(text, other) &&
        !isDeepStrictEqual(withoutMinusZero(value), withoutMinusZero(JSON.parse(other)))
      )
        throw new Error(`changed: ${JSON.stringify(text)} -> ${JSON.stringify(other)}`);
    }
    t.pass('2000 values');
  },
);

randomTest('a number one step away from the stored one is a change', async (t, random) => {
  const bits = new DataView(new ArrayBuffer(8));
  let compared = 0;
  while (compared < 2000) {
    for (let at = 0; at < 8; at++) bits.setUint8(at, random.int(256));
    const number = bits.getFloat64(0);
    bits.setBigUint64(0, bits.getBigUint64(0) + 1n);
    const next = bits.getFloat64(0);
    if (!Number.isFinite(number) || !Number.isFinite(next)) continue;
    compared++;
    if (isRewriteOf(`${number}`, `${next}`)) throw new Error(`${number} -> ${next}`);
    const exact = BigInt(Number.MAX_SAFE_INTEGER) + BigInt(random.int(2 ** 31)) * 4n;
    if (isRewriteOf(`${exact}`, `${exact + 2n}`)) throw new Error(`${exact} -> ${exact + 2n}`);
    if (isRewriteOf(`[${exact}.5]`, `[${exact}.25]`)) throw new Error(`${exact}.5 -> ${exact}.25`);
  }
  t.equal(compared, 2000);
});

/** 0 and -0 are the same number; isDeepStrictEqual disagrees. */
const withoutMinusZero = (value: unknown): unknown =>
  JSON.parse(JSON.stringify(value), (_key, member: unknown) => (member === 0 ? 0 : member));

const pythonOrJq = [python(''), jq()].filter(({ missing }) => !missing);
for (const rewriter of pythonOrJq)
  randomTest(
    `any value that ${rewriter.name} wrote again counts as untouched`,
    async (t, random) => {
      const author = new Author(random);
      const texts = Array.from({ length: 400 }, () => author.value(4))
        .map((text) => JSON.stringify(JSON.parse(text)))
        // jq refuses half of a surrogate pair, or writes U+FFFD for it.
        .filter((text) => !/\\ud[89a-f]/.test(text));
      checkRewrites(t, rewriter, texts);
    },
  );
