import type { ExecutionUsage, FileOperations } from '#bridge/wire/watch.js';

/** Of the time between two readings; null where one of them is missing. */
export interface Rates {
  /** 100 is one processor. */
  readonly cpuPercent: number | null;
  readonly operationsPerSecond: number | null;
  /** Read and written. */
  readonly bytesPerSecond: number | null;
}

/** Never negative: a counter that is lower than before has begun again, and what it shows has come since. */
export function ratesOf(before: ExecutionUsage | undefined, now: ExecutionUsage): Rates {
  const seconds = before === undefined ? 0 : (now.at - before.at) / 1000;
  const rate = (counter: (usage: ExecutionUsage) => number | null): number | null => {
    const from = before === undefined ? null : counter(before);
    const to = counter(now);
    if (from === null || to === null || seconds <= 0) return null;
    return (to < from ? to : to - from) / seconds;
  };
  return {
    cpuPercent: rounded(rate(({ container }) => container && container.cpu.usedUs / 10_000)),
    operationsPerSecond: rounded(rate(({ operations }) => operations && operationsIn(operations))),
    bytesPerSecond: rounded(
      rate(({ operations }) => operations && operations.bytesRead + operations.bytesWritten),
    ),
  };
}

export const operationsIn = ({ lookups, opens, reads, writes, other }: FileOperations): number =>
  lookups + opens + reads + writes + other;

/** To what the clocks are good for. */
const rounded = (value: number | null): number | null => value && Math.round(value * 10) / 10;
