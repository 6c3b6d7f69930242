/**
 * JSON as source text: values keep the characters their author wrote (1.0 stays 1.0, 2^63 stays exact).
 * RFC 8259 grammar, checked without making values (json-scan.ts); a parser only words the complaint.
 */
import { decodeText, JsonScan, JsonSyntaxError, type Members } from './json-scan.js';

export { isRewriteOf } from './json-rewrite.js';
export { decodeText, JsonScan, JsonSyntaxError, type Members } from './json-scan.js';

/** The text without surrounding white space. @throws JsonSyntaxError unless it is one JSON value. */
export function checkJson(source: string | Uint8Array): string {
  if (!isJson(source)) throw new JsonSyntaxError(source);
  const text = typeof source === 'string' ? source : decodeText(source);
  let start = 0;
  while (isSpace(text.charCodeAt(start))) start++;
  let end = text.length;
  while (isSpace(text.charCodeAt(end - 1))) end--;
  return text.slice(start, end);
}

const isSpace = (c: number) => c === 0x20 || c === 0x0a || c === 0x0d || c === 0x09;

export function isJson(source: string | Uint8Array): boolean {
  const scan = new JsonScan(source, 'verdict');
  scan.step(Number.POSITIVE_INFINITY);
  return scan.isValid;
}

/**
 * The top-level members of a text or of a file's bytes, or undefined when it is valid JSON but not an object.
 * `new JsonScan(bytes, 'members')` does the same in steps.
 * @throws JsonSyntaxError when it is not JSON.
 */
export function scanMembers(source: string | Uint8Array): Members | undefined {
  const scan = new JsonScan(source, 'members');
  scan.step(Number.POSITIVE_INFINITY);
  return scan.members;
}

/** `{}` or one member a line, two spaces of indentation, no newline at the end: the legacy grep helper needs this shape. */
export function renderMembers(members: Iterable<readonly [string, string]>): string {
  let body = '';
  for (const [key, text] of members)
    body += `${body === '' ? '' : ',\n'}  ${JSON.stringify(key)}: ${text}`;
  return body === '' ? '{}' : `{\n${body}\n}`;
}
