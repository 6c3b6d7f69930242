import { IN } from './abi.js';

/**
 * The request that was read last. One object over one buffer, used for every request: a handler that waits must take
 * what it needs first. Reads beyond the message's length give zero bytes of an older message, never an exception, so
 * `has` is asked before a body is used.
 */
export class Request {
  readonly bytes: Buffer;
  readonly #words: Uint32Array;
  length = 0;

  /** `bytes` starts on an 8-byte border (its own allocation). */
  constructor(bytes: Buffer) {
    this.bytes = bytes;
    this.#words = new Uint32Array(bytes.buffer, bytes.byteOffset, bytes.byteLength >> 2);
  }

  get opcode(): number {
    return this.u32(IN.OPCODE);
  }

  /** Halves of the id that ties a reply to its request; copied, never computed with. */
  get uniqueLow(): number {
    return this.u32(IN.UNIQUE);
  }

  get uniqueHigh(): number {
    return this.u32(IN.UNIQUE + 4);
  }

  get node(): number {
    return this.u64(IN.NODEID);
  }

  get uid(): number {
    return this.u32(IN.UID);
  }

  get gid(): number {
    return this.u32(IN.GID);
  }

  get pid(): number {
    return this.u32(IN.PID);
  }

  /** Whether the body has at least `bytes` bytes. */
  has(bytes: number): boolean {
    return this.length >= IN.BODY + bytes;
  }

  /** `offset` is a multiple of 4. */
  u32(offset: number): number {
    return this.#words[offset >> 2] ?? 0;
  }

  /** Node ids, handles and sizes we gave out or accept are below 2^53; a larger one loses low bits and is refused later. */
  u64(offset: number): number {
    return this.u32(offset) + this.u32(offset + 4) * 0x1_0000_0000;
  }

  /** Times before 1970 are negative. */
  s64(offset: number): number {
    return this.u32(offset) + (this.u32(offset + 4) | 0) * 0x1_0000_0000;
  }

  /** The NUL-terminated name at `offset`, as Latin-1; undefined when the message ends first. */
  name(offset: number): string | undefined {
    const end = this.endOfName(offset);
    return end === undefined ? undefined : this.bytes.toString('latin1', offset, end);
  }

  /** Where the NUL of the name at `offset` is. Names are short: a loop finds it before a native search has begun. */
  endOfName(offset: number): number | undefined {
    const { bytes, length } = this;
    for (let at = offset; at < length; at++) if (bytes[at] === 0) return at;
    return undefined;
  }
}
