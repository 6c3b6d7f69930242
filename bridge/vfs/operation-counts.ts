/** What the kernel has asked of a tree since this process serves it: how often, by kind. Below 2^53, which nobody reaches. */
export const COUNT = {
  lookups: 0,
  opens: 1,
  reads: 2,
  writes: 3,
  other: 4,
  /** Of all these: answered with an error. */
  errors: 5,
  bytesRead: 6,
  bytesWritten: 7,
} as const;
export type CountName = keyof typeof COUNT;

export type OperationCounts = Readonly<Record<CountName, number>>;

/** By index: counting is an addition in place. */
export const newCounts = (): Float64Array => new Float64Array(Object.keys(COUNT).length);

export const namedCounts = (counts: Float64Array): OperationCounts =>
  Object.fromEntries(
    Object.entries(COUNT).map(([name, index]) => [name, counts[index] ?? 0]),
  ) as Record<CountName, number>;
