import t from 'tap';
import { type AuditRow, lineOf, NO_HASH, rowLineOf } from '#bridge/wire/audit-chain.js';
import { randomTest } from '#test/support/random.js';

const ROW: AuditRow = {
  at: 1,
  writer: 2,
  seq: 3,
  who: 'operator:ada',
  peer: 'x',
  op: 'variable.get',
  outcome: 'ok',
  prev: NO_HASH,
  hash: NO_HASH,
};

/** JSON with sorted keys, as any program makes it. */
const sorted = (value: object): string =>
  JSON.stringify(value, (_key, inner: unknown) =>
    typeof inner === 'object' && inner !== null && !Array.isArray(inner)
      ? Object.fromEntries(Object.entries(inner).sort(([a], [b]) => (a < b ? -1 : 1)))
      : inner,
  );

const without = ({ prev: _prev, hash: _hash, ...event }: AuditRow): object => event;

void t.test(
  'a line is the JSON of its event with sorted keys, so that any program can hash it',
  async (t) => {
    const link = { writer: 1, seq: 2, hash: NO_HASH, at: 3 };
    const full: AuditRow = {
      ...ROW,
      execution: 'e',
      namespace: 'user:ada',
      target: ['a', 'b"'],
      targets: 2,
      detail: 'why',
      version: 7,
      links: [link],
    };
    for (const row of [ROW, full, { ...ROW, target: [] }]) {
      t.equal(lineOf(row), sorted(without(row)));
      t.equal(rowLineOf(row), sorted(row));
    }
  },
);

randomTest('whatever characters names have', async (t, random) => {
  for (let round = 0; round < 500; round++) {
    const codes = Array.from({ length: 8 }, () => random.pick([0x80, 0x300, 0x10000]));
    const text = String.fromCharCode(...codes.map((below) => random.int(below)));
    const row = { ...ROW, detail: text, target: [text], who: text };
    const line = lineOf(row);
    t.equal(line, sorted(without(row)));
    t.equal(Buffer.from(line).toString(), line, 'and it survives being written');
  }
});
