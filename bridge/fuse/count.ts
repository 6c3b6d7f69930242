import { COUNT } from '#bridge/vfs/operation-counts.js';
import { OPERATIONS, type OperationName, OUT_HEADER_BYTES } from './abi.js';
import type { Reply } from './reply.js';

/** What is neither of these is `other`. */
const KINDS: Readonly<Partial<Record<OperationName, number>>> = {
  LOOKUP: COUNT.lookups,
  GETATTR: COUNT.lookups,
  OPEN: COUNT.opens,
  CREATE: COUNT.opens,
  TMPFILE: COUNT.opens,
  OPENDIR: COUNT.opens,
  READ: COUNT.reads,
  WRITE: COUNT.writes,
};

/** By opcode; what is beyond its end is `other`, too. */
const KIND_OF = (() => {
  const last = Math.max(...Object.values(OPERATIONS).map(({ code }) => code));
  const kinds = new Uint8Array(last + 1).fill(COUNT.other);
  for (const [name, kind] of Object.entries(KINDS))
    kinds[OPERATIONS[name as OperationName].code] = kind;
  return kinds;
})();

/** Counts a request that is answered with `reply`. For every request: no allocation, no call but this. */
export function countAnswer(counts: Float64Array, opcode: number, reply: Reply): void {
  const kind = KIND_OF[opcode] ?? COUNT.other;
  add(counts, kind, 1);
  if (reply.isFailure) add(counts, COUNT.errors, 1);
  else if (kind === COUNT.reads) add(counts, COUNT.bytesRead, reply.length - OUT_HEADER_BYTES);
  else if (kind === COUNT.writes) add(counts, COUNT.bytesWritten, reply.writtenSize);
}

function add(counts: Float64Array, index: number, amount: number): void {
  counts[index] = (counts[index] ?? 0) + amount;
}
