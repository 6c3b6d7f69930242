import { z } from 'zod';
import { NAMESPACE_BYTES_MAX, VARIABLE_OVERHEAD_BYTES } from '../limits.js';
import { Namespace } from '../names.js';
import type { Operations } from '../protocol.js';

/** What a namespace may have: variables, their bytes, executions that run, channels of executions that are open. */
export const QUOTA_KINDS = ['variables', 'bytes', 'executions', 'connections'] as const;
export type QuotaKind = (typeof QUOTA_KINDS)[number];

/** The most an operator can allow. More bytes could not be given to an execution when it starts: that is one message. */
export const QUOTA_CEILINGS: Readonly<Record<QuotaKind, number>> = {
  variables: Math.floor(NAMESPACE_BYTES_MAX / VARIABLE_OVERHEAD_BYTES),
  bytes: NAMESPACE_BYTES_MAX,
  executions: 1_000_000,
  connections: 1_000_000,
};

/** 0 is a limit too: a namespace that may have nothing more. */
const allowed = (kind: QuotaKind) => z.int().min(0).max(QUOTA_CEILINGS[kind]);

export const QuotaLimits = z.strictObject({
  variables: allowed('variables'),
  bytes: allowed('bytes'),
  executions: allowed('executions'),
  connections: allowed('connections'),
});
export type QuotaLimits = z.infer<typeof QuotaLimits>;

/** Those that differ from the defaults. */
export const QuotaOverrides = QuotaLimits.partial();
export type QuotaOverrides = z.infer<typeof QuotaOverrides>;

const count = z.int().min(0);
export const QuotaUsage = z.strictObject({
  variables: count,
  bytes: count,
  executions: count,
  connections: count,
});
export type QuotaUsage = z.infer<typeof QuotaUsage>;

/** Served by the runtime server; rows of SERVER_OPERATIONS. */
export const QUOTA_OPERATIONS = {
  'quota.get': {
    caller: 'operator',
    params: z.strictObject({ namespace: Namespace }),
    result: z.strictObject({ limits: QuotaLimits, overrides: QuotaOverrides, usage: QuotaUsage }),
  },
  /** What is not named stays; null = everything by default again. */
  'quota.set': {
    caller: 'operator',
    params: z.strictObject({ namespace: Namespace, overrides: QuotaOverrides.nullable() }),
    result: z.strictObject({ limits: QuotaLimits, overrides: QuotaOverrides }),
  },
  /** Namespaces with limits of their own. */
  'quota.list': {
    caller: 'operator',
    params: z.strictObject({}),
    result: z.strictObject({
      defaults: QuotaLimits,
      namespaces: z.array(z.strictObject({ namespace: Namespace, overrides: QuotaOverrides })),
    }),
  },
} as const satisfies Operations;
export type QuotaOperations = typeof QUOTA_OPERATIONS;
