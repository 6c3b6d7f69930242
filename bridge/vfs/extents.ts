/**
 * Which parts of a file hold something, as ascending, disjoint, non-adjacent ranges `[start, end)`. The unit is the
 * caller's (pages here). A file written from start to end is one range; a quota of pages bounds how many there can be.
 */
export class Extents {
  /** start, end, start, end, … */
  readonly #bounds: number[] = [];
  #total = 0;

  /** start, end, start, end, … of all ranges. */
  get bounds(): readonly number[] {
    return this.#bounds;
  }

  /** Units covered by all ranges. */
  get total(): number {
    return this.#total;
  }

  /** Units of `[start, end)` that are covered. */
  covered(start: number, end: number): number {
    let sum = 0;
    for (let i = this.#firstEndingAfter(start); i < this.#bounds.length; i += 2) {
      const [from, to] = this.#range(i);
      if (from >= end) break;
      sum += Math.min(to, end) - Math.max(from, start);
    }
    return sum;
  }

  /** Covers `[start, end)`. */
  add(start: number, end: number): void {
    if (start >= end) return;
    const last = this.#bounds.length - 2;
    // Appending and writing again, which is nearly every call, touch the last range only.
    if (last >= 0) {
      const [from, to] = this.#range(last);
      if (start >= from && start <= to) {
        if (end > to) {
          this.#bounds[last + 1] = end;
          this.#total += end - to;
        }
        return;
      }
    }
    // The first range that touches [start, end): one that ends at `start` is joined to it.
    const at = this.#firstEndingAfter(start - 1);
    let [from, to, until] = [start, end, at];
    for (; until < this.#bounds.length; until += 2) {
      const [other, otherEnd] = this.#range(until);
      if (other > end) break;
      from = Math.min(from, other);
      to = Math.max(to, otherEnd);
      this.#total -= otherEnd - other;
    }
    this.#bounds.splice(at, until - at, from, to);
    this.#total += to - from;
  }

  /** Uncovers `[start, end)`. */
  remove(start: number, end: number): void {
    if (start >= end) return;
    const at = this.#firstEndingAfter(start);
    let until = at;
    const left: number[] = [];
    for (; until < this.#bounds.length; until += 2) {
      const [from, to] = this.#range(until);
      if (from >= end) break;
      this.#total -= Math.min(to, end) - Math.max(from, start);
      if (from < start) left.push(from, start);
      if (to > end) left.push(end, to);
    }
    this.#bounds.splice(at, until - at, ...left);
  }

  /** The first covered unit at or after `at`; undefined = none. */
  nextCovered(at: number): number | undefined {
    const i = this.#firstEndingAfter(at);
    return i < this.#bounds.length ? Math.max(at, this.#range(i)[0]) : undefined;
  }

  /** The first uncovered unit at or after `at`. */
  nextUncovered(at: number): number {
    const i = this.#firstEndingAfter(at);
    if (i >= this.#bounds.length) return at;
    const [from, to] = this.#range(i);
    return from <= at ? to : at;
  }

  #range(i: number): readonly [number, number] {
    return [this.#bounds[i] ?? Number.NaN, this.#bounds[i + 1] ?? Number.NaN];
  }

  /** Index of the first range that ends after `at`; the array's length when there is none. */
  #firstEndingAfter(at: number): number {
    let low = 0;
    let high = this.#bounds.length >> 1;
    while (low < high) {
      const middle = (low + high) >> 1;
      if ((this.#bounds[2 * middle + 1] ?? 0) > at) high = middle;
      else low = middle + 1;
    }
    return 2 * low;
  }
}
