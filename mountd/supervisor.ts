/**
 * Opens /dev/fuse, mounts, and holds the descriptor while a serving process answers on it. Never touches the mount
 * itself: a call on it would wait for the process this one has to watch.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { closeSync, mkdirSync, readFileSync, rmSync } from 'node:fs';
import { connect } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { pino } from 'pino';
import { z } from 'zod';
import { abortConnection, mountFuse, openFuseDevice, unmount } from '#bridge/fuse/mount.js';
import { asBridgeError, BridgeError } from '#bridge/wire/errors.js';
import { Beat, MountdConfig, StartReport } from './config.js';
import { BEAT_MS, Pulse, SILENT_BEATS_MAX } from './heartbeat.js';
import { replace } from './life.js';
import { isRunning, markOf, ProcessMark } from './process-mark.js';

/** A serving process that dies this often will not recover by itself. */
const RESTARTS_MAX = 5;
const RESTARTS_WINDOW_MS = 60_000;
const RESTART_PAUSE_MS = 200;

/** A notification to the kernel can hold a thread while its execution waits for the server; fsync and the others go on. */
const POOL_THREADS = 64;

/** Stopping ends every running script first (grace, then SIGKILL); then this is how long the rest may take. */
const STOP_MS = 20_000;

/** A process that got SIGKILL and waits for nothing is gone at once; a loaded machine takes its time to say so. */
const GONE_MS = 5_000;
const GONE_POLL_MS = 20;

const Report = z.union([StartReport, Beat]);
/** Who supervises and who serves. */
const Serving = z.strictObject({ supervisor: ProcessMark, serving: ProcessMark });

const configText = process.argv[2] ?? '';
const config = MountdConfig.parse(JSON.parse(configText));
const log = pino({ level: config.logLevel, base: { process: 'mountd-supervisor' } });
const stopping = new AbortController();
process.once('SIGTERM', () => stopping.abort());
process.once('SIGINT', () => stopping.abort());
// The one who started us has heard that we are ready and goes.
process.once('disconnect', () => {});

/** Mounts, serves until the serving process ends, unmounts. Returns whether that was asked for. */
async function serveOnce(): Promise<boolean> {
  // The driver fuse-native opens and mounts in the serving process, and cannot be handed a descriptor.
  const fd = config.driver === 'kernel' ? openFuseDevice() : undefined;
  try {
    if (fd !== undefined) await mountFuse(fd, config.mountPoint);
    const child = spawn(
      process.execPath,
      ['--enable-source-maps', fileURLToPath(new URL('./main.js', import.meta.url)), configText],
      {
        stdio: ['ignore', 'inherit', 'inherit', fd ?? 'ignore', 'ipc'],
        env: { ...process.env, UV_THREADPOOL_SIZE: String(POOL_THREADS) },
      },
    );
    return await watch(child);
  } finally {
    // Nobody may wait for an answer that no process is left to give.
    abortConnection(config.mountPoint);
    await unmount(config.mountPoint);
    if (fd !== undefined) closeSync(fd);
  }
}

async function watch(child: ChildProcess): Promise<boolean> {
  let failure: string | undefined;
  if (child.pid !== undefined) {
    const marks = { supervisor: markOf(process.pid), serving: markOf(child.pid) };
    replace(config.servingFile, `${JSON.stringify(marks)}\n`);
  }
  using pulse = new Pulse(() => {
    log.error({ ms: SILENT_BEATS_MAX * BEAT_MS }, 'the serving process hangs: it is killed');
    // First: nothing that waits for it, itself included, could be killed before.
    abortConnection(config.mountPoint);
    child.kill('SIGKILL');
  });
  child.on('message', (message) => {
    const report = Report.parse(message);
    if (report.state === 'alive') pulse.beat();
    else if (report.state === 'failed') failure = report.message;
    else if (process.connected) process.send?.(report); // after a restart nobody waits for it any more
  });
  const stop = () => {
    child.kill('SIGTERM');
    setTimeout(() => child.kill('SIGKILL'), STOP_MS).unref();
  };
  if (stopping.signal.aborted) stop();
  stopping.signal.addEventListener('abort', stop, { once: true });
  const code = await new Promise<number | string>((resolve) => {
    child.on('exit', (exitCode, signal) => resolve(exitCode ?? signal ?? 'unknown'));
    child.on('error', (error) => resolve(error.message)); // it could not be started
  });
  stopping.signal.removeEventListener('abort', stop);
  if (failure !== undefined) throw new BridgeError('unavailable', failure);
  if (stopping.signal.aborted) return true;
  log.error({ code }, 'the serving process died; its executions are lost');
  return false;
}

/** Whether somebody listens on a unix socket. */
async function answers(path: string): Promise<boolean> {
  return await new Promise((resolve) => {
    const socket = connect(path);
    socket.once('connect', () => {
      socket.destroy();
      resolve(true);
    });
    socket.once('error', () => resolve(false));
  });
}

/**
 * Ends a serving process whose supervisor is gone: one that is stopped or hangs does not notice, and a new one can share neither
 * its socket nor its scratch. @throws BridgeError `busy` when both are alive
 */
async function endOrphan(): Promise<void> {
  let marks: z.infer<typeof Serving>;
  try {
    marks = Serving.parse(JSON.parse(readFileSync(config.servingFile, 'utf8')));
  } catch {
    return; // there was none, or a crash kept it from being written
  }
  const { supervisor, serving } = marks;
  if (isRunning(supervisor)) throw isServed();
  if (!isRunning(serving)) return;
  abortConnection(config.mountPoint);
  process.kill(serving.pid, 'SIGKILL');
  for (const deadline = Date.now() + GONE_MS; isRunning(serving); await sleep(GONE_POLL_MS))
    if (Date.now() > deadline)
      throw new BridgeError(
        'busy',
        `process ${serving.pid}, which served ${config.mountPoint}, does not end; it waits for the kernel`,
      );
  log.warn({ pid: serving.pid }, 'a serving process without a supervisor was killed');
  rmSync(config.controlSocket, { force: true });
}

const isServed = () =>
  new BridgeError('busy', `another mountd serves ${config.mountPoint}; stop it first`);

async function supervise(): Promise<void> {
  await endOrphan();
  if (await answers(config.controlSocket)) throw isServed();
  // A mount that an earlier life left behind answers nobody: nothing may look at the directory before.
  abortConnection(config.mountPoint);
  await unmount(config.mountPoint);
  mkdirSync(config.mountPoint, { recursive: true, mode: 0o755 });
  const deaths: number[] = [];
  while (!stopping.signal.aborted) {
    if (await serveOnce()) return;
    const now = Date.now();
    deaths.push(now);
    while ((deaths[0] ?? now) < now - RESTARTS_WINDOW_MS) deaths.shift();
    if (deaths.length > RESTARTS_MAX)
      throw new BridgeError(
        'unavailable',
        `the serving process died ${deaths.length} times within a minute`,
      );
    await sleep(RESTART_PAUSE_MS);
  }
}

supervise().then(
  () => process.exit(0),
  (error: unknown) => {
    const { message } = asBridgeError(error);
    log.fatal({ reason: message }, 'giving up');
    const report: StartReport = { state: 'failed', message };
    if (process.send === undefined || !process.connected) process.exit(1);
    process.send(report, () => process.exit(1));
  },
);
