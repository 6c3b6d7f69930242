import { randomUUID } from 'node:crypto';
import type { z } from 'zod';
import type { Area } from '#bridge/wire/protocol/credentials.js';
import type { StoreOperations } from '#bridge/wire/protocol/store.js';
import {
  type Caller,
  PROTOCOL_VERSION,
  SERVER_OPERATIONS,
  type ServerOperations,
} from '#bridge/wire/protocol.js';

type Namespace = { readonly user: string } | { readonly org: string };

/** What the example calls are about; all of it exists. */
export interface Subjects {
  readonly namespace: Namespace;
  /** Of a text, a number, an array; of one with an earlier value, at `version`. */
  readonly keys: {
    readonly text: string;
    readonly number: string;
    readonly array: string;
    readonly kept: string;
  };
  readonly version: number;
  /** That runs. */
  readonly executionId: string;
  /** Opens an execution, once. */
  readonly token: string;
}

export type Op = keyof ServerOperations;
export const OPS = Object.keys(SERVER_OPERATIONS) as readonly Op[];
export const callerOf = (op: Op): Caller => SERVER_OPERATIONS[op].caller;

/** SHA-256 in base64url. */
const anyThumbprint = () =>
  Buffer.from(randomUUID().repeat(2)).subarray(0, 32).toString('base64url');

const EVENT = {
  id: 1,
  name: 'test',
  description: null,
  type: 'manual',
  runLocation: 'local',
  createdAt: '',
  updatedAt: '',
  userId: 'ada',
  server: null,
  successCount: 0,
  failureCount: 0,
  lastRunAt: null,
};

const FRIEND = { org: 'friends' };

/** Rows that may be served or not yet, so that this table can come before they do. */
type Rows = ServerOperations & StoreOperations;

/**
 * One call of every operation that succeeds when its caller may make it. An operation without an example does not compile.
 * They can be made again and again, in the order of the protocol's table.
 */
export const EXAMPLES = {
  hello: () => ({ protocol: PROTOCOL_VERSION, software: 'test' }),
  'server.status': () => ({}),

  'execution.create': ({ namespace }) => ({
    user: 'user' in namespace ? namespace.user : 'ada',
    ...('org' in namespace && { org: namespace.org }),
    variablesOf: namespace,
    runtime: 'bash',
    event: EVENT,
    timeoutMs: 60_000,
  }),
  'execution.open': ({ token }) => ({ token }),
  'execution.reopen': ({ executionId }) => ({ executionId }),
  'token.renew': () => ({}),
  'output.set': () => ({ text: '"out"' }),
  'condition.set': () => ({ condition: true }),
  'execution.finish': () => ({
    status: 'succeeded' as const,
    exitCode: 0,
    signal: null,
    warnings: [],
    startedAt: 1,
    finishedAt: 2,
  }),
  'execution.mine': () => ({}),
  // Of none that others need: with what it ends, and what it does not, test/server/lost-executions.test.ts is concerned.
  'execution.lose': () => ({ executionIds: [randomUUID()], reason: 'test' }),
  'execution.get': ({ executionId }) => ({ executionId }),
  'execution.list': () => ({ limit: 10 }),
  'execution.cancel': ({ executionId }) => ({ executionId, reason: 'test' }),

  'cert.revoke': () => ({ thumbprint: anyThumbprint(), reason: 'test' }),
  'cert.revoked': () => ({}),
  'cert.succeed': () => ({ thumbprint: anyThumbprint(), successor: anyThumbprint() }),
  'token.mint': ({ executionId }) => ({
    executionId,
    thumbprint: anyThumbprint(),
    profile: 'local' as const,
    mode: 'rw' as const,
    lifetimeMs: 60_000,
  }),
  'token.list': () => ({}),
  'token.revoke': () => ({ id: randomUUID(), reason: 'test' }),
  'server.reload': () => ({}),

  'variables.commit': ({ keys }) => ({
    set: [[keys.text, '"committed"'] as [string, string]],
    delete: [],
    bases: [],
    commitId: randomUUID(),
  }),
  'variable.get': ({ namespace, keys }) => ({ namespace, key: keys.text }),
  'variable.list': ({ namespace }) => ({ namespace }),
  'variable.set': ({ namespace, keys }) => ({ namespace, key: keys.text, text: '"set"' }),
  'variable.delete': ({ namespace, keys }) => ({ namespace, key: `${keys.text}.gone` }),
  'variable.add': ({ namespace, keys }) => ({ namespace, key: keys.number, by: '1' }),
  'variable.append': ({ namespace, keys }) => ({ namespace, key: keys.array, more: '[1]' }),
  'variable.history': ({ namespace, keys }) => ({ namespace, key: keys.kept }),
  'variable.restore': ({ namespace, keys, version }) => ({ namespace, key: keys.kept, version }),
  'variable.edit': ({ namespace, keys }) => ({
    namespace,
    set: [[keys.text, '"edited"'] as [string, string]],
    delete: [],
  }),
  'policy.set': ({ namespace, keys }) => ({ namespace, key: keys.number, policy: 'add' as const }),
  'policy.list': ({ namespace }) => ({ namespace }),
  'share.set': ({ namespace }) => ({
    namespace,
    share: { with: FRIEND, prefix: 'shared.', access: 'r' as const },
  }),
  'share.remove': ({ namespace }) => ({ namespace, with: FRIEND, prefix: 'shared.' }),
  'share.list': ({ namespace }) => ({ namespace }),

  'quota.get': ({ namespace }) => ({ namespace }),
  'quota.set': ({ namespace }) => ({ namespace, overrides: { variables: 1000 } }),
  'quota.list': () => ({}),

  'audit.read': () => ({ limit: 10, reverse: false }),
  'audit.verify': () => ({ heads: [] }),
  'audit.prune': () => ({ before: 0 }),
  'audit.head': () => ({}),

  'store.verify': () => ({}),
  'store.compact': () => ({}),
  'store.backup': () => ({}),
  'keys.status': () => ({}),
  'keys.rotate': () => ({}),
  'keys.rotate-master': () => ({}),
  'namespace.erase': () => ({ namespace: { user: 'nobody' } }),
} satisfies { readonly [O in keyof Rows]: (subjects: Subjects) => z.input<Rows[O]['params']> };

/** What an execution needs for a call: of what area, and which of its keys. Undefined: nothing but to run. */
export interface Need {
  readonly area: Area;
  readonly want: 'r' | 'w';
}

/** Of the operations that an execution can call. */
export const NEEDS: { readonly [O in Op]?: Need } = {
  'output.set': { area: 'output', want: 'w' },
  'condition.set': { area: 'condition', want: 'w' },
  'variables.commit': { area: 'variables', want: 'w' },
  'variable.get': { area: 'variables', want: 'r' },
  'variable.list': { area: 'variables', want: 'r' },
  'variable.set': { area: 'variables', want: 'w' },
  'variable.delete': { area: 'variables', want: 'w' },
  'variable.add': { area: 'variables', want: 'w' },
  'variable.append': { area: 'variables', want: 'w' },
};
