/**
 * The store's own keys in LevelDB. They sort before every tuple key (key-bytes.ts), whose first byte is 02:
 * 00 = format; 01, group number (8 bytes) = link of the commit chain; 01 FF, id = a commit that was made under that id.
 */
const TUPLES = 0x02;

export const FORMAT_KEY = Buffer.from([0x00]);
export const FORMAT = Buffer.from('cronium-store-2');

const LINK = 0x01;
const ID = 0xff;

/** All links, none of the ids: a group number stays below 2^56. */
export const CHAIN = { gte: Buffer.from([LINK]), lt: Buffer.from([LINK, ID]) };
/** Records with a tag: ids, then everything of the callers'. */
export const RECORDS_FROM = Buffer.from([LINK, ID]);

export function linkKey(sequence: number): Buffer {
  const key = Buffer.alloc(9);
  key[0] = LINK;
  key.writeBigUInt64BE(BigInt(sequence), 1);
  return key;
}

export const sequenceOf = (key: Buffer): number => Number(key.readBigUInt64BE(1));

export const idKey = (id: string): Buffer => Buffer.concat([RECORDS_FROM, Buffer.from(id)]);

/** What an internal key is, for people; undefined for a caller's. */
export const decodeInternal = (key: Buffer): string | undefined =>
  (key[0] ?? TUPLES) < TUPLES ? 'commit ids' : undefined;
