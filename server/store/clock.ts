/** A clock this much behind the last commit is wrong, not slow: leases and tokens would live again. */
export const CLOCK_BEHIND_MS_MAX = 10 * 60 * 1000;

/** Slewing by a time daemon stays below; a jump is above. */
const JUMP_MS = 1000;

/**
 * The store's clock. It follows the machine's, but never goes back: when that is set back, this one goes on at the pace
 * of the monotonic clock; when that leaps ahead (a suspended laptop, a correction), this one follows.
 */
export class StoreClock {
  readonly #wall: () => number;
  readonly #monotonic: () => number;
  readonly #jumped: (byMs: number) => void;
  #anchorWall: number;
  #anchorMonotonic: number;
  #last: number;
  #isBehind = false;

  /** `notBefore`: the last moment the store knows of. `jumped` hears by how much the machine's clock was off. */
  constructor(
    notBefore = 0,
    jumped: (byMs: number) => void = () => {},
    wall: () => number = Date.now,
    monotonic: () => number = () => performance.now(),
  ) {
    this.#wall = wall;
    this.#monotonic = monotonic;
    this.#jumped = jumped;
    this.#anchorWall = Math.max(notBefore, wall());
    this.#anchorMonotonic = monotonic();
    this.#last = this.#anchorWall;
  }

  now(): number {
    const wall = this.#wall();
    const monotonic = this.#monotonic();
    const expected = this.#anchorWall + (monotonic - this.#anchorMonotonic);
    const jump = wall - expected;
    if (jump > JUMP_MS) {
      this.#jumped(jump);
      this.#anchorWall = wall;
      this.#anchorMonotonic = monotonic;
      this.#isBehind = false;
    } else if (jump < -JUMP_MS) {
      if (!this.#isBehind) this.#jumped(jump);
      this.#isBehind = true;
    } else this.#isBehind = false;
    const now = Math.floor(Math.max(wall, jump > JUMP_MS ? wall : expected));
    this.#last = Math.max(this.#last, now);
    return this.#last;
  }
}
