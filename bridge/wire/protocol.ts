import { z } from 'zod';
import { AUDIT_OPERATIONS } from './protocol/audit.js';
import { Nothing, Time, Version } from './protocol/common.js';
import { CREDENTIAL_OPERATIONS } from './protocol/credentials.js';
import { EXECUTION_OPERATIONS } from './protocol/executions.js';
import { QUOTA_OPERATIONS } from './protocol/quotas.js';
import { STORE_OPERATIONS } from './protocol/store.js';
import { VARIABLE_OPERATIONS } from './protocol/variables.js';

export {
  EventDocument,
  EXECUTION_CANCELLED,
  ExecutionCancelled,
  STATUSES,
  Status,
} from './protocol/executions.js';
export {
  Share,
  VARIABLE_TYPES,
  VARIABLES_CHANGED,
  Variable,
  VariableChange,
  VariableDetails,
  VariablesChanged,
  VariableType,
} from './protocol/variables.js';

/** What a link between this version's ends speaks; a peer with another number is refused at `hello`. */
export const PROTOCOL_VERSION = 2;

/**
 * Who may call. `host`, `operator`, `auditor`: who has such a certificate (an operator may what an auditor may). `channel`: a
 * host, on an execution's open channel. `user`: either an execution or an operator. `reader`: those and an auditor.
 */
export type Caller = 'any' | 'host' | 'operator' | 'auditor' | 'channel' | 'user' | 'reader';

export interface Operation {
  readonly caller: Caller;
  readonly params: z.ZodType;
  readonly result: z.ZodType;
}

/** A table of operations one end serves; `PeerCalls` and the handlers on the other end are typed from it. */
export type Operations = Readonly<Record<string, Operation>>;
export type Params<T extends Operations, O extends keyof T> = z.infer<T[O]['params']>;
export type Result<T extends Operations, O extends keyof T> = z.infer<T[O]['result']>;

export const ROLES = ['host', 'operator', 'auditor'] as const;

const CONNECTION_OPERATIONS = {
  hello: {
    caller: 'any',
    params: z.strictObject({ protocol: z.int(), software: z.string().max(128) }),
    result: z.strictObject({
      protocol: z.int(),
      software: z.string(),
      role: z.enum(ROLES),
      name: z.string(),
    }),
  },
  'server.status': {
    caller: 'any',
    params: Nothing,
    result: z.strictObject({
      software: z.string(),
      pid: z.int(),
      startedAt: Time,
      /** How often its supervisor has started it again since `cronium up`. */
      restarts: z.int(),
      connections: z.int(),
      channels: z.int(),
      storeVersion: Version,
      /** Why the store can only be read; empty = it can be written. */
      problems: z.array(z.string()),
    }),
  },
} as const satisfies Operations;

/** Served by the runtime server over TLS. */
export const SERVER_OPERATIONS = {
  ...CONNECTION_OPERATIONS,
  ...EXECUTION_OPERATIONS,
  ...CREDENTIAL_OPERATIONS,
  ...VARIABLE_OPERATIONS,
  ...QUOTA_OPERATIONS,
  ...AUDIT_OPERATIONS,
  ...STORE_OPERATIONS,
} as const satisfies Operations;
export type ServerOperations = typeof SERVER_OPERATIONS;
