import type { Chunked } from './chunks.js';
import { decodeKey, encodeKey, keyOfOp, namespaceOfKey } from './key-bytes.js';
import type { Key, Op } from './store.js';

/**
 * What LargeValues stores under a caller's key, by its first byte. Plain: the value follows. Head: the number of chunks
 * (4 bytes, big-endian), the length (4), the generation in ASCII. Redo, only under REDO_KEY: JSON, the stages.
 */
const PLAIN = 0;
const HEAD = 1;
const REDO = 2;
export const MARKER_BYTES = 1;
const HEAD_BYTES = MARKER_BYTES + 8;

/** A commit too large for the store below: where its ops are. One stage a namespace, so that each has its own data key. */
export interface Redo {
  readonly stages: readonly Chunked[];
}

export function plainRecord(value: Uint8Array): Buffer {
  const record = Buffer.allocUnsafe(MARKER_BYTES + value.byteLength);
  record[0] = PLAIN;
  record.set(value, MARKER_BYTES);
  return record;
}

export function headRecord({ count, length, generation }: Chunked): Buffer {
  const record = Buffer.alloc(HEAD_BYTES + generation.length);
  record[0] = HEAD;
  record.writeUInt32BE(count, 1);
  record.writeUInt32BE(length, 5);
  record.write(generation, HEAD_BYTES, 'latin1');
  return record;
}

export const redoRecord = (redo: Redo): Buffer =>
  Buffer.concat([Buffer.from([REDO]), Buffer.from(JSON.stringify(redo))]);

/** The chunks a head points to; undefined for a plain record. */
export function chunkedOf(key: Key, record: Uint8Array): Chunked | undefined {
  if (record[0] !== HEAD) return undefined;
  const bytes = viewOf(record);
  return {
    namespace: namespaceOfKey(key),
    generation: bytes.toString('latin1', HEAD_BYTES),
    count: bytes.readUInt32BE(1),
    length: bytes.readUInt32BE(5),
  };
}

/** We wrote it, and the store below vouches for its bytes. */
export const redoOf = (record: Uint8Array): Redo =>
  JSON.parse(viewOf(record).toString('utf8', MARKER_BYTES)) as Redo;

/** Whether the record under `key` makes use of the generation. */
export function pointsTo(key: Key, record: Uint8Array, generation: string): boolean {
  if (record[0] === REDO)
    return redoOf(record).stages.some((stage) => stage.generation === generation);
  return chunkedOf(key, record)?.generation === generation;
}

/** Staged op: kind (1 byte), version (8, of a put that brings one), length of the key (4), key, length of the value (4), value. */
const DEL = 0;
const PUT = 1;
const PUT_VERSIONED = 2;

export function encodeOps(ops: readonly Op[]): Buffer {
  const parts: Buffer[] = [];
  for (const op of ops) {
    const key = encodeKey(keyOfOp(op));
    const value = 'put' in op ? op.value : new Uint8Array();
    const version = 'put' in op ? op.version : undefined;
    const head = Buffer.alloc(13);
    head[0] = 'del' in op ? DEL : version === undefined ? PUT : PUT_VERSIONED;
    head.writeBigUInt64BE(BigInt(version ?? 0), 1);
    head.writeUInt32BE(key.length, 9);
    const length = Buffer.alloc(4);
    length.writeUInt32BE(value.byteLength, 0);
    parts.push(head, key, length, viewOf(value));
  }
  return Buffer.concat(parts);
}

/** As ops of the commit `version`. */
export function* decodeOps(staged: Buffer, version: number): Generator<Op> {
  for (let at = 0; at < staged.length; ) {
    const kind = staged[at];
    const own = Number(staged.readBigUInt64BE(at + 1));
    const keyAt = at + 13;
    const lengthAt = keyAt + staged.readUInt32BE(at + 9);
    const valueAt = lengthAt + 4;
    at = valueAt + staged.readUInt32BE(lengthAt);
    const key = decodeKey(staged.subarray(keyAt, lengthAt));
    if (kind === DEL) yield { del: key };
    else
      yield {
        put: key,
        value: staged.subarray(valueAt, at),
        version: kind === PUT_VERSIONED ? own : version,
      };
  }
}

const viewOf = (bytes: Uint8Array): Buffer =>
  Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
