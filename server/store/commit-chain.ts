import { createHmac } from 'node:crypto';
import { Packr } from 'msgpackr';
import { TagSum } from './record-tags.js';
import { IDEMPOTENCY_MS } from './store.js';

/**
 * One link: what the store was right after one group of commits. Each is authenticated together with the one before, and
 * written in the same batch as its group, so a group that LevelDB drops leaves a hole in the numbers.
 */
export interface Link {
  /** Of the group; from 1, without gaps. */
  readonly sequence: number;
  /** Of the last commit in the group. */
  readonly version: number;
  /** Store clock, milliseconds since the epoch. */
  readonly at: number;
  readonly sum: TagSum;
  /** Bytes the group took in LevelDB's log. */
  readonly bytes: number;
  /** Ids under which its commits were made, and their versions: remembered as long as the link is kept. */
  readonly made: readonly (readonly [id: string, version: number])[];
  /** Authenticator of the link before; zeros for the first. */
  readonly previous: Buffer;
  readonly mac: Buffer;
}

export const MAC_BYTES = 32;
export const GENESIS = Buffer.alloc(MAC_BYTES);

/** LevelDB's log holds up to two write buffers: links are kept for four, so that every hole in it shows. */
export const WRITE_BUFFER_BYTES = 16 * 1024 * 1024;
const KEPT_BYTES = 4 * WRITE_BUFFER_BYTES;
/** However fast commits come, this many ids are the most that are remembered: about 300 MB. */
const IDS_MAX = 2_000_000;
/** Links forgotten with one group: more than one, so that a backlog goes down. */
const FORGET_MAX = 4;

const packr = new Packr({ useRecords: false, moreTypes: false });

type Packed = [number, number, number, Buffer, number, [string, number][], Buffer];

const macOf = (key: Buffer, sequence: number, packed: Uint8Array): Buffer =>
  createHmac('sha256', key).update(`link ${sequence}\n`).update(packed).digest();

export function encodeLink(key: Buffer, link: Omit<Link, 'mac'>): { bytes: Buffer; mac: Buffer } {
  const { version, at, sum, bytes, made, previous } = link;
  const packed = packr.pack([version, at, sum.count, sum.bytes(), bytes, made, previous]);
  const mac = macOf(key, link.sequence, packed);
  return { bytes: Buffer.concat([mac, packed]), mac };
}

/** Undefined when it is not what was once written as this link. */
export function decodeLink(key: Buffer, sequence: number, stored: Buffer): Link | undefined {
  const mac = Buffer.from(stored.subarray(0, MAC_BYTES));
  const packed = stored.subarray(MAC_BYTES);
  if (!macOf(key, sequence, packed).equals(mac)) return undefined;
  const [version, at, count, sum, bytes, made, previous] = packr.unpack(packed) as Packed; // authenticated: we wrote it
  return {
    sequence,
    version,
    at,
    sum: TagSum.of(count, Buffer.from(sum)),
    bytes,
    made,
    previous: Buffer.from(previous),
    mac,
  };
}

type Kept = Pick<Link, 'sequence' | 'at' | 'bytes' | 'made'>;

/** The links that are kept, newest last, and the ids in them: which of them a new group may forget. */
export class KeptLinks {
  readonly #links: Kept[] = [];
  readonly #made = new Map<string, number>();
  #first = 0;
  #bytes = 0;

  add(link: Kept): void {
    const { sequence, at, bytes, made } = link;
    this.#links.push({ sequence, at, bytes, made });
    this.#bytes += bytes;
    for (const [id, version] of made) this.#made.set(id, version);
  }

  /** The version of the commit that was made under the id. */
  versionOf(id: string): number | undefined {
    return this.#made.get(id);
  }

  /** Sequences of the oldest ones, if nobody needs them any more. */
  forget(now: number): number[] {
    const forgotten: number[] = [];
    while (forgotten.length < FORGET_MAX) {
      const oldest = this.#links[this.#first];
      if (oldest === undefined || this.#first + 1 >= this.#links.length) break;
      const isOld = oldest.at < now - IDEMPOTENCY_MS || this.#made.size > IDS_MAX;
      if (!isOld || this.#bytes - oldest.bytes <= KEPT_BYTES) break;
      this.#first++;
      this.#bytes -= oldest.bytes;
      for (const [id] of oldest.made) this.#made.delete(id);
      forgotten.push(oldest.sequence);
    }
    // Shifting a long array costs its length: the dead part goes when it is half of it.
    if (this.#first > 1024 && this.#first * 2 > this.#links.length) {
      this.#links.splice(0, this.#first);
      this.#first = 0;
    }
    return forgotten;
  }
}
