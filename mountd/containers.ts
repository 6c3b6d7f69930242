import { once } from 'node:events';
import { constants } from 'node:os';
import type { Readable } from 'node:stream';
import { setTimeout as sleep } from 'node:timers/promises';
import Docker from 'dockerode';
import { BridgeError, errnoCode } from '#bridge/wire/errors.js';
import type { FirstProcess } from './usage.js';

/** SIGTERM, then this long, then SIGKILL: time to flush a file, not to ignore the signal. */
const STOP_GRACE_S = 2;

/** For Docker to create or start one: with a hundred others they wait for each other. */
const START_MS = 60_000;
/** For any other answer of Docker's. Ending a process that waits for a file system that hangs takes it 16 s. */
export const ANSWER_MS = 30_000;
/** The end of a container's output and the news of its end come together; after this, somebody has to ask. */
const END_POLL_MS = 1_000;

const MIB = 1024 * 1024;
/** /tmp counts against the container's memory, so it stays well below. */
const TMP_BYTES_MAX = 64 * MIB;
/** The options of its mount. */
export const tmpOptions = (memoryBytes: number): string =>
  `rw,noexec,nosuid,nodev,mode=1777,nr_inodes=4096,size=${Math.min(TMP_BYTES_MAX, memoryBytes >> 1)}`;
export const SHM_BYTES = 16 * MIB;
/** When memory runs out, scripts go before daemons. */
export const OOM_SCORE_ADJ = 500;
/** Enough for python's multiprocessing; a fork bomb ends here. */
export const PIDS_MAX = 128;
export const OPEN_FILES_MAX = 1024;
/** Two of these are kept of what a container prints: of more, some may be missing after a process has died. */
const LOG_FILE_SIZE = '32m';

/**
 * Docker's own, and what else tells of the machine or of what else runs on it: the kernel's command line, modules, symbols, keys,
 * its log, the load of its disks and the other file systems that are served here.
 */
const MASKED_PATHS: readonly string[] = [
  '/proc/acpi',
  '/proc/asound',
  '/proc/bus',
  '/proc/cmdline',
  '/proc/config.gz',
  '/proc/diskstats',
  '/proc/interrupts',
  '/proc/iomem',
  '/proc/ioports',
  '/proc/kallsyms',
  '/proc/kcore',
  '/proc/key-users',
  '/proc/keys',
  '/proc/kmsg',
  '/proc/latency_stats',
  '/proc/modules',
  '/proc/partitions',
  '/proc/sched_debug',
  '/proc/scsi',
  '/proc/slabinfo',
  '/proc/swaps',
  '/proc/sysrq-trigger',
  '/proc/timer_list',
  '/proc/timer_stats',
  '/proc/vmallocinfo',
  '/sys/firmware',
  '/sys/fs/fuse',
  '/sys/kernel',
  '/sys/devices/virtual/powercap',
];
const READ_ONLY_PATHS: readonly string[] = ['/proc/fs', '/proc/irq', '/proc/sys'];

/** Missing from the library's types. */
const CGROUP_NAMESPACE = { CgroupnsMode: 'private' };

export interface ContainerSpec {
  /** Names it, among all that this machine runs. */
  readonly place: string;
  readonly image: string;
  readonly command: readonly string[];
  readonly env: Readonly<Record<string, string>>;
  /** What stands at /cronium: a directory in the mount. */
  readonly source: string;
  /** A file to stand at /etc/hosts where there is no network: Docker leaves it empty, and localhost would not resolve. */
  readonly hostsFile: string;
  readonly uid: number;
  readonly gid: number;
  readonly memoryBytes: number;
  readonly cpus: number;
  /** Default: none. */
  readonly network?: ContainerNetwork | undefined;
}

/** The only thing a container can reach the world by; whatever passes through it is filtered outside. */
export interface ContainerNetwork {
  readonly name: string;
  /** `name:address`, for /etc/hosts. */
  readonly hosts: readonly string[];
}

export interface ImageFacts {
  /** The engine's, of what the name means now. */
  readonly id: string;
  /** It runs a program of its own before the one it is asked to run. */
  readonly hasEntrypoint: boolean;
}

export interface Exit {
  readonly code: number;
  readonly oomKilled: boolean;
}

/** The name of the container at a place. */
export const nameOf = (place: string): string => `cronium-${place}`;

/** Docker went away, or does not know it any more: nobody can say what the container does, or did. */
export class ContainerLost extends BridgeError {
  constructor(cause: BridgeError) {
    super('unavailable', cause.message, { cause });
  }
}

export interface ContainersOptions {
  /** Marks our containers, so that two mountds never clean up each other's. */
  readonly instance: string;
  /** A profile in Docker's format, as a JSON text: the engine may be one that sees other files than we do. */
  readonly seccomp: string;
}

/** The Docker engine of this machine, and the containers of one mountd among all that run there. */
export class Containers {
  readonly #docker: Docker;
  readonly #socketPath: string;
  readonly #instance: string;
  readonly #securityOptions: readonly string[];

  /** Called when one could not be removed. */
  onLeft: () => void = () => {};

  constructor(socketPath: string, { instance, seccomp }: ContainersOptions) {
    this.#socketPath = socketPath;
    this.#instance = instance;
    this.#securityOptions = ['no-new-privileges:true', `seccomp=${seccomp}`];
    this.#docker = new Docker({ socketPath });
  }

  /** @throws BridgeError `unavailable` when no engine answers, `not_found` when it has no such image */
  async image(image: string): Promise<ImageFacts> {
    try {
      const { Id, Config } = await orLate(this.#docker.getImage(image).inspect(), ANSWER_MS);
      const entrypoint = Config.Entrypoint ?? [];
      return { id: Id, hasEntrypoint: entrypoint.length > 0 };
    } catch (error) {
      if (statusOf(error) === 404)
        throw new BridgeError(
          'not_found',
          `there is no image ${image}: build ours with scripts/setup, or pull it`,
          {
            cause: error,
          },
        );
      throw this.#sentence(error);
    }
  }

  /**
   * Removes those of this mountd, and of earlier lives of it, that are not `wanted` by their places. Returns how many.
   * @throws BridgeError `unavailable` when Docker does not answer, or could not remove one of them
   */
  async reap(wanted: (place: string) => boolean): Promise<number> {
    try {
      const all = await this.#docker.listContainers({
        all: true,
        filters: { label: [`cronium.instance=${this.#instance}`] },
        abortSignal: within(ANSWER_MS),
      });
      const left = all.filter(({ Labels }) => !wanted(Labels['cronium.place'] ?? ''));
      const removed = await Promise.allSettled(
        left.map(({ Id }) => this.#remove(this.#docker.getContainer(Id))),
      );
      for (const one of removed) if (one.status === 'rejected') throw one.reason;
      return left.length;
    } catch (error) {
      throw this.#sentence(error);
    }
  }

  /** A started container; `stdout` and `stderr` must be read, or it stops at a full pipe. */
  async start(spec: ContainerSpec, mayBeUnderWay = false): Promise<RunningContainer> {
    let container: Docker.Container | undefined;
    try {
      container = await this.#create(spec, mayBeUnderWay);
      const attached = container.attach({ stream: true, stdout: true, stderr: true });
      const logs = (await orLate(attached, START_MS)) as unknown as Readable;
      const exited = container.wait({ condition: 'next-exit' });
      exited.catch(() => {}); // heard where it is awaited
      await container.start({ abortSignal: within(START_MS) });
      return new RunningContainer(container, logs, exited, {
        remove: async (one) => await this.#remove(one),
        sentence: (error) => this.#sentence(error),
      });
    } catch (error) {
      // What cannot be removed now is reaped later.
      if (container !== undefined) await this.#remove(container).catch(() => {});
      throw this.#sentence(error);
    }
  }

  /**
   * One that an earlier process started, with its output from the beginning. Undefined when it was not started.
   * @throws ContainerLost
   */
  async resume(place: string): Promise<RunningContainer | undefined> {
    const container = this.#docker.getContainer(nameOf(place));
    try {
      const { State } = await container.inspect({ abortSignal: within(ANSWER_MS) });
      if (State.Status === 'created') {
        await this.#remove(container);
        return undefined;
      }
      const following = container.logs({ follow: true, stdout: true, stderr: true });
      const logs = (await orLate(following, START_MS)) as unknown as Readable;
      const exited = container.wait({ condition: 'not-running' });
      exited.catch(() => {}); // heard where it is awaited
      const resumed = new RunningContainer(container, logs, exited, {
        remove: async (one) => await this.#remove(one),
        sentence: (error) => this.#sentence(error),
      });
      if (!State.Running) resumed.endedAt = Date.parse(State.FinishedAt);
      return resumed;
    } catch (error) {
      if (statusOf(error) === 404) return undefined;
      throw new ContainerLost(this.#sentence(error));
    }
  }

  /** Whatever is left of the container at a place goes. What cannot be removed now is reaped later. */
  async discard(place: string): Promise<void> {
    await this.#remove(this.#docker.getContainer(nameOf(place))).catch(() => {});
  }

  /** Names of the containers that run and have a volume of this name. @throws BridgeError `unavailable` */
  async namesOn(volume: string): Promise<string[]> {
    try {
      const filters = { volume: [volume] };
      const some = await this.#docker.listContainers({ filters, abortSignal: within(ANSWER_MS) });
      return some.map(({ Names, Id }) => Names[0]?.replace(/^\//, '') ?? Id);
    } catch (error) {
      throw this.#sentence(error);
    }
  }

  /** Docker need not remember a volume that is none any more. One that a container still has, stopped or not, stays. */
  async forgetVolume(volume: string): Promise<void> {
    const abortSignal = within(ANSWER_MS);
    await this.#docker
      .getVolume(volume)
      .remove({ force: true, abortSignal })
      .catch(() => {});
  }

  /** `mayBeUnderWay`: a process that died had asked for it, and Docker goes on: what comes of that is not started, and goes. */
  async #create(spec: ContainerSpec, mayBeUnderWay: boolean): Promise<Docker.Container> {
    for (const deadline = Date.now() + START_MS; ; await sleep(END_POLL_MS))
      try {
        return await this.#docker.createContainer({
          ...this.#options(spec),
          abortSignal: within(START_MS),
        });
      } catch (error) {
        if (statusOf(error) !== 409 || !mayBeUnderWay || Date.now() > deadline) throw error;
        await this.discard(spec.place);
      }
  }

  #options({ env, memoryBytes, network, ...spec }: ContainerSpec): Docker.ContainerCreateOptions {
    return {
      name: nameOf(spec.place),
      Image: spec.image,
      Cmd: [...spec.command],
      Env: Object.entries(env).map(([name, value]) => `${name}=${value}`),
      User: `${spec.uid}:${spec.gid}`,
      WorkingDir: '/cronium/work',
      Labels: {
        'cronium.managed': '1',
        'cronium.instance': this.#instance,
        'cronium.place': spec.place,
      },
      // Without a network stack to set up, Docker starts the container in half the time.
      NetworkDisabled: network === undefined,
      AttachStdout: true,
      AttachStderr: true,
      Tty: false,
      OpenStdin: false,
      HostConfig: {
        NetworkMode: network?.name ?? 'none',
        // The resolver that Docker puts into a container asks on its behalf, and with a resolver of the machine's own (127.0.0.53) it
        // would ask from outside. Told of one at 127.0.0.1, it means the container's own, where there is none.
        ...(network !== undefined && {
          Dns: ['127.0.0.1'],
          DnsOptions: ['timeout:1', 'attempts:1'], // it leaves questions unanswered
          DnsSearch: ['.'],
          ExtraHosts: [...network.hosts],
        }),
        CapDrop: ['ALL'],
        SecurityOpt: [...this.#securityOptions],
        MaskedPaths: [...MASKED_PATHS],
        ReadonlyPaths: [...READ_ONLY_PATHS],
        ...CGROUP_NAMESPACE,
        ReadonlyRootfs: true,
        Init: true,
        IpcMode: 'private',
        ShmSize: SHM_BYTES,
        Memory: memoryBytes,
        MemorySwap: memoryBytes,
        NanoCpus: Math.round(spec.cpus * 1e9),
        PidsLimit: PIDS_MAX,
        OomScoreAdj: OOM_SCORE_ADJ,
        Ulimits: [
          { Name: 'nofile', Soft: OPEN_FILES_MAX, Hard: OPEN_FILES_MAX },
          { Name: 'core', Soft: 0, Hard: 0 },
        ],
        Tmpfs: {
          '/tmp': tmpOptions(memoryBytes),
        },
        Mounts: [
          ...(network === undefined
            ? [
                {
                  Type: 'bind',
                  Source: spec.hostsFile,
                  Target: '/etc/hosts',
                  ReadOnly: true,
                } as const,
              ]
            : []), // Docker writes one
          {
            Type: 'bind',
            Source: spec.source,
            Target: '/cronium',
            BindOptions: { Propagation: 'rprivate' },
          },
        ],
        // Read again, from the beginning, by a process that takes over.
        LogConfig: {
          Type: 'local',
          Config: { 'max-size': LOG_FILE_SIZE, 'max-file': '2', compress: 'false' },
        },
      },
    };
  }

  async #remove(container: Docker.Container): Promise<void> {
    const abortSignal = within(ANSWER_MS);
    await container.remove({ force: true, v: true, abortSignal }).catch((error: unknown) => {
      const status = statusOf(error);
      if (status === 404 || status === 409) return; // gone, or going
      this.onLeft();
      throw this.#sentence(error);
    });
  }

  #sentence(error: unknown): BridgeError {
    return engineError(error, this.#socketPath);
  }
}

/** What a container wrote, in the order it wrote. */
export interface LogChunk {
  readonly stream: 'stdout' | 'stderr';
  readonly data: Uint8Array;
}

interface Engine {
  readonly remove: (container: Docker.Container) => Promise<void>;
  readonly sentence: (error: unknown) => BridgeError;
}

const KILLED = 128 + constants.signals.SIGKILL;

/** A running script's container. */
export class RunningContainer implements AsyncDisposable {
  /** Ends with the container. Reading slowly slows the script down, not reading stops it. */
  readonly logs: AsyncIterable<LogChunk>;
  /** Milliseconds since the epoch; set when it had ended before anybody of this process looked. */
  endedAt: number | undefined;
  readonly #container: Docker.Container;
  readonly #raw: Readable;
  /** The exit code; undefined when the engine could not tell. May never settle. */
  readonly #exited: Promise<number | undefined>;
  /** There will be no more output. */
  readonly #silenced: Promise<unknown>;
  readonly #engine: Engine;
  /** Docker did not answer: nobody waits for it again. */
  #isLost = false;
  /** Resolves when it is, or could not be. */
  #removed: Promise<void> | undefined;

  constructor(
    container: Docker.Container,
    raw: Readable,
    exited: Promise<{ StatusCode: number }>,
    engine: Engine,
  ) {
    this.logs = demultiplex(raw);
    this.#container = container;
    this.#raw = raw;
    // An answer that is cut off in the middle never comes (docker-modem): the end of the output tells, too.
    this.#exited = exited.then(
      ({ StatusCode }) => StatusCode,
      () => undefined,
    );
    this.#silenced = raw.destroyed
      ? Promise.resolve()
      : Promise.race([once(raw, 'end'), once(raw, 'close')]).catch(() => {});
    this.#engine = engine;
  }

  /** Whether what it prints still comes here. */
  get isHeard(): boolean {
    return !this.#raw.destroyed && !this.#raw.readableEnded;
  }

  /** How the first process ended. @throws ContainerLost when nobody can say */
  async exit(): Promise<Exit> {
    const asked = this.#silenced.then(
      async () => await sleep(END_POLL_MS, undefined, { ref: false }),
    );
    let code = await Promise.race([this.#exited, asked]);
    for (;;) {
      const state = await this.#state();
      if (state === undefined && code !== undefined) return { code, oomKilled: false };
      if (state?.Running === false) code ??= state.ExitCode;
      if (code !== undefined && state !== undefined)
        return { code, oomKilled: state.OOMKilled && code === KILLED };
      if (state === undefined)
        throw new ContainerLost(new BridgeError('unavailable', 'somebody removed its container'));
      await sleep(END_POLL_MS);
    }
  }

  /** As the engine sees it; undefined when it does not run, or the engine does not say. */
  async firstProcess(): Promise<FirstProcess | undefined> {
    try {
      const { Id, State } = await this.#container.inspect({ abortSignal: within(ANSWER_MS) });
      return State.Pid > 0 ? { containerId: Id, pid: State.Pid } : undefined;
    } catch {
      return undefined; // whoever follows the container hears of it
    }
  }

  /** SIGTERM, then SIGKILL. Resolves when it is down. @throws ContainerLost when Docker does not get it down */
  async stop(): Promise<void> {
    const options = { t: STOP_GRACE_S, abortSignal: within(ANSWER_MS) };
    await this.#container.stop(options).catch((error: unknown) => {
      const status = statusOf(error);
      if (status !== 304 && status !== 404) throw this.#lost(error); // down already
    });
  }

  /** Undefined: there is no such container. */
  async #state(): Promise<Docker.ContainerInspectInfo['State'] | undefined> {
    try {
      return (await this.#container.inspect({ abortSignal: within(ANSWER_MS) })).State;
    } catch (error) {
      if (statusOf(error) === 404) return undefined;
      throw this.#lost(error);
    }
  }

  #lost(error: unknown): ContainerLost {
    this.#isLost = true;
    return new ContainerLost(this.#engine.sentence(error));
  }

  /** A container that Docker cannot remove now is reaped later; the run's result is not lost for it. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#raw.destroy();
    this.#removed ??= this.#engine.remove(this.#container).catch(() => {});
    if (!this.#isLost) await this.#removed;
  }
}

/** Docker's attach stream without a terminal: { u8 stream (1 = stdout, 2 = stderr), 0, 0, 0, u32be length }, then data. */
async function* demultiplex(raw: AsyncIterable<Buffer>): AsyncIterable<LogChunk> {
  let buffer: Buffer = Buffer.alloc(0);
  for await (const chunk of raw) {
    buffer = buffer.length === 0 ? chunk : Buffer.concat([buffer, chunk]);
    while (buffer.length >= LOG_HEADER_BYTES) {
      const end = LOG_HEADER_BYTES + buffer.readUInt32BE(4);
      if (buffer.length < end) break;
      const stream = buffer[0] === 2 ? 'stderr' : 'stdout';
      yield { stream, data: buffer.subarray(LOG_HEADER_BYTES, end) };
      buffer = buffer.subarray(end);
    }
  }
}

const LOG_HEADER_BYTES = 8;

export const within = (ms: number): AbortSignal => AbortSignal.timeout(ms);

/** For what lasts when it has begun, or cannot be aborted: nobody waits any longer. */
async function orLate<T>(promise: Promise<T>, ms: number): Promise<T> {
  const answered = new AbortController();
  const late = sleep(ms, undefined, { signal: answered.signal, ref: false });
  try {
    return await Promise.race([
      promise,
      late.then(() => {
        throw new DOMException('', 'TimeoutError');
      }),
    ]);
  } finally {
    answered.abort();
  }
}

export function statusOf(error: unknown): number | undefined {
  return error instanceof Error && 'statusCode' in error ? Number(error.statusCode) : undefined;
}

/** Whatever the engine at `socketPath` answered, or did not, in words. */
export function engineError(error: unknown, socketPath: string): BridgeError {
  if (error instanceof BridgeError) return error;
  const code = errnoCode(error);
  const isLate = error instanceof Error && /^(AbortError|TimeoutError)$/.test(error.name);
  if (isLate)
    return new BridgeError('unavailable', `Docker on ${socketPath} does not answer`, {
      cause: error,
    });
  if (code === 'ENOENT' || code === 'ECONNREFUSED' || code === 'EACCES')
    return new BridgeError(
      'unavailable',
      `no Docker engine answers on ${socketPath} (${code}): start it with scripts/setup --only machine`,
      { cause: error },
    );
  const text = error instanceof Error ? error.message : String(error);
  if (/unescaped characters|invalid reference format/.test(text))
    return new BridgeError('invalid', 'this is no name of an image', { cause: error });
  return new BridgeError('unavailable', `Docker: ${text}`, { cause: error });
}
