import { AUDIT_START, NO_HASH } from '#bridge/wire/audit-chain.js';
import { BridgeError } from '#bridge/wire/errors.js';
import type { Store } from '#server/store/store.js';
import { BatchWriter, batchKey, type HeadRecord, headKey, LINKS_MAX, linksOf } from './batches.js';
import { headsOf, lastWriter, startsOf } from './reader.js';

/** Server processes that start at the same moment. */
const START_TRIES_MAX = 100;

/**
 * Begins the chain of a run under the next free number. Its event 0 names the head of every chain that no other has named
 * as it is now.
 * @throws BridgeError `conflict` when others begin one all the time
 */
export async function startChain(store: Store): Promise<{ writer: number; head: HeadRecord }> {
  for (let tries = 0; tries < START_TRIES_MAX; tries++) {
    const heads = await headsOf(store);
    const linked = new Map<number, number>();
    for (const { record } of (await startsOf(store)).values())
      for (const { writer, seq } of linksOf(record))
        linked.set(writer, Math.max(seq, linked.get(writer) ?? -1));
    // The newest first: those that do not fit are linked by the next run.
    const links = heads.filter(({ writer, seq }) => seq > (linked.get(writer) ?? -1)).reverse();
    const writer = 1 + Math.max(heads.at(-1)?.writer ?? 0, await lastWriter(store));
    const batches = new BatchWriter(writer, { seq: -1, hash: NO_HASH, at: 0 });
    const who = { who: 'server', peer: '' };
    batches.push(
      { ...who, op: AUDIT_START, outcome: 'ok', links: links.slice(0, LINKS_MAX) },
      store.now(),
    );
    const checks = [headKey(writer), batchKey(writer, 0)].map((key) => ({ key, version: 0 }));
    const committed = await store.commit({ checks, ops: batches.finish() });
    if (committed.ok) return { writer, head: batches.head };
  }
  throw new BridgeError('conflict', 'the audit log cannot begin: other servers keep starting');
}
