// The server bench's figures as text: one table a cell, and whether the goals of issue 5 are met.
import { fastest, markdownTable, median, verdict } from './figures.js';
import type { Action, Measured } from './load-generator.js';
import type { Memory } from './process-cost.js';
import type { PeerName } from './server-peers.js';

/** One cell: every round of every peer. */
export interface Row {
  readonly action: Action;
  readonly outstanding: number;
  readonly measured: Map<PeerName, readonly Measured[]>;
}

const MIB = 1024 * 1024;
const TIMES = 8;
const OVER_ECHO = 1.5;

type Figure = (measured: Measured) => number;
/** Time per operation: a smaller figure is the better one everywhere. */
const time: Figure = ({ perSecond }) => 1 / perSecond;
const cpu: Figure = ({ serverCpuUs }) => serverCpuUs;
const p50: Figure = ({ p50Us }) => p50Us;

interface Ratio {
  readonly median: number;
  readonly best: number;
}

/** `of` : `base`, taken within each round, and that of the bests. Undefined when one of them was not measured. */
function ratio(
  row: Row | undefined,
  of: PeerName,
  base: PeerName,
  figure: Figure,
): Ratio | undefined {
  const [a, b] = [of, base].map((name) => row?.measured.get(name)?.map(figure) ?? []);
  if (a === undefined || b === undefined || a.length === 0 || a.length !== b.length)
    return undefined;
  return {
    median: median(a.map((each, i) => each / (b[i] ?? Number.NaN))),
    best: fastest(a) / fastest(b),
  };
}

const shown = (number: number): string =>
  number >= 100 ? number.toFixed(0) : number >= 10 ? number.toFixed(1) : number.toFixed(2);

/** Medians; what ours is compared with is `peer : ours`, so more is better for us, but for operations, where it is ours : peer. */
export function cellTables(rows: readonly Row[]): string {
  return rows.map(cellTable).join('\n\n');
}

function cellTable(row: Row): string {
  const lines = [...row.measured].map(([name, all]) => {
    const middle = (figure: Figure) => shown(median(all.map(figure)));
    const times = (figure: Figure) => {
      const found = name === 'ours' ? undefined : ratio(row, name, 'ours', figure);
      return found === undefined ? '' : `${shown(found.median)} (${shown(found.best)})`;
    };
    return [
      name,
      median(all.map(({ perSecond }) => perSecond)).toFixed(0),
      middle(p50),
      middle(({ p99Us }) => p99Us),
      middle(cpu),
      middle(({ clientCpuUs }) => clientCpuUs),
      times(time),
      times(cpu),
      times(p50),
    ];
  });
  const head = ['', 'ops/s', 'p50 us', 'p99 us', 'CPU us/op', 'client us/op'];
  const ratios = ['ours does × ops', 'takes × our CPU', 'takes × our p50'];
  return `${row.action}, ${row.outstanding} outstanding\n\n${markdownTable([[...head, ...ratios], ...lines], 1)}`;
}

export function memoryTable(memory: ReadonlyMap<PeerName, Memory>): string {
  const mib = (bytes: number) => (bytes / MIB).toFixed(0);
  const lines = [...memory].map(([name, { resident, peak }]) => [name, mib(resident), mib(peak)]);
  return markdownTable([['resident memory of the server, MiB', 'at the end', 'peak'], ...lines], 1);
}

export function goals(rows: readonly Row[]): string {
  const lines: string[][] = [['goal', 'cell', 'median (bests)', '']];
  const add = (goal: string, cell: string, found: Ratio | undefined, wanted: number) => {
    const text = found === undefined ? '-' : `${shown(found.median)} (${shown(found.best)})`;
    const result =
      found === undefined
        ? 'not measured'
        : // Ratios here are "how many times as much as ours": as costs of ours, they are turned round.
          verdict([1 / found.median, 1 / found.best], 1 / wanted);
    lines.push([goal, cell, text, result]);
  };
  const cellOf = ({ action, outstanding }: Row) => `${action}, ${outstanding}`;
  for (const row of rows)
    add(`ops/s ≥ ${TIMES}x of HTTP`, cellOf(row), ratio(row, 'http', 'ours', time), TIMES);
  for (const row of rows)
    add(
      `CPU per operation ≤ 1/${TIMES} of HTTP`,
      cellOf(row),
      ratio(row, 'http', 'ours', cpu),
      TIMES,
    );
  for (const row of rows.filter(({ action }) => action === 'set'))
    for (const name of ['redis', 'redis-pipe'] as const)
      add(`durable sets ahead of ${name}`, cellOf(row), ratio(row, name, 'ours', time), 1);
  const one = rows.find(({ action, outstanding }) => action === 'get' && outstanding === 1);
  for (const suffix of ['-unix', ''] as const) {
    const found = ratio(one, `ours${suffix}`, `echo${suffix}`, p50);
    const result =
      found === undefined ? 'not measured' : verdict([found.median, found.best], OVER_ECHO);
    lines.push([
      `p50 ≤ ${OVER_ECHO}x of a bare TLS echo${suffix === '' ? ' (TCP: no goal, for comparison)' : ', unix socket'}`,
      'get, 1',
      found === undefined ? '-' : `${shown(found.median)} (${shown(found.best)})`,
      result,
    ]);
  }
  return markdownTable(lines, 2);
}
