import { z } from 'zod';
import { COMMIT_MEMBERS_MAX, VALUE_BYTES_MAX } from './limits.js';
import { MERGE_POLICIES } from './merge-policy.js';
import { ExecutionId, JsonText, Namespace, OwnerId, VariableKey } from './names.js';

/** What a link between this version's ends speaks; a peer with another number is refused at `hello`. */
export const PROTOCOL_VERSION = 1;

/** Who may call: a host (mountd), an operator (the CLI), either, or a host on an execution's open channel. */
export type Caller = 'any' | 'host' | 'operator' | 'channel';

export interface Operation {
  readonly caller: Caller;
  readonly params: z.ZodType;
  readonly result: z.ZodType;
}

/** A table of operations one end serves; `PeerCalls` and the handlers on the other end are typed from it. */
export type Operations = Readonly<Record<string, Operation>>;
export type Params<T extends Operations, O extends keyof T> = z.infer<T[O]['params']>;
export type Result<T extends Operations, O extends keyof T> = z.infer<T[O]['result']>;

/** Server clock, milliseconds since the epoch. */
const Time = z.int();
const Nothing = z.strictObject({});
const Version = z.int().min(0);

/** A variable as a client keeps it: `version` is that of the commit that wrote it, `order` its place in the document. */
export const Variable = z.strictObject({
  key: VariableKey,
  text: z.string(),
  version: Version,
  order: z.number(),
  updatedAt: Time,
});
export type Variable = z.infer<typeof Variable>;

/** A change to one variable; `text` null = deleted. The higher version wins, in whatever order changes arrive. */
export const VariableChange = z.strictObject({ ...Variable.shape, text: z.string().nullable() });
export type VariableChange = z.infer<typeof VariableChange>;

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

export const STATUSES = ['succeeded', 'failed', 'timed-out', 'killed', 'oom'] as const;
export const Status = z.enum(STATUSES);
export type Status = z.infer<typeof Status>;

const Edit = {
  set: z.array(z.tuple([VariableKey, JsonText])).max(COMMIT_MEMBERS_MAX),
  delete: z.array(VariableKey).max(COMMIT_MEMBERS_MAX),
};

/** `lifetimeMs` says the same as `expiresAt`, for a host whose clock differs from the server's. */
const Token = { token: z.string(), expiresAt: Time, lifetimeMs: z.int() };

/** Served by the runtime server over TLS. */
export const SERVER_OPERATIONS = {
  hello: {
    caller: 'any',
    params: z.strictObject({ protocol: z.int(), software: z.string().max(128) }),
    result: z.strictObject({
      protocol: z.int(),
      software: z.string(),
      role: z.enum(['host', 'operator']),
      name: z.string(),
    }),
  },
  'server.status': {
    caller: 'any',
    params: Nothing,
    result: z.strictObject({
      software: z.string(),
      startedAt: Time,
      connections: z.int(),
      channels: z.int(),
      storeVersion: Version,
    }),
  },
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
  'token.renew': {
    caller: 'channel',
    params: Nothing,
    result: z.strictObject(Token),
  },
  'variables.commit': {
    caller: 'channel',
    params: z.strictObject({
      ...Edit,
      /**
       * What the writer had read of those keys it sets that it knows to have a merge policy; null = there was none. A key that
       * is not here is not merged: the policy came after the execution had begun.
       */
      bases: z
        .array(z.tuple([VariableKey, z.string().max(VALUE_BYTES_MAX).nullable()]))
        .max(COMMIT_MEMBERS_MAX),
      /** The same when the call is made again after a lost connection: what is merged is then merged once. */
      commitId: z.uuid(),
    }),
    result: z.strictObject({ version: Version, changes: z.array(VariableChange) }),
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
  'variable.get': {
    caller: 'operator',
    params: z.strictObject({ namespace: Namespace, key: VariableKey }),
    result: Variable,
  },
  'variable.list': {
    caller: 'operator',
    params: z.strictObject({ namespace: Namespace }),
    result: z.strictObject({ variables: z.array(Variable) }),
  },
  'variable.edit': {
    caller: 'operator',
    params: z.strictObject({ namespace: Namespace, ...Edit }),
    result: z.strictObject({ version: Version, changes: z.array(VariableChange) }),
  },
  /** How commits of executions are merged into a variable, whether it exists or not. */
  'policy.set': {
    caller: 'operator',
    params: z.strictObject({
      namespace: Namespace,
      key: VariableKey,
      policy: z.enum(MERGE_POLICIES),
    }),
    result: Nothing,
  },
  /** Those that are not `last`. */
  'policy.list': {
    caller: 'operator',
    params: z.strictObject({ namespace: Namespace }),
    result: z.strictObject({
      policies: z.array(z.tuple([VariableKey, z.enum(MERGE_POLICIES)])),
    }),
  },
} as const satisfies Operations;
export type ServerOperations = typeof SERVER_OPERATIONS;

/** Pushed by the server to every other channel of the namespace. */
export const VARIABLES_CHANGED = 'variables.changed';
export const VariablesChanged = z.strictObject({ changes: z.array(VariableChange) });
