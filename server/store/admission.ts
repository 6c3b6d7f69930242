import { BridgeError } from '#bridge/wire/errors.js';
import { encodeKey, keyOfOp } from './key-bytes.js';
import { COMMIT_ID_LENGTH_MAX, type Commit, type Key, type Limits, type Op } from './store.js';

/** A key in the forms a store needs: as given, as bytes, and as a string that maps can hold. */
export interface EncodedKey {
  readonly key: Key;
  readonly bytes: Buffer;
  readonly name: string;
}

export interface Admitted {
  readonly checks: readonly (EncodedKey & { readonly version: number })[];
  /** One a key: of several the last. */
  readonly ops: readonly (EncodedKey & { readonly op: Op })[];
  /** Of keys, values and checks. */
  readonly bytes: number;
}

export function encoded(key: Key): EncodedKey {
  const bytes = encodeKey(key);
  return { key, bytes, name: bytes.toString('latin1') };
}

/**
 * Refuses a commit that no store could take, before it shares a group with others.
 * @throws BridgeError `too_large` over the limits, `internal` for a key that cannot be encoded, `invalid` for an id
 */
export function admit({ checks = [], ops, id }: Commit, limits: Limits): Admitted {
  if (id !== undefined && (id === '' || id.length > COMMIT_ID_LENGTH_MAX))
    throw new BridgeError('invalid', `a commit id has 1-${COMMIT_ID_LENGTH_MAX} characters`);
  const count = ops.length + checks.length;
  if (count > limits.commitOpsMax)
    throw tooLarge(`a commit of ${count} operations`, limits.commitOpsMax);
  const admitted = {
    checks: checks.map(({ key, version }) => ({ ...encoded(key), version })),
    ops: encodedOps(ops),
  };
  let bytes = 0;
  for (const check of admitted.checks) bytes += check.bytes.length;
  for (const { op, bytes: key } of admitted.ops) {
    bytes += key.length;
    if (!('put' in op)) continue;
    const { byteLength } = op.value;
    if (byteLength > limits.valueBytesMax)
      throw tooLarge(`a stored value of ${byteLength} bytes`, limits.valueBytesMax);
    bytes += byteLength;
  }
  if (bytes > limits.commitBytesMax)
    throw tooLarge(`a commit of ${bytes} bytes`, limits.commitBytesMax);
  return { ...admitted, bytes };
}

/** Of several ops for one key only the last, in the order of the keys' first ops. */
export function encodedOps(ops: readonly Op[]): Admitted['ops'] {
  const all = ops.map((op) => ({ ...encoded(keyOfOp(op)), op }));
  if (all.length < 2) return all;
  const last = new Map<string, (typeof all)[number]>();
  for (const one of all) last.set(one.name, one);
  return [...last.values()];
}

const tooLarge = (what: string, most: number) =>
  new BridgeError('too_large', `${what}; at most ${most} are possible`);
