import { VARIABLE_OVERHEAD_BYTES } from '#bridge/wire/limits.js';
import { type Namespace, namespaceText, type VariableKey } from '#bridge/wire/names.js';
import type { VariableChange, VariableDetails, VariableType } from '#bridge/wire/protocol.js';
import type { Entry, Key } from '#server/store/store.js';
import { unpackRecord } from './record.js';

/** What an operator or a script says about a variable besides its value; kept until it is said otherwise. */
export interface Attributes {
  readonly type?: VariableType;
  /** JSON Schema, as source text. */
  readonly schema?: string;
  /** Masked in logs, and never listed with its value. */
  readonly secret?: boolean;
  /** Store clock, milliseconds since the epoch: from then on it does not exist. */
  readonly expiresAt?: number;
  readonly metadata?: Readonly<Record<string, string>>;
}

/** `text` null = deleted: the tombstone lets watchers and late-comers see a deletion in version order. */
export interface VariableRecord extends Attributes {
  readonly key: VariableKey;
  readonly text: string | null;
  /** Place in the rendered document: grows with every newly created variable. */
  readonly order: number;
  readonly updatedAt: number;
  /** See Origin.by. */
  readonly by: string;
  /** Versions whose values are kept, oldest first. */
  readonly history?: readonly number[];
}

export interface Versioned {
  readonly record: VariableRecord;
  readonly version: number;
}

export const versioned = ({ value, version }: Entry): Versioned => ({
  record: unpackRecord<VariableRecord>(value),
  version,
});

export const keyOf = (namespace: Namespace, key: VariableKey): Key => [
  'var',
  namespaceText(namespace),
  key,
];

/** A value that was replaced: its record as it stood. */
export const historyKeyOf = (namespace: Namespace, key: VariableKey, version: number): Key => [
  'hist',
  namespaceText(namespace),
  key,
  version,
];

/** Deleted in the commit that ends the execution. */
export const mergesKeyOf = (namespace: Namespace, executionId: string): Key => [
  'merged',
  namespaceText(namespace),
  executionId,
];

export const isLive = ({ text, expiresAt }: VariableRecord, now: number): boolean =>
  text !== null && (expiresAt === undefined || expiresAt > now);

/** What a variable takes in a message; a deleted one takes nothing. */
export function bytesOf(key: string, text: string | null): number {
  if (text === null) return 0;
  return Buffer.byteLength(key) + Buffer.byteLength(text) + VARIABLE_OVERHEAD_BYTES;
}

export const changeOf = ({ record, version }: Versioned): VariableChange => {
  const { key, text, order, updatedAt, secret } = record;
  return { key, text, order, updatedAt, version, ...(secret === true && { secret }) };
};

export const detailsOf = ({ record, version }: Versioned): VariableDetails => {
  const { history: _, by, type, schema, expiresAt, metadata } = record;
  return {
    ...changeOf({ record, version }),
    by,
    ...(type !== undefined && { type }),
    ...(schema !== undefined && { schema }),
    ...(expiresAt !== undefined && { expiresAt }),
    ...(metadata !== undefined && { metadata }),
  };
};

export function withoutHistory(record: VariableRecord): Omit<VariableRecord, 'history'> {
  const kept: { history?: unknown } & Omit<VariableRecord, 'history'> = { ...record };
  delete kept.history;
  return kept;
}

/** Some are undefined. */
export const attributesOf = ({ type, schema, secret, expiresAt, metadata }: VariableRecord) => ({
  type,
  schema,
  secret,
  expiresAt,
  metadata,
});

/** Without the members that are undefined: MessagePack has no such thing. */
export function defined<T extends object>(record: T): { [K in keyof T]: Exclude<T[K], undefined> } {
  return Object.fromEntries(Object.entries(record).filter(([, value]) => value !== undefined)) as {
    [K in keyof T]: Exclude<T[K], undefined>;
  };
}
