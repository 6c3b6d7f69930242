import { createHmac, timingSafeEqual } from 'node:crypto';

/**
 * A record as LevelDB holds it: version (8 bytes, big-endian), tag (16), then the caller's bytes. The tag is
 * HMAC-SHA256, cut to 16 bytes, over key, version and bytes: LevelDB itself returns garbage from a damaged block without
 * a word, and only so is a record bound to its key and to the commit that wrote it.
 */
export const VERSION_BYTES = 8;
export const TAG_BYTES = 16;
export const RECORD_HEADER_BYTES = VERSION_BYTES + TAG_BYTES;

const KEY_LENGTH_BYTES = 4;

export class RecordTags {
  readonly #key: Buffer;

  constructor(integrityKey: Buffer) {
    this.#key = integrityKey;
  }

  /** The record to store. */
  seal(key: Buffer, version: number, value: Uint8Array): Buffer {
    const record = Buffer.allocUnsafe(RECORD_HEADER_BYTES + value.byteLength);
    record.writeBigUInt64BE(BigInt(version), 0);
    record.set(value, RECORD_HEADER_BYTES);
    this.#tag(key, record).copy(record, VERSION_BYTES, 0, TAG_BYTES);
    return record;
  }

  /** Whether the record is what was once stored under this key. */
  holds(key: Buffer, record: Buffer): boolean {
    if (record.length < RECORD_HEADER_BYTES) return false;
    return timingSafeEqual(
      this.#tag(key, record).subarray(0, TAG_BYTES),
      record.subarray(VERSION_BYTES, RECORD_HEADER_BYTES),
    );
  }

  #tag(key: Buffer, record: Buffer): Buffer {
    const head = Buffer.allocUnsafe(KEY_LENGTH_BYTES + VERSION_BYTES);
    head.writeUInt32BE(key.length, 0);
    record.copy(head, KEY_LENGTH_BYTES, 0, VERSION_BYTES);
    return createHmac('sha256', this.#key)
      .update(head)
      .update(key)
      .update(record.subarray(RECORD_HEADER_BYTES))
      .digest();
  }
}

export const versionOf = (record: Buffer): number => Number(record.readBigUInt64BE(0));
export const tagOf = (record: Buffer): Buffer =>
  record.subarray(VERSION_BYTES, RECORD_HEADER_BYTES);
/**
 * A copy to be kept. Not from Buffer's pool: a tag that stays keeps the 8 KiB that it shares with what is long gone, and 65,536 of
 * them kept half a gigabyte (found by the soak).
 */
export function keptTagOf(record: Buffer): Buffer {
  const tag = Buffer.allocUnsafeSlow(RECORD_HEADER_BYTES - VERSION_BYTES);
  record.copy(tag, 0, VERSION_BYTES, RECORD_HEADER_BYTES);
  return tag;
}
export const valueOf = (record: Buffer): Buffer => record.subarray(RECORD_HEADER_BYTES);

/**
 * The sum of the tags of all records, modulo 2^128, and their number. It is kept with every commit, so that a full scan
 * finds records that have vanished, come back or been replaced by older ones, which no record can tell by itself.
 */
export class TagSum {
  readonly #words = new Uint32Array(TAG_BYTES / 4);
  count = 0;

  static of(count: number, sum: Buffer): TagSum {
    const made = new TagSum();
    made.count = count;
    for (let i = 0; i < made.#words.length; i++) made.#words[i] = sum.readUInt32LE(4 * i);
    return made;
  }

  copy(): TagSum {
    return TagSum.of(this.count, this.bytes());
  }

  add(tag: Buffer): void {
    let carry = 0;
    for (let i = 0; i < this.#words.length; i++) {
      const sum = (this.#words[i] ?? 0) + tag.readUInt32LE(4 * i) + carry;
      this.#words[i] = sum;
      carry = sum > 0xffff_ffff ? 1 : 0;
    }
    this.count++;
  }

  remove(tag: Buffer): void {
    let borrow = 0;
    for (let i = 0; i < this.#words.length; i++) {
      const difference = (this.#words[i] ?? 0) - tag.readUInt32LE(4 * i) - borrow;
      this.#words[i] = difference;
      borrow = difference < 0 ? 1 : 0;
    }
    this.count--;
  }

  bytes(): Buffer {
    const bytes = Buffer.alloc(TAG_BYTES);
    this.#words.forEach((word, i) => {
      bytes.writeUInt32LE(word, 4 * i);
    });
    return bytes;
  }

  equals(other: TagSum): boolean {
    return this.count === other.count && this.bytes().equals(other.bytes());
  }
}
