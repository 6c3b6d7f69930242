import { randomBytes } from 'node:crypto';
import { decodeKey, encodeKey } from './key-bytes.js';
import { inPieces } from './pieces.js';
import type { Check, Key, Op, Reader, Store } from './store.js';

/** ['chunk', namespace, generation, n] = a part of something large. */
const CHUNK = 'chunk';
/** ['chunk-owner', namespace, generation] = when it was begun, its parts, and the key of the record that points to it. */
const OWNER = 'chunk-owner';

const GENERATION_BYTES = 12;
/** For the key of a chunk, whose namespace has a name of reasonable length. */
const KEY_BYTES = 512;
/** Read in one go: 1 MiB of chunks. */
const READ_CHUNKS = 16;
const AT_BYTES = 8;
const COUNT_BYTES = 4;

/** Something large that lies in chunks. A generation is written once and never changes. */
export interface Chunked {
  readonly namespace: string;
  readonly generation: string;
  readonly count: number;
  readonly length: number;
}

/** The record that says to whom chunks belong; as old as they are, and there until they are gone. */
export interface Owner {
  readonly chunked: Omit<Chunked, 'length'>;
  /** Of the record that points to the chunks, once it is committed. */
  readonly key: Key;
  /** By the store's clock. */
  readonly at: number;
  readonly check: Check;
}

/** Writes, reads and removes what is too large for one value. */
export class Chunks {
  readonly #inner: Store;
  readonly #bytesMax: number;

  constructor(inner: Store) {
    this.#inner = inner;
    const { valueBytesMax, commitBytesMax } = inner.limits;
    this.#bytesMax = Math.max(1, Math.min(valueBytesMax, commitBytesMax - KEY_BYTES));
  }

  /**
   * Resolves when all chunks are stored. The commit that makes `key` point to them must carry the check: it fails when
   * `claim` has taken them for an orphan's.
   */
  async write(
    key: Key,
    namespace: string,
    bytes: Uint8Array,
    generation = newGeneration(),
  ): Promise<{ chunked: Chunked; check: Check }> {
    const { ops, chunked } = this.ops(key, namespace, bytes, generation);
    let version = 0;
    for (const piece of inPieces(ops, this.#inner.limits)) {
      const committed = await this.#inner.commit({ ops: piece });
      if (committed.ok && version === 0) ({ version } = committed);
    }
    return { chunked, check: { key: ownerKey(chunked), version } };
  }

  /** The ops that `write` makes, the owner's first, for who can have them in one commit. */
  ops(
    key: Key,
    namespace: string,
    bytes: Uint8Array,
    generation = newGeneration(),
  ): { ops: Op[]; chunked: Chunked } {
    const count = Math.ceil(bytes.byteLength / this.#bytesMax);
    const chunked = { namespace, generation, count, length: bytes.byteLength };
    const ops: Op[] = [
      { put: ownerKey(chunked), value: ownerRecord(this.#inner.now(), count, key) },
    ];
    for (let n = 0; n < count; n++) {
      const value = bytes.subarray(n * this.#bytesMax, (n + 1) * this.#bytesMax);
      ops.push({ put: chunkKey(chunked, n), value });
    }
    return { ops, chunked };
  }

  /** Undefined when a chunk is missing: what pointed to them does so no longer, or its namespace was erased. */
  async read(reader: Reader, chunked: Chunked): Promise<Buffer | undefined> {
    const bytes = Buffer.allocUnsafe(chunked.length);
    let at = 0;
    for (let n = 0; n < chunked.count; n += READ_CHUNKS) {
      const keys: Key[] = [];
      for (let i = n; i < Math.min(n + READ_CHUNKS, chunked.count); i++)
        keys.push(chunkKey(chunked, i));
      for (const chunk of await reader.getMany(keys)) {
        if (chunk === undefined || at + chunk.value.byteLength > bytes.length) return undefined;
        bytes.set(chunk.value, at);
        at += chunk.value.byteLength;
      }
    }
    return at === chunked.length ? bytes : undefined;
  }

  /** The chunks first, their owner last: what an interruption leaves is found by `owners`. */
  deletions(chunked: Omit<Chunked, 'length'>): Op[] {
    const ops: Op[] = [];
    for (let n = 0; n < chunked.count; n++) ops.push({ del: chunkKey(chunked, n) });
    ops.push({ del: ownerKey(chunked) });
    return ops;
  }

  /** Nothing may point to them any more. */
  async remove(chunked: Omit<Chunked, 'length'>): Promise<void> {
    for (const ops of inPieces(this.deletions(chunked), this.#inner.limits))
      await this.#inner.commit({ ops });
  }

  async *owners(): AsyncIterable<Owner> {
    for await (const { key: ownKey, value, version } of this.#inner.range([OWNER])) {
      const [, namespace, generation] = ownKey;
      if (typeof namespace !== 'string' || typeof generation !== 'string') continue;
      const { at, count, key } = parseOwner(value);
      yield {
        chunked: { namespace, generation, count },
        key,
        at,
        check: { key: ownKey, version },
      };
    }
  }

  /**
   * Takes the chunks from a writer that may still be on its way to point to them: its commit will fail. False when it has
   * done so, or somebody changed what lies under its key. `checks`: what else must hold.
   */
  async claim(
    { key, check, at, chunked }: Owner,
    version: number,
    checks: readonly Check[],
  ): Promise<boolean> {
    const { ok } = await this.#inner.commit({
      checks: [check, { key, version }, ...checks],
      ops: [{ put: check.key, value: ownerRecord(at, chunked.count, key) }],
    });
    return ok;
  }
}

export const isOwnerKey = ([family]: Key): boolean => family === OWNER;

export const newGeneration = (): string => randomBytes(GENERATION_BYTES).toString('base64url');

type Place = Pick<Chunked, 'namespace' | 'generation'>;
const chunkKey = ({ namespace, generation }: Place, n: number): Key => [
  CHUNK,
  namespace,
  generation,
  n,
];
const ownerKey = ({ namespace, generation }: Place): Key => [OWNER, namespace, generation];

function ownerRecord(at: number, count: number, key: Key): Buffer {
  const head = Buffer.alloc(AT_BYTES + COUNT_BYTES);
  head.writeBigUInt64BE(BigInt(Math.floor(at)), 0);
  head.writeUInt32BE(count, AT_BYTES);
  return Buffer.concat([head, encodeKey(key)]);
}

function parseOwner(value: Uint8Array): { at: number; count: number; key: Key } {
  const bytes = Buffer.from(value.buffer, value.byteOffset, value.byteLength);
  return {
    at: Number(bytes.readBigUInt64BE(0)),
    count: bytes.readUInt32BE(AT_BYTES),
    key: decodeKey(bytes.subarray(AT_BYTES + COUNT_BYTES)),
  };
}
