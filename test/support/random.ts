/** A small seeded generator (mulberry32): the same seed gives the same test, on every machine. */
export class Random {
  #state: number;

  constructor(seed: number) {
    this.#state = seed >>> 0;
  }

  /** In [0, 1). */
  next(): number {
    this.#state = (this.#state + 0x6d2b79f5) >>> 0;
    let t = this.#state;
    t = Math.imul(t ^ (t >>> 15), t | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  }

  /** An integer in [0, below). */
  below(below: number): number {
    return Math.floor(this.next() * below);
  }

  pick<T>(items: readonly [T, ...T[]]): T {
    return items[this.below(items.length)] ?? items[0];
  }
}

/** The seed for this run: SEED in the environment, or a new one. Print it when a test fails. */
export const seedOf = (env: NodeJS.ProcessEnv): number =>
  env['SEED'] === undefined ? Math.floor(Math.random() * 2 ** 31) : Number(env['SEED']);
