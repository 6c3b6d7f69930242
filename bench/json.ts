// `npm run bench -- json`: what a written variables.json costs the thread that answers every execution. Each way of reading
// runs in turn in every round, so the ratios hold on a busy machine. Figures go to bench/results/json.json.
import { mkdirSync, writeFileSync } from 'node:fs';
import { dirname } from 'node:path';
import { parseArgs } from 'node:util';
import { diffMembers } from '#bridge/vfs/variables-merge.js';
import {
  decodeText,
  isJson,
  isRewriteOf,
  JsonScan,
  type Members,
  renderMembers,
  scanMembers,
} from '#bridge/wire/json-source.js';
import { machine, median } from './lib/figures.js';

const KIB = 1024;
const MIB = 1024 * KIB;
/** As the FUSE loop gives others a turn. */
const SLICE_BYTES = 256 * KIB;
const ROUNDS_MIN = 5;
/** A small document is read until this much time has gone by: the clock ticks in microseconds, the scheduler in milliseconds. */
const SAMPLE_MS = 5;

const SIZES: Readonly<Record<string, number>> = {
  '300 B': 300,
  '30 KiB': 30 * KIB,
  '1 MiB': MIB,
  '10 MiB': 10 * MIB,
};

/** A document of about so many bytes. */
const SHAPES: Readonly<Record<string, (bytes: number) => string>> = {
  strings: (bytes) => document(bytes, (i) => `"value number ${i}, as a script would set it"`),
  numbers: (bytes) => `{"n": [${repeated(bytes, (i) => `${i * 7919}.${i % 97}`)}]}`,
  'one string': (bytes) => `{"s": "${'The quick brown fox. '.repeat(Math.ceil(bytes / 21))}"}`,
  nested: (bytes) => `{"deep": ${'['.repeat(bytes / 2)}${']'.repeat(bytes / 2)}}`,
  objects: (bytes) =>
    `{"rows": [${repeated(bytes, (i) => `{"id": ${i}, "name": "row ${i}", "tags": ["a", "b"], "ok": true, "x": null}`)}]}`,
  escapes: (bytes) =>
    document(bytes, (i) => `"\\u00e9\\n\\t\\"${i}\\"\\\\path\\\\to\\/\\ud83d\\ude00"`),
  'not ASCII': (bytes) => document(bytes, (i) => `"grüße aus Köln, № ${i} 😀"`),
};

/** One that every size has; at 10 MiB it has the 100,000 members of the largest legacy document seen. */
const MANY = (bytes: number): string => {
  const each = '.'.repeat(Math.max(0, Math.floor(bytes / 100_000) - 22));
  return document(bytes, (i) => `"${i}${each}"`);
};

function document(bytes: number, value: (i: number) => string): string {
  const members: [string, string][] = [];
  for (let size = 0, i = 0; size < bytes; i++) {
    const text = value(i);
    members.push([`key_${i}`, text]);
    size += Buffer.byteLength(text) + 18;
  }
  return renderMembers(members);
}

function repeated(bytes: number, item: (i: number) => string): string {
  const items: string[] = [];
  for (let size = 0, i = 0; size < bytes; i++) {
    const text = item(i);
    items.push(text);
    size += text.length + 1;
  }
  return items.join(',');
}

/** What the scanner replaced: the parser checks, then the text is walked again. Whole, so that both stay comparable. */
function parseThenWalk(text: string): Members | undefined {
  JSON.parse(text);
  const members: Members = new Map();
  let at = skipSpace(text, 0);
  if (text[at] !== '{') return undefined;
  at = skipSpace(text, at + 1);
  while (text[at] === '"') {
    const keyEnd = skipString(text, at);
    const key = JSON.parse(text.slice(at, keyEnd)) as string;
    const start = skipSpace(text, skipSpace(text, keyEnd) + 1);
    const end = skipValue(text, start);
    members.set(key, text.slice(start, end));
    at = skipSpace(text, end);
    if (text[at] === ',') at = skipSpace(text, at + 1);
  }
  return members;
}

const isSpace = (c: number) => c === 0x20 || c === 0x0a || c === 0x0d || c === 0x09;

function skipSpace(text: string, start: number): number {
  let at = start;
  while (isSpace(text.charCodeAt(at))) at++;
  return at;
}

function skipString(text: string, at: number): number {
  for (let i = at + 1; ; i++) {
    const c = text.charCodeAt(i);
    if (c === 0x5c) i++;
    else if (c === 0x22) return i + 1;
  }
}

function skipValue(text: string, at: number): number {
  let depth = 0;
  for (let i = at; i < text.length; i++) {
    const c = text.charCodeAt(i);
    if (c === 0x22) {
      i = skipString(text, i) - 1;
      if (depth === 0) return i + 1;
    } else if (c === 0x7b || c === 0x5b) depth++;
    else if (c === 0x7d || c === 0x5d) {
      if (depth === 0) return i;
      if (--depth === 0) return i + 1;
    } else if (depth === 0 && (c === 0x2c || isSpace(c))) return i;
  }
  return text.length;
}

/** `scan` and `parse, then walk` decode the file's bytes too; `JSON.parse` and `scan a text` are given the text. */
type Way = 'parse, then walk' | 'JSON.parse' | 'scan' | 'scan a text' | 'longest slice';
const WAYS: readonly Way[] = [
  'parse, then walk',
  'JSON.parse',
  'scan',
  'scan a text',
  'longest slice',
];

/** Milliseconds of one reading of `bytes`. */
function read(way: Way, bytes: Uint8Array, text: string): number {
  switch (way) {
    case 'parse, then walk':
      return timed(() => parseThenWalk(decodeText(bytes)));
    case 'JSON.parse':
      return timed(() => JSON.parse(text));
    case 'scan':
      return timed(() => scanMembers(bytes));
    case 'scan a text':
      return timed(() => scanMembers(text));
    case 'longest slice':
      return longestSlice(bytes);
    default:
      return way satisfies never;
  }
}

function timed(body: () => unknown): number {
  let runs = 0;
  const started = performance.now();
  let ms = 0;
  while (ms < SAMPLE_MS) {
    body();
    runs++;
    ms = performance.now() - started;
  }
  return ms / runs;
}

function longestSlice(bytes: Uint8Array): number {
  const scan = new JsonScan(bytes, 'members');
  let longest = 0;
  for (let over = false; !over; ) {
    const started = performance.now();
    over = scan.step(SLICE_BYTES);
    longest = Math.max(longest, performance.now() - started);
  }
  return longest;
}

interface Row {
  readonly name: string;
  readonly ms: Readonly<Record<string, number>>;
}

/** Medians of each way; round 0 warms up and does not count. */
function row(
  name: string,
  rounds: number,
  ways: readonly string[],
  run: (way: number) => number,
): Row {
  const figures = ways.map((): number[] => []);
  for (let round = 0; round <= rounds; round++)
    for (let k = 0; k < ways.length; k++) {
      const way = (round + k) % ways.length;
      const ms = run(way);
      if (round > 0) figures[way]?.push(ms);
    }
  return {
    name,
    ms: Object.fromEntries(ways.map((way, i) => [way, median(figures[i] ?? [])])),
  };
}

function documents(rounds: number, wanted: string): Row[] {
  const rows: Row[] = [];
  for (const [size, bytesWanted] of Object.entries(SIZES))
    for (const [shape, make] of Object.entries({ ...SHAPES, members: MANY })) {
      const name = `${shape}, ${size}`;
      if (!name.includes(wanted)) continue;
      const text = decodeText(Buffer.from(make(bytesWanted))); // flat, as a file's text is
      const bytes = Buffer.from(text);
      rows.push(row(name, rounds, WAYS, (way) => read(WAYS[way] ?? 'scan', bytes, text)));
    }
  return rows;
}

/** Comparing: what a close costs after the document is read. The peer parses both values. */
function comparisons(rounds: number, wanted: string): Row[] {
  const base = scanMembers(MANY(10 * MIB)) ?? new Map<string, string>();
  const written = new Map(base).set('key_5000', '"changed"');
  const value = (shape: string) =>
    [...(scanMembers(SHAPES[shape]?.(10 * MIB) ?? '{}') ?? [])][0]?.[1] ?? '';
  const objects = value('objects');
  const numbers = value('numbers');
  const sorted = JSON.stringify(
    (JSON.parse(objects) as object[]).map((item) =>
      Object.fromEntries(Object.entries(item).sort(([a], [b]) => (a < b ? -1 : 1))),
    ),
  );
  const pairs: Readonly<Record<string, readonly [string, string]>> = {
    'objects, 10 MiB, written again': [objects, JSON.stringify(JSON.parse(objects))],
    'objects, 10 MiB, written again with sorted keys': [objects, sorted],
    'objects, 10 MiB, the last one changed': [objects, `${objects.slice(0, -6)}"x"}]`],
    'numbers, 10 MiB, written again': [numbers, JSON.stringify(JSON.parse(numbers), null, 1)],
    'one string, 10 MiB, one character changed': [
      value('one string'),
      `${value('one string').slice(0, -2)}!"`,
    ],
  };
  const rows: Row[] = [];
  const diff = 'diffMembers: one of many members changed, 10 MiB';
  if (diff.includes(wanted))
    rows.push(row(diff, rounds, ['ours'], () => timed(() => diffMembers(base, written, true))));
  for (const [name, [a, b]] of Object.entries(pairs)) {
    if (!name.includes(wanted)) continue;
    if (!isJson(a) || !isJson(b)) throw new Error(`${name}: not JSON`);
    rows.push(
      row(`isRewriteOf: ${name}`, rounds, ['ours', 'JSON.parse of both'], (way) =>
        timed(way === 0 ? () => isRewriteOf(a, b) : () => [JSON.parse(a), JSON.parse(b)]),
      ),
    );
  }
  return rows;
}

const shownMs = (ms: number | undefined): string =>
  ms === undefined
    ? ''
    : ms < 0.1
      ? `${(ms * 1000).toFixed(1)} µs`
      : `${ms.toFixed(ms < 10 ? 2 : 0)} ms`;

const shownRatio = (a: number | undefined, b: number | undefined): string =>
  a === undefined || b === undefined ? '' : (a / b).toFixed(2);

function table(
  rows: readonly Row[],
  ways: readonly string[],
  ratios: readonly [string, string][],
): string {
  const lines = [
    ['', ...ways, ...ratios.map(([a, b]) => `${a} : ${b}`)],
    ...rows.map(({ name, ms }) => [
      name,
      ...ways.map((way) => shownMs(ms[way])),
      ...ratios.map(([a, b]) => shownRatio(ms[a], ms[b])),
    ]),
  ];
  const widths = (lines[0] ?? []).map((_, i) =>
    Math.max(...lines.map((line) => line[i]?.length ?? 0)),
  );
  return lines
    .map((line) =>
      line
        .map((cell, i) => (i === 0 ? cell.padEnd(widths[0] ?? 0) : cell.padStart(widths[i] ?? 0)))
        .join('  '),
    )
    .join('\n');
}

const USAGE = `usage: npm run bench -- json [--rounds N] [--rows TEXT] [--json FILE]
  N: ${ROUNDS_MIN} or more (default ${ROUNDS_MIN}); TEXT: part of a row's name, such as "10 MiB"; FILE: default bench/results/json.json`;

function main(): number {
  let values: { rounds: string; rows: string; json: string };
  try {
    ({ values } = parseArgs({
      options: {
        rounds: { type: 'string', default: String(ROUNDS_MIN) },
        rows: { type: 'string', default: '' },
        json: { type: 'string', default: 'bench/results/json.json' },
      },
    }));
  } catch (error) {
    process.stderr.write(`${error instanceof Error ? error.message : String(error)}\n${USAGE}\n`);
    return 2;
  }
  const rounds = Number(values.rounds);
  if (!Number.isInteger(rounds) || rounds < ROUNDS_MIN) {
    process.stderr.write(`${USAGE}\n`);
    return 2;
  }
  const read = documents(rounds, values.rows);
  const compared = comparisons(rounds, values.rows);
  const about = machine();
  const ratios: [string, string][] = [
    ['scan', 'parse, then walk'],
    ['scan', 'JSON.parse'],
  ];
  process.stdout.write(
    `medians of ${rounds} rounds; load ${about.load.map((l) => l.toFixed(1)).join(' ')}\n\n` +
      `${table(read, WAYS, ratios)}\n\n` +
      `${table(compared, ['ours', 'JSON.parse of both'], [['ours', 'JSON.parse of both']])}\n`,
  );
  mkdirSync(dirname(values.json), { recursive: true });
  const result = { date: new Date().toISOString(), machine: about, rounds, read, compared };
  writeFileSync(values.json, `${JSON.stringify(result, null, 2)}\n`);
  return 0;
}

process.exitCode = main();
