/**
 * RFC 8259 over UTF-8 bytes in one pass: checks the grammar and notes where the top-level members stand, without making a
 * single value. It can stop at any byte and go on later, because one thread answers every execution of a host.
 */
import { isUtf8 } from 'node:buffer';

/** Top-level members of an object, by decoded key: a repeated key keeps its first place and its last value. */
export type Members = Map<string, string>;

/** The parser's complaint, for warnings that quote it. */
export class JsonSyntaxError extends Error {
  override readonly name = 'JsonSyntaxError';
  #source: string | Uint8Array | undefined;
  #message = '';

  constructor(source: string | Uint8Array) {
    super();
    this.#source = source;
  }

  /**
   * What V8's parser says. It is asked when somebody reads this: a text of 10 MiB takes it up to seconds, and most
   * documents that do not parse are half written and complained about by nobody.
   */
  override get message(): string {
    if (this.#source === undefined) return this.#message;
    const text = typeof this.#source === 'string' ? this.#source : decodeText(this.#source);
    this.#source = undefined;
    try {
      JSON.parse(text);
      this.#message = 'not JSON'; // the two disagree: the differential test would have to be wrong
    } catch (error) {
      this.#message = error instanceof Error ? error.message : String(error);
    }
    return this.#message;
  }
}

/** Bytes of a file as legacy Node read them: invalid UTF-8 becomes U+FFFD, a byte-order mark stays (and fails to parse). */
export const decodeText = (bytes: Uint8Array): string => decoder.decode(bytes);
const decoder = new TextDecoder('utf-8', { fatal: false, ignoreBOM: true });

/** What the next byte that is not white space belongs to. The two strings come first: white space is theirs. */
const STRING = 0;
const KEY_STRING = 1;
const VALUE = 2;
const FIRST_ITEM = 3; // or the end of the array
const KEY = 4;
const FIRST_KEY = 5; // or the end of the object
const COLON = 6;
const AFTER_VALUE = 7;

/** What a bracket opened, as the stack holds it. */
const ARRAY = 0;
const OBJECT = 1;

/** Text is made of the bytes in pieces of about this size: a call each, and what a short member keeps alive. */
const SEGMENT_BYTES = 64 * 1024;

/**
 * One pass over a text. `step` until it returns true, then ask. The bytes must not change meanwhile. Nesting costs a byte
 * a level and no stack; there is no limit but the text's length.
 */
export class JsonScan {
  readonly #bytes: Uint8Array;
  readonly #view: DataView;
  readonly #text: string | undefined;
  readonly #source: string | Uint8Array;
  #at = 0;
  #state = VALUE;
  #depth = 0;
  #stack = new Uint8Array(32);
  #outcome: 'under way' | 'valid' | 'invalid' = 'under way';
  /** Depth of the members that are wanted; -1 = none. */
  #memberDepth = -1;
  readonly #wantsMembers: boolean;
  #members: Members | undefined;
  #keyStart = 0;
  #keyEnd = 0;
  #valueStart = 0;
  /** Byte offsets in ascending order, four for each member that is not in `#members` yet: of its key and of its value. */
  #spans: number[] = [];

  constructor(source: string | Uint8Array, wants: 'members' | 'verdict') {
    const bytes = typeof source === 'string' ? Buffer.from(source) : source;
    this.#source = source;
    this.#text = typeof source === 'string' ? source : undefined;
    // A Buffer is another class than a Uint8Array, and a loop that sees one class is the faster one.
    this.#bytes = new Uint8Array(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    this.#view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    this.#wantsMembers = wants === 'members';
  }

  /** Whether the text is one JSON value; false while it is not known. */
  get isValid(): boolean {
    return this.#outcome === 'valid';
  }

  /**
   * The top-level members, or undefined when the text is valid JSON but not an object (or only a verdict was wanted).
   * @throws JsonSyntaxError when it is not JSON.
   */
  get members(): Members | undefined {
    if (this.#outcome === 'invalid') throw new JsonSyntaxError(this.#source);
    if (this.#outcome === 'under way')
      throw new Error('asked for members before the scan was over');
    return this.#members;
  }

  /**
   * Reads on for about `budget` bytes and returns whether the scan is over. A number is not cut, nor is the text of one
   * member: 10 MiB of digits take a few milliseconds.
   */
  step(budget: number): boolean {
    if (this.#outcome !== 'under way') return true;
    const isSound = this.#advance(Math.min(this.#bytes.length, this.#at + Math.max(budget, 1)));
    if (!isSound) this.#outcome = 'invalid';
    else if (this.#at < this.#bytes.length) return false;
    else if (this.#depth > 0 || this.#state !== AFTER_VALUE) this.#outcome = 'invalid';
    else {
      this.#takeMembers();
      this.#outcome = 'valid';
    }
    return true;
  }

  /** Reads to `limit`, or a token further. Returns whether the grammar allows what it saw. */
  #advance(limit: number): boolean {
    const bytes = this.#bytes;
    const view = this.#view;
    const end = bytes.length;
    const memberDepthWanted = this.#wantsMembers ? 1 : -1;
    let memberDepth = this.#memberDepth;
    let stack = this.#stack;
    let at = this.#at;
    let state = this.#state;
    let depth = this.#depth;

    scanning: while (at < limit) {
      if (state <= KEY_STRING) {
        for (;;) {
          // Four bytes at a time while none is a quote, a backslash or a control character.
          while (at + 4 <= limit) {
            const word = view.getInt32(at, true);
            const quote = word ^ 0x22222222;
            const backslash = word ^ 0x5c5c5c5c;
            const hits =
              (((quote - 0x01010101) & ~quote) |
                ((backslash - 0x01010101) & ~backslash) |
                ((word - 0x20202020) & ~word)) &
              0x80808080;
            if (hits !== 0) {
              // A borrow makes false hits only behind the first, and the lowest bit is the first byte.
              at += (31 - Math.clz32(hits & -hits)) >> 3;
              break;
            }
            at += 4;
          }
          if (at >= limit) break scanning;
          const c = bytes[at] as number;
          if (c === QUOTE) break;
          if (c < SPACE) return false;
          if (c === BACKSLASH) {
            const length = escapeLength(bytes, at, end);
            if (length === 0) return false;
            at += length;
          } else at++;
        }
        if (state === KEY_STRING) {
          if (depth === memberDepth) this.#keyEnd = at;
          at++;
          state = COLON;
        } else {
          at++;
          state = AFTER_VALUE;
          if (depth === memberDepth) this.#endMember(at);
        }
        if (at >= limit) break;
      }

      let c = bytes[at] as number;
      while (c === SPACE || c === LINE_FEED || c === CARRIAGE_RETURN || c === TAB) {
        if (++at >= limit) break scanning;
        c = bytes[at] as number;
      }

      switch (state) {
        case AFTER_VALUE: {
          if (depth === 0) return false;
          const inside = stack[depth - 1] as number;
          at++;
          if (c === COMMA) {
            state = VALUE + ((inside & OBJECT) << 1); // KEY in an object
            break;
          }
          if (c !== (inside === OBJECT ? CLOSE_BRACE : CLOSE_BRACKET)) return false;
          depth--;
          if (depth === memberDepth) this.#endMember(at);
          break;
        }
        case FIRST_KEY:
        case KEY:
          if (c === CLOSE_BRACE && state === FIRST_KEY) {
            depth--;
            at++;
            state = AFTER_VALUE;
            if (depth === memberDepth) this.#endMember(at);
            break;
          }
          if (c !== QUOTE) return false;
          at++;
          if (depth === memberDepth) this.#keyStart = at;
          state = KEY_STRING;
          break;
        case COLON:
          if (c !== COLON_SIGN) return false;
          at++;
          state = VALUE;
          break;
        case FIRST_ITEM:
        case VALUE:
          if (c === CLOSE_BRACKET && state === FIRST_ITEM) {
            depth--;
            at++;
            state = AFTER_VALUE;
            if (depth === memberDepth) this.#endMember(at);
            break;
          }
          if (depth === memberDepth) this.#valueStart = at;
          if (c === QUOTE) {
            at++;
            state = STRING;
          } else if (c === OPEN_BRACE || c === OPEN_BRACKET) {
            if (depth === 0 && c === OPEN_BRACE && memberDepthWanted === 1) {
              memberDepth = 1;
              this.#members = new Map();
            }
            if (depth === stack.length) stack = grown(stack);
            stack[depth++] = c === OPEN_BRACE ? OBJECT : ARRAY;
            at++;
            state = c === OPEN_BRACE ? FIRST_KEY : FIRST_ITEM;
          } else {
            at = c <= NINE ? numberEnd(bytes, at, end) : literalEnd(bytes, at, end);
            if (at === 0) return false;
            state = AFTER_VALUE;
            if (depth === memberDepth) this.#endMember(at);
          }
          break;
        default:
          throw new Error(`no state ${state}`);
      }
    }
    this.#memberDepth = memberDepth;
    this.#stack = stack;
    this.#at = at;
    this.#state = state;
    this.#depth = depth;
    return true;
  }

  #endMember(valueEnd: number): void {
    const spans = this.#spans;
    spans.push(this.#keyStart, this.#keyEnd, this.#valueStart, valueEnd);
    if (this.#text === undefined && valueEnd - (spans[0] as number) >= SEGMENT_BYTES)
      this.#takeMembers();
  }

  /** Makes text of the members found since the last time. */
  #takeMembers(): void {
    const spans = this.#spans;
    const members = this.#members;
    if (members === undefined || spans.length === 0) return;
    this.#spans = [];
    const from = this.#text === undefined ? (spans[0] as number) : 0;
    const to = this.#text === undefined ? (spans.at(-1) as number) : this.#bytes.length;
    const bytes = this.#bytes.subarray(from, to);
    const text = this.#text ?? decodeText(bytes);
    // No sequence of n bytes makes more than n units, so equal lengths mean equal offsets.
    if (text.length === bytes.length) shift(spans, from);
    else if (isUtf8(bytes)) toUnits(bytes, spans, from);
    else {
      // A decoder never swallows an ASCII byte, and every span lies between two of them.
      for (let i = 0; i < spans.length; i += 4) {
        const key = decodeText(this.#bytes.subarray(spans[i], spans[i + 1]));
        members.set(decodedKey(key), decodeText(this.#bytes.subarray(spans[i + 2], spans[i + 3])));
      }
      return;
    }
    for (let i = 0; i < spans.length; i += 4)
      members.set(
        decodedKey(text.slice(spans[i], spans[i + 1])),
        text.slice(spans[i + 2], spans[i + 3]),
      );
  }
}

const decodedKey = (source: string): string =>
  source.includes('\\') ? (JSON.parse(`"${source}"`) as string) : source;

function shift(offsets: number[], by: number): void {
  for (let i = 0; i < offsets.length; i++) offsets[i] = (offsets[i] as number) - by;
}

/** Byte offsets, in ascending order, become offsets in UTF-16 units from `from` on. `bytes` is valid UTF-8. */
function toUnits(bytes: Uint8Array, offsets: number[], from: number): void {
  let units = 0;
  let at = 0;
  for (let i = 0; i < offsets.length; i++) {
    const offset = (offsets[i] as number) - from;
    for (; at < offset; at++) {
      const c = bytes[at] as number;
      if ((c & 0xc0) !== 0x80) units += c >= 0xf0 ? 2 : 1;
    }
    offsets[i] = units;
  }
}

function grown(stack: Uint8Array): Uint8Array<ArrayBuffer> {
  const larger = new Uint8Array(stack.length * 4);
  larger.set(stack);
  return larger;
}

const TAB = 0x09;
const LINE_FEED = 0x0a;
const CARRIAGE_RETURN = 0x0d;
const SPACE = 0x20;
const QUOTE = 0x22;
const PLUS = 0x2b;
const COMMA = 0x2c;
const MINUS = 0x2d;
const POINT = 0x2e;
const ZERO = 0x30;
const NINE = 0x39;
const COLON_SIGN = 0x3a;
const OPEN_BRACKET = 0x5b;
const BACKSLASH = 0x5c;
const CLOSE_BRACKET = 0x5d;
const LOWER_E = 0x65;
const LOWER_F = 0x66;
const LOWER_N = 0x6e;
const LOWER_T = 0x74;
const LOWER_U = 0x75;
const OPEN_BRACE = 0x7b;
const CLOSE_BRACE = 0x7d;

/** Bytes of the escape whose backslash is at `at`; 0 = there is none. */
function escapeLength(bytes: Uint8Array, at: number, end: number): number {
  if (at + 1 >= end) return 0;
  const c = bytes[at + 1] as number;
  if (c !== LOWER_U) return IS_ESCAPE[c] === 1 ? 2 : 0;
  if (at + 6 > end) return 0;
  const isHex =
    (IS_HEX[bytes[at + 2] as number] as number) &
    (IS_HEX[bytes[at + 3] as number] as number) &
    (IS_HEX[bytes[at + 4] as number] as number) &
    (IS_HEX[bytes[at + 5] as number] as number);
  return isHex === 1 ? 6 : 0;
}

const bytesOf = (characters: string): Uint8Array => {
  const table = new Uint8Array(256);
  for (let i = 0; i < characters.length; i++) table[characters.charCodeAt(i)] = 1;
  return table;
};
const IS_ESCAPE = bytesOf('"\\/bfnrt');
const IS_HEX = bytesOf('0123456789abcdefABCDEF');

/** Offset behind the number at `at`; 0 = there is none. */
function numberEnd(bytes: Uint8Array, start: number, end: number): number {
  let at = start;
  if (bytes[at] === MINUS && ++at >= end) return 0;
  if (bytes[at] === ZERO) at++;
  else if ((at = digitsEnd(bytes, at, end)) === 0) return 0;
  if (at < end && bytes[at] === POINT && (at = digitsEnd(bytes, at + 1, end)) === 0) return 0;
  // 0x20 makes a capital small.
  if (at >= end || ((bytes[at] as number) | 0x20) !== LOWER_E) return at;
  at++;
  if (at < end && (bytes[at] === PLUS || bytes[at] === MINUS)) at++;
  return digitsEnd(bytes, at, end);
}

/** Offset behind one or more digits; 0 = there is none. */
function digitsEnd(bytes: Uint8Array, start: number, end: number): number {
  let at = start;
  while (at < end) {
    const c = bytes[at] as number;
    if (c < ZERO || c > NINE) break;
    at++;
  }
  return at === start ? 0 : at;
}

/** Offset behind `true`, `false` or `null` at `at`; 0 = there is none. */
function literalEnd(bytes: Uint8Array, at: number, end: number): number {
  const c = bytes[at];
  if (c === LOWER_T) return wordEnd(bytes, at, end, 'true');
  if (c === LOWER_F) return wordEnd(bytes, at, end, 'false');
  if (c === LOWER_N) return wordEnd(bytes, at, end, 'null');
  return 0;
}

function wordEnd(bytes: Uint8Array, at: number, end: number, word: string): number {
  if (at + word.length > end) return 0;
  for (let i = 1; i < word.length; i++) if (bytes[at + i] !== word.charCodeAt(i)) return 0;
  return at + word.length;
}
