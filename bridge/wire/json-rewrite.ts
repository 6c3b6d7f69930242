/**
 * Whether one JSON text is another that a library read and wrote again. Both are walked side by side, without a tree: what
 * a script wrote back mostly has its members where they were.
 */

/**
 * Whether `rewritten` is `original` read and written again by a JSON library: white space, escapes and the order of
 * members may differ, and a number may have gone through a double (JavaScript, Python floats, jq's 17 digits).
 * A number that such a round trip would not have produced is a change, however close. Both must be valid JSON.
 */
export function isRewriteOf(original: string, rewritten: string): boolean {
  if (original === rewritten) return true;
  const walk = new Walk(original, rewritten);
  if (walk.run()) return true;
  if (!walk.sawRepeats) return false;
  // A key given twice in one object: the last value counts, so the walk has to be without the others.
  return new Walk(withoutRepeats(original), withoutRepeats(rewritten)).run();
}

/** Deeper values are compared as text: a script that nests deeper rewrites them seldom, and a stack is finite. */
const COMPARE_DEPTH_MAX = 256;

/** Where a string begins to be long: two calls of the engine's own search cost less than its units one by one. */
const LONG_STRING_UNITS = 64;

/** Two cursors. A comparison that says true leaves both behind what it compared; one that says false ends the walk. */
class Walk {
  readonly #a: string;
  readonly #b: string;
  #atA = 0;
  #atB = 0;
  #outlineA: Outline | undefined;
  #outlineB: Outline | undefined;
  /** The answer false may be due to a key given twice. */
  sawRepeats = false;

  constructor(a: string, b: string) {
    this.#a = a;
    this.#b = b;
  }

  run(): boolean {
    return this.#value(0);
  }

  #value(depth: number): boolean {
    if (depth > COMPARE_DEPTH_MAX) return false;
    this.#skipSpaces();
    const a = this.#a.charCodeAt(this.#atA);
    const b = this.#b.charCodeAt(this.#atB);
    if (a === QUOTE) return b === QUOTE && this.#string();
    if (a === OPEN_BRACKET) return b === OPEN_BRACKET && this.#array(depth);
    if (a === OPEN_BRACE) return b === OPEN_BRACE && this.#object(depth);
    return b !== QUOTE && b !== OPEN_BRACKET && b !== OPEN_BRACE && this.#scalar(a);
  }

  #scalar(first: number): boolean {
    const textA = this.#a;
    const textB = this.#b;
    const startA = this.#atA;
    const startB = this.#atB;
    let same = 0;
    while (!isScalarEnd(textA, startA + same)) {
      if (textA.charCodeAt(startA + same) !== textB.charCodeAt(startB + same)) break;
      same++;
    }
    this.#atA = scalarEnd(textA, startA + same);
    this.#atB = scalarEnd(textB, startB + same);
    if (this.#atA === startA + same && this.#atB === startB + same) return true;
    // A literal may stand for a number: JavaScript writes null for one beyond its range.
    return (
      first <= NINE &&
      isRewrittenNumber(textA.slice(startA, this.#atA), textB.slice(startB, this.#atB))
    );
  }

  /** By UTF-16 units, as the escapes spell them: nothing is decoded to be compared. */
  #string(): boolean {
    const textA = this.#a;
    const textB = this.#b;
    let atA = this.#atA + 1;
    let atB = this.#atB + 1;
    const longFrom = atA + LONG_STRING_UNITS;
    for (;;) {
      if (atA === longFrom) {
        const restA = textA.slice(atA, textA.indexOf('"', atA));
        const restB = textB.slice(atB, textB.indexOf('"', atB));
        if (!restA.includes('\\') && !restB.includes('\\')) {
          if (restA !== restB) return false;
          atA += restA.length;
          atB += restB.length;
        }
      }
      let a = textA.charCodeAt(atA);
      let b = textB.charCodeAt(atB);
      if (a !== b || a === BACKSLASH) {
        if (a === QUOTE || b === QUOTE) return false;
        if (a === BACKSLASH) {
          a = escapedUnit(textA, atA);
          atA += textA.charCodeAt(atA + 1) === LOWER_U ? 5 : 1;
        }
        if (b === BACKSLASH) {
          b = escapedUnit(textB, atB);
          atB += textB.charCodeAt(atB + 1) === LOWER_U ? 5 : 1;
        }
        if (a !== b) return false;
      } else if (a === QUOTE) break;
      atA++;
      atB++;
    }
    this.#atA = atA + 1;
    this.#atB = atB + 1;
    return true;
  }

  #array(depth: number): boolean {
    this.#atA++;
    this.#atB++;
    for (;;) {
      this.#skipSpaces();
      const endsA = this.#a.charCodeAt(this.#atA) === CLOSE_BRACKET;
      const endsB = this.#b.charCodeAt(this.#atB) === CLOSE_BRACKET;
      if (endsA || endsB) {
        this.#atA++;
        this.#atB++;
        return endsA && endsB;
      }
      if (!this.#value(depth + 1)) return false;
      this.#skipCommas();
    }
  }

  #object(depth: number): boolean {
    const openA = this.#atA++;
    const openB = this.#atB++;
    for (let ordinal = 0; ; ordinal++) {
      this.#skipSpaces();
      const endsA = this.#a.charCodeAt(this.#atA) === CLOSE_BRACE;
      const endsB = this.#b.charCodeAt(this.#atB) === CLOSE_BRACE;
      if (endsA && endsB) {
        this.#atA++;
        this.#atB++;
        return true;
      }
      if (endsA || endsB || !this.#string()) return this.#unordered(openA, openB, ordinal, depth);
      this.#skipSpaces();
      this.#atA++; // the colons
      this.#atB++;
      if (!this.#value(depth + 1)) {
        this.#list(openA, openB); // looks for repeats
        return false;
      }
      this.#skipCommas();
    }
  }

  /** From the member `same` on the keys are in another order. */
  #unordered(openA: number, openB: number, same: number, depth: number): boolean {
    const lists = this.#list(openA, openB);
    if (lists === undefined || lists.a.members.size !== lists.b.members.size) return false;
    const { a, b } = lists;
    for (const [key, member] of a.members) {
      if (member.ordinal < same) continue; // the same in both, and compared
      const peer = b.members.get(key);
      if (peer === undefined) return false;
      this.#atA = member.valueAt;
      this.#atB = peer.valueAt;
      if (!this.#value(depth + 1)) return false;
    }
    this.#atA = a.end;
    this.#atB = b.end;
    return true;
  }

  /** The members of two objects; undefined when one of them, here or further in, has a key twice. */
  #list(openA: number, openB: number): { a: MemberList; b: MemberList } | undefined {
    if (this.sawRepeats) return undefined;
    this.#outlineA ??= new Outline(this.#a);
    this.#outlineB ??= new Outline(this.#b);
    const a = this.#outlineA.membersOf(openA);
    const b = this.#outlineB.membersOf(openB);
    this.sawRepeats = a.repeated.length > 0 || b.repeated.length > 0;
    return this.sawRepeats ? undefined : { a, b };
  }

  #skipSpaces(): void {
    this.#atA = skipSpace(this.#a, this.#atA);
    this.#atB = skipSpace(this.#b, this.#atB);
  }

  #skipCommas(): void {
    this.#skipSpaces();
    if (this.#a.charCodeAt(this.#atA) === COMMA) this.#atA++;
    if (this.#b.charCodeAt(this.#atB) === COMMA) this.#atB++;
  }
}

interface Member {
  readonly ordinal: number;
  readonly keyAt: number;
  readonly valueAt: number;
}

interface MemberList {
  /** By decoded key: the last of a name. */
  readonly members: Map<string, Member>;
  /** Where earlier members of a name begin. */
  readonly repeated: number[];
  /** Behind the closing brace. */
  readonly end: number;
}

/** Where the objects and arrays of a text end, so that one can be stepped over however large it is. */
class Outline {
  readonly #text: string;
  /** Of the opening brackets, ascending. */
  readonly opens: number[] = [];
  /** Of what follows the closing brackets. */
  readonly #ends: number[] = [];

  constructor(text: string) {
    this.#text = text;
    const open: number[] = [];
    for (let at = 0; at < text.length; at++) {
      const c = text.charCodeAt(at);
      if (c === QUOTE) at = stringEnd(text, at) - 1;
      else if (c === OPEN_BRACE || c === OPEN_BRACKET) {
        open.push(this.opens.length);
        this.opens.push(at);
        this.#ends.push(0);
      } else if (c === CLOSE_BRACE || c === CLOSE_BRACKET) this.#ends[open.pop() ?? 0] = at + 1;
    }
  }

  membersOf(open: number): MemberList {
    const text = this.#text;
    const members: MemberList['members'] = new Map();
    const repeated: number[] = [];
    let at = skipSpace(text, open + 1);
    for (let ordinal = 0; text.charCodeAt(at) === QUOTE; ordinal++) {
      const keyAt = at;
      const keyEnd = stringEnd(text, at);
      const key = decodedString(text.slice(keyAt, keyEnd));
      const valueAt = skipSpace(text, skipSpace(text, keyEnd) + 1);
      const earlier = members.get(key);
      if (earlier !== undefined) repeated.push(earlier.keyAt);
      members.set(key, { ordinal, keyAt, valueAt });
      at = skipSpace(text, this.#valueEnd(valueAt));
      if (text.charCodeAt(at) === COMMA) at = skipSpace(text, at + 1);
    }
    return { members, repeated, end: at + 1 };
  }

  #valueEnd(at: number): number {
    const c = this.#text.charCodeAt(at);
    if (c === QUOTE) return stringEnd(this.#text, at);
    if (c !== OPEN_BRACE && c !== OPEN_BRACKET) return scalarEnd(this.#text, at);
    return this.#ends[this.#indexOf(at)] ?? this.#text.length;
  }

  /** Of an opening bracket, by halving. */
  #indexOf(open: number): number {
    let low = 0;
    let high = this.opens.length - 1;
    while (low < high) {
      const middle = (low + high) >> 1;
      if ((this.opens[middle] as number) < open) low = middle + 1;
      else high = middle;
    }
    return low;
  }

  /** Where the member that begins at `keyAt` gives way to the next: behind its comma. */
  nextMember(keyAt: number): number {
    const text = this.#text;
    const valueAt = skipSpace(text, skipSpace(text, stringEnd(text, keyAt)) + 1);
    return skipSpace(text, this.#valueEnd(valueAt)) + 1;
  }
}

/** The text without the members that a later one of the same name overrides. */
function withoutRepeats(text: string): string {
  const outline = new Outline(text);
  const repeated: number[] = [];
  for (const open of outline.opens)
    if (text.charCodeAt(open) === OPEN_BRACE)
      for (const keyAt of outline.membersOf(open).repeated) repeated.push(keyAt);
  repeated.sort((a, b) => a - b);
  const kept: string[] = [];
  let from = 0;
  for (const keyAt of repeated) {
    if (keyAt < from) continue; // inside one that is left out
    kept.push(text.slice(from, keyAt));
    from = outline.nextMember(keyAt);
  }
  kept.push(text.slice(from));
  return kept.join('');
}

const QUOTE = 0x22;
const COMMA = 0x2c;
const NINE = 0x39;
const OPEN_BRACKET = 0x5b;
const BACKSLASH = 0x5c;
const CLOSE_BRACKET = 0x5d;
const LOWER_U = 0x75;
const OPEN_BRACE = 0x7b;
const CLOSE_BRACE = 0x7d;

const isSpace = (c: number) => c === 0x20 || c === 0x0a || c === 0x0d || c === 0x09;

function skipSpace(text: string, start: number): number {
  let at = start;
  while (isSpace(text.charCodeAt(at))) at++;
  return at;
}

/** Index after the string whose opening quote is at `start`. */
function stringEnd(text: string, start: number): number {
  for (let at = start + 1; ; at++) {
    const c = text.charCodeAt(at);
    if (c === BACKSLASH) at++;
    else if (c === QUOTE) return at + 1;
  }
}

/** Index after the number or literal that `start` stands in. */
function scalarEnd(text: string, start: number): number {
  let at = start;
  while (!isScalarEnd(text, at)) at++;
  return at;
}

function isScalarEnd(text: string, at: number): boolean {
  if (at >= text.length) return true;
  const c = text.charCodeAt(at);
  return c === COMMA || c === CLOSE_BRACKET || c === CLOSE_BRACE || isSpace(c);
}

const decodedString = (source: string): string =>
  source.includes('\\') ? (JSON.parse(source) as string) : source.slice(1, -1);

/** RFC 8259 section 7: what the letter after a backslash stands for. */
const ESCAPES: ReadonlyMap<number, number> = new Map(
  Object.entries({ b: '\b', f: '\f', n: '\n', r: '\r', t: '\t' }).map(([letter, meant]) => [
    letter.charCodeAt(0),
    meant.charCodeAt(0),
  ]),
);

/** The UTF-16 unit that the escape at `at` spells. */
function escapedUnit(text: string, at: number): number {
  const letter = text.charCodeAt(at + 1);
  if (letter === LOWER_U) return Number.parseInt(text.slice(at + 2, at + 6), 16);
  return ESCAPES.get(letter) ?? letter;
}

/** Digits that any double keeps: two such numbers without exponent are equal when their doubles are. */
const EXACT_DIGITS = 15;

function isRewrittenNumber(original: string, rewritten: string): boolean {
  const double = Number(original);
  if (rewritten === String(double)) return true;
  if (isShort(original) && isShort(rewritten)) return double === Number(rewritten);
  if (rewritten === 'null') return !Number.isFinite(double);
  const written = decimal(rewritten);
  if (written === decimal(original)) return true;
  // jq writes the largest double for a number beyond the range.
  if (!Number.isFinite(double))
    return written === decimal(String(Math.sign(double) * Number.MAX_VALUE));
  return written === decimal(String(double)) || written === decimal(double.toPrecision(17));
}

const isShort = (number: string): boolean =>
  number.length <= EXACT_DIGITS && !/[a-zA-Z]/.test(number);

/** An exponent of more digits belongs to no number a script means; it is compared as text. */
const EXPONENT_DIGITS_MAX = 18;

const ZERO = 0x30;

/** Sign, significant digits and power of ten: equal for equal numbers however they are written. Linear in the digits. */
function decimal(text: string): string {
  const match = /^(-?)(\d+)(?:\.(\d+))?(?:[eE]([-+]?\d+))?$/.exec(text);
  if (match === null) return text;
  const [, sign = '', whole = '', fraction = '', exponent = '0'] = match;
  if (exponent.length > EXPONENT_DIGITS_MAX) return text;
  const digits = whole + fraction;
  let start = 0;
  while (digits.charCodeAt(start) === ZERO) start++;
  let end = digits.length;
  while (end > start && digits.charCodeAt(end - 1) === ZERO) end--;
  if (start === end) return '0';
  const power = BigInt(exponent) - BigInt(fraction.length) + BigInt(digits.length - end);
  return `${sign}${digits.slice(start, end)}e${power}`;
}
