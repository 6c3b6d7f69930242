import { encodeKey, keyOfOp } from './key-bytes.js';
import type { Check, Limits, Op } from './store.js';

/** What an op counts for under `commitBytesMax`. */
export const bytesOfOp = (op: Op): number =>
  encodeKey(keyOfOp(op)).length + ('put' in op ? op.value.byteLength : 0);

export const bytesOfChecks = (checks: readonly Check[]): number =>
  checks.reduce((sum, { key }) => sum + encodeKey(key).length, 0);

/** The ops in order, in as few commits as `limits` allow when each carries `checks`. */
export function* inPieces(
  ops: Iterable<Op>,
  limits: Limits,
  checks: readonly Check[] = [],
): Generator<Op[]> {
  const bytesMax = limits.commitBytesMax - bytesOfChecks(checks);
  const countMax = limits.commitOpsMax - checks.length;
  let piece: Op[] = [];
  let bytes = 0;
  for (const op of ops) {
    const more = bytesOfOp(op);
    if (piece.length > 0 && (piece.length >= countMax || bytes + more > bytesMax)) {
      yield piece;
      piece = [];
      bytes = 0;
    }
    piece.push(op);
    bytes += more;
  }
  if (piece.length > 0) yield piece;
}
