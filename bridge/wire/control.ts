import { z } from 'zod';
import { EgressTargets } from './egress.js';
import { CALL_DEADLINE_MS_MAX } from './limits.js';
import { ExecutionId, JsonText, OwnerId } from './names.js';
import { Profile } from './protocol/credentials.js';
import { EventDocument, type Operations, Status } from './protocol.js';
import { WATCH_OPERATIONS } from './watch.js';

/** What the operator's command asks of the mountd on its machine, over a unix socket only root can open. */

export const RUNTIMES = ['bash', 'python', 'node'] as const;
export const Runtime = z.enum(RUNTIMES);
export type RuntimeName = z.infer<typeof Runtime>;

/** How the mount is connected with the kernel; docs/drivers.md compares them. */
export const DRIVERS = ['kernel', 'fuse-native'] as const;
export const DriverName = z.enum(DRIVERS);
export type DriverName = z.infer<typeof DriverName>;

/** Starting, stopping and storing a run's result take their time beyond its own limit. */
export const RUN_OVERHEAD_MS = 120_000;
export const RUN_MS_MAX = CALL_DEADLINE_MS_MAX - RUN_OVERHEAD_MS;

const Bytes = z.custom<Uint8Array>((value) => value instanceof Uint8Array, 'expected bytes');

/** Names the container sets itself, or that would reach into the launch. */
const RESERVED_ENV =
  /^(PATH|HOSTNAME|TINI_.*|HOME|LANG|TZ|TMPDIR|BASH_ENV|PYTHONPATH|NODE_OPTIONS|LD_.*)$/;

/** What a script may print unless its run says otherwise: more is a loop that nobody reads. */
export const LOG_BYTES_MAX = 1024 ** 3;

export const RunRequest = z.strictObject({
  /** Chosen by whoever asks: asked for again, after mountd's serving process has died, it is the same run. */
  executionId: ExecutionId.optional(),
  /** Asked for again: bytes of its output that were received. */
  received: z.strictObject({ stdout: z.int().min(0), stderr: z.int().min(0) }).optional(),
  script: z.strictObject({ name: z.string().max(4096), data: Bytes }),
  runtime: Runtime,
  image: z.string().max(512).optional(),
  input: JsonText,
  event: EventDocument.partial(),
  user: OwnerId,
  org: OwnerId.optional(),
  /** Whose variables stand in variables.json. */
  variablesOf: z.enum(['user', 'org']),
  env: z.record(
    z
      .string()
      .regex(/^[A-Za-z_][A-Za-z0-9_]*$/, 'use letters, digits and "_" for an environment variable')
      .refine((name) => !RESERVED_ENV.test(name), 'this variable is set by the bridge'),
    z
      .string()
      .max(65_536)
      .refine((value) => !value.includes('\0'), 'an environment variable cannot hold a NUL'),
  ),
  timeoutMs: z.int().min(1).max(RUN_MS_MAX),
  memoryBytes: z.int().min(6 * 1024 * 1024, 'Docker needs at least 6m of memory'),
  cpus: z.number().min(0.01).max(1024),
  /** What the script may print, on both streams together; default LOG_BYTES_MAX. */
  logBytesMax: z.int().min(1).optional(),
  commit: z.enum(['live', 'on-success']),
  exact: z.boolean(),
  /** A close(2) of what is no valid document fails. */
  strict: z.boolean(),
  /** Default `local`. */
  profile: Profile.optional(),
  /** Every write to the server is refused. */
  readOnly: z.boolean().optional(),
  /** All that the script may connect to; default nothing: it has no network. */
  egress: EgressTargets.optional(),
});
export type RunRequest = z.infer<typeof RunRequest>;

/** Everything about a finished run but its logs, which are pushed while it goes on. */
export const RunResult = z.strictObject({
  executionId: ExecutionId,
  status: Status,
  exitCode: z.int().nullable(),
  signal: z.string().nullable(),
  /** JSON source texts. */
  output: z.string().nullable(),
  condition: z.boolean().nullable(),
  variables: z.strictObject({
    set: z.array(z.tuple([z.string(), z.string()])),
    /** Keys that were set and are secret: their values are not told. */
    secrets: z.array(z.string()),
    deleted: z.array(z.string()),
  }),
  warnings: z.array(z.string()),
  startedAt: z.int(),
  finishedAt: z.int(),
});
export type RunResult = z.infer<typeof RunResult>;

/** A file directly in the script's directory. */
const FileName = z
  .string()
  .regex(/^[^/\0]{1,255}$/, 'use a plain file name, without "/", of at most 255 bytes')
  .refine((name) => Buffer.byteLength(name) <= 255, 'use a file name of at most 255 bytes')
  .refine((name) => name !== '.' && name !== '..', '"." and ".." are not file names');

/** An execution whose container is started by somebody else, on a volume: docs/operations.md, "Docker volumes". */
export const PrepareRequest = RunRequest.pick({
  input: true,
  event: true,
  user: true,
  org: true,
  variablesOf: true,
  /** Until it must be finished. */
  timeoutMs: true,
  /** Only told to whoever starts the container. */
  memoryBytes: true,
  cpus: true,
  commit: true,
  strict: true,
  profile: true,
  readOnly: true,
}).extend({
  /** Asked for again, it is the same execution. */
  executionId: ExecutionId,
  /** Whose helper is put into the script's directory; none without it. */
  runtime: Runtime.optional(),
  /** Put into the script's directory. */
  script: z.strictObject({ name: FileName, data: Bytes }).optional(),
});
export type PrepareRequest = z.infer<typeof PrepareRequest>;

/** What a container needs to run on a prepared execution. */
export const Prepared = z.strictObject({
  executionId: ExecutionId,
  volume: z.strictObject({ driver: z.string(), source: z.string(), target: z.string() }),
  /** `uid:gid` */
  user: z.string(),
  workdir: z.string(),
  env: z.record(z.string(), z.string()),
  /** The above, as arguments of `docker run`. */
  dockerArgs: z.array(z.string()),
  /** What `cronium run` restricts a container with, as far as arguments of `docker run` can say it. */
  hardeningArgs: z.array(z.string()),
});
export type Prepared = z.infer<typeof Prepared>;

export const FinishRequest = z.strictObject({
  executionId: ExecutionId,
  /** Null: the container never ran, or nobody knows how it ended. */
  exitCode: z.int().min(0).max(255).nullable(),
  /** Stands among the warnings. */
  reason: z.string().max(1024).optional(),
  /** Even if a container still has it mounted, which is cut off then. */
  force: z.boolean(),
});
export type FinishRequest = z.infer<typeof FinishRequest>;

/**
 * How trees, runs and prepared executions are noted for the process that takes over: another number for every change that an
 * older, or a newer, program would not understand.
 */
export const JOURNAL_FORMAT = 2;

export const MountdStatus = z.strictObject({
  software: z.string(),
  /** Absent where nobody could take over. */
  journalFormat: z.int().optional(),
  pid: z.int(),
  startedAt: z.int(),
  mount: z.string(),
  driver: DriverName,
  link: z.strictObject({
    connected: z.boolean(),
    since: z.int(),
    problem: z.string().optional(),
  }),
  /** Containers that wait for a script. */
  waiting: z.int().optional(),
  executions: z.array(
    z.strictObject({
      executionId: ExecutionId,
      runtime: Runtime,
      startedAt: z.int(),
      script: z.string(),
      /** Docker's name for it, once it is known. */
      containerName: z.string().optional(),
    }),
  ),
  /** Those whose containers are somebody else's. */
  prepared: z
    .array(
      z.strictObject({
        executionId: ExecutionId,
        runtime: Runtime.optional(),
        createdAt: z.int(),
        /** When it is ended if nobody has finished it. */
        expiresAt: z.int(),
        isMounted: z.boolean(),
      }),
    )
    .optional(),
});
export type MountdStatus = z.infer<typeof MountdStatus>;

export const CONTROL_OPERATIONS = {
  /** Ends when the run does. Closing the connection stops the run. */
  run: { caller: 'any', params: RunRequest, result: RunResult },
  /** Makes an execution and its files, for a container that somebody else starts. @throws BridgeError `conflict` without a plugin */
  create: { caller: 'any', params: PrepareRequest, result: Prepared },
  /**
   * Ends a prepared execution, once no container has it mounted. Asked for again within a minute, the answer is the same.
   * @throws BridgeError `busy` when one still has, `not_found`
   */
  finish: { caller: 'any', params: FinishRequest, result: RunResult },
  status: { caller: 'any', params: z.strictObject({}), result: MountdStatus },
  ...WATCH_OPERATIONS,
  /**
   * Hands the mount, and everything that runs, over to the program at `supervisor`, which reads journals of `journalFormat`. Only
   * root can ask. @throws BridgeError `conflict` before anything has changed
   */
  upgrade: {
    caller: 'any',
    params: z.strictObject({
      supervisor: z.string(),
      config: z.string(),
      journalFormat: z.int(),
    }),
    result: z.strictObject({}),
  },
} as const satisfies Operations;
export type ControlOperations = typeof CONTROL_OPERATIONS;

/** Pushed on the channel the run was called on, before any of its logs: from now on the server knows it. */
export const CREATED = 'created';
export const Created = z.strictObject({ executionId: ExecutionId });

/**
 * Pushed on the channel the run was called on, in the order the container wrote; but what may be the beginning of a secret waits
 * for the rest of its stream.
 */
export const LOG = 'log';
export const Log = z.strictObject({
  stream: z.enum(['stdout', 'stderr']),
  data: Bytes,
  /** A warning of ours: it does not count as received output. */
  isWarning: z.literal(true).optional(),
});
export type Log = z.infer<typeof Log>;
