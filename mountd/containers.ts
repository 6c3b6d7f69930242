import { constants } from 'node:os';
import type { Readable } from 'node:stream';
import Docker from 'dockerode';
import { BridgeError, errnoCode } from '#bridge/wire/errors.js';

/** SIGTERM, then this long, then SIGKILL: time to flush a file, not to ignore the signal. */
const STOP_GRACE_S = 2;

const MIB = 1024 * 1024;
/** /tmp counts against the container's memory, so it stays well below. */
const TMP_BYTES_MAX = 64 * MIB;
/** Enough for python's multiprocessing; a fork bomb ends here. */
const PIDS_MAX = 128;
const OPEN_FILES_MAX = 1024;

export interface ContainerSpec {
  readonly executionId: string;
  readonly image: string;
  readonly command: readonly string[];
  readonly env: Readonly<Record<string, string>>;
  /** The execution's directory in the mount. */
  readonly croniumSource: string;
  /** A file to stand at /etc/hosts: without a network Docker leaves it empty, and localhost would not resolve. */
  readonly hostsFile: string;
  readonly uid: number;
  readonly gid: number;
  readonly memoryBytes: number;
  readonly cpus: number;
}

export interface Exit {
  readonly code: number;
  readonly oomKilled: boolean;
}

/** The Docker engine of this machine, and the containers of one mountd among all that run there. */
export class Containers {
  readonly #docker: Docker;
  readonly #socketPath: string;
  readonly #instance: string;

  /** `instance` marks our containers, so that two mountds never clean up each other's. */
  constructor(socketPath: string, instance: string) {
    this.#socketPath = socketPath;
    this.#instance = instance;
    this.#docker = new Docker({ socketPath });
  }

  /** @throws BridgeError `unavailable` when no engine answers, `not_found` when it has no such image */
  async assertImage(image: string): Promise<void> {
    try {
      await this.#docker.getImage(image).inspect();
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

  /** Removes what an earlier life of this mountd left behind. Returns how many. */
  async reap(): Promise<number> {
    try {
      const left = await this.#docker.listContainers({
        all: true,
        filters: { label: [`cronium.instance=${this.#instance}`] },
      });
      await Promise.all(left.map(({ Id }) => this.#remove(this.#docker.getContainer(Id))));
      return left.length;
    } catch (error) {
      throw this.#sentence(error);
    }
  }

  /** A started container; `stdout` and `stderr` must be read, or it stops at a full pipe. */
  async start(spec: ContainerSpec): Promise<RunningContainer> {
    let container: Docker.Container | undefined;
    try {
      container = await this.#docker.createContainer(this.#options(spec));
      const logs = await container.attach({ stream: true, stdout: true, stderr: true });
      const exited = container.wait({ condition: 'next-exit' });
      exited.catch(() => {}); // heard where it is awaited
      await container.start();
      return new RunningContainer(container, logs as unknown as Readable, exited, (one) =>
        this.#remove(one),
      );
    } catch (error) {
      if (container !== undefined) await this.#remove(container);
      throw this.#sentence(error);
    }
  }

  #options({ env, memoryBytes, ...spec }: ContainerSpec): Docker.ContainerCreateOptions {
    return {
      name: `cronium-${spec.executionId}`,
      Image: spec.image,
      Cmd: [...spec.command],
      Env: Object.entries(env).map(([name, value]) => `${name}=${value}`),
      User: `${spec.uid}:${spec.gid}`,
      WorkingDir: '/cronium/work',
      Labels: {
        'cronium.managed': '1',
        'cronium.instance': this.#instance,
        'cronium.execution': spec.executionId,
      },
      // Without a network stack to set up, Docker starts the container in half the time.
      NetworkDisabled: true,
      AttachStdout: true,
      AttachStderr: true,
      Tty: false,
      OpenStdin: false,
      HostConfig: {
        NetworkMode: 'none',
        CapDrop: ['ALL'],
        SecurityOpt: ['no-new-privileges:true'],
        ReadonlyRootfs: true,
        Init: true,
        IpcMode: 'private',
        ShmSize: 16 * MIB,
        Memory: memoryBytes,
        MemorySwap: memoryBytes,
        NanoCpus: Math.round(spec.cpus * 1e9),
        PidsLimit: PIDS_MAX,
        OomScoreAdj: 500,
        Ulimits: [
          { Name: 'nofile', Soft: OPEN_FILES_MAX, Hard: OPEN_FILES_MAX },
          { Name: 'core', Soft: 0, Hard: 0 },
        ],
        Tmpfs: {
          '/tmp': `rw,noexec,nosuid,nodev,mode=1777,nr_inodes=4096,size=${Math.min(TMP_BYTES_MAX, memoryBytes >> 1)}`,
        },
        Mounts: [
          { Type: 'bind', Source: spec.hostsFile, Target: '/etc/hosts', ReadOnly: true },
          {
            Type: 'bind',
            Source: spec.croniumSource,
            Target: '/cronium',
            BindOptions: { Propagation: 'rprivate' },
          },
        ],
        LogConfig: { Type: 'none', Config: {} },
      },
    };
  }

  async #remove(container: Docker.Container): Promise<void> {
    await container.remove({ force: true, v: true }).catch((error: unknown) => {
      const status = statusOf(error);
      if (status !== 404 && status !== 409) throw this.#sentence(error); // gone, or going
    });
  }

  #sentence(error: unknown): BridgeError {
    if (error instanceof BridgeError) return error;
    const code = errnoCode(error);
    if (code === 'ENOENT' || code === 'ECONNREFUSED' || code === 'EACCES')
      return new BridgeError(
        'unavailable',
        `no Docker engine answers on ${this.#socketPath} (${code}): start it with scripts/setup --only machine`,
        { cause: error },
      );
    const text = error instanceof Error ? error.message : String(error);
    if (/unescaped characters|invalid reference format/.test(text))
      return new BridgeError('invalid', 'this is no name of an image', { cause: error });
    return new BridgeError('unavailable', `Docker: ${text}`, { cause: error });
  }
}

/** What a container wrote, in the order it wrote. */
export interface LogChunk {
  readonly stream: 'stdout' | 'stderr';
  readonly data: Uint8Array;
}

export class RunningContainer implements AsyncDisposable {
  /** Ends with the container. Reading slowly slows the script down, not reading stops it. */
  readonly logs: AsyncIterable<LogChunk>;
  readonly #container: Docker.Container;
  readonly #raw: Readable;
  readonly #exited: Promise<{ StatusCode: number }>;
  readonly #remove: (container: Docker.Container) => Promise<void>;

  constructor(
    container: Docker.Container,
    raw: Readable,
    exited: Promise<{ StatusCode: number }>,
    remove: (container: Docker.Container) => Promise<void>,
  ) {
    this.logs = demultiplex(raw);
    this.#container = container;
    this.#raw = raw;
    this.#exited = exited;
    this.#remove = remove;
  }

  /** How the first process ended. */
  async exit(): Promise<Exit> {
    const { StatusCode: code } = await this.#exited;
    const { State } = await this.#container.inspect();
    return { code, oomKilled: State.OOMKilled && code === 128 + constants.signals.SIGKILL };
  }

  /** SIGTERM, then SIGKILL. Resolves when it is down. */
  async stop(): Promise<void> {
    await this.#container.stop({ t: STOP_GRACE_S }).catch((error: unknown) => {
      const status = statusOf(error);
      if (status !== 304 && status !== 404) throw error; // down already
    });
  }

  /** A container that Docker cannot remove now is removed at mountd's next start; the run's result is not lost for it. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#raw.destroy();
    await this.#remove(this.#container).catch(() => {});
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

function statusOf(error: unknown): number | undefined {
  return error instanceof Error && 'statusCode' in error ? Number(error.statusCode) : undefined;
}
