import { BridgeError } from '#bridge/wire/errors.js';
import { type Key, type Op, type RangeOptions, SYSTEM } from './store.js';

/**
 * Keys as bytes that sort like the tuples: each part is a tag and a self-delimiting body (the tuple layer of
 * FoundationDB does the same). String: 02, UTF-8 with 00 escaped as 00 FF, then 00. Number: 15, 8 bytes big-endian.
 */
const STRING = 0x02;
const NUMBER = 0x15;

/** @throws BridgeError `internal` for a number that is no integer from 0 to 2^53-1: a mistake in a service */
export function encodeKey(key: readonly (string | number)[]): Buffer {
  let length = 0;
  for (const part of key) length += typeof part === 'number' ? 9 : part.length + 2;
  const bytes = Buffer.allocUnsafe(length);
  let at = 0;
  for (const part of key) {
    if (typeof part === 'number') {
      bytes[at] = NUMBER;
      writeNumber(bytes, at + 1, part);
      at += 9;
      continue;
    }
    bytes[at++] = STRING;
    // Nearly all names are ASCII, and short: a loop beats a call into native code.
    for (let i = 0; i < part.length; i++) {
      const code = part.charCodeAt(i);
      if (code === 0 || code > 0x7f) return encodeAnyKey(key);
      bytes[at++] = code;
    }
    bytes[at++] = 0;
  }
  return bytes;
}

function encodeAnyKey(key: readonly (string | number)[]): Buffer {
  const parts: Buffer[] = [];
  for (const part of key) {
    if (typeof part === 'number') {
      const bytes = Buffer.alloc(9);
      bytes[0] = NUMBER;
      writeNumber(bytes, 1, part);
      parts.push(bytes);
    } else {
      const utf8 = Buffer.from(part);
      const body = utf8.includes(0) ? escapeNul(utf8) : utf8;
      parts.push(Buffer.from([STRING]), body, Buffer.from([0]));
    }
  }
  return Buffer.concat(parts);
}

function writeNumber(bytes: Buffer, at: number, part: number): void {
  if (!Number.isSafeInteger(part) || part < 0)
    throw new BridgeError('internal', `${part} cannot be part of a key`);
  bytes.writeUInt32BE(Math.floor(part / 2 ** 32), at);
  bytes.writeUInt32BE(part >>> 0, at + 4);
}

/** @throws RangeError when the bytes are not what encodeKey makes */
export function decodeKey(bytes: Uint8Array): Key {
  const parts: (string | number)[] = [];
  const view = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  for (let at = 0; at < view.length; ) {
    const tag = view[at++];
    if (tag === NUMBER) {
      parts.push(view.readUInt32BE(at) * 2 ** 32 + view.readUInt32BE(at + 4));
      at += 8;
    } else if (tag === STRING) {
      let end = view.indexOf(0, at);
      const isEscaped = end >= 0 && view[end + 1] === 0xff;
      while (end >= 0 && view[end + 1] === 0xff) end = view.indexOf(0, end + 2);
      if (end < 0) throw new RangeError('a key ends inside a string');
      const body = view.subarray(at, end);
      parts.push((isEscaped ? unescapeNul(body) : body).toString());
      at = end + 1;
    } else throw new RangeError(`a key part has the unknown tag ${tag}`);
  }
  const [family, ...rest] = parts;
  if (typeof family !== 'string') throw new RangeError('a key does not start with its family');
  return [family, ...rest];
}

/** The namespace whose data key encrypts the record: what no namespace is named for is the server's. */
export const namespaceOfKey = ([, namespace]: Key): string =>
  typeof namespace === 'string' ? namespace : SYSTEM;

/** First byte string after every key that starts with `prefix`: no part's tag is FF. */
export const afterPrefix = (prefix: Uint8Array): Buffer =>
  Buffer.concat([prefix, Buffer.from([0xff])]);

/** A range as bytes: from the first key that may be in it, up to the first behind it. */
export function rangeBounds(prefix: Key, { from, to }: RangeOptions): { gte: Buffer; lt: Buffer } {
  const start = encodeKey(prefix);
  return {
    gte: from === undefined ? start : Buffer.concat([start, encodeKey([from])]),
    lt: to === undefined ? afterPrefix(start) : Buffer.concat([start, encodeKey([to])]),
  };
}

function escapeNul(bytes: Buffer): Buffer {
  const out: number[] = [];
  for (const byte of bytes) {
    out.push(byte);
    if (byte === 0) out.push(0xff);
  }
  return Buffer.from(out);
}

/** Each 00 is followed by the FF that escapes it. */
function unescapeNul(bytes: Buffer): Buffer {
  const out: number[] = [];
  for (let at = 0; at < bytes.length; at++) {
    const byte = bytes[at] ?? 0;
    out.push(byte);
    if (byte === 0) at++;
  }
  return Buffer.from(out);
}

export const startsWith = (key: Key, prefix: Key): boolean =>
  prefix.length <= key.length && prefix.every((part, i) => key[i] === part);

export const keyOfOp = (op: Op): Key => ('put' in op ? op.put : op.del);

/** Of several ops for one key only the last, in the order of the keys' first ops. */
export function lastPerKey(ops: readonly Op[]): Iterable<Op> {
  const last = new Map<string, Op>();
  for (const op of ops) last.set(encodeKey(keyOfOp(op)).toString('latin1'), op);
  return last.values();
}
