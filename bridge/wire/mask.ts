import assert from 'node:assert/strict';
import { BridgeError } from './errors.js';
import { isJson } from './json-source.js';

/** What stands in the place of a secret. */
export const MASK = '***';

/** Shorter values are not masked: three digits or letters stand everywhere, and a log of stars says nothing. */
export const SECRET_CHARACTERS_MIN = 4;

/**
 * Bytes of secrets one masker can know. Their forms take up to 40 times as many nodes of ten bytes: 50 MB at the limit, and
 * 100 KB for twenty passwords.
 */
export const MASKED_BYTES_MAX = 128 * 1024;

/** Longer secrets are looked for in pieces, which bounds what has to be held back of a stream. */
const PIECE_LENGTH_MAX = 1024;

/** A line of a longer text is a secret of its own: keys in PEM are often printed line by line. Shorter ones may be anybody's. */
const LINE_CHARACTERS_MIN = 16;

/** Of the base64 of a secret within something longer: fewer characters would be found in what is no secret. */
const BASE64_CORE_MIN = 6;

/**
 * Replaces secrets by `***` in streams of bytes: themselves, and how they look in JSON, in base64 (alone or within something
 * longer) and in a URL. Occurrences that overlap or touch become one `***`; every other byte stays as it is.
 */
export class Masker {
  readonly #automaton: Automaton;

  /**
   * `secrets`: texts and bytes. Of a text that is JSON every string and every number is a secret, but no key.
   * @throws BridgeError `too_large`
   */
  constructor(secrets: Iterable<string | Uint8Array>) {
    this.#automaton = new Automaton(formsOf(secrets));
  }

  /** Without secrets there is nothing to look for, and streams pass through. */
  get isEmpty(): boolean {
    return this.#automaton.isEmpty;
  }

  /** The most a stream holds back. */
  get heldBytesMax(): number {
    return Math.max(0, this.#automaton.longest - 1);
  }

  /** With `before`: goes on where that one is, and takes it over; what it holds back is looked through for our secrets too. */
  stream(before?: MaskedStream): MaskedStream {
    return new MaskedStream(this.#automaton, before);
  }

  mask(text: string): string {
    if (this.isEmpty) return text;
    const bytes = Buffer.from(text, 'utf8');
    const masked = this.maskBytes(bytes);
    return masked === bytes ? text : Buffer.from(masked).toString('utf8');
  }

  /** `bytes` itself when there is nothing in them. */
  maskBytes(bytes: Uint8Array): Uint8Array {
    const stream = this.stream();
    const first = stream.push(bytes);
    const rest = stream.end();
    if (rest.byteLength === 0) return first;
    const whole = Buffer.concat([first, rest]);
    return whole.equals(bytes) ? bytes : whole;
  }
}

/** One stream's state. However its bytes are cut into chunks, what comes out together is the same. */
export class MaskedStream {
  readonly #automaton: Automaton;
  #state = 0;
  /** Bytes that may be the beginning of a secret: at most the longest of them less one. */
  #held: Uint8Array = NOTHING;
  /** Secrets within them, which a longer one around them may still absorb. */
  #ranges: number[] = [];
  /** Bytes before those, masked already, with which a secret that overlaps the masked one may have begun. */
  #covered: Uint8Array = NOTHING;
  /** Whether the last thing given out was a mask: another that touches it is the same one. */
  #isMasked = false;

  constructor(automaton: Automaton, before?: MaskedStream) {
    this.#automaton = automaton;
    if (before === undefined) return;
    this.#held = before.#held;
    this.#covered = before.#covered;
    this.#isMasked = before.#isMasked;
    const found: number[] = [];
    const state = automaton.scan(this.#covered, 0, 0, []);
    this.#state = automaton.scan(this.#held, 0, state, found);
    this.#ranges = joined(before.#ranges, found);
  }

  /** Bytes held back. */
  get held(): number {
    return this.#held.byteLength;
  }

  /** What is certain by now. May be a view on `chunk`. */
  push(chunk: Uint8Array): Uint8Array {
    const held = this.#held.byteLength;
    if ((this.#automaton.isEmpty && held === 0) || chunk.byteLength === 0) return chunk;
    const data = held === 0 ? chunk : Buffer.concat([this.#held, chunk]);
    this.#state = this.#automaton.scan(data, held, this.#state, this.#ranges);
    // A secret that ends later cannot begin before what the automaton has in hand.
    return this.#give(data, data.byteLength - this.#automaton.depthOf(this.#state));
  }

  /** What was held back, at the end of the stream. The next chunk would be that of another one. */
  end(): Uint8Array {
    const rest = this.#give(this.#held, this.#held.byteLength);
    this.#state = 0;
    this.#isMasked = false;
    return rest;
  }

  /** No secret to come begins before `certain`. */
  #give(data: Uint8Array, certain: number): Uint8Array {
    const parts: Uint8Array[] = [];
    const ranges = this.#ranges;
    let [at, i] = [0, 0];
    for (; i < ranges.length; i += 2) {
      const [from = 0, to = 0] = [ranges[i], ranges[i + 1]];
      if (from > certain) break;
      if (from > at) {
        parts.push(data.subarray(at, from));
        this.#isMasked = false;
      }
      if (!this.#isMasked) parts.push(MASK_BYTES);
      this.#isMasked = true;
      at = to;
    }
    if (certain > at) {
      parts.push(data.subarray(at, certain));
      this.#isMasked = false;
      at = certain;
    }
    this.#covered =
      at > certain ? lastBytes(this.#covered, data.subarray(0, at), at - certain) : NOTHING;
    this.#held = at < data.byteLength ? Uint8Array.from(data.subarray(at)) : NOTHING;
    this.#ranges = ranges.slice(i).map((offset) => offset - at);
    const [first = NOTHING, ...more] = parts;
    return more.length === 0 ? first : Buffer.concat(parts);
  }
}

/** Ranges of both, joined where they overlap or touch. Pairs of beginning and end, as the automaton's are. */
function joined(some: readonly number[], others: readonly number[]): number[] {
  const pairs: [number, number][] = [];
  for (const ranges of [some, others])
    for (let i = 0; i < ranges.length; i += 2) pairs.push([ranges[i] ?? 0, ranges[i + 1] ?? 0]);
  const all: number[] = [];
  for (const [from, to] of pairs.sort(([a], [b]) => a - b)) {
    if (all.length > 0 && from <= (all.at(-1) ?? 0))
      all[all.length - 1] = Math.max(to, all.at(-1) ?? 0);
    else all.push(from, to);
  }
  return all;
}

/** The last `count` of two pieces, as far as there are so many; a copy. */
function lastBytes(first: Uint8Array, second: Uint8Array, count: number): Uint8Array {
  const all = first.byteLength === 0 ? second : Buffer.concat([first, second]);
  return Uint8Array.from(all.subarray(Math.max(0, all.byteLength - count)));
}

const NOTHING = new Uint8Array(0);
const MASK_BYTES = Buffer.from(MASK);

/**
 * Aho and Corasick's automaton over bytes. A node is a beginning of a form; `fail` leads to the longest proper ending of it
 * that is a node too, so that reading n bytes takes at most 2n steps. Most nodes have one child, and it is the one made next:
 * only the others' edges need a table.
 */
class Automaton {
  /** Length of the longest form. */
  readonly longest: number;
  /** The byte that leads to a node. */
  readonly #byte: Uint8Array;
  /** NEXT_IS_CHILD, BRANCHES. */
  readonly #flags: Uint8Array;
  /** node * 256 + byte to node, where it is not the next. */
  readonly #branches = new Map<number, number>();
  readonly #depth: Uint16Array;
  readonly #fail: Int32Array;
  /** Length of the longest form that ends at a node; 0 = none. */
  readonly #found: Uint16Array;
  /** The root's edges: most bytes of most texts begin nothing. 0 = none, since no edge leads to the root. */
  readonly #first = new Int32Array(256);

  constructor(forms: readonly Uint8Array[]) {
    const nodesMax = 1 + forms.reduce((sum, form) => sum + form.byteLength, 0);
    this.longest = forms.reduce((most, form) => Math.max(most, form.byteLength), 0);
    assert(this.longest < 2 ** 16, 'the pieces of secrets are short');
    this.#byte = new Uint8Array(nodesMax);
    this.#flags = new Uint8Array(nodesMax);
    const depth = new Uint16Array(nodesMax);
    const found = new Uint16Array(nodesMax);
    const parents = new Int32Array(nodesMax);
    let nodes = 1;
    for (const form of forms) {
      let node = 0;
      for (const byte of form) {
        let next = this.#child(node, byte);
        if (next === 0) {
          next = nodes++;
          this.#link(node, byte, next);
          parents[next] = node;
          depth[next] = (depth[node] ?? 0) + 1;
        }
        node = next;
      }
      found[node] = form.byteLength;
    }
    // What forms share needs no room.
    this.#byte = this.#byte.slice(0, nodes);
    this.#flags = this.#flags.slice(0, nodes);
    this.#depth = depth.slice(0, nodes);
    this.#found = found.slice(0, nodes);
    this.#fail = new Int32Array(nodes);
    // By depth, so that a node's failure is complete before it is followed.
    for (const node of byDepth(this.#depth, this.longest)) {
      const parent = parents[node] ?? 0;
      if (parent !== 0)
        this.#fail[node] = this.#next(this.#fail[parent] ?? 0, this.#byte[node] ?? 0);
      // What ends at its failure ends here too; the form of the node itself is longer.
      if (this.#found[node] === 0) this.#found[node] = this.#found[this.#fail[node] ?? 0] ?? 0;
    }
  }

  get isEmpty(): boolean {
    return this.longest === 0;
  }

  /** How many of the last bytes read are the beginning of a form. */
  depthOf(state: number): number {
    return this.#depth[state] ?? 0;
  }

  /**
   * Reads `data` from `from` on and returns the state after it. Adds to `ranges` the occurrences that end there, in pairs of
   * beginning and end, joined where they overlap or touch. What begins before `data` is masked up to there already.
   */
  scan(data: Uint8Array, from: number, state: number, ranges: number[]): number {
    const [first, found] = [this.#first, this.#found];
    let node = state;
    for (let i = from; i < data.length; i++) {
      const byte = data[i] ?? 0;
      node = node === 0 ? (first[byte] ?? 0) : this.#next(node, byte);
      const length = node === 0 ? 0 : (found[node] ?? 0);
      if (length === 0) continue;
      let begin = Math.max(0, i + 1 - length);
      while (ranges.length > 0 && (ranges.at(-1) ?? 0) >= begin) {
        ranges.pop();
        begin = Math.min(begin, ranges.pop() ?? begin);
      }
      ranges.push(begin, i + 1);
    }
    return node;
  }

  #next(from: number, byte: number): number {
    for (let node = from; node !== 0; node = this.#fail[node] ?? 0) {
      const next = this.#child(node, byte);
      if (next !== 0) return next;
    }
    return this.#first[byte] ?? 0;
  }

  /** 0 = none. */
  #child(node: number, byte: number): number {
    if (node === 0) return this.#first[byte] ?? 0;
    const flags = this.#flags[node] ?? 0;
    if ((flags & NEXT_IS_CHILD) !== 0 && this.#byte[node + 1] === byte) return node + 1;
    if ((flags & BRANCHES) === 0) return 0;
    return this.#branches.get(node * 256 + byte) ?? 0;
  }

  #link(node: number, byte: number, next: number): void {
    this.#byte[next] = byte;
    if (node === 0) this.#first[byte] = next;
    else if (next === node + 1) this.#flags[node] = (this.#flags[node] ?? 0) | NEXT_IS_CHILD;
    else {
      this.#flags[node] = (this.#flags[node] ?? 0) | BRANCHES;
      this.#branches.set(node * 256 + byte, next);
    }
  }
}

const NEXT_IS_CHILD = 1;
const BRANCHES = 2;

/** Nodes other than the root, shallow ones first. */
function byDepth(depth: Uint16Array, longest: number): Int32Array {
  const starts = new Int32Array(longest + 2);
  for (let node = 1; node < depth.length; node++) {
    const after = (depth[node] ?? 0) + 1;
    starts[after] = (starts[after] ?? 0) + 1;
  }
  for (let i = 1; i < starts.length; i++) starts[i] = (starts[i] ?? 0) + (starts[i - 1] ?? 0);
  const order = new Int32Array(depth.length - 1);
  for (let node = 1; node < depth.length; node++) {
    const level = depth[node] ?? 0;
    const at = starts[level] ?? 0;
    starts[level] = at + 1;
    order[at] = node;
  }
  return order;
}

/** Everything that a masker of `secrets` replaces. @throws BridgeError `too_large` */
export function formsOf(secrets: Iterable<string | Uint8Array>): Buffer[] {
  const forms = new Set<string>();
  let bytes = 0;
  for (const secret of secrets) {
    bytes += Buffer.byteLength(secret);
    if (bytes > MASKED_BYTES_MAX)
      throw new BridgeError(
        'too_large',
        `secrets of more than ${MASKED_BYTES_MAX} bytes together cannot be masked`,
      );
    if (typeof secret !== 'string') {
      for (const form of formsOfBytes(secret)) forms.add(form);
      continue;
    }
    for (const leaf of leavesOf(secret))
      for (const piece of piecesOf(leaf)) for (const form of formsOfText(piece)) forms.add(form);
  }
  return [...forms].map((form) => Buffer.from(form, 'latin1'));
}

/** Every string and number of a JSON text, numbers as they are written; a text that is no JSON is itself one. */
export function leavesOf(text: string): string[] {
  if (!isJson(text)) return [text];
  const leaves: string[] = [];
  // Well-formed: a quote begins a string, a digit or a minus a number, and only after a key comes a colon.
  for (let i = 0; i < text.length; i++) {
    const begin = i;
    if (text[i] === '"') {
      for (i++; text[i] !== '"'; i++) if (text[i] === '\\') i++;
      COLON.lastIndex = i + 1;
      if (!COLON.test(text)) leaves.push(JSON.parse(text.slice(begin, i + 1)) as string);
    } else if (/[-0-9]/.test(text.charAt(i))) {
      while (/[-+.0-9eE]/.test(text.charAt(i + 1))) i++;
      leaves.push(text.slice(begin, i + 1));
    }
  }
  return leaves;
}

const COLON = /[ \t\n\r]*:/y;

/** What is looked for of a secret: all of it, and its longer lines. */
function* piecesOf(leaf: string): Generator<string> {
  const lines = leaf.split(/\r\n|\n|\r/);
  const long = lines.length > 1 ? lines.filter((line) => line.length >= LINE_CHARACTERS_MIN) : [];
  for (const text of [leaf, ...long]) {
    const characters = Array.from(text);
    if (characters.length < SECRET_CHARACTERS_MIN) continue;
    for (const piece of equalPieces(characters)) yield piece.join('');
  }
}

/** None is so short that it would be found everywhere. */
function* equalPieces<T extends { readonly length: number; slice(from: number, to: number): T }>(
  whole: T,
): Generator<T> {
  const count = Math.ceil(whole.length / PIECE_LENGTH_MAX);
  for (let i = 0; i < count; i++)
    yield whole.slice(
      Math.floor((i * whole.length) / count),
      Math.floor(((i + 1) * whole.length) / count),
    );
}

/** A form is a string of bytes (latin1), so that a set holds each once. */
function* formsOfText(text: string): Generator<string> {
  const json = JSON.stringify(text).slice(1, -1);
  const escape = (c: string) => `\\u${c.charCodeAt(0).toString(16).padStart(4, '0')}`;
  const texts = [
    json,
    json.replaceAll('/', '\\/'), // as PHP writes it
    json.replace(/[\u007f-\uffff]/g, escape), // as Python does, and others that keep to ASCII
  ];
  for (const one of texts) yield Buffer.from(one, 'utf8').toString('latin1');
  yield* formsOfBytes(Buffer.from(text, 'utf8'));
}

function* formsOfBytes(secret: Uint8Array): Generator<string> {
  if (secret.byteLength < SECRET_CHARACTERS_MIN) return;
  for (const bytes of equalPieces(secret)) {
    const buffer = Buffer.from(bytes);
    yield buffer.toString('latin1');
    for (const encoded of base64Of(buffer)) {
      yield encoded;
      yield encoded.replaceAll('+', '-').replaceAll('/', '_');
    }
    for (const encoded of percentOf(buffer)) {
      yield encoded;
      yield encoded.replaceAll('%20', '+'); // as forms are sent
    }
  }
}

/** The base64 of `bytes` alone, with and without padding, and what it leaves in the base64 of anything that holds it. */
function* base64Of(bytes: Buffer): Generator<string> {
  const padded = bytes.toString('base64');
  yield padded;
  yield padded.replace(/=+$/, '');
  for (const before of [0, 1, 2]) {
    const text = Buffer.concat([Buffer.alloc(before), bytes]).toString('base64');
    // Characters of which all six bits are of the secret.
    const from = Math.ceil((before * 8) / 6);
    const to = Math.floor(((before + bytes.byteLength) * 8) / 6);
    if (to - from >= BASE64_CORE_MIN) yield text.slice(from, to);
  }
}

/** RFC 3986 lets all but the unreserved characters be escaped; JavaScript and many others leave five more alone. */
function* percentOf(bytes: Buffer): Generator<string> {
  for (const plain of [/[A-Za-z0-9._~-]/, /[A-Za-z0-9._~!'()*-]/, /[A-Za-z0-9._~/-]/]) {
    let upper = '';
    for (const byte of bytes) {
      const c = String.fromCharCode(byte);
      upper += plain.test(c) ? c : `%${byte.toString(16).toUpperCase().padStart(2, '0')}`;
    }
    yield upper;
    yield upper.replace(/%../g, (escaped) => escaped.toLowerCase());
  }
}
