import { cpus, loadavg, release } from 'node:os';

/** The middle of them; of an even number, half way between the two in the middle. NaN of none. */
export function median(figures: readonly number[]): number {
  const sorted = [...figures].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  const [low, high] = [sorted[middle - 1 + (sorted.length & 1)], sorted[middle]];
  return ((low ?? Number.NaN) + (high ?? Number.NaN)) / 2;
}

/** The least disturbed round of times. */
export const fastest = (figures: readonly number[]): number => Math.min(...figures);

export interface Ratio {
  readonly median: number;
  readonly best: number;
}

/**
 * How many times as long `figures` took as `base`, both one per round: ratios are taken within a round, where both saw
 * the same neighbours, and then their median; `best` is that of the fastest rounds. Undefined without figures.
 */
export function ratioOfTimes(
  figures: readonly number[],
  base: readonly number[] | undefined,
): Ratio | undefined {
  if (base === undefined || base.length === 0 || figures.length === 0) return undefined;
  return {
    median: median(figures.map((figure, i) => figure / (base[i] ?? Number.NaN))),
    best: fastest(figures) / fastest(base),
  };
}

/** `hit` or `MISSED` when all figures agree, else `unclear`: other work on the machine can bend any of them. */
export function verdict(figures: readonly number[], bound: number): 'hit' | 'MISSED' | 'unclear' {
  const hits = figures.filter((figure) => figure <= bound).length;
  if (hits === figures.length) return 'hit';
  return hits === 0 ? 'MISSED' : 'unclear';
}

/** A Markdown table; the first line is the head. All columns but the first `left` are aligned to the right. */
export function markdownTable(lines: readonly (readonly string[])[], left: number): string {
  const head = lines[0] ?? [];
  const widths = head.map((_, i) => Math.max(...lines.map((line) => line[i]?.length ?? 0)));
  const pad = (cell: string, i: number) =>
    i < left ? cell.padEnd(widths[i] ?? 0) : cell.padStart(widths[i] ?? 0);
  const print = (line: readonly string[]) => `| ${line.map(pad).join(' | ')} |`;
  const rule = widths.map((width, i) =>
    i < left ? '-'.repeat(width + 2) : `${'-'.repeat(width + 1)}:`,
  );
  return [print(head), `|${rule.join('|')}|`, ...lines.slice(1).map(print)].join('\n');
}

/** What the figures were taken on. */
export const machine = () => ({
  cpu: cpus()[0]?.model ?? 'unknown',
  cpus: cpus().length,
  kernel: release(),
  node: process.version,
  load: loadavg(),
});
