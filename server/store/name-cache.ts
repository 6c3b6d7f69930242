/** Names hidden in one go at most twice this many are remembered: some 20 MB, and a HMAC costs 20 times a look-up. */
const NAMES_MAX = 50_000;

/**
 * What names were hidden as, by two generations: what is used moves to the young one, and when that is full the old one is
 * forgotten. Cheaper than a list in order of use, and the names in use stay all the same.
 */
export class NameCache {
  readonly #max: number;
  #young = new Map<string, string>();
  #old = new Map<string, string>();

  constructor(max = NAMES_MAX) {
    this.#max = max;
  }

  get size(): number {
    return this.#young.size + this.#old.size;
  }

  get(name: string): string | undefined {
    const young = this.#young.get(name);
    if (young !== undefined) return young;
    const old = this.#old.get(name);
    if (old !== undefined) this.set(name, old);
    return old;
  }

  set(name: string, hidden: string): void {
    if (this.#young.size >= this.#max) {
      this.#old = this.#young;
      this.#young = new Map();
    }
    this.#young.set(name, hidden);
  }

  clear(): void {
    this.#young.clear();
    this.#old.clear();
  }
}
