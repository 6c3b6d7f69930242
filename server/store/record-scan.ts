import { setImmediate as turn } from 'node:timers/promises';
import type { AbstractSnapshot } from 'abstract-level';
import { RECORDS_FROM } from './internal-keys.js';
import { decodeKey } from './key-bytes.js';
import { corruptionText, type Db, isCorruption } from './level-db.js';
import { type RecordTags, TagSum, tagOf } from './record-tags.js';

/** What a full reading has found. */
export interface Scanned {
  readonly sum: TagSum;
  /** Records that are not what was stored under their key: how many of each family. */
  readonly damaged: ReadonlyMap<string, number>;
  /** Why LevelDB could not read on: the records behind are not known. */
  readonly stopped?: string;
}

const BATCH = 1000;
const HIGH_WATER_BYTES = 1024 * 1024;

/** Reads and authenticates every record. `progress` hears the number of records now and then. */
export async function scanRecords(
  db: Db,
  tags: RecordTags,
  options: { snapshot?: AbstractSnapshot; progress?: (records: number) => void } = {},
): Promise<Scanned> {
  const sum = new TagSum();
  const damaged = new Map<string, number>();
  const iterator = db.iterator({
    gte: RECORDS_FROM,
    highWaterMarkBytes: HIGH_WATER_BYTES,
    fillCache: false,
    ...(options.snapshot && { snapshot: options.snapshot }),
  });
  try {
    for (let records = 0; ; ) {
      const batch = await iterator.nextv(BATCH);
      if (batch.length === 0) return { sum, damaged };
      for (const [key, record] of batch) {
        if (tags.holds(key, record)) sum.add(tagOf(record));
        else {
          const family = familyOf(key);
          damaged.set(family, (damaged.get(family) ?? 0) + 1);
        }
      }
      records += batch.length;
      options.progress?.(records);
      await turn();
    }
  } catch (error) {
    if (!isCorruption(error)) throw error;
    return { sum, damaged, stopped: corruptionText(error) };
  } finally {
    await iterator.close();
  }
}

function familyOf(key: Buffer): string {
  try {
    return decodeKey(key)[0];
  } catch {
    return 'unknown';
  }
}
