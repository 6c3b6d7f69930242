import { z } from 'zod';
import { Namespace } from '../names.js';
import type { Operations } from '../protocol.js';
import { Nothing, Version } from './common.js';

/** Bytes of a backup in one answer: small beside what else a connection carries. */
export const BACKUP_PIECE_BYTES = 256 * 1024;

const Count = z.int().min(0);

/** The database and its keys. */
export const STORE_OPERATIONS = {
  /** Reads and checks every record, on a copy, while the server goes on. */
  'store.verify': {
    caller: 'auditor',
    params: Nothing,
    result: z.strictObject({
      version: Version,
      records: Count,
      /** Sentences; empty when everything holds. */
      problems: z.array(z.string()),
    }),
  },
  /** Gives the space of what was deleted back to the disk. */
  'store.compact': { caller: 'operator', params: Nothing, result: Nothing },
  /**
   * The next piece of a backup as of the first call; `id` is that of the answer before, or not given to begin. An unfinished
   * one is given up after a minute, or when another is begun on the same connection.
   */
  'store.backup': {
    caller: 'operator',
    params: z.strictObject({ id: z.int().min(1).optional() }),
    result: z.strictObject({
      id: z.int().min(1),
      piece: z.instanceof(Uint8Array),
      done: z.boolean(),
    }),
  },
  'keys.status': {
    caller: 'auditor',
    params: Nothing,
    result: z.strictObject({
      namespaces: Count,
      dataKeys: Count,
      /** ISO 8601; of the oldest data key that still encrypts. */
      oldestKeyAt: z.string(),
      /** Since the server started. */
      encryptions: Count,
      /** Encryptions by the busiest key since the server started; below 2^32 a nonce is safe to be random. */
      encryptionsMax: Count,
      /** The last rotation of data keys, if there was one since the server started. */
      rotation: z
        .strictObject({
          state: z.enum(['running', 'done', 'failed']),
          seen: Count,
          sealed: Count,
          droppedKeys: Count,
          problem: z.string().optional(),
        })
        .nullable(),
    }),
  },
  /** New data keys, and in the background everything is encrypted anew: see `keys.status`. */
  'keys.rotate': {
    caller: 'operator',
    params: z.strictObject({ namespace: Namespace.optional() }),
    result: Nothing,
  },
  /** A new master key wraps the keyring. */
  'keys.rotate-master': { caller: 'operator', params: Nothing, result: Nothing },
  /** Destroys the keys of a namespace, which makes every copy of its records unreadable, then its records. */
  'namespace.erase': {
    caller: 'operator',
    params: z.strictObject({ namespace: Namespace }),
    result: Nothing,
  },
} as const satisfies Operations;
export type StoreOperations = typeof STORE_OPERATIONS;
