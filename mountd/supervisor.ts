/**
 * Opens /dev/fuse, mounts, and holds the descriptor while a serving process answers on it. When that dies, another one, which
 * stands by, goes on where it stopped; whoever waits in the kernel waits a little longer. Never touches the mount itself: a
 * call on it would wait for the process this one has to watch.
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
import { Beat, type Go, MountdConfig, Replaced, StartReport } from './config.js';
import { BEAT_MS, Pulse, SILENT_BEATS_MAX } from './heartbeat.js';
import { replace } from './life.js';
import { MountState } from './mount-state.js';
import { isRunning, markOf, ProcessMark } from './process-mark.js';

/** A serving process that serves no longer than this has met what the one before died of. */
const SHORT_LIFE_MS = 500;
/** So many of them in a row will not recover by themselves. */
const SHORT_LIVES_MAX = 10;
/** Where nobody can take over every death loses the mount. */
const LOSSES_MAX = 5;
const LOSSES_WINDOW_MS = 60_000;
/** Before a mount that was lost is made again. */
const RESTART_PAUSE_MS = 200;

/** The next one to stand by is started when the one that took over has done the most urgent. */
const STANDBY_AFTER_MS = 500;

/** A notification to the kernel can hold a thread while its execution waits for the server; fsync and the others go on. */
const POOL_THREADS = 64;

/** Stopping ends every running script first (grace, then SIGKILL); then this is how long the rest may take. */
const STOP_MS = 20_000;

/** A process that got SIGKILL and waits for nothing is gone at once; a loaded machine takes its time to say so. */
const GONE_MS = 5_000;
const GONE_POLL_MS = 20;

/** Where a serving process has the descriptor of /dev/fuse, and a supervisor that it has called. */
const FUSE_FD = 3;

const Report = z.union([StartReport, Beat, Replaced]);
/** Who supervises and who serves. */
const Serving = z.strictObject({ supervisor: ProcessMark, serving: ProcessMark });

const configText = process.argv[2] ?? '';
const config = MountdConfig.parse(JSON.parse(configText));
/** Set by a serving process that has lost its supervisor: we have its descriptor, and it ends. */
const adopted =
  process.argv[3] === undefined ? undefined : ProcessMark.parse(JSON.parse(process.argv[3]));
let isMounted = adopted !== undefined;
const mountState = new MountState(config.backing);
const log = pino({ level: config.logLevel, base: { process: 'mountd-supervisor' } });
const stopping = new AbortController();
process.once('SIGTERM', () => stopping.abort());
process.once('SIGINT', () => stopping.abort());
// The one who started us has heard that we are ready and goes.
process.once('disconnect', () => {});

/** Processes of one mount: the one that serves, and one that has loaded its programs and waits. */
class Servers implements Disposable {
  readonly #fd: number | undefined;
  #standby: ChildProcess | undefined;
  #timer: NodeJS.Timeout | undefined;

  /** `fd` is /dev/fuse, mounted; the driver fuse-native mounts by itself, and nobody can take over from it. */
  constructor(fd: number | undefined) {
    this.#fd = fd;
  }

  /** `isWarm`: it has stood by, and has loaded its programs. */
  next(): { readonly child: ChildProcess; readonly isWarm: boolean } {
    const isWarm = this.#standby !== undefined;
    const child = this.#standby ?? this.#start();
    this.#standby = undefined;
    child.removeAllListeners('exit');
    if (this.#fd !== undefined) {
      clearTimeout(this.#timer);
      this.#timer = setTimeout(() => this.#prepare(), STANDBY_AFTER_MS);
    }
    return { child, isWarm };
  }

  [Symbol.dispose](): void {
    clearTimeout(this.#timer);
    this.#standby?.removeAllListeners('exit');
    this.#standby?.kill('SIGKILL'); // it holds nothing but the descriptor
  }

  #prepare(): void {
    const child = this.#start();
    this.#standby = child;
    child.on('exit', () => {
      if (this.#standby !== child) return;
      this.#standby = undefined;
      this.#timer = setTimeout(() => this.#prepare(), SHORT_LIFE_MS);
    });
  }

  #start(): ChildProcess {
    const child = spawn(
      process.execPath,
      ['--enable-source-maps', fileURLToPath(new URL('./main.js', import.meta.url)), configText],
      {
        stdio: ['ignore', 'inherit', 'inherit', this.#fd ?? 'ignore', 'ipc'],
        env: { ...process.env, UV_THREADPOOL_SIZE: String(POOL_THREADS) },
      },
    );
    child.on('error', () => {}); // it could not be started, or told: its end is heard where it is watched
    return child;
  }
}

/** Mounts, serves as long as somebody can, unmounts. Returns whether that was asked for. */
async function serveMount(): Promise<boolean> {
  let fd: number | undefined;
  // The driver fuse-native opens and mounts in the serving process, and cannot be handed a descriptor.
  if (config.driver === 'kernel') fd = isMounted ? FUSE_FD : openFuseDevice();
  let takeOver = isMounted;
  isMounted = false;
  try {
    if (fd !== undefined && !takeOver) await mountFuse(fd, config.mountPoint);
    using servers = new Servers(fd);
    for (let shortLives = 0; ; ) {
      const { isStopped, servedMs } = await watch(servers.next(), { state: 'go', takeOver });
      if (isStopped) return true;
      takeOver = fd !== undefined && mountState.canBeTakenOver;
      if (!takeOver) return false;
      shortLives = servedMs < SHORT_LIFE_MS ? shortLives + 1 : 0;
      if (shortLives < SHORT_LIVES_MAX) continue;
      throw new BridgeError(
        'unavailable',
        `the serving process died ${shortLives} times as soon as it served`,
      );
    }
  } finally {
    // Nobody may wait for an answer that no process is left to give.
    abortConnection(config.mountPoint);
    await unmount(config.mountPoint);
    if (fd !== undefined) closeSync(fd);
  }
}

/** Whether its end was asked for, and how long it has served. */
interface Served {
  readonly isStopped: boolean;
  readonly servedMs: number;
}

async function watch({ child, isWarm }: ReturnType<Servers['next']>, go: Go): Promise<Served> {
  let readyAt = Number.POSITIVE_INFINITY;
  let failure: string | undefined;
  if (child.pid !== undefined) {
    const marks = { supervisor: markOf(process.pid), serving: markOf(child.pid) };
    try {
      replace(config.servingFile, `${JSON.stringify(marks)}\n`);
    } catch (error) {
      log.warn({ err: error }, 'who serves could not be noted'); // a full disk
    }
  }
  let isGone = false;
  const silent = () => {
    log.error({ ms: SILENT_BEATS_MAX * BEAT_MS }, 'the serving process hangs: it is killed');
    child.kill('SIGKILL');
    // If it waits for itself in the kernel nothing else frees it.
    setTimeout(() => {
      if (!isGone) abortConnection(config.mountPoint);
    }, GONE_MS).unref();
  };
  using pulse = new Pulse(silent, { isWarm });
  child.on('message', (message) => {
    const report = Report.parse(message);
    if (report.state === 'alive') pulse.beat();
    else if (report.state === 'replaced') {
      log.info('another supervisor takes over');
      process.exit(0); // it has the mount: nothing is to be tidied up
    } else if (report.state === 'failed') failure = report.message;
    else {
      readyAt = performance.now();
      pulse.beat();
      if (process.connected) process.send?.(report); // after a restart nobody waits for it any more
    }
  });
  const ended = new Promise<number | string>((resolve) => {
    if (child.exitCode !== null || child.signalCode !== null) resolve('it ended while it stood by');
    child.on('exit', (exitCode, signal) => resolve(exitCode ?? signal ?? 'unknown'));
    child.on('error', (error) => {
      if (child.pid === undefined) resolve(error.message);
    });
  });
  child.send(go, () => {}); // whether it could be told, its end tells
  const stop = () => {
    child.kill('SIGTERM');
    setTimeout(() => child.kill('SIGKILL'), STOP_MS).unref();
  };
  if (stopping.signal.aborted) stop();
  stopping.signal.addEventListener('abort', stop, { once: true });
  const code = await ended;
  isGone = true;
  stopping.signal.removeEventListener('abort', stop);
  if (failure !== undefined && !go.takeOver) throw new BridgeError('unavailable', failure);
  if (failure !== undefined) {
    log.error({ reason: failure }, 'the mount could not be taken over');
    mountState.end();
  }
  const isStopped = stopping.signal.aborted;
  if (!isStopped) log.error({ code }, 'the serving process died');
  return { isStopped, servedMs: performance.now() - readyAt };
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

/** A supervisor was killed, and the process that served under it has called us. */
async function adopt(serving: ProcessMark): Promise<void> {
  const { pid, startTicks } = markOf(process.pid);
  replace(config.supervisorFile, `${JSON.stringify({ pid, startTicks })}\n`);
  for (const deadline = Date.now() + GONE_MS; isRunning(serving); await sleep(GONE_POLL_MS))
    if (Date.now() > deadline) process.kill(serving.pid, 'SIGKILL');
  log.warn({ before: serving.pid }, 'took over from a supervisor that was killed');
}

async function supervise(): Promise<void> {
  if (adopted === undefined) {
    await endOrphan();
    if (await answers(config.controlSocket)) throw isServed();
    // A mount that an earlier life left behind answers nobody: nothing may look at the directory before.
    abortConnection(config.mountPoint);
    await unmount(config.mountPoint);
    mkdirSync(config.mountPoint, { recursive: true, mode: 0o755 });
  } else await adopt(adopted);
  const losses: number[] = [];
  // What was adopted is mounted, and scripts run on it: they are ended properly even if that is all there is to do.
  while (isMounted || !stopping.signal.aborted) {
    if (await serveMount()) return;
    const now = Date.now();
    losses.push(now);
    while ((losses[0] ?? now) < now - LOSSES_WINDOW_MS) losses.shift();
    if (losses.length > LOSSES_MAX)
      throw new BridgeError(
        'unavailable',
        `the mount was lost ${losses.length} times within a minute`,
      );
    log.error('the mount cannot be taken over; its executions are lost');
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
