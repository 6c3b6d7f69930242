import t from 'tap';
import { addDecimals, compareDecimals, decimalText, parseDecimal } from '#bridge/wire/decimal.js';
import { BridgeError } from '#bridge/wire/errors.js';
import { combine, type MergePolicy } from '#bridge/wire/merge-policy.js';
import { randomTest } from '#test/support/random.js';

type Row = readonly [
  policy: MergePolicy,
  stored: string | null,
  base: string | null,
  written: string,
  result: string,
];

/** What is stored, what the script had read, what it wrote, and what becomes of it. */
const ROWS: Readonly<Record<string, readonly Row[]>> = {
  'last: what was written': [['last', '5', '1', '{"x": 1}', '{"x": 1}']],
  'add: the difference is added to what is stored': [
    ['add', '10', '5', '6', '11'],
    ['add', '10', '5', '3', '8'],
    ['add', '10', '10', '11.50', '11.50'],
    ['add', '0.1', '0', '0.2', '0.3'],
    ['add', '1e3', '1', '2', '1001'],
    ['add', '-1', '0', '-1', '-2'],
  ],
  'add: without a stored value or a base these count as 0': [
    ['add', null, null, '1', '1'],
    ['add', '5', null, '1', '6'],
    ['add', null, '5', '6', '1'],
  ],
  'add: numbers in strings stay strings, as bash writes them': [
    ['add', '"10"', '"5"', '"6"', '"11"'],
    ['add', '10', '"5"', '"6"', '"11"'],
    ['add', '"10"', '5', '6', '11'],
    ['add', '"7"', '"5"', '" 6 "', '"8"'],
  ],
  'add: beyond what a double can hold': [
    ['add', '9007199254740993', '9007199254740992', '9007199254740993', '9007199254740994'],
    ['add', '0.1000000000000000000001', '0', '0.1', '0.2000000000000000000001'],
  ],
  'max and min: the larger and the smaller, in their own text': [
    ['max', '5', '1', '9.0', '9.0'],
    ['max', '9.0', '1', '5', '9.0'],
    ['max', '9', '9', '5', '9'],
    ['min', '"5"', '9', '3', '3'],
    ['min', '-5', '9', '3', '-5'],
    ['max', null, null, '3', '3'],
    ['max', '"text"', '1', '3', '3'],
  ],
  'union: what the script added, without what it removed': [
    ['union', '["a","c"]', '["a"]', '["a","b"]', '["a","c","b"]'],
    ['union', '["a","b","c"]', '["a","b"]', '["a"]', '["a","c"]'],
    ['union', '["a","b"]', '["a"]', '["a","b"]', '["a","b"]'],
    ['union', '["b", "a"]', '["b", "a"]', '[ "a" ]', '[ "a" ]'],
    ['union', null, null, '[1]', '[1]'],
  ],
  'union: elements are the same whatever their white space, escapes and zeros': [
    [
      'union',
      '[{"k": [1, 2]}, 1.0]',
      '[]',
      '[{"k":[1,2]},1,"\\u0041"]',
      '[{"k": [1, 2]},1.0,"\\u0041"]',
    ],
    ['union', '["A", "x]\\"["]', '["\\u0041"]', '["A","x]\\"[","n"]', '["A","x]\\"[","n"]'],
  ],
  'append: what the script put at the end': [
    ['append', '[1, 2, 3]', '[1, 2]', '[1, 2, "x"]', '[1,2,3,"x"]'],
    ['append', '[1]', '[1]', '[ 1, 2 ]', '[ 1, 2 ]'],
    ['append', '[1, 1]', '[1]', '[1, 1]', '[1,1,1]'],
    ['append', '"one two"', '"one"', '"one three"', '"one two three"'],
    ['append', null, null, '[[]]', '[[]]'],
    ['append', '[]', null, '[{"a": [1, {}]}]', '[{"a": [1, {}]}]'],
  ],
};

for (const [what, rows] of Object.entries(ROWS))
  void t.test(what, async (t) => {
    for (const [policy, stored, base, written, result] of rows)
      t.equal(
        combine(policy, 'k', { stored, base, written }),
        result,
        `${policy} ${stored} ${base} ${written}`,
      );
  });

void t.test('what does not fit is refused, with the variable and the policy', async (t) => {
  const misfits: readonly Row[] = [
    ['add', '5', '5', '"many"', ''],
    ['add', '[]', '5', '6', ''],
    ['add', '5', '5', '1e99999999', ''],
    ['max', '5', '5', 'null', ''],
    ['union', '[]', '[]', '{"a": 1}', ''],
    ['union', '5', '[]', '[]', ''],
    ['append', '[1, 2]', '[1, 2]', '[2]', ''],
    ['append', '"ab"', '"ab"', '"b"', ''],
    ['append', '[1]', '[1]', '"text"', ''],
    ['append', '5', '5', '6', ''],
  ];
  for (const [policy, stored, base, written] of misfits)
    t.throws(
      () => combine(policy, 'hits', { stored, base, written }),
      new BridgeError('invalid', '').constructor,
      `${policy} ${stored} ${base} ${written}`,
    );
  t.throws(() => combine('add', 'hits', { stored: '1', base: '1', written: '{}' }), {
    code: 'invalid',
    message: /variable "hits" is merged by "add", so it must be a number/,
  });
});

randomTest('decimals add and compare as integers of the same scale do', async (t, random) => {
  for (let i = 0; i < 2000; i++) {
    const scale = random.int(6);
    const unit = 10 ** scale;
    const [a, b] = [random.int(2e9) - 1e9, random.int(2e9) - 1e9];
    const text = (n: number) => {
      const digits = String(Math.abs(n)).padStart(scale + 1, '0');
      const point = digits.length - scale;
      const fraction = scale === 0 ? '' : `.${digits.slice(point)}`;
      return `${n < 0 ? '-' : ''}${digits.slice(0, point)}${fraction}`;
    };
    const [x, y] = [parseDecimal(text(a)), parseDecimal(text(b))];
    if (x === undefined || y === undefined) throw new Error(`${text(a)} or ${text(b)} is a number`);
    const sum = parseDecimal(decimalText(addDecimals(x, y)));
    const wanted = parseDecimal(text(a + b));
    if (sum === undefined || wanted === undefined || compareDecimals(sum, wanted) !== 0)
      t.fail(`${text(a)} + ${text(b)} = ${sum && decimalText(sum)}, scale ${unit}`);
    if (Math.sign(compareDecimals(x, y)) !== Math.sign(a - b))
      t.fail(`${text(a)} against ${text(b)}`);
  }
  t.pass('2000 pairs');
});
