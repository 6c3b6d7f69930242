import { setImmediate } from 'node:timers/promises';
import type { AuditLink } from '#bridge/wire/audit-chain.js';
import { AuditCheck, type BrokenChain, type CheckedChain } from '#bridge/wire/audit-check.js';
import { BridgeError } from '#bridge/wire/errors.js';
import type { Entry, Reader, Store } from '#server/store/store.js';
import {
  type BatchRecord,
  chainKey,
  eventsOf,
  linesOf,
  MARK_LENGTH,
  readBatch,
} from './batches.js';
import { headsOf, lastWriter, type Start, startsOf } from './reader.js';

export interface Verified {
  readonly events: number;
  readonly chains: CheckedChain[];
  /** One for each chain that is not intact. */
  readonly broken: BrokenChain[];
}

/** Walks every chain of the store, as of one moment. */
export async function verifyAudit(
  store: Store,
  kept: readonly string[],
  signal?: AbortSignal,
): Promise<Verified> {
  await using moment = await store.snapshot();
  const heads = new Map((await headsOf(moment)).map((head) => [head.writer, head]));
  const last = Math.max(0, ...heads.keys(), await lastWriter(moment));
  const writers = Array.from({ length: last }, (_, i) => i + 1);
  const starts = await readableStarts(moment, writers);
  const events = [...starts.values()].flatMap(({ record }) => eventsOf(record) ?? []);
  const check = new AuditCheck(events, kept);
  for (const writer of writers)
    await checkChain(moment, check, writer, heads.get(writer), starts.get(writer), signal);
  return { events: check.events, ...check.finish(true) };
}

async function checkChain(
  reader: Reader,
  check: AuditCheck,
  writer: number,
  head: AuditLink | undefined,
  start: Start | undefined,
  signal: AbortSignal | undefined,
): Promise<void> {
  const anchor = start?.record.anchor;
  let isEmpty = true;
  check.expect(writer);
  for await (const entry of reader.range(chainKey(writer))) {
    isEmpty = false;
    await setImmediate(); // others are served meanwhile
    if (signal?.aborted === true) throw new BridgeError('interrupted', 'verifying was interrupted');
    const first = Number(entry.key[3]);
    if (first !== 0 && anchor !== undefined && first <= anchor.seq) continue; // a prune's leftovers
    checkBatch(check, writer, first, entry);
    if (first === 0 && anchor !== undefined && !check.isBroken(writer)) check.begin(anchor);
  }
  if (isEmpty) {
    const text = head === undefined ? 'the whole run is missing' : 'all of its events are missing';
    check.report('removed', writer, 0, head?.at ?? 0, text);
    return;
  }
  const chain = check.chain(writer);
  if (chain === undefined) return;
  const { seq, hash, at } = chain;
  if (head === undefined) check.report('head', writer, seq, at, 'its head is missing');
  else if (head.seq > seq)
    check.report(
      'removed',
      writer,
      seq + 1,
      at,
      `events ${seq + 1}-${head.seq} are missing at the end`,
    );
  else if (head.seq !== seq || head.hash !== hash)
    check.report('head', writer, seq, at, `its head does not match: it says event ${head.seq}`);
}

function checkBatch(check: AuditCheck, writer: number, first: number, entry: Entry): void {
  const record = readable(entry);
  const events = record && eventsOf(record);
  if (record === undefined || events === undefined) {
    check.report('changed', writer, first, 0, `the record of event ${first} cannot be read`);
    return;
  }
  const lines = linesOf(record);
  let hash = '';
  for (const [i, event] of events.entries()) {
    if (event.writer !== writer) {
      const text = `an event of run ${event.writer} stands at event ${first + i}`;
      check.report('reordered', writer, first + i, event.at, text);
      return;
    }
    hash = check.accept(event, lines[i] ?? '', i === 0 ? record.prev : undefined);
    const mark = record.marks.slice(i * MARK_LENGTH, (i + 1) * MARK_LENGTH);
    if (!hash.startsWith(mark) && hash !== '') {
      const text = `event ${event.seq} is not what was recorded`;
      check.report('changed', writer, event.seq, event.at, text);
    }
  }
  const last = events.at(-1);
  if (last === undefined || check.isBroken(writer)) return;
  const count = Math.max(record.count, record.marks.length / MARK_LENGTH);
  if (events.length < count) {
    const from = last.seq + 1;
    const text = `events from ${from} on are missing in its record`;
    check.report('removed', writer, from, last.at, text);
  } else if (record.hash !== hash || events.length > record.count || record.first !== first) {
    const text = `events ${first}-${last.seq} are not what was recorded`;
    check.report('changed', writer, first, events[0]?.at ?? 0, text);
  }
}

/** A record as far as it can be trusted to be one; the services' own reading need not doubt it. */
function readable(entry: Entry): BatchRecord | undefined {
  try {
    const record: Partial<BatchRecord> = readBatch(entry);
    const isOne =
      record.events instanceof Uint8Array &&
      typeof record.marks === 'string' &&
      typeof record.prev === 'string' &&
      typeof record.hash === 'string' &&
      Number.isInteger(record.count);
    return isOne ? (record as BatchRecord) : undefined;
  } catch {
    return undefined;
  }
}

async function readableStarts(
  reader: Reader,
  writers: readonly number[],
): Promise<Map<number, Start>> {
  try {
    return await startsOf(reader, writers);
  } catch {
    const starts = new Map<number, Start>();
    for (const writer of writers) {
      const one = await startsOf(reader, [writer]).catch(() => new Map<number, Start>());
      for (const [found, start] of one) starts.set(found, start);
    }
    return starts;
  }
}
