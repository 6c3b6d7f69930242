import { z } from 'zod';
import { EgressTargets } from './egress.js';
import { CALL_DEADLINE_MS_MAX } from './limits.js';
import { ExecutionId, JsonText, OwnerId } from './names.js';
import { Profile } from './protocol/credentials.js';
import { EventDocument, type Operations, Status } from './protocol.js';

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
    z.string().max(65_536),
  ),
  timeoutMs: z.int().min(1).max(RUN_MS_MAX),
  memoryBytes: z.int().min(6 * 1024 * 1024, 'Docker needs at least 6m of memory'),
  cpus: z.number().min(0.01).max(1024),
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

/**
 * How trees and runs are noted for the process that takes over: another number for every change that an older, or a newer,
 * program would not understand.
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
  executions: z.array(
    z.strictObject({
      executionId: ExecutionId,
      runtime: Runtime,
      startedAt: z.int(),
      script: z.string(),
    }),
  ),
});
export type MountdStatus = z.infer<typeof MountdStatus>;

export const CONTROL_OPERATIONS = {
  /** Ends when the run does. Closing the connection stops the run. */
  run: { caller: 'any', params: RunRequest, result: RunResult },
  status: { caller: 'any', params: z.strictObject({}), result: MountdStatus },
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
