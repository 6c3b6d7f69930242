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
  /** Commit ids that were remembered with this group, and are forgotten with it. */
  readonly ids: readonly string[];
  /** Authenticator of the link before; zeros for the first. */
  readonly previous: Buffer;
  readonly mac: Buffer;
}

export const MAC_BYTES = 32;
export const GENESIS = Buffer.alloc(MAC_BYTES);

/** LevelDB's log holds up to two write buffers: links are kept for four, so that every hole in it shows. */
export const WRITE_BUFFER_BYTES = 16 * 1024 * 1024;
const KEPT_BYTES = 4 * WRITE_BUFFER_BYTES;
/** However fast commits come, this many groups are the most that are kept for their ids; a group is up to 1024 commits. */
const KEPT_LINKS_MAX = 1_000_000;
/** Links forgotten with one group: more than one, so that a backlog goes down. */
const FORGET_MAX = 4;

const packr = new Packr({ useRecords: false, moreTypes: false });

type Packed = [number, number, number, Buffer, number, string[], Buffer];

const macOf = (key: Buffer, sequence: number, packed: Uint8Array): Buffer =>
  createHmac('sha256', key).update(`link ${sequence}\n`).update(packed).digest();

export function encodeLink(key: Buffer, link: Omit<Link, 'mac'>): { bytes: Buffer; mac: Buffer } {
  const { version, at, sum, bytes, ids, previous } = link;
  const packed = packr.pack([version, at, sum.count, sum.bytes(), bytes, ids, previous]);
  const mac = macOf(key, link.sequence, packed);
  return { bytes: Buffer.concat([mac, packed]), mac };
}

/** Undefined when it is not what was once written as this link. */
export function decodeLink(key: Buffer, sequence: number, stored: Buffer): Link | undefined {
  const mac = Buffer.from(stored.subarray(0, MAC_BYTES));
  const packed = stored.subarray(MAC_BYTES);
  if (!macOf(key, sequence, packed).equals(mac)) return undefined;
  const [version, at, count, sum, bytes, ids, previous] = packr.unpack(packed) as Packed; // authenticated: we wrote it
  return {
    sequence,
    version,
    at,
    sum: TagSum.of(count, Buffer.from(sum)),
    bytes,
    ids,
    previous: Buffer.from(previous),
    mac,
  };
}

/** The links that are kept, newest last: which of them a new group may forget. */
export class KeptLinks {
  readonly #links: Pick<Link, 'sequence' | 'at' | 'bytes' | 'ids'>[] = [];
  #first = 0;
  #bytes = 0;

  add(link: Pick<Link, 'sequence' | 'at' | 'bytes' | 'ids'>): void {
    this.#links.push(link);
    this.#bytes += link.bytes;
  }

  /** The oldest ones, if nobody needs them any more. */
  forget(now: number): Pick<Link, 'sequence' | 'ids'>[] {
    const forgotten = [];
    while (forgotten.length < FORGET_MAX) {
      const oldest = this.#links[this.#first];
      if (oldest === undefined || this.#first + 1 >= this.#links.length) break;
      const isOld = oldest.at < now - IDEMPOTENCY_MS && this.#bytes - oldest.bytes > KEPT_BYTES;
      if (!isOld && this.#links.length - this.#first <= KEPT_LINKS_MAX) break;
      this.#first++;
      this.#bytes -= oldest.bytes;
      forgotten.push(oldest);
    }
    // Shifting a long array costs its length: the dead part goes when it is half of it.
    if (this.#first > 1024 && this.#first * 2 > this.#links.length) {
      this.#links.splice(0, this.#first);
      this.#first = 0;
    }
    return forgotten;
  }
}
