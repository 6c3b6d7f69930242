/** Calls under way. Two integers a call, and a promise only for who waits. */
export interface Flight {
  count: number;
  landed: (() => void) | undefined;
}

/** Lets one wait for all calls that had started, while others start. */
export class Flights {
  #current: Flight = { count: 0, landed: undefined };
  #earlier: Promise<void> = Promise.resolve();

  start(): Flight {
    const flight = this.#current;
    flight.count++;
    return flight;
  }

  land(flight: Flight): void {
    if (--flight.count === 0) flight.landed?.();
  }

  /** Resolves when all that started before have landed. */
  async landed(): Promise<void> {
    const flight = this.#current;
    if (flight.count > 0) {
      this.#current = { count: 0, landed: undefined };
      const all = new Promise<void>((resolve) => {
        flight.landed = resolve;
      });
      const before = this.#earlier;
      this.#earlier = all.then(async () => await before);
    }
    await this.#earlier;
  }
}
