import { type AuditLink, nextHash } from '#bridge/wire/audit-chain.js';
import { BridgeError } from '#bridge/wire/errors.js';
import { type Key, type Op, STORE_LIMITS, type Store } from '#server/store/store.js';
import { packRecord } from '../record.js';
import { batchKey, chainKey, LINKS_MAX, lastOf, linesOf, readBatch } from './batches.js';
import type { AuditNote } from './note.js';
import { headsOf, type Start, startsOf } from './reader.js';

/** Deletions in one commit: a tenth of what it may hold. */
const DELETIONS_AT_ONCE = STORE_LIMITS.commitOpsMax / 10;

export interface Pruned {
  readonly events: number;
  readonly batches: number;
}

interface Cut {
  readonly start: Start;
  readonly anchor: AuditLink;
  readonly keys: readonly Key[];
  readonly events: number;
}

/**
 * First it is put on record, with the last event and its hash of every chain that was or is cut, and the chains begin
 * there; then the records go. A crash in between leaves records that nobody reads and the next prune takes.
 */
export async function pruneAudit(
  store: Store,
  before: number,
  note: AuditNote,
  signal?: AbortSignal,
): Promise<Pruned> {
  if (before > store.now())
    throw new BridgeError('invalid', 'that time is still to come: what is recorded now would go');
  const writers = (await headsOf(store)).map(({ writer }) => writer);
  const cuts: Cut[] = [];
  for (const [writer, start] of await startsOf(store, writers)) {
    if (signal?.aborted === true) throw new BridgeError('interrupted', 'pruning was interrupted');
    const cut = await cutOf(store, writer, start, before);
    if (cut !== undefined) cuts.push(cut);
  }
  note.detail = `events before ${new Date(before).toISOString()}`;
  for (let at = 0; at < cuts.length; at += LINKS_MAX) {
    const some = cuts.slice(at, at + LINKS_MAX);
    const committed = await store.commit({
      checks: some.map(({ start, anchor }) => ({
        key: batchKey(anchor.writer, 0),
        version: start.version,
      })),
      ops: some.map(({ start, anchor }) => ({
        put: batchKey(anchor.writer, 0),
        value: packRecord({ ...start.record, anchor }),
      })),
      note: { ...note, links: some.map(({ anchor }) => anchor) } satisfies AuditNote,
    });
    if (!committed.ok)
      throw new BridgeError('conflict', 'the audit log is being pruned already; try again later');
    note.recorded = true;
  }
  const ops = cuts.flatMap(({ keys }) => keys).map((del): Op => ({ del }));
  for (let at = 0; at < ops.length; at += DELETIONS_AT_ONCE)
    await store.commit({ ops: ops.slice(at, at + DELETIONS_AT_ONCE) });
  return { events: cuts.reduce((sum, { events }) => sum + events, 0), batches: ops.length };
}

/** Where a chain is to begin; undefined = as it does. */
async function cutOf(
  store: Store,
  writer: number,
  start: Start,
  before: number,
): Promise<Cut | undefined> {
  const { record, version } = start;
  const begin = record.anchor ?? { writer, seq: 0, hash: record.hash, at: record.at };
  const keys: Key[] = [];
  let anchor = begin;
  for await (const entry of store.range(chainKey(writer), { from: 1 })) {
    const batch = readBatch(entry);
    if (lastOf(batch) > begin.seq) {
      if (batch.until >= before) break;
      const hash = linesOf(batch).reduce(nextHash, anchor.hash);
      // What is not intact stays, for whoever looks into it.
      if (batch.first !== anchor.seq + 1 || hash !== batch.hash)
        throw new BridgeError(
          'conflict',
          `nothing was pruned: the log is not intact at event ${anchor.seq + 1} of run ${writer}; see: cronium audit verify`,
        );
      anchor = { writer, seq: lastOf(batch), hash, at: batch.until };
    }
    keys.push(entry.key);
  }
  const isCut = anchor.seq > 0;
  return isCut
    ? { start: { record, version }, anchor, keys, events: anchor.seq - begin.seq }
    : undefined;
}
