import { z } from 'zod';
import { COMMIT_MEMBERS_MAX, KEY_BYTES_MAX, VALUE_BYTES_MAX } from '../limits.js';
import { MERGE_POLICIES } from '../merge-policy.js';
import { JsonText, Namespace, VariableKey } from '../names.js';
import type { Operations } from '../protocol.js';
import { CommitId, Edit, Nothing, Time, Version } from './common.js';

/** A variable as a client keeps it: `version` is that of the commit that wrote it, `order` its place in the document. */
export const Variable = z.strictObject({
  key: VariableKey,
  text: z.string(),
  version: Version,
  order: z.number(),
  updatedAt: Time,
  /** Its value must not be shown: not in a log, not in a list. */
  secret: z.literal(true).optional(),
});
export type Variable = z.infer<typeof Variable>;

/** A change to one variable; `text` null = deleted. The higher version wins, in whatever order changes arrive. */
export const VariableChange = z.strictObject({ ...Variable.shape, text: z.string().nullable() });
export type VariableChange = z.infer<typeof VariableChange>;

export const VARIABLE_TYPES = ['string', 'number', 'boolean', 'object', 'array', 'bytes'] as const;
export const VariableType = z.enum(VARIABLE_TYPES);
export type VariableType = z.infer<typeof VariableType>;

/** Labels: few and short, since they travel with the variable. */
const Metadata = z
  .record(z.string().min(1).max(64), z.string().max(1024))
  .refine((all) => Object.keys(all).length <= 32, 'at most 32 labels');

/** Everything about a variable. `text` is null when it is secret and nobody asked to reveal it. */
export const VariableDetails = z.strictObject({
  ...VariableChange.shape,
  by: z.string(),
  type: VariableType.optional(),
  schema: z.string().optional(),
  expiresAt: Time.optional(),
  metadata: Metadata.optional(),
});
export type VariableDetails = z.infer<typeof VariableDetails>;

/** Whose variables: for an execution its own namespace unless it says another, which must be shared with it. */
const Of = { namespace: Namespace.optional() };
const One = { ...Of, key: VariableKey };
const Changes = z.strictObject({ version: Version, changes: z.array(VariableChange) });

export const SHARED = ['r', 'rw'] as const;
/** Whose executions may use which keys of a namespace, and how. */
export const Share = z.strictObject({
  with: Namespace,
  /** Keys that begin so; empty = all. */
  prefix: z.string().max(KEY_BYTES_MAX),
  access: z.enum(SHARED),
});
export type Share = z.infer<typeof Share>;

/** Served by the runtime server: variables, how they are merged, and with whom they are shared. */
export const VARIABLE_OPERATIONS = {
  /** What a legacy document changed, in one commit. */
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
      commitId: CommitId,
    }),
    result: Changes,
  },
  'variable.get': {
    caller: 'user',
    params: z.strictObject({ ...One, reveal: z.boolean().optional() }),
    result: VariableDetails,
  },
  /** Of secret ones an operator sees no value. */
  'variable.list': {
    caller: 'reader',
    params: z.strictObject({ ...Of, prefix: z.string().max(KEY_BYTES_MAX).optional() }),
    result: z.strictObject({ variables: z.array(VariableChange) }),
  },
  'variable.set': {
    caller: 'user',
    params: z.strictObject({
      ...One,
      text: JsonText,
      /** Compare and set: only if the variable is at this version; 0 = only if there is none. */
      ifVersion: Version.optional(),
      commitId: CommitId.optional(),
      /** What is not given stays; null takes it away. */
      type: VariableType.nullable().optional(),
      schema: JsonText.nullable().optional(),
      secret: z.boolean().optional(),
      expiresAt: Time.nullable().optional(),
      metadata: Metadata.nullable().optional(),
    }),
    result: z.strictObject({ version: Version }),
  },
  'variable.delete': {
    caller: 'user',
    params: z.strictObject({
      ...One,
      ifVersion: Version.optional(),
      commitId: CommitId.optional(),
    }),
    result: z.strictObject({ version: Version }),
  },
  /** `by`: a JSON number, exact to the last digit. */
  'variable.add': {
    caller: 'user',
    params: z.strictObject({ ...One, by: JsonText, commitId: CommitId.optional() }),
    result: z.strictObject({ version: Version, text: z.string() }),
  },
  /** Elements to an array, or text to a string. */
  'variable.append': {
    caller: 'user',
    params: z.strictObject({ ...One, more: JsonText, commitId: CommitId.optional() }),
    result: z.strictObject({ version: Version }),
  },
  /** Earlier values, newest first. */
  'variable.history': {
    caller: 'operator',
    params: z.strictObject({
      namespace: Namespace,
      key: VariableKey,
      reveal: z.boolean().optional(),
    }),
    result: z.strictObject({
      entries: z.array(
        z.strictObject({
          version: Version,
          text: z.string().nullable(),
          updatedAt: Time,
          by: z.string(),
        }),
      ),
    }),
  },
  'variable.restore': {
    caller: 'operator',
    params: z.strictObject({
      namespace: Namespace,
      key: VariableKey,
      version: Version,
      commitId: CommitId.optional(),
    }),
    result: z.strictObject({ version: Version }),
  },
  'variable.edit': {
    caller: 'operator',
    params: z.strictObject({ namespace: Namespace, ...Edit, commitId: CommitId.optional() }),
    result: Changes,
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
    caller: 'auditor',
    params: z.strictObject({ namespace: Namespace }),
    result: z.strictObject({
      policies: z.array(z.tuple([VariableKey, z.enum(MERGE_POLICIES)])),
    }),
  },
  /** Replaces what was shared with the same namespace under the same prefix. */
  'share.set': {
    caller: 'operator',
    params: z.strictObject({ namespace: Namespace, share: Share }),
    result: Nothing,
  },
  'share.remove': {
    caller: 'operator',
    params: z.strictObject({
      namespace: Namespace,
      with: Namespace,
      prefix: z.string().max(KEY_BYTES_MAX),
    }),
    result: Nothing,
  },
  'share.list': {
    caller: 'auditor',
    params: z.strictObject({ namespace: Namespace }),
    result: z.strictObject({ shares: z.array(Share) }),
  },
} as const satisfies Operations;

/** Pushed by the server to every other channel of the namespace. */
export const VARIABLES_CHANGED = 'variables.changed';
export const VariablesChanged = z.strictObject({ changes: z.array(VariableChange) });
