import { BridgeError } from '#bridge/wire/errors.js';
import { encodeKey, keyOfOp } from './key-bytes.js';
import { COMMIT_ID_LENGTH_MAX, type Commit, type Limits } from './store.js';

/**
 * Refuses a commit that no store could take, before it shares a group with others.
 * @throws BridgeError `too_large` over the limits, `internal` for a key that cannot be encoded, `invalid` for an id
 */
export function admit({ checks = [], ops, id }: Commit, limits: Limits): void {
  if (id !== undefined && (id === '' || id.length > COMMIT_ID_LENGTH_MAX))
    throw new BridgeError('invalid', `a commit id has 1-${COMMIT_ID_LENGTH_MAX} characters`);
  if (ops.length + checks.length > limits.commitOpsMax)
    throw new BridgeError(
      'too_large',
      `a commit of ${ops.length + checks.length} operations; at most ${limits.commitOpsMax} are possible`,
    );
  let bytes = 0;
  for (const { key } of checks) bytes += encodeKey(key).length;
  for (const op of ops) {
    bytes += encodeKey(keyOfOp(op)).length;
    if (!('put' in op)) continue;
    const { byteLength } = op.value;
    if (byteLength > limits.valueBytesMax)
      throw new BridgeError(
        'too_large',
        `a stored value of ${byteLength} bytes; at most ${limits.valueBytesMax} are possible`,
      );
    bytes += byteLength;
  }
  if (bytes > limits.commitBytesMax)
    throw new BridgeError(
      'too_large',
      `a commit of ${bytes} bytes; at most ${limits.commitBytesMax} are possible`,
    );
}
