/**
 * The store's own keys in LevelDB. They sort before every tuple key (key-bytes.ts), whose first byte is 02:
 * 00 = format; 01, group number (8 bytes) = link of the commit chain.
 */
export const FORMAT_KEY = Buffer.from([0x00]);
export const FORMAT = Buffer.from('cronium-store-2');

const LINK = 0x01;
const TUPLES = 0x02;

/** All links. */
export const CHAIN = { gte: Buffer.from([LINK]), lt: Buffer.from([TUPLES]) };
/** Records with a tag: everything of the callers'. */
export const RECORDS_FROM = Buffer.from([TUPLES]);

export function linkKey(sequence: number): Buffer {
  const key = Buffer.alloc(9);
  key[0] = LINK;
  key.writeBigUInt64BE(BigInt(sequence), 1);
  return key;
}

export const sequenceOf = (key: Buffer): number => Number(key.readBigUInt64BE(1));
