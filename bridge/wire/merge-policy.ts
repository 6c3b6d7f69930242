import {
  addDecimals,
  compareDecimals,
  type Decimal,
  decimalText,
  negateDecimal,
  parseDecimal,
} from './decimal.js';
import { BridgeError } from './errors.js';

/**
 * What becomes of a variable that a script read, changed and wrote while others did the same. `last`: what was written
 * last. The others combine the server's value with the script's change since what it had read.
 */
export const MERGE_POLICIES = ['last', 'add', 'max', 'min', 'union', 'append'] as const;
export type MergePolicy = (typeof MERGE_POLICIES)[number];

/** Source texts of one variable; null = there was none. */
export interface Versions {
  /** What is stored now. */
  readonly stored: string | null;
  /** What the script had read. */
  readonly base: string | null;
  readonly written: string;
}

/**
 * What may be merged: merging looks at every element, while everybody else's commits wait. As a list it is thousands of
 * elements; who has more uses several variables.
 */
const MERGED_BYTES_MAX = 256 * 1024;

/**
 * The text to store. Numbers may stand in strings, as bash writes them; the result is then a string too.
 * @throws BridgeError `invalid` when the policy does not fit the values, `too_large` beyond 256 KiB
 */
export function combine(policy: MergePolicy, key: string, versions: Versions): string {
  const { stored, base, written } = versions;
  const misfit = (what: string) =>
    new BridgeError(
      'invalid',
      `variable ${JSON.stringify(key)} is merged by "${policy}", so ${what}; see: cronium var policy`,
    );
  if (policy === 'last') return written;
  if (Math.max(stored?.length ?? 0, base?.length ?? 0, written.length) > MERGED_BYTES_MAX)
    throw new BridgeError(
      'too_large',
      `variable ${JSON.stringify(key)} is merged by "${policy}", which takes at most ${MERGED_BYTES_MAX} bytes`,
    );
  switch (policy) {
    case 'add': {
      const [to, from, by] = [stored ?? '0', base ?? '0', written].map(numberIn);
      if (to === undefined || from === undefined || by === undefined)
        throw misfit('it must be a number');
      if (stored === base) return written; // nobody else changed it: as the script wrote it
      const sum = decimalText(addDecimals(to, addDecimals(by, negateDecimal(from))));
      return written.startsWith('"') ? `"${sum}"` : sum;
    }
    case 'max':
    case 'min': {
      const by = numberIn(written);
      if (by === undefined) throw misfit('it must be a number');
      const to = stored === null ? undefined : numberIn(stored);
      if (stored === null || to === undefined) return written;
      const order = compareDecimals(by, to);
      return (policy === 'max' ? order > 0 : order < 0) ? written : stored;
    }
    case 'union': {
      const [there, before, now] = [stored ?? '[]', base ?? '[]', written].map(elementsOf);
      if (there === undefined || before === undefined || now === undefined)
        throw misfit('it must be an array');
      if (stored === base) return written;
      const [had, has] = [new Set(before.keys()), new Set(now.keys())];
      const kept = [...there].filter(([name]) => has.has(name) || !had.has(name));
      const added = [...now].filter(([name]) => !had.has(name) && !there.has(name));
      return `[${[...kept, ...added].map(([, text]) => text).join(',')}]`;
    }
    case 'append':
      return appended(versions, misfit);
    default:
      return policy satisfies never;
  }
}

function appended(
  { stored, base, written }: Versions,
  misfit: (what: string) => BridgeError,
): string {
  if (written.startsWith('"')) {
    const [there, before, now] = [stored ?? '""', base ?? '""', written].map(stringIn);
    if (there === undefined || before === undefined || now === undefined)
      throw misfit('a string can follow a string only');
    if (!now.startsWith(before)) throw misfit('its text may only grow at the end');
    return stored === base ? written : JSON.stringify(there + now.slice(before.length));
  }
  const [there, before, now] = [stored ?? '[]', base ?? '[]', written].map(splitArray);
  if (there === undefined || before === undefined || now === undefined)
    throw misfit('it must be an array or a string');
  const grows = before.every((text, i) => canonical(text) === canonical(now[i] ?? ''));
  if (!grows) throw misfit('its elements may only grow at the end');
  return stored === base ? written : `[${[...there, ...now.slice(before.length)].join(',')}]`;
}

/** The number that a text is, or that a string holds. */
function numberIn(text: string): Decimal | undefined {
  return parseDecimal(stringIn(text)?.trim() ?? text);
}

const stringIn = (text: string): string | undefined =>
  text.startsWith('"') ? (JSON.parse(text) as string) : undefined;

/** Elements by what they mean, each once, in order; undefined for what is no array. */
function elementsOf(text: string): Map<string, string> | undefined {
  const elements = splitArray(text);
  return elements && new Map(elements.map((element) => [canonical(element), element]));
}

/** Source texts of the elements of a valid JSON array; undefined for any other value. */
function splitArray(text: string): string[] | undefined {
  if (!text.startsWith('[')) return undefined;
  const elements: string[] = [];
  let [depth, start] = [0, -1];
  for (const { token, at } of tokens(text)) {
    const closes = token === ']' || token === '}';
    if (depth === 1 && start >= 0 && (token === ',' || closes)) {
      elements.push(text.slice(start, at).trimEnd());
      start = -1;
    } else if (depth === 1 && start < 0 && !closes) start = at;
    if (token === '[' || token === '{') depth++;
    if (closes) depth--;
  }
  return elements;
}

/** Equal for values that differ in white space, escapes and the way a number is written only. */
function canonical(text: string): string {
  let result = '';
  for (const { token } of tokens(text)) {
    if (token.startsWith('"')) result += JSON.stringify(JSON.parse(token));
    else {
      const number = parseDecimal(token);
      result += number === undefined ? token : decimalText(number);
    }
    result += ' ';
  }
  return result;
}

/** Tokens of valid JSON: strings, marks, and numbers or literals. White space is between them. */
function* tokens(text: string): Generator<{ token: string; at: number }> {
  for (let at = 0; at < text.length; ) {
    const c = text.charAt(at);
    if (SPACE.includes(c)) {
      at++;
      continue;
    }
    let end = at + 1;
    if (c === '"') {
      while (text.charAt(end) !== '"') end += text.charAt(end) === '\\' ? 2 : 1;
      end++;
    } else if (!MARKS.includes(c)) {
      while (
        end < text.length &&
        !MARKS.includes(text.charAt(end)) &&
        !SPACE.includes(text.charAt(end))
      )
        end++;
    }
    yield { token: text.slice(at, end), at };
    at = end;
  }
}

const SPACE = ' \t\n\r';
const MARKS = '[]{},:';
