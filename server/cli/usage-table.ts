import { plain } from '#bridge/wire/frames.js';
import type { ExecutionUsage } from '#bridge/wire/watch.js';
import { operationsIn, type Rates } from './usage-rates.js';

/** What an execution uses, and how fast. */
export interface Sample {
  readonly usage: ExecutionUsage;
  readonly rates: Rates;
  /** There was no reading before, and so there are no rates. */
  readonly isFirst: boolean;
}

export const sampleJson = ({ usage, rates }: Sample) => ({
  ...usage,
  startedAt: new Date(usage.startedAt).toISOString(),
  at: new Date(usage.at).toISOString(),
  rates,
});

/** Of one execution, line by line. */
export function sampleText({ usage, rates }: Sample): string {
  const { executionId, script, runtime, startedAt, at, container, operations, scratch } = usage;
  const lines: [string, string][] = [
    ['execution', `${executionId}, ${runtime}, ${plain(script)}, for ${ageText(at - startedAt)}`],
  ];
  if (container === null) lines.push(['container', 'there is none yet, or none any more']);
  else {
    const { memory, cpu, pids, io, oomKills } = container;
    const limit = (text: string | null) => (text === null ? 'no limit' : `limit ${text}`);
    const peak = memory.peak === null ? '' : `, ${sizeText(memory.peak)} at most`;
    lines.push(
      [
        'cpu',
        `${percentText(rates.cpuPercent)} of a processor, ${limit(numberText(cpu.limit))}; ${secondsText(cpu.usedUs)} in all; held back in ${cpu.throttledPeriods} periods, for ${secondsText(cpu.throttledUs)}`,
      ],
      [
        'memory',
        `${sizeText(memory.now)}${peak}, ${limit(memory.limit === null ? null : sizeText(memory.limit))}; processes killed for it: ${oomKills}`,
      ],
      ['processes', `${pids.now}, ${limit(numberText(pids.limit))}`],
      ['disks', `${sizeText(io.read)} read, ${sizeText(io.written)} written`],
    );
  }
  if (operations !== null) {
    const { lookups, opens, reads, writes, other, errors, bytesRead, bytesWritten } = operations;
    lines.push(
      [
        'files',
        `${numberText(rates.operationsPerSecond) ?? '-'} operations/s, ${rateText(rates.bytesPerSecond)}`,
      ],
      [
        '',
        `${operationsIn(operations)} in all: ${lookups} lookups, ${opens} opens, ${reads} reads, ${writes} writes, ${other} others; ${errors} answered with an error`,
      ],
      ['', `${sizeText(bytesRead)} read, ${sizeText(bytesWritten)} written`],
    );
  }
  if (scratch !== null)
    lines.push([
      'scratch',
      `${sizeText(scratch.bytes)} of ${sizeText(scratch.bytesMax)}, ${scratch.inodes} of ${scratch.inodesMax} files`,
    ]);
  return lines.map(([name, text]) => `${name.padEnd(10)} ${text}\n`).join('');
}

interface Column {
  readonly title: string;
  readonly isRight?: true;
  readonly of: (sample: Sample) => string;
}

/** Longer names would push everything else off the screen. */
const SCRIPT_CHARACTERS_MAX = 20;

// biome-ignore format: a table
const COLUMNS: readonly Column[] = [
  { title: 'EXECUTION', of: ({ usage }) => usage.executionId },
  { title: 'SCRIPT', of: ({ usage }) => plain(usage.script).slice(0, SCRIPT_CHARACTERS_MAX) },
  { title: 'RUNTIME', of: ({ usage }) => usage.runtime },
  { title: 'AGE', isRight: true, of: ({ usage }) => ageText(usage.at - usage.startedAt) },
  { title: 'CPU', isRight: true, of: ({ rates }) => percentText(rates.cpuPercent) },
  { title: 'MEMORY', isRight: true, of: ({ usage }) => memoryText(usage) },
  { title: 'PIDS', isRight: true, of: ({ usage }) => String(usage.container?.pids.now ?? '-') },
  { title: 'FILE OPS/S', isRight: true, of: ({ rates }) => numberText(rates.operationsPerSecond) ?? '-' },
  { title: 'FILE BYTES/S', isRight: true, of: ({ rates }) => rateText(rates.bytesPerSecond) },
  { title: 'SCRATCH', isRight: true, of: ({ usage: { scratch } }) => scratch === null ? '-' : sizeText(scratch.bytes) },
];

/** The title line and one for each, the busiest first. */
export function tableLines(samples: readonly Sample[]): string[] {
  const rows = [
    COLUMNS.map(({ title }) => title),
    ...busiestFirst(samples).map((sample) => COLUMNS.map(({ of }) => of(sample))),
  ];
  const widths = COLUMNS.map((_column, i) => Math.max(...rows.map((row) => row[i]?.length ?? 0)));
  return rows.map((row) =>
    row
      .map((text, i) =>
        COLUMNS[i]?.isRight ? text.padStart(widths[i] ?? 0) : text.padEnd(widths[i] ?? 0),
      )
      .join('  ')
      .trimEnd(),
  );
}

export const busiestFirst = (samples: readonly Sample[]): Sample[] =>
  [...samples].sort(
    (a, b) =>
      (b.rates.cpuPercent ?? -1) - (a.rates.cpuPercent ?? -1) ||
      a.usage.startedAt - b.usage.startedAt,
  );

function memoryText({ container }: ExecutionUsage): string {
  if (container === null) return '-';
  const { now, limit } = container.memory;
  return limit === null ? sizeText(now) : `${sizeText(now)} / ${sizeText(limit)}`;
}

const UNITS = ['B', 'KiB', 'MiB', 'GiB', 'TiB'];

export function sizeText(bytes: number): string {
  let value = bytes;
  let unit = 0;
  while (value >= 1024 && unit < UNITS.length - 1) {
    value /= 1024;
    unit++;
  }
  const digits = unit === 0 || value >= 100 || Number.isInteger(value) ? 0 : 1;
  return `${value.toFixed(digits)} ${UNITS[unit]}`;
}

const rateText = (bytesPerSecond: number | null): string =>
  bytesPerSecond === null ? '-' : `${sizeText(Math.round(bytesPerSecond))}/s`;

const percentText = (percent: number | null): string =>
  percent === null ? '-' : `${percent.toFixed(1)} %`;

const numberText = (value: number | null): string | null => (value === null ? null : String(value));

const secondsText = (us: number): string => `${(us / 1_000_000).toFixed(1)} s`;

function ageText(ms: number): string {
  const seconds = Math.max(0, Math.floor(ms / 1000));
  if (seconds < 60) return `${seconds}s`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)}m ${seconds % 60}s`;
  return `${Math.floor(seconds / 3600)}h ${Math.floor((seconds % 3600) / 60)}m`;
}
