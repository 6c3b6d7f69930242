/**
 * Bytes that belong to a MessagePack value itself, without what follows in an array or map: by its first byte from 0xc0 on,
 * how many are fixed, and how many of those, from the second on, hold the length of the rest.
 */
// biome-ignore format: a table, as the specification has it
const FIXED = [
  1, 1, 1, 1,       // nil, never used, false, true
  2, 3, 5,          // bin 8, 16, 32
  3, 4, 6,          // ext 8, 16, 32
  5, 9,             // float 32, 64
  2, 3, 5, 9,       // uint 8, 16, 32, 64
  2, 3, 5, 9,       // int 8, 16, 32, 64
  3, 4, 6, 10, 18,  // fixext 1, 2, 4, 8, 16
  2, 3, 5,          // str 8, 16, 32
  3, 5,             // array 16, 32
  3, 5,             // map 16, 32
];
// biome-ignore format: as above
const LENGTH_BYTES = [
  0, 0, 0, 0,  1, 2, 4,  1, 2, 4,  0, 0,  0, 0, 0, 0,  0, 0, 0, 0,  0, 0, 0, 0, 0,  1, 2, 4,  0, 0,  0, 0,
];

/**
 * Whether `bytes` hold more than `most` MessagePack values, each key and each array counted. Looked at before decoding, which
 * makes an object of 50 bytes of every byte that says "an empty array". Bytes cut short are the decoder's to refuse.
 */
export function hasMoreValues(bytes: Uint8Array, most: number): boolean {
  const { length } = bytes;
  let count = 0;
  for (let at = 0; at < length; ) {
    if (++count > most) return true;
    const head = bytes[at] ?? 0;
    if (head < 0xa0 || head >= 0xe0) at += 1;
    else if (head < 0xc0) at += 1 + (head & 0x1f);
    else {
      let rest = 0;
      const lengthBytes = LENGTH_BYTES[head - 0xc0] ?? 0;
      for (let i = 1; i <= lengthBytes; i++) rest = rest * 256 + (bytes[at + i] ?? 0);
      at += (FIXED[head - 0xc0] ?? 1) + rest;
    }
  }
  return false;
}
