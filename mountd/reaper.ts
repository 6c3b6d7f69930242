import { setTimeout as sleep } from 'node:timers/promises';
import type { Logger } from 'pino';
import { asBridgeError } from '#bridge/wire/errors.js';

/** One short question to Docker; a container whose run is over and that could not be removed then stays no longer. */
const EVERY_MS = 30_000;
/** While Docker is away, or keeps one that it should remove: it is back within seconds, or an operator is at work. */
const RETRY_MS = 5_000;

/** What executions leave behind in Docker. */
export interface Remains {
  /** Removes those whose places are not `wanted`; returns how many. @throws BridgeError when Docker does not do it */
  reap(wanted: (place: string) => boolean): Promise<number>;
  /** Called when one could not be removed. */
  onLeft: () => void;
}

/** Removes this mountd's containers, and then their networks, that serve no execution: of earlier lives, and those that Docker kept. */
export class Reaper implements Disposable {
  /** Resolves when Docker was asked once, whatever it said. */
  readonly first: Promise<void>;
  readonly #closing = new AbortController();

  constructor(
    remains: readonly Remains[],
    wanted: (place: string) => boolean,
    log: Logger,
    { everyMs = EVERY_MS, retryMs = RETRY_MS } = {},
  ) {
    const { signal } = this.#closing;
    let isAway = false;
    const reap = async (): Promise<number> => {
      try {
        let count = 0;
        for (const kind of remains) count += await kind.reap(wanted);
        if (count > 0)
          log.warn({ count }, 'removed containers, or networks, that serve no execution');
        isAway = false;
        return everyMs;
      } catch (error) {
        // Once, not every few seconds.
        if (!isAway) log.warn({ reason: asBridgeError(error).message }, 'Docker does not answer');
        isAway = true;
        return retryMs;
      }
    };
    const first = reap();
    this.first = first.then(() => {});
    let isLeft = false;
    let pause = new AbortController();
    for (const kind of remains)
      kind.onLeft = () => {
        isLeft = true;
        pause.abort();
      };
    void (async () => {
      let pauseMs = await first;
      for (;;) {
        pause = new AbortController();
        const until = AbortSignal.any([signal, pause.signal]);
        await sleep(isLeft ? retryMs : pauseMs, undefined, { signal: until, ref: false }).catch(
          () => {},
        );
        if (signal.aborted) return;
        // One that it does not remove tells again.
        isLeft = false;
        pauseMs = await reap();
      }
    })();
  }

  /** One that is under way goes on: Docker may take its time, and nobody waits for it. */
  [Symbol.dispose](): void {
    this.#closing.abort();
  }
}
