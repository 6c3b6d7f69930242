import { z } from 'zod';
import { ExecutionId, JsonText, Namespace, OwnerId, VariableKey } from '../names.js';
import type { Operations } from '../protocol.js';
import { Nothing, Time } from './common.js';
import { Profile } from './credentials.js';
import { Variable } from './variables.js';

/** event.json, keys in this order: legacy-contract.md. */
export const EventDocument = z.strictObject({
  id: z.union([z.int(), z.string().max(256)]),
  name: z.string().max(1024),
  description: z.string().max(65536).nullable(),
  type: z.string().max(64),
  runLocation: z.string().max(64),
  createdAt: z.string().max(64),
  updatedAt: z.string().max(64),
  userId: z.union([z.int(), z.string().max(256)]),
  server: z
    .strictObject({
      id: z.union([z.int(), z.string().max(256)]),
      name: z.string().max(1024),
      address: z.string().max(1024),
    })
    .nullable(),
  successCount: z.int().min(0),
  failureCount: z.int().min(0),
  lastRunAt: z.string().max(64).nullable(),
});
export type EventDocument = z.infer<typeof EventDocument>;

/**
 * `disk-full`: it failed, and a write had been refused for want of room. `lost`: nobody can say how it ended, or whether the
 * script did; what it committed is kept.
 */
export const STATUSES = [
  'succeeded',
  'failed',
  'timed-out',
  'killed',
  'oom',
  'disk-full',
  'lost',
] as const;
export const Status = z.enum(STATUSES);
export type Status = z.infer<typeof Status>;

/** Which of the machines that share a certificate's name it is: chosen by mountd, once for each state directory. */
export const Instance = z
  .string()
  .regex(/^[A-Za-z0-9._-]{1,64}$/, 'use 1-64 letters, digits, ".", "_" or "-" for an instance');

/** Of one `execution.lose`: a commit each. */
export const LOST_MAX = 1000;

/** Of one `execution.mine`: twice the channels of a connection, so that among them are some that do not run. */
export const MINE_MAX = 20_000;

/** `lifetimeMs` says the same as `expiresAt`, for a host whose clock differs from the server's. */
const Token = { token: z.string(), expiresAt: Time, lifetimeMs: z.int() };

export const EXECUTION_OPERATIONS = {
  'execution.create': {
    caller: 'host',
    params: z
      .strictObject({
        user: OwnerId,
        org: OwnerId.optional(),
        variablesOf: Namespace,
        runtime: z.string().max(64),
        event: EventDocument,
        timeoutMs: z.int().min(1),
        /** Chosen by the host, so that a creation asked for again is the same; else the server chooses. */
        executionId: ExecutionId.optional(),
        instance: Instance.optional(),
        /** Default `local`. */
        profile: Profile.optional(),
        /** Every write is refused. */
        readOnly: z.boolean().optional(),
      })
      .refine(
        ({ user, org, variablesOf: of }) => ('user' in of ? of.user === user : of.org === org),
        'variablesOf must be the user or the organisation of the execution',
      ),
    result: z.strictObject({ executionId: ExecutionId, ...Token }),
  },
  /** Verifies the token once; every later call names the channel instead. */
  'execution.open': {
    caller: 'host',
    params: z.strictObject({ token: z.string().max(8192) }),
    result: z.strictObject({
      executionId: ExecutionId,
      channel: z.int().min(1),
      expiresAt: Time,
      variables: z.array(Variable),
      /** Keys with a merge policy, whether they exist or not. */
      merged: z.array(VariableKey),
    }),
  },
  /**
   * A new token for an execution that runs, to the host that created it: for one whose token has expired while the server was
   * out of reach. It is opened as any other.
   */
  'execution.reopen': {
    caller: 'host',
    params: z.strictObject({ executionId: ExecutionId }),
    result: z.strictObject({ executionId: ExecutionId, ...Token }),
  },
  'token.renew': {
    caller: 'channel',
    params: Nothing,
    result: z.strictObject(Token),
  },
  /** Null = there is none (any more). */
  'output.set': {
    caller: 'channel',
    params: z.strictObject({ text: JsonText.nullable() }),
    result: Nothing,
  },
  'condition.set': {
    caller: 'channel',
    params: z.strictObject({ condition: z.boolean().nullable() }),
    result: Nothing,
  },
  'execution.finish': {
    caller: 'channel',
    params: z.strictObject({
      status: Status,
      exitCode: z.int().nullable(),
      signal: z.string().max(16).nullable(),
      warnings: z.array(z.string().max(8192)).max(1000),
      /** What output.json held when it was not JSON: kept with the execution. */
      rawOutput: z.string().optional(),
      startedAt: Time,
      finishedAt: Time,
    }),
    result: Nothing,
  },
  /** The caller's own that have not ended: created under its name, by this instance. At most MINE_MAX of them. */
  'execution.mine': {
    caller: 'host',
    params: z.strictObject({ instance: Instance.optional() }),
    result: z.strictObject({ executionIds: z.array(ExecutionId) }),
  },
  /** Ends them as `lost`. Those that have ended, or are not the caller's own, stay as they are, and nothing is said of it. */
  'execution.lose': {
    caller: 'host',
    params: z.strictObject({
      executionIds: z.array(ExecutionId).min(1).max(LOST_MAX),
      instance: Instance.optional(),
      reason: z.string().max(1024),
    }),
    result: Nothing,
  },
  'execution.get': {
    caller: 'operator',
    params: z.strictObject({ executionId: ExecutionId }),
    result: z.strictObject({
      executionId: ExecutionId,
      record: z.record(z.string(), z.unknown()),
      output: z.string().nullable(),
      condition: z.boolean().nullable(),
    }),
  },
  /** Newest first. */
  'execution.list': {
    caller: 'auditor',
    params: z.strictObject({
      namespace: Namespace.optional(),
      /** Those that have not ended. */
      running: z.boolean().optional(),
      limit: z.int().min(1).max(1000),
      /** Only older ones: `createdAt` of the last one seen. */
      before: Time.optional(),
    }),
    result: z.strictObject({
      executions: z.array(
        z.strictObject({
          executionId: ExecutionId,
          namespace: Namespace,
          name: z.string(),
          runtime: z.string(),
          host: z.string(),
          createdAt: Time,
          /** `running` until the host has told how it ended. */
          status: z.union([Status, z.literal('running')]),
          finishedAt: Time.nullable(),
        }),
      ),
    }),
  },
  /** Asks the host to stop it; its status becomes `killed`. `force`: it ends at once, as `lost`, whatever the host does. */
  'execution.cancel': {
    caller: 'operator',
    params: z.strictObject({
      executionId: ExecutionId,
      reason: z.string().max(1024),
      force: z.boolean().optional(),
    }),
    result: Nothing,
  },
} as const satisfies Operations;

/** Pushed on an execution's channel: an operator wants it stopped. */
export const EXECUTION_CANCELLED = 'execution.cancelled';
export const ExecutionCancelled = z.strictObject({ reason: z.string() });
