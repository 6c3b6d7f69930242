import { isDeepStrictEqual } from 'node:util';
import t from 'tap';
import {
  checkJson,
  decodeText,
  isJson,
  isRewriteOf,
  JsonScan,
  JsonSyntaxError,
  type Members,
  scanMembers,
} from '#bridge/wire/json-source.js';
import { shown } from '#test/bridge/wire/shown.js';
import { type Random, randomTest } from '#test/support/random.js';

const MIB = 1024 * 1024;

const bytesOf = (text: string): Buffer => Buffer.from(text, 'utf8');

/** What JSON.parse says of the decoded bytes: its value, or its complaint. */
function parsed(bytes: Uint8Array): { value: unknown } | { complaint: string } {
  try {
    return { value: JSON.parse(decodeText(bytes)) as unknown };
  } catch (error) {
    return { complaint: error instanceof Error ? error.message : String(error) };
  }
}

/** What the scanner says of the bytes, in steps of the sizes that `next` gives. */
function scanned(
  source: string | Uint8Array,
  next: () => number,
): { members: Members | undefined } | { complaint: string } {
  const scan = new JsonScan(source, 'members');
  while (!scan.step(next()));
  try {
    return { members: scan.members };
  } catch (error) {
    if (!(error instanceof JsonSyntaxError)) throw error;
    return { complaint: error.message };
  }
}

const whole = () => Number.POSITIVE_INFINITY;

const isObject = (value: unknown): value is Record<string, unknown> =>
  typeof value === 'object' && value !== null && !Array.isArray(value);

/** Own properties, in the order of the text as far as an object keeps it: `__proto__` among them. */
function asObject(members: Members): object {
  const entries = [...members].map(([key, text]) => [key, JSON.parse(text) as unknown] as const);
  return Object.fromEntries(entries);
}

/** Why the scanner and JSON.parse disagree about `bytes`; undefined = they do not. */
function disagreement(bytes: Uint8Array, next: () => number): string | undefined {
  const peer = parsed(bytes);
  const ours = scanned(bytes, next);
  if ('complaint' in peer || 'complaint' in ours) {
    const [a, b] = [peer, ours].map((one) => ('complaint' in one ? one.complaint : 'accepted'));
    return a === b ? undefined : `JSON.parse: ${a}; ours: ${b}`;
  }
  if (!isObject(peer.value)) return ours.members === undefined ? undefined : 'it is no object';
  if (ours.members === undefined) return 'it is an object';
  const object = asObject(ours.members);
  if (!isDeepStrictEqual(object, peer.value)) return 'other members';
  return isDeepStrictEqual(Object.keys(object), Object.keys(peer.value))
    ? undefined
    : 'other order';
}

const hex = (bytes: Uint8Array): string => Buffer.from(bytes).toString('hex');

const PIECES = [
  '{',
  '}',
  '[',
  ']',
  ',',
  ':',
  '"',
  '"a"',
  '"__proto__"',
  '""',
  '"\\u0061"',
  '"é😀"',
  '"\\n"',
  '"\\ud800"',
  '0',
  '-0',
  '1.5e+3',
  '9007199254740993',
  '1E400',
  'true',
  'false',
  'null',
  ' ',
  '\n',
  '\t',
  '\r',
  '\\',
  '\\u',
  '\\u00e9',
  '/',
  '//',
  '/*',
  '*/',
  'NaN',
  'Infinity',
  '-',
  '+',
  '.',
  'e',
  '\ufeff',
  '\u00a0',
  '\0',
  '\u001f',
  '\u007f',
  '\u2028',
  '\v',
  '\f',
  "'",
  '#',
  'x',
];

/** JSON in every spelling RFC 8259 allows; mostly an object, whose keys repeat often. */
class Author {
  readonly #random: Random;

  constructor(random: Random) {
    this.#random = random;
  }

  text(): string {
    const value = this.#random.chance(0.9) ? this.#object(4) : this.#value(3);
    return `${this.#space()}${value}${this.#space()}`;
  }

  /** A mistake somewhere, or none by luck. */
  spoilt(bytes: Buffer): Buffer {
    const at = this.#random.int(bytes.length + 1);
    const [before, after] = [bytes.subarray(0, at), bytes.subarray(at)];
    const piece = bytesOf(this.#random.pick(PIECES));
    switch (this.#random.int(7)) {
      case 0:
        return Buffer.from(before); // cut short
      case 1:
        return Buffer.concat([before, after.subarray(1 + this.#random.int(3))]);
      case 2:
        return Buffer.concat([before, piece, after.subarray(1)]);
      case 3:
        return Buffer.concat([before, this.#random.bytes(1 + this.#random.int(3)), after]);
      case 4:
        return Buffer.concat([before, after.subarray(1), before.subarray(0, 5)]);
      case 5:
        return Buffer.from(after);
      default:
        return Buffer.concat([before, piece, after]);
    }
  }

  soup(): Buffer {
    const count = this.#random.int(9);
    return bytesOf(Array.from({ length: count }, () => this.#random.pick(PIECES)).join(''));
  }

  #value(depth: number): string {
    switch (this.#random.int(depth > 0 ? 7 : 5)) {
      case 0:
        return this.#random.pick(['true', 'false', 'null', '0', '-0', '[]', '{}', '""']);
      case 1:
      case 2:
        return this.#number();
      case 3:
      case 4:
        return this.#string();
      case 5:
        return `[${this.#list(() => this.#value(depth - 1))}]`;
      default:
        return this.#object(depth - 1);
    }
  }

  #object(depth: number): string {
    return `{${this.#list(() => `${this.#key()}${this.#space()}:${this.#space()}${this.#value(depth)}`)}}`;
  }

  #list(item: () => string): string {
    const items = Array.from(
      { length: this.#random.int(6) },
      () => `${this.#space()}${item()}${this.#space()}`,
    );
    return items.length === 0 ? this.#space() : items.join(',');
  }

  #key(): string {
    return this.#random.chance(0.5)
      ? this.#random.pick(['"a"', '"\\u0061"', '"__proto__"', '""', '"2"', '"1"', '"\\n"', '"é"'])
      : this.#string();
  }

  #number(): string {
    const digits = () => String(this.#random.int(10 ** this.#random.int(9)));
    const fraction = this.#random.chance(0.5) ? `.${digits()}${digits()}` : '';
    const power = this.#random.chance(0.3)
      ? `${this.#random.pick(['e', 'E', 'e+', 'E-'])}${digits().slice(0, 3)}`
      : '';
    return `${this.#random.pick(['', '-'])}${digits()}${fraction}${power}`;
  }

  #string(): string {
    const piece = () =>
      this.#random.pick([
        'a',
        'words of some length',
        '{',
        '}',
        '[',
        ']',
        ',',
        ':',
        ' ',
        '\\"',
        '\\\\',
        '\\/',
        '\\b',
        '\\f',
        '\\n',
        '\\r',
        '\\t',
        '\\u0000',
        '\\uD83D\\ude00',
        '\\udead',
        'é',
        '€',
        '😀',
        '\u2028',
        '\u007f',
        '\ufeff',
      ]);
    return `"${Array.from({ length: this.#random.int(8) }, piece).join('')}"`;
  }

  #space(): string {
    return this.#random.chance(0.6) ? '' : this.#random.pick([' ', '\n', '\t', '\r\n', '  \n   ']);
  }
}

randomTest(
  'the scanner and JSON.parse accept the same bytes and read the same members',
  async (t, random) => {
    const author = new Author(random);
    const counts = { accepted: 0, refused: 0 };
    for (let i = 0; i < 12_000; i++) {
      const good = bytesOf(author.text());
      const bytes = i % 3 === 0 ? good : i % 12 === 1 ? author.soup() : author.spoilt(good);
      const why =
        disagreement(bytes, whole) ??
        disagreement(bytes, () => 1 + random.int(random.pick([1, 4, 30]))) ??
        (isJson(bytes) === 'value' in parsed(bytes) ? undefined : 'isJson') ??
        (isJson(decodeText(bytes)) === isJson(bytes) ? undefined : 'its text and its bytes');
      if (why !== undefined) throw new Error(`${why}: ${hex(bytes)} ${shown(decodeText(bytes))}`);
      counts['value' in parsed(bytes) ? 'accepted' : 'refused']++;
    }
    t.ok(counts.accepted > 4000 && counts.refused > 4000, JSON.stringify(counts));
  },
);

void t.test(
  'every byte in every place of a text is taken or refused as JSON.parse does',
  async (t) => {
    // biome-ignore format: a table
    const places = [
    ['', ''], ['', '{}'], ['{}', ''], ['{', '}'], ['{"a"', ':1}'], ['{"a":', '}'], ['{"a":1', '}'], ['{"a":1', ',"b":2}'],
    ['{"', '":1}'], ['{"a":"', '"}'], ['{"a":"0123456', '89"}'], ['{"a":"\\', '"}'], ['{"\\', '":1}'],
    ['{"a":"\\u', '000"}'], ['{"a":"\\u0', '00"}'], ['{"a":"\\u00', '0"}'], ['{"a":"\\u000', '"}'],
    ['[', ']'], ['[1', ']'], ['[1', '2]'], ['[0', '1]'], ['[1.', ']'], ['[1e', '1]'], ['[-', ']'], ['[tru', ']'], ['[nul', ''],
  ] as const;
    const wrong: string[] = [];
    for (const [before, after] of places)
      for (let byte = 0; byte < 256; byte++) {
        const bytes = Buffer.concat([bytesOf(before), Buffer.from([byte]), bytesOf(after)]);
        const why = disagreement(bytes, whole);
        if (why !== undefined) wrong.push(`${shown(decodeText(bytes))}: ${why}`);
      }
    t.strictSame(wrong, []);
  },
);

void t.test(
  'every text of up to five characters of a number is one to both or to neither',
  async (t) => {
    const wrong: string[] = [];
    let texts = [''];
    for (let length = 1; length <= 5; length++) {
      texts = texts.flatMap((text) => '0 1.-+eE'.split('').map((c) => text + c));
      for (const text of texts.flatMap((number) => [number, `[${number}]`])) {
        const bytes = bytesOf(text);
        if (isJson(bytes) !== 'value' in parsed(bytes)) wrong.push(text);
      }
    }
    t.strictSame(wrong, []);
  },
);

randomTest(
  'a text, its bytes, and its bytes in slices of any size have the same members',
  async (t, random) => {
    const author = new Author(random);
    for (let i = 0; i < 300; i++) {
      // Beyond the 64 KiB that are decoded at once; one value in two is not ASCII, one in ten not UTF-8.
      const fill = random.pick(['x', 'é', '😀', 'plain text ']).repeat(random.int(12_000));
      const items = Array.from({ length: 1 + random.int(12) }, (_, k) =>
        random.chance(0.5) ? `"${k}": "${fill}"` : `"é${k}" : ${author.text()}`,
      );
      let bytes = bytesOf(`{${items.join(',')}}`);
      if (random.chance(0.1))
        bytes = Buffer.concat([
          bytesOf('{"bad": "'),
          Buffer.from([0xe2, 0x82]),
          bytesOf('",'),
          bytes.subarray(1),
        ]);
      // A view that begins anywhere in its memory.
      const shifted = Buffer.concat([Buffer.alloc(1 + (i % 7)), bytes]).subarray(1 + (i % 7));
      const wanted = scanned(decodeText(bytes), whole);
      const most = random.pick([7, 1000, 70_000]);
      for (const members of [scanned(bytes, whole), scanned(shifted, () => 1 + random.int(most))])
        if (!isDeepStrictEqual(members, wanted))
          throw new Error(`document ${i}, slices up to ${most}`);
    }
    t.pass('300 documents');
  },
);

void t.test('bad input', async (t) => {
  const refused = (text: string | Uint8Array) => {
    const bytes = typeof text === 'string' ? bytesOf(text) : text;
    const peer = parsed(bytes);
    const ours = scanned(bytes, () => 3);
    return 'complaint' in peer && 'complaint' in ours && ours.complaint === peer.complaint;
  };
  const members = (source: string | Uint8Array) => [...(scanMembers(source) ?? [])];
  const with_ = (...bytes: number[]) =>
    Buffer.concat([bytesOf('{"a": "x'), Buffer.from(bytes), bytesOf('y", "b": 1.0}')]);

  await t.test('invalid UTF-8 in a string reads as U+FFFD, as it did', async (t) => {
    for (const [bytes, text] of [
      [[0xff], '\ufffd'],
      [[0x80], '\ufffd'],
      [[0xe2, 0x82], '\ufffd'],
      [[0xc0, 0xaf], '\ufffd\ufffd'],
      [[0xc0, 0xa2], '\ufffd\ufffd'], // an overlong quote ends no string
      [[0xed, 0xa0, 0x80], '\ufffd\ufffd\ufffd'],
      [[0xf0, 0x9f, 0x98], '\ufffd'],
    ] as const)
      t.strictSame(
        members(with_(...bytes)),
        [
          ['a', `"x${text}y"`],
          ['b', '1.0'],
        ],
        hex(Uint8Array.from(bytes)),
      );
    t.strictSame(
      members(Buffer.concat([bytesOf('{"k'), Buffer.from([0xff]), bytesOf('": 1}')])),
      [['k\ufffd', '1']],
      'in a key',
    );
  });
  await t.test('invalid UTF-8 outside a string is a syntax error', async (t) => {
    for (const byte of [0x80, 0xa0, 0xc2, 0xff])
      t.ok(
        refused(Buffer.concat([bytesOf('{"a": 1'), Buffer.from([byte]), bytesOf('}')])),
        byte.toString(16),
      );
  });
  await t.test('NaN and Infinity are syntax errors, whoever writes them', async (t) => {
    for (const text of ['NaN', 'Infinity', '-Infinity', '-NaN', 'nan', 'inf'])
      t.ok(refused(`{"a": ${text}}`) && refused(`[1, ${text}]`) && refused(text), text);
  });
  await t.test('comments are syntax errors', async (t) => {
    for (const text of [
      '// c\n{}',
      '{} // c',
      '/* c */ {}',
      '{"a": /* c */ 1}',
      '# c\n{}',
      '{"a": 1, // c\n"b": 2}',
    ])
      t.ok(refused(text), shown(text));
    t.strictSame(members('{"a": "// no comment /* */ #"}'), [['a', '"// no comment /* */ #"']]);
  });
  await t.test(
    'a byte-order mark is a syntax error before the document and text within a string',
    async (t) => {
      t.ok(refused('\ufeff{"a": 1}'));
      t.ok(refused('{"a": 1}\ufeff'));
      t.ok(refused(Buffer.from([0xfe, 0xff, 0, 0x7b, 0, 0x7d])), 'UTF-16');
      t.strictSame(members(bytesOf('{"\ufeffk": "\ufeff"}')), [['\ufeffk', '"\ufeff"']]);
    },
  );
  await t.test('a truncated document is a syntax error wherever it ends', async (t) => {
    const text = ' {"a": [1.5e-3, true, null, "x\\u00e9\\"😀"], "b": {"c": -0}, "é": false}';
    const bytes = bytesOf(text);
    let wrong = 0;
    for (let end = 0; end < bytes.length; end++) if (!refused(bytes.subarray(0, end))) wrong++;
    t.equal(wrong, 0, `${bytes.length} ends`);
    t.equal(members(bytes).length, 3);
  });
  await t.test('100,000 members are read, and rendered, in order', async (t) => {
    const text = `{${Array.from({ length: 100_000 }, (_, i) => `"key ${i}": ${i}.0`).join(', ')}}`;
    const found = members(bytesOf(text));
    t.equal(found.length, 100_000);
    t.ok(found.every(([key, value], i) => key === `key ${i}` && value === `${i}.0`));
  });
  await t.test('a key __proto__ is a key and changes no prototype', async (t) => {
    t.strictSame(members(bytesOf('{"__proto__": {"x": 1}, "\\u005f_proto__": [2]}')), [
      ['__proto__', '[2]'],
    ]);
    t.equal(Reflect.get({}, 'x'), undefined);
  });
  await t.test('an empty key is a key', async (t) => {
    t.strictSame(members(bytesOf('{"": 1, "a": {"": 2}}')), [
      ['', '1'],
      ['a', '{"": 2}'],
    ]);
  });
  await t.test(
    'a key with an escaped newline is a key, with a bare one a syntax error',
    async (t) => {
      t.strictSame(members(bytesOf('{"a\\nb": 1, "a\\u000ab": 2}')), [['a\nb', '2']]);
      t.ok(refused('{"a\nb": 1}'));
    },
  );
  await t.test('half of a surrogate pair, escaped or in a text, is kept as it is', async (t) => {
    t.strictSame(members(bytesOf('{"\\ud800": "\\udc00"}')), [['\ud800', '"\\udc00"']]);
    t.strictSame(members('{"é": "\ud800", "\udc00": 1}'), [
      ['é', '"\ud800"'],
      ['\udc00', '1'],
    ]);
  });
  await t.test(
    '1,000,000 levels of brackets are read; one missing is a syntax error',
    async (t) => {
      const LEVELS = 1_000_000;
      const deep = '['.repeat(LEVELS) + ']'.repeat(LEVELS);
      t.ok(scanMembers(bytesOf(`{"a": ${deep}}`))?.get('a') === deep);
      const objects = `${'{"k":'.repeat(LEVELS)}0${'}'.repeat(LEVELS)}`;
      t.ok(scanMembers(bytesOf(objects))?.get('k') === objects.slice(5, -1));
      for (const text of [
        deep.slice(1),
        deep.slice(0, -1),
        '['.repeat(LEVELS),
        '{"a":'.repeat(LEVELS),
      ])
        t.equal(isJson(bytesOf(text)), false);
    },
  );
});

void t.test('the complaint is the parser’s, asked for only when it is read', async (t) => {
  const bytes = bytesOf('{"a": 1,}');
  const peer = parsed(bytes);
  t.throws(() => scanMembers(bytes), {
    name: 'JsonSyntaxError',
    message: 'complaint' in peer ? peer.complaint : '',
  });
  t.throws(() => checkJson('{"a": 1,}'), { message: 'complaint' in peer ? peer.complaint : '' });
  const scan = new JsonScan(bytes, 'members');
  t.equal(scan.step(3), false);
  t.equal(scan.isValid, false, 'not yet');
  t.throws(() => scan.members, /before the scan was over/);
});

void t.test('only a verdict: no members are made', async (t) => {
  const scan = new JsonScan(bytesOf(' {"a": 1} '), 'verdict');
  t.equal(scan.step(MIB), true);
  t.equal(scan.isValid, true);
  t.equal(scan.members, undefined);
});

void t.test('a slice reads about as many bytes as it may', async (t) => {
  const bytes = bytesOf(`{"a": "${'x'.repeat(MIB)}", "b": [${'1,'.repeat(MIB)}1]}`);
  const scan = new JsonScan(bytes, 'members');
  let slices = 1;
  while (!scan.step(64 * 1024)) slices++;
  t.equal(slices, Math.ceil(bytes.length / (64 * 1024)));
});

void t.test('keys given twice are compared by their last value, in any order', async (t) => {
  const table: readonly (readonly [string, string, boolean])[] = [
    ['{"a":1,"a":2}', '{"a":3,"a":2}', true],
    ['{"a":1,"a":2}', '{"a":2}', true],
    ['{"a":1,"b":3,"\\u0061":2}', '{"b":3,"a":2}', true],
    ['{"a":1,"a":2}', '{"a":1}', false],
    ['{"a":{"b":1,"b":2},"c":0}', '{"c":0,"a":{"b":2}}', true],
    ['{"a":{"b":1,"b":[2]},"a":{"b":3,"b":[2 ]}}', '{"a":{"b":[2]}}', true],
    ['{"x":[{"a":1,"a":{"y":1,"y":2}}]}', '{"x":[{"a":{"y":2}}]}', true],
    ['{"x":[{"a":1,"a":{"y":1,"y":2}}]}', '{"x":[{"a":{"y":1}}]}', false],
    ['{"a":"}","a":",\\"","b":2}', '{"b":2,"a":",\\u0022"}', true],
  ];
  for (const [a, b, same] of table) {
    t.equal(isRewriteOf(a, b), same, `${a} -> ${b}`);
    t.equal(isRewriteOf(b, a), same, `${b} -> ${a}`);
  }
});

randomTest(
  'any document written again by JavaScript or with its members turned round is the same',
  async (t, random) => {
    const author = new Author(random);
    const turned = (value: unknown): unknown =>
      Array.isArray(value)
        ? value.map(turned)
        : isObject(value)
          ? Object.fromEntries(
              Object.entries(value)
                .reverse()
                .map(([key, item]) => [key, turned(item)]),
            )
          : value;
    for (let i = 0; i < 3000; i++) {
      const text = author.text();
      const value = JSON.parse(text) as unknown;
      for (const again of [JSON.stringify(value), JSON.stringify(turned(value), null, 2)])
        if (!isRewriteOf(text, again))
          throw new Error(`${shown(JSON.stringify(text))} -> ${again}`);
    }
    t.pass('3000 documents');
  },
);

void t.test('strings long enough for the engine’s search differ where they differ', async (t) => {
  for (const length of [0, 1, 62, 63, 64, 65, 66, 200])
    for (const end of ['', 'é', '\\n', '\\u00e9x', '\\\\', '\\"x']) {
      const text = `"${'a'.repeat(length)}${end}${'b'.repeat(70)}"`;
      const again = JSON.stringify(JSON.parse(text));
      const ascii = text.replace('é', '\\u00e9');
      t.ok(
        isRewriteOf(text, again) && isRewriteOf(text, ascii) && isRewriteOf(ascii, text),
        shown(text),
      );
      t.notOk(isRewriteOf(text, `${again.slice(0, -2)}c"`));
      t.notOk(isRewriteOf(text, `${again.slice(0, -1)}b"`));
      t.notOk(isRewriteOf(text, `"c${again.slice(2)}`));
    }
});
