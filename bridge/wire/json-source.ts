/**
 * JSON as source text: values keep the characters their author wrote (1.0 stays 1.0, 2^63 stays exact).
 * RFC 8259 grammar, checked by `JSON.parse`; the scanners below only ever see text that passed it.
 */

/** Top-level members of an object, by decoded key: a repeated key keeps its first place and its last value. */
export type Members = Map<string, string>;

/** The parser's complaint, for warnings that quote it. */
export class JsonSyntaxError extends Error {
  override readonly name = 'JsonSyntaxError';
}

/** Bytes of a file as legacy Node read them: invalid UTF-8 becomes U+FFFD, a byte-order mark stays (and fails to parse). */
export const decodeText = (bytes: Uint8Array): string => decoder.decode(bytes);
const decoder = new TextDecoder('utf-8', { fatal: false, ignoreBOM: true });

/** The text without surrounding white space. @throws JsonSyntaxError unless it is one JSON value. */
export function checkJson(text: string): string {
  try {
    JSON.parse(text);
  } catch (error) {
    throw new JsonSyntaxError(error instanceof Error ? error.message : String(error));
  }
  return text.slice(skipSpace(text, 0), lastNonSpace(text) + 1);
}

export const isJson = (text: string): boolean => {
  try {
    JSON.parse(text);
    return true;
  } catch {
    return false;
  }
};

/**
 * The top-level members of `text`, or undefined when it is valid JSON but not an object.
 * @throws JsonSyntaxError when it is not JSON.
 */
export function scanMembers(text: string): Members | undefined {
  const source = checkJson(text);
  if (source.charCodeAt(0) !== OPEN_BRACE) return undefined;
  const members: Members = new Map();
  let at = skipSpace(source, 1);
  while (source.charCodeAt(at) === QUOTE) {
    const keyEnd = skipString(source, at);
    const key = JSON.parse(source.slice(at, keyEnd)) as string;
    const start = skipSpace(source, skipSpace(source, keyEnd) + 1); // past the colon
    const end = skipValue(source, start);
    members.set(key, source.slice(start, end));
    at = skipSpace(source, end);
    if (source.charCodeAt(at) === COMMA) at = skipSpace(source, at + 1);
  }
  return members;
}

/** `{}` or one member a line, two spaces of indentation, no newline at the end: the legacy grep helper needs this shape. */
export function renderMembers(members: Iterable<readonly [string, string]>): string {
  let body = '';
  for (const [key, text] of members)
    body += `${body === '' ? '' : ',\n'}  ${JSON.stringify(key)}: ${text}`;
  return body === '' ? '{}' : `{\n${body}\n}`;
}

/**
 * Whether `rewritten` is `original` read and written again by a JSON library: white space, escapes and the order of
 * members may differ, and a number may have gone through a double (JavaScript, Python floats, jq's 17 digits).
 * A number that such a round trip would not have produced is a change, however close.
 */
export function isRewriteOf(original: string, rewritten: string): boolean {
  if (original === rewritten) return true;
  const a = parseTree(original);
  const b = parseTree(rewritten);
  return a !== undefined && b !== undefined && sameTree(a, b);
}

const OPEN_BRACE = 0x7b;
const CLOSE_BRACE = 0x7d;
const OPEN_BRACKET = 0x5b;
const CLOSE_BRACKET = 0x5d;
const QUOTE = 0x22;
const COMMA = 0x2c;
const BACKSLASH = 0x5c;

const isSpace = (c: number) => c === 0x20 || c === 0x0a || c === 0x0d || c === 0x09;

function skipSpace(text: string, at: number): number {
  while (isSpace(text.charCodeAt(at))) at++;
  return at;
}

function lastNonSpace(text: string): number {
  let at = text.length - 1;
  while (at >= 0 && isSpace(text.charCodeAt(at))) at--;
  return at;
}

/** Index after the string whose opening quote is at `at`. */
function skipString(text: string, at: number): number {
  for (let i = at + 1; ; i++) {
    const c = text.charCodeAt(i);
    if (c === BACKSLASH) i++;
    else if (c === QUOTE) return i + 1;
  }
}

/** Index after the value that starts at `at`; counts brackets, so depth costs no stack. */
function skipValue(text: string, at: number): number {
  let depth = 0;
  for (let i = at; i < text.length; i++) {
    const c = text.charCodeAt(i);
    if (c === QUOTE) {
      i = skipString(text, i) - 1;
      if (depth === 0) return i + 1;
    } else if (c === OPEN_BRACE || c === OPEN_BRACKET) depth++;
    else if (c === CLOSE_BRACE || c === CLOSE_BRACKET) {
      if (depth === 0) return i; // end of the object around a number or literal
      if (--depth === 0) return i + 1;
    } else if (depth === 0 && (c === COMMA || isSpace(c))) return i;
  }
  return text.length;
}

type Tree =
  | { kind: 'string'; value: string }
  | { kind: 'number' | 'literal'; text: string }
  | { kind: 'array'; items: Tree[] }
  | { kind: 'object'; members: Map<string, Tree> };

/** Deeper values are compared as text: a script that nests deeper rewrites them seldom, and a stack is finite. */
const COMPARE_DEPTH_MAX = 256;

function parseTree(text: string): Tree | undefined {
  let at = 0;
  const value = (depth: number): Tree | undefined => {
    if (depth > COMPARE_DEPTH_MAX) return undefined;
    at = skipSpace(text, at);
    const c = text.charCodeAt(at);
    if (c === QUOTE) {
      const end = skipString(text, at);
      const string: Tree = {
        kind: 'string',
        value: JSON.parse(text.slice(at, end)) as string,
      };
      at = end;
      return string;
    }
    if (c === OPEN_BRACKET) {
      const items: Tree[] = [];
      at = skipSpace(text, at + 1);
      while (text.charCodeAt(at) !== CLOSE_BRACKET) {
        const item = value(depth + 1);
        if (item === undefined) return undefined;
        items.push(item);
        at = skipSpace(text, at);
        if (text.charCodeAt(at) === COMMA) at = skipSpace(text, at + 1);
      }
      at++;
      return { kind: 'array', items };
    }
    if (c === OPEN_BRACE) {
      const members = new Map<string, Tree>();
      at = skipSpace(text, at + 1);
      while (text.charCodeAt(at) !== CLOSE_BRACE) {
        const end = skipString(text, at);
        const key = JSON.parse(text.slice(at, end)) as string;
        at = skipSpace(text, end) + 1;
        const member = value(depth + 1);
        if (member === undefined) return undefined;
        members.set(key, member);
        at = skipSpace(text, at);
        if (text.charCodeAt(at) === COMMA) at = skipSpace(text, at + 1);
      }
      at++;
      return { kind: 'object', members };
    }
    const end = skipValue(text, at);
    const token = text.slice(at, end);
    at = end;
    return { kind: /^[-0-9]/.test(token) ? 'number' : 'literal', text: token };
  };
  return value(0);
}

function sameTree(a: Tree, b: Tree): boolean {
  switch (a.kind) {
    case 'string':
      return b.kind === 'string' && a.value === b.value;
    case 'literal':
      return b.kind === 'literal' && a.text === b.text;
    case 'number':
      // A literal: JavaScript writes null for a number beyond its range.
      return (b.kind === 'number' || b.kind === 'literal') && isRewrittenNumber(a.text, b.text);
    case 'array': {
      if (b.kind !== 'array' || a.items.length !== b.items.length) return false;
      const other = b.items;
      return a.items.every((item, i) => {
        const peer = other[i];
        return peer !== undefined && sameTree(item, peer);
      });
    }
    case 'object': {
      if (b.kind !== 'object' || a.members.size !== b.members.size) return false;
      const other = b.members;
      return [...a.members].every(([key, member]) => {
        const peer = other.get(key);
        return peer !== undefined && sameTree(member, peer);
      });
    }
    default:
      return a satisfies never;
  }
}

function isRewrittenNumber(original: string, rewritten: string): boolean {
  if (original === rewritten) return true;
  const double = Number(original);
  if (rewritten === 'null') return !Number.isFinite(double);
  const written = decimal(rewritten);
  if (written === decimal(original)) return true;
  // jq writes the largest double for a number beyond the range.
  if (!Number.isFinite(double))
    return written === decimal(String(Math.sign(double) * Number.MAX_VALUE));
  return written === decimal(String(double)) || written === decimal(double.toPrecision(17));
}

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
