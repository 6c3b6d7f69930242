import { createHmac } from 'node:crypto';
import { existsSync } from 'node:fs';
import { BridgeError } from '#bridge/wire/errors.js';
import { decodeLink, encodeLink, type Link } from './commit-chain.js';
import { FileSums } from './file-sums.js';
import { HeadFile } from './head-file.js';
import { FORMAT, FORMAT_KEY, linkKey } from './internal-keys.js';
import { openDb } from './level-db.js';
import type { Exported, LevelStore } from './level-store.js';
import { RecordTags, TagSum, tagOf } from './record-tags.js';

/**
 * A backup is a sequence of blocks: length (4 bytes, big-endian), then as many bytes.
 *
 *     "cronium-backup-1", the keyring file, link number (8 bytes), link, { key, record }…, empty, check
 *
 * Records are as they are stored: values encrypted, names hidden. The keyring is wrapped by the master key, which is not
 * in the backup. The check is HMAC-SHA256 of all before, with the integrity key.
 */
const MAGIC = Buffer.from('cronium-backup-1');
const LENGTH_BYTES = 4;
/** No block is longer: a record is at most 68 KiB, a keyring of 10,000 namespaces a few megabytes. */
const BLOCK_BYTES_MAX = 64 * 1024 * 1024;
const CHUNK_BYTES = 256 * 1024;
const BATCH_BYTES = 1024 * 1024;

/** A keyring changes when a namespace is new or a key is rotated: seldom, and never ten times within one opening. */
const TRIES_MAX = 10;

/**
 * The store as of now, in pieces of about 256 KiB, while commits go on. `readKeyring` gives the keyring file's bytes.
 * @throws BridgeError `busy` when the keyring keeps changing
 */
export async function* backup(
  store: LevelStore,
  readKeyring: () => Buffer,
  integrityKey: Buffer,
): AsyncGenerator<Buffer> {
  for (let tries = 0; tries < TRIES_MAX; tries++) {
    const keyring = readKeyring();
    await using exported = await store.export();
    // A key is in the file before anything is encrypted with it, and what is dropped from it changes it: the same before
    // and after, it has every key the records need.
    if (!keyring.equals(readKeyring())) continue;
    yield* pieces(exported, keyring, integrityKey);
    return;
  }
  throw new BridgeError('busy', 'the keys keep changing; try again');
}

async function* pieces(
  { link, records }: Exported,
  keyring: Uint8Array,
  integrityKey: Buffer,
): AsyncGenerator<Buffer> {
  const hmac = createHmac('sha256', integrityKey);
  let blocks: Buffer[] = [];
  let bytes = 0;
  const add = (block: Uint8Array) => {
    const length = Buffer.alloc(LENGTH_BYTES);
    length.writeUInt32BE(block.byteLength);
    blocks.push(length, Buffer.from(block));
    bytes += LENGTH_BYTES + block.byteLength;
  };
  const take = (): Buffer => {
    const chunk = Buffer.concat(blocks);
    blocks = [];
    bytes = 0;
    hmac.update(chunk);
    return chunk;
  };
  const number = Buffer.alloc(8);
  number.writeBigUInt64BE(BigInt(link.sequence));
  for (const block of [MAGIC, keyring, number, encodeLink(integrityKey, link).bytes]) add(block);
  for await (const [key, record] of records) {
    add(key);
    add(record);
    if (bytes >= CHUNK_BYTES) yield take();
  }
  add(new Uint8Array());
  yield take();
  add(hmac.digest());
  yield Buffer.concat(blocks);
}

/** Blocks of a backup, in whatever pieces it comes. @throws BridgeError `invalid` when it is cut off or no backup */
async function* blocksOf(
  chunks: AsyncIterable<Uint8Array>,
  seen: (bytes: Buffer) => void,
): AsyncGenerator<Buffer> {
  let rest = Buffer.alloc(0);
  for await (const chunk of chunks) {
    rest = rest.length === 0 ? Buffer.from(chunk) : Buffer.concat([rest, chunk]);
    let at = 0;
    while (rest.length - at >= LENGTH_BYTES) {
      const length = rest.readUInt32BE(at);
      if (length > BLOCK_BYTES_MAX) throw notWhole();
      const end = at + LENGTH_BYTES + length;
      if (rest.length < end) break;
      const block = rest.subarray(at + LENGTH_BYTES, end);
      yield block;
      seen(rest.subarray(at, end));
      at = end;
    }
    rest = rest.subarray(at);
  }
  if (rest.length > 0) throw notWhole();
}

const notWhole = () =>
  new BridgeError(
    'invalid',
    'this is not a whole backup: it is cut off, changed, or something else',
  );

export interface Restored {
  readonly version: number;
  readonly records: number;
}

/**
 * Makes a database in `directory`, which must not exist, of a backup. `integrityKeyOf` opens the keyring that is in it.
 * @throws BridgeError `invalid` when the backup is not whole; then what was made must be removed
 */
export async function restore(
  directory: string,
  chunks: AsyncIterable<Uint8Array>,
  integrityKeyOf: (keyring: Buffer) => Buffer,
  progress: (records: number) => void = () => {},
): Promise<Restored> {
  if (existsSync(directory)) throw new BridgeError('busy', `${directory} is there already`);
  const checked: Buffer[] = [];
  let hmac: ReturnType<typeof createHmac> | undefined;
  const blocks = blocksOf(chunks, (bytes) => {
    if (hmac === undefined) checked.push(Buffer.from(bytes));
    else hmac.update(bytes);
  });
  const next = async (): Promise<Buffer> => {
    const { value, done } = await blocks.next();
    if (done === true || value === undefined) throw notWhole();
    return value;
  };
  if (!(await next()).equals(MAGIC)) throw notWhole();
  const key = integrityKeyOf(Buffer.from(await next()));
  const number = Buffer.from(await next());
  if (number.length !== 8) throw notWhole();
  const storedLink = Buffer.from(await next());
  const tags = new RecordTags(key);
  const db = await openDb(directory, true);
  const sum = new TagSum();
  try {
    await db.put(FORMAT_KEY, FORMAT);
    let batch: { type: 'put'; key: Buffer; value: Buffer }[] = [];
    let bytes = 0;
    for (;;) {
      const recordKey = Buffer.from(await next());
      if (hmac === undefined) {
        hmac = createHmac('sha256', key);
        for (const part of checked) hmac.update(part);
      }
      if (recordKey.length === 0) break;
      const value = Buffer.from(await next());
      if (!tags.holds(recordKey, value)) throw notWhole();
      sum.add(tagOf(value));
      batch.push({ type: 'put', key: recordKey, value });
      bytes += recordKey.length + value.length;
      if (bytes < BATCH_BYTES) continue;
      await db.batch(batch);
      progress(sum.count);
      batch = [];
      bytes = 0;
    }
    await db.batch(batch);
    const link = finish(await next());
    hmac = undefined; // what it was to cover has been
    checked.length = 0;
    if ((await blocks.next()).done !== true) throw notWhole();
    // A store nobody has written to has no link.
    if (link.sequence > 0) await db.put(linkKey(link.sequence), storedLink, { sync: true });
    using head = HeadFile.open(`${directory}.head`, key);
    if (link.sequence > 0) head.write(link);
    return { version: link.version, records: sum.count };
  } finally {
    await db.close();
    if (existsSync(`${directory}.head`)) FileSums.of(directory).write(key);
  }

  function finish(check: Buffer): Link {
    // The end block is counted only when the next one is asked for: it is by now.
    const link = decodeLink(key, Number(number.readBigUInt64BE(0)), storedLink);
    if (hmac?.digest().equals(check) !== true || link === undefined || !sum.equals(link.sum))
      throw notWhole();
    return link;
  }
}
