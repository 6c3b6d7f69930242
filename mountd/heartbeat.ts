/** How often the serving process says that it is alive, and how often the supervisor looks. */
export const BEAT_MS = 1_000;

/** Far above what a busy machine delays a turn of the event loop, below what somebody at a terminal takes for dead. */
export const SILENT_BEATS_MAX = 10;

/** A process that has just been started loads its programs first, and a loaded machine takes its time. */
export const FIRST_BEATS_MAX = 30;

/**
 * The serving process: calls `send` once a beat, after `ask` has been answered. While an answer is outstanding nothing is sent,
 * nor asked again. One that is refused is an answer: whoever refuses is alive, and has told elsewhere what is wrong.
 */
export function beat(send: () => void, ask: () => Promise<void>, everyMs = BEAT_MS): Disposable {
  let isAsked = false;
  const timer = setInterval(() => {
    if (isAsked) return;
    isAsked = true;
    const answered = () => {
      isAsked = false;
      send();
    };
    ask().then(answered, answered);
  }, everyMs);
  return { [Symbol.dispose]: () => clearInterval(timer) };
}

/**
 * The supervisor: calls `silent` once, when so many of its own beats passed without one from the other process. Beats are
 * counted, not time: after this machine was suspended, or this process stopped, both are as late as each other.
 */
export class Pulse implements Disposable {
  readonly #timer: NodeJS.Timeout;
  #left = FIRST_BEATS_MAX;

  /** `isWarm`: it has loaded its programs. */
  constructor(silent: () => void, { everyMs = BEAT_MS, isWarm = false } = {}) {
    if (isWarm) this.#left = SILENT_BEATS_MAX;
    this.#timer = setInterval(() => {
      if (--this.#left > 0) return;
      clearInterval(this.#timer);
      silent();
    }, everyMs);
  }

  beat(): void {
    this.#left = SILENT_BEATS_MAX;
  }

  [Symbol.dispose](): void {
    clearInterval(this.#timer);
  }
}
