import { z } from 'zod';
import { ExecutionId } from './names.js';
import { type Operations, Status } from './protocol.js';

/** What the operator's command asks of a mountd about executions that run on its machine, or have ended a short time ago. */

const Count = z.int().min(0);

/** Bytes of each stream, as they were passed on: masked, and without warnings of ours. */
export const Received = z.strictObject({ stdout: Count, stderr: Count });
export type Received = z.infer<typeof Received>;

export const LogsRequest = z.strictObject({
  executionId: ExecutionId,
  /** Until the execution has ended; otherwise what is there now. */
  follow: z.boolean(),
  /** Only this many lines of what is there now, counted over both streams in the order they came. */
  tail: Count.optional(),
  /** Asked for again, after the connection was lost: what came before. Then `tail` does not count. */
  received: Received.optional(),
});
export type LogsRequest = z.infer<typeof LogsRequest>;

export const LogsResult = z.strictObject({
  /** Null while it runs. */
  status: Status.nullable(),
  /** Bytes that were printed and not kept long enough to be pushed here. */
  omitted: Count,
});
export type LogsResult = z.infer<typeof LogsResult>;

/** Pushed on the channel that `logs` was called on, in the order it was printed. */
export const KEPT = 'kept';
export const Kept = z.strictObject({
  /** With what stands here, the reader has had this much. */
  received: Received,
  log: z
    .strictObject({
      stream: z.enum(['stdout', 'stderr']),
      data: z.custom<Uint8Array>((value) => value instanceof Uint8Array, 'expected bytes'),
      /** Milliseconds since the epoch, when mountd read the first of it. */
      at: z.int(),
      /** A warning of ours: it does not count as received output. */
      isWarning: z.literal(true).optional(),
    })
    .optional(),
  /** This many bytes are missing here. */
  omitted: Count.optional(),
});
export type Kept = z.infer<typeof Kept>;

/** What the kernel accounts to an execution's container. A limit that is null is none; a value that is null the kernel has not. */
export const ContainerUsage = z.strictObject({
  /** Bytes, with those of cached files. */
  memory: z.strictObject({ now: Count, peak: Count.nullable(), limit: Count.nullable() }),
  cpu: z.strictObject({
    /** Microseconds of all processors together, since the container started. */
    usedUs: Count,
    /** Processors. */
    limit: z.number().min(0).nullable(),
    /** Periods, of 100 ms each as Docker sets them, in which it had to wait, and how long its threads did. */
    throttledPeriods: Count,
    throttledUs: Count,
  }),
  pids: z.strictObject({ now: Count, limit: Count.nullable() }),
  /** Bytes from and to disks. */
  io: z.strictObject({ read: Count, written: Count }),
  oomKills: Count,
});
export type ContainerUsage = z.infer<typeof ContainerUsage>;

/** Requests of the kernel for an execution's `/cronium`; what its caches answer is none. From 0 again when another process serves. */
export const FileOperations = z.strictObject({
  lookups: Count,
  opens: Count,
  reads: Count,
  writes: Count,
  other: Count,
  /** Of all these: answered with an error, of which "no such file" is one. */
  errors: Count,
  bytesRead: Count,
  bytesWritten: Count,
});
export type FileOperations = z.infer<typeof FileOperations>;

/** Of an execution's files, against its quota. */
export const ScratchUsage = z.strictObject({
  bytes: Count,
  bytesMax: Count,
  inodes: Count,
  inodesMax: Count,
});
export type ScratchUsage = z.infer<typeof ScratchUsage>;

export const ExecutionUsage = z.strictObject({
  executionId: ExecutionId,
  script: z.string(),
  runtime: z.string(),
  startedAt: z.int(),
  /** Milliseconds since the epoch, when the rest was read. */
  at: z.int(),
  /** Null when there is no container yet, or none any more. */
  container: ContainerUsage.nullable(),
  /** Null with a driver that does not count. */
  operations: FileOperations.nullable(),
  scratch: ScratchUsage.nullable(),
});
export type ExecutionUsage = z.infer<typeof ExecutionUsage>;

export const WATCH_OPERATIONS = {
  /** Pushes what the execution has printed. Closing the connection ends this call and nothing else. @throws BridgeError `not_found` */
  logs: { caller: 'any', params: LogsRequest, result: LogsResult },
  /** One reading of what runs, or of one of them. @throws BridgeError `not_found`; `conflict` when that has ended here */
  stats: {
    caller: 'any',
    params: z.strictObject({ executionId: ExecutionId.optional() }),
    result: z.strictObject({ executions: z.array(ExecutionUsage) }),
  },
} as const satisfies Operations;
