/**
 * Keeps a server running: starts it, starts it again when it dies or hangs, and passes the order to stop on. It knows
 * nothing of what the server does, so that nothing the server does can end it.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { pino } from 'pino';
import { asBridgeError, BridgeError } from '#bridge/wire/errors.js';
import { markOf } from './admin/process-mark.js';
import { ServerConfig, ServerReport } from './config.js';
import { writeDurably } from './store/durable-file.js';

const MAIN = fileURLToPath(new URL('./main.js', import.meta.url));

/** A crash should pass unseen; one that comes back at once should not keep the machine busy. */
const PAUSE_MS_MIN = 50;
const PAUSE_MS_MAX = 5_000;

/** Of a server that dies before it serves: with the pauses between, half a minute of trying. */
const FAILED_STARTS_MAX = 10;
const FAILED_STARTS_WINDOW_MS = 60_000;

/** The server says once a second that its event loop goes round. */
const TICK_MS = 1_000;
/** An fsync on a full or failing disk takes seconds; scripts wait for 30 s, and half of that is left for the restart. */
const SILENT_TICKS_MAX = 15;
/** Before it serves it is heard of only when it reads much; as long as `cronium up` waits. */
const STARTING_TICKS_MAX = 30;

/** Calls under way have 3 s, the store's last writes the rest; below the 30 s that `cronium down` waits. */
const STOP_MS = 20_000;

/** One server process, from its start to its end. */
interface Life {
  /** Exit code, or the signal's name, or why it could not be started. */
  readonly end: string;
  /** What it said itself, before it served. */
  readonly failure: string | undefined;
  /** Undefined: it never served. */
  readonly servedMs: number | undefined;
}

const config = ServerConfig.parse(JSON.parse(process.argv[2] ?? ''));
const log = pino({ level: config.logLevel, base: { process: 'server-supervisor' } });
const stopping = new AbortController();
process.once('SIGTERM', () => stopping.abort());
process.once('SIGINT', () => stopping.abort());
// The starter has heard that the server is ready and goes.
process.once('disconnect', () => {});

/** Any free port at the first start; then the one it was, so that those who were connected find the server again. */
let { port } = config.listen;

/** Told to the starter, as long as it listens. */
function tell(report: ServerReport): void {
  if (process.connected) process.send?.(report, undefined, undefined, () => {});
}

async function serveOnce(restarts: number): Promise<Life> {
  const told: ServerConfig = { ...config, listen: { ...config.listen, port }, restarts };
  const child = spawn(process.execPath, ['--enable-source-maps', MAIN, JSON.stringify(told)], {
    stdio: ['ignore', 'inherit', 'inherit', 'ipc'],
  });
  mark(child);
  let failure: string | undefined;
  let readyAt: number | undefined;
  let silentTicks = 0;
  child.on('message', (message) => {
    const report = ServerReport.parse(message);
    silentTicks = 0;
    if (report.state === 'failed') failure = report.message;
    else if (report.state !== 'alive') tell(report);
    if (report.state !== 'ready') return;
    readyAt = performance.now();
    port = report.port;
  });
  // Counted in ticks of our own, not in time: whoever was stopped together with the server, or instead of it, has heard
  // nothing either.
  const watchdog = setInterval(() => {
    silentTicks++;
    if (silentTicks < (readyAt === undefined ? STARTING_TICKS_MAX : SILENT_TICKS_MAX)) return;
    log.error({ pid: child.pid, silentMs: silentTicks * TICK_MS }, 'the server hangs: killed');
    child.kill('SIGKILL');
  }, TICK_MS);
  let impatience: NodeJS.Timeout | undefined;
  const stop = () => {
    child.kill('SIGTERM');
    impatience = setTimeout(() => child.kill('SIGKILL'), STOP_MS);
  };
  if (stopping.signal.aborted) stop();
  stopping.signal.addEventListener('abort', stop, { once: true });
  const end = await endOf(child);
  stopping.signal.removeEventListener('abort', stop);
  clearInterval(watchdog);
  clearTimeout(impatience);
  return { end, failure, servedMs: readyAt && performance.now() - readyAt };
}

/** For whoever comes after us, if we are killed: the server ends by itself then, and must be waited for. */
function mark({ pid }: ChildProcess): void {
  try {
    if (pid !== undefined) writeDurably(config.processFile, `${JSON.stringify(markOf(pid))}\n`);
  } catch (error) {
    log.error({ reason: asBridgeError(error).message }, `cannot write ${config.processFile}`);
  }
}

async function endOf(child: ChildProcess): Promise<string> {
  return await new Promise((resolve) => {
    child.once('error', (error) => resolve(error.message)); // it could not be started
    child.once('exit', (code, signal) => {
      const end = String(signal ?? code);
      // What it said last may still be on its way.
      if (child.connected) child.once('disconnect', () => resolve(end));
      else resolve(end);
    });
  });
}

async function supervise(): Promise<void> {
  const { signal } = stopping;
  const failedStarts: number[] = [];
  let hasServed = false;
  let pauseMs = 0;
  for (let restarts = 0; !signal.aborted; restarts++) {
    const { end, failure, servedMs } = await serveOnce(restarts);
    if (signal.aborted) return;
    hasServed ||= servedMs !== undefined;
    // A wrong key, a damaged store, a port that is taken: nobody waits for this server yet, and whoever starts it can act.
    if (!hasServed)
      throw new BridgeError('unavailable', failure ?? `the server ended at once (${end})`);
    const now = performance.now();
    if (servedMs === undefined) failedStarts.push(now);
    while ((failedStarts[0] ?? now) < now - FAILED_STARTS_WINDOW_MS) failedStarts.shift();
    if (failedStarts.length > FAILED_STARTS_MAX)
      throw new BridgeError(
        'unavailable',
        `the server died ${failedStarts.length} times within a minute before it served, at last: ${failure ?? end}`,
      );
    // Twice as long as the last time, less the time that it served in between.
    pauseMs = Math.min(Math.max(PAUSE_MS_MIN, 2 * pauseMs - (servedMs ?? 0)), PAUSE_MS_MAX);
    log.error({ end, reason: failure, pauseMs }, 'the server died: starting it again');
    await sleep(pauseMs, undefined, { signal }).catch(() => {});
  }
}

supervise().then(
  () => process.exit(0),
  (error: unknown) => {
    const { message } = asBridgeError(error);
    log.fatal({ reason: message }, 'giving up');
    if (process.send === undefined || !process.connected) process.exit(1);
    process.send({ state: 'failed', message } satisfies ServerReport, () => process.exit(1));
  },
);
