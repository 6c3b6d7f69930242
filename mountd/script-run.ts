import { constants } from 'node:os';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Log } from '#bridge/wire/control.js';
import { BridgeError } from '#bridge/wire/errors.js';
import type { Status } from '#bridge/wire/protocol.js';
import { ContainerLost, type Exit, type RunningContainer } from './containers.js';

/** How long output that is still on its way may take after the container has ended. */
const LOG_DRAIN_MS = 5_000;

/** Docker says that a container is down when it is; the news of how it ended takes no longer than this. */
const EXIT_NEWS_MS = 10_000;

/** The longest that setTimeout takes. */
const NEVER_MS = 2 ** 31 - 1;

/** A script that prints faster waits, as for a slow reader: passing it on takes the processor from others. */
const LOG_BYTES_PER_S = 32 * 1024 * 1024;

/** Keeps a flow of bytes below a rate, with a second's worth at once. */
class Pace {
  readonly #perSecond: number;
  /** performance.now() at which what has passed so far will have been allowed. */
  #until = 0;

  constructor(perSecond: number) {
    this.#perSecond = perSecond;
  }

  /** Waits when too much has passed with these bytes; not longer than until `signal`. */
  async after(bytes: number, signal: AbortSignal): Promise<void> {
    const now = performance.now();
    this.#until = Math.max(this.#until, now) + (bytes / this.#perSecond) * 1000;
    const earlyMs = this.#until - now - 1000;
    if (earlyMs > 0) await sleep(earlyMs, undefined, { signal }).catch(() => {});
  }
}

/** How a script's container went. */
export interface Followed {
  readonly exit: Exit;
  readonly stderrSeen: boolean;
  /** The connection that brings the output was cut: some of it may be missing. */
  readonly wasCut: boolean;
  readonly timedOut: boolean;
  readonly stopped: boolean;
  /** It printed more than it may, and was stopped. */
  readonly isOverLogLimit: boolean;
  /** Milliseconds since the epoch. */
  readonly endedAt: number;
}

export interface FollowOptions {
  /** What is left; negative when it is over. */
  readonly timeoutMs: number;
  readonly onLog: (log: Log) => Promise<void>;
  /** What it may print; the rest is dropped. */
  readonly logBytesMax: number;
  /** Whoever asked for the run has gone, or we stop: the script is stopped, and nobody hears its output. */
  readonly signal: AbortSignal;
  /** Somebody else wants it stopped: its output goes on to be heard. */
  readonly cancelled: AbortSignal;
}

/**
 * Passes the output on until the container has ended; stops it at the time limit or when asked to.
 * @throws ContainerLost when nobody can say how it ended, or Docker cannot end it
 */
export async function follow(
  container: RunningContainer,
  { timeoutMs, onLog, logBytesMax, signal, cancelled }: FollowOptions,
): Promise<Followed> {
  let timedOut = false;
  let stopped = false;
  let stopping: Promise<void> | undefined;
  let giveUp: (error: unknown) => void = () => {};
  const givenUp = new Promise<never>((_resolve, reject) => {
    giveUp = reject;
  });
  givenUp.catch(() => {}); // it may have ended before
  const stop = () => {
    stopping ??= container.stop().then(() => {
      const silent = () => giveUp(new ContainerLost(new BridgeError('unavailable', NO_NEWS)));
      setTimeout(silent, EXIT_NEWS_MS).unref();
    }, giveUp);
  };
  const { endedAt: endedBefore } = container;
  // What has ended within its time is not late because somebody looked late.
  if (endedBefore !== undefined) timedOut = endedBefore > Date.now() + timeoutMs;
  const timer = setTimeout(
    () => {
      timedOut = true;
      stop();
    },
    endedBefore === undefined ? Math.max(1, timeoutMs) : NEVER_MS,
  );
  const onAbort = () => {
    stopped = true;
    stop();
  };
  for (const one of [signal, cancelled]) {
    if (one.aborted) onAbort();
    one.addEventListener('abort', onAbort, { once: true });
  }

  let stderrSeen = false;
  let leftBytes = logBytesMax;
  let isOverLogLimit = false;
  const pace = new Pace(LOG_BYTES_PER_S);
  const drained = (async () => {
    for await (const { stream, data: all } of container.logs) {
      stderrSeen ||= stream === 'stderr';
      const data = all.subarray(0, leftBytes);
      leftBytes -= data.byteLength;
      if (data.byteLength < all.byteLength && !isOverLogLimit) {
        isOverLogLimit = true;
        stop();
      }
      // Once nobody listens the rest is read and dropped: a full pipe would keep the container from ending.
      if (signal.aborted || data.byteLength === 0) continue;
      await onLog({ stream, data }).catch(() => {});
      await pace.after(data.byteLength, signal);
    }
  })();
  let wasCut = false;
  const heard = drained.catch(() => {
    wasCut = true;
  });
  try {
    const exit = await Promise.race([container.exit(), givenUp]);
    const endedAt = endedBefore ?? Date.now();
    await Promise.race([heard, sleep(LOG_DRAIN_MS, undefined, { ref: false })]);
    await stopping;
    return { exit, stderrSeen, wasCut, timedOut, stopped, isOverLogLimit, endedAt };
  } finally {
    clearTimeout(timer);
    for (const one of [signal, cancelled]) one.removeEventListener('abort', onAbort);
  }
}

const NO_NEWS = 'Docker does not say how its container ended';

/** What the execution is called to have done. `failed`: it counts as failed whatever its exit code. */
export function statusOf(
  {
    exit,
    timedOut,
    stopped,
    isOverLogLimit,
  }: Pick<Followed, 'exit' | 'timedOut' | 'stopped' | 'isOverLogLimit'>,
  { failed, wasFull }: { failed: boolean; wasFull: boolean },
): Status {
  const { code, oomKilled } = exit;
  if (oomKilled) return 'oom';
  if (timedOut) return 'timed-out';
  if (stopped || isOverLogLimit || signalOf(code) === 'SIGKILL') return 'killed';
  if (code === 0 && !failed) return 'succeeded';
  return wasFull ? 'disk-full' : 'failed';
}

/** A shell's convention, which docker-init follows: 128 + the signal that ended the process. */
export function signalOf(code: number): string | null {
  const number = code - 128;
  const name = Object.entries(constants.signals).find(([, value]) => value === number)?.[0];
  return name ?? null;
}
