import { type Namespace, namespaceText } from '#bridge/wire/names.js';
import { Flights } from '#server/store/flights.js';

/** Changes under way in a namespace. */
interface Gate {
  readonly flights: Flights;
  /** Those that wait included. */
  count: number;
  /** The one that is alone. */
  alone: Promise<void> | undefined;
}

/** Who waits for whom among the changes of one namespace, within this server. */
export class NamespaceTurns {
  /** Changes that read first follow each other: of a hundred at once each would otherwise lose against the others. */
  readonly #turns = new Map<string, Promise<unknown>>();
  readonly #gates = new Map<string, Gate>();

  /** One after the other. */
  async inTurn<T>(namespace: Namespace, work: () => Promise<T>): Promise<T> {
    const id = namespaceText(namespace);
    const turn = (this.#turns.get(id) ?? Promise.resolve()).then(work);
    const settled = turn.catch(() => {}); // the next one's turn, however this one ends
    this.#turns.set(id, settled);
    try {
      return await turn;
    } finally {
      if (this.#turns.get(id) === settled) this.#turns.delete(id);
    }
  }

  /** Work on a namespace beside other such work, or, `isAlone`, when all that has begun is done and before any other begins. */
  async beside<T>(namespace: Namespace, isAlone: boolean, work: () => Promise<T>): Promise<T> {
    const id = namespaceText(namespace);
    const gate = this.#gates.get(id) ?? { flights: new Flights(), count: 0, alone: undefined };
    this.#gates.set(id, gate);
    gate.count++;
    try {
      while (gate.alone !== undefined) await gate.alone;
      if (!isAlone) {
        const flight = gate.flights.start();
        try {
          return await work();
        } finally {
          gate.flights.land(flight);
        }
      }
      const done = gate.flights.landed().then(work);
      gate.alone = done.then(
        () => {},
        () => {},
      );
      try {
        return await done;
      } finally {
        gate.alone = undefined;
      }
    } finally {
      if (--gate.count === 0) this.#gates.delete(id);
    }
  }
}
