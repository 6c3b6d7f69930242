import { Packr } from 'msgpackr';
import type { z } from 'zod';
import { BridgeError, isCode } from './errors.js';
import {
  CALL_DEADLINE_MS_MAX,
  FAILURE_CHARACTERS_MAX,
  MESSAGE_BYTES_MAX,
  MESSAGE_FRAMES_MAX,
  MESSAGE_VALUES_MAX,
  RETRY_AFTER_MS_MAX,
} from './limits.js';
import { hasMoreValues } from './value-count.js';

/**
 * One WebSocket message is one or more frames back to back: a MessagePack sequence. A frame is an array, told apart by
 * its first element:
 *
 *     [0, id, op, channel, deadlineMs, params]     a call; channel 0 = the connection itself
 *     [1, id, value]                               its result
 *     [2, id, code, message, retryAfterMs | null]  or its failure; with a hint when it was refused only for now
 *     [3, channel, topic, value]                   a push: unasked, unanswered
 */
export type CallFrame = [0, number, string, number, number, unknown];
export type ResultFrame = [1, number, unknown];
export type FailureFrame = [2, number, string, string, number | null];
export type PushFrame = [3, number, string, unknown];
export type Frame = CallFrame | ResultFrame | FailureFrame | PushFrame;

/** Elements of a frame, by its first one. */
const LENGTHS = [6, 3, 5, 4] as const;

/** Operations, topics and codes. */
const NAME_CHARACTERS_MAX = 64;

// Plain MessagePack: no private extensions, and integers beyond 2^53 become bigint, which every schema refuses. Bytes are
// copied out: a view would keep its whole message in memory for as long as the smallest of them.
const packr = new Packr({ useRecords: false, moreTypes: false, copyBuffers: true });

/** @throws BridgeError `too_large`, or `internal` for what MessagePack cannot hold: the link itself is fine then. */
export function encodeFrame(frame: Frame): Uint8Array {
  let bytes: Uint8Array;
  try {
    bytes = packr.pack(frame);
  } catch (cause) {
    throw new BridgeError('internal', 'a message cannot be encoded', { cause });
  }
  if (bytes.byteLength <= MESSAGE_BYTES_MAX) return bytes;
  throw new BridgeError(
    'too_large',
    `a message of ${bytes.byteLength} bytes is over the limit of ${MESSAGE_BYTES_MAX}`,
  );
}

/** The failure of call `id` as it travels. */
export const failureFrame = (id: number, { code, message, retryAfterMs }: BridgeError): Frame => [
  2,
  id,
  code,
  message.slice(0, FAILURE_CHARACTERS_MAX),
  retryAfterMs ?? null,
];

/**
 * The frames of one message, in their order: all of them, or none when one is bad.
 * @throws BridgeError `invalid` or `too_large` for anything that is not well-formed frames; the link should be closed then.
 */
export function decodeFrames(bytes: Uint8Array): Frame[] {
  if (bytes.byteLength > MESSAGE_BYTES_MAX)
    throw new BridgeError('too_large', `a message of ${bytes.byteLength} bytes is over the limit`);
  if (bytes.byteLength > MESSAGE_VALUES_MAX && hasMoreValues(bytes, MESSAGE_VALUES_MAX))
    throw new BridgeError(
      'too_large',
      `a message of more than ${MESSAGE_VALUES_MAX} values is over the limit`,
    );
  const frames: Frame[] = [];
  let problem: string | undefined;
  try {
    // One after the other and not as a list: what is no frame ends it before the rest is given memory.
    packr.unpackMultiple(bytes, (value: unknown) => {
      problem =
        frames.length === MESSAGE_FRAMES_MAX
          ? `it has more than ${MESSAGE_FRAMES_MAX}`
          : problemOf(value);
      if (problem !== undefined) return false;
      frames.push(value as Frame);
      return true;
    });
  } catch (cause) {
    throw new BridgeError('invalid', 'a message is not MessagePack', { cause });
  }
  if (problem === undefined) return frames;
  throw new BridgeError('invalid', `a message is not made of frames: ${problem}`);
}

/** By hand and not by a schema: it is done for every frame, and a tuple costs more than all the rest of decoding. */
function problemOf(frame: unknown): string | undefined {
  if (!Array.isArray(frame)) return 'it holds what is no array';
  const kind: unknown = frame[0];
  if (kind !== 0 && kind !== 1 && kind !== 2 && kind !== 3) return 'a frame has no known kind';
  if (frame.length !== LENGTHS[kind])
    return `a frame of kind ${kind} has ${frame.length} elements, not ${LENGTHS[kind]}`;
  if (!isCount(frame[1]))
    return `the ${kind === 3 ? 'channel' : 'id'} of a frame is not 0 to 2^53-1`;
  switch (kind) {
    case 0:
      if (!isName(frame[2])) return 'the operation of a call is no text of up to 64 characters';
      if (!isCount(frame[3])) return 'the channel of a call is not 0 to 2^53-1';
      if (!isCount(frame[4]) || frame[4] < 1 || frame[4] > CALL_DEADLINE_MS_MAX)
        return `the deadline of a call is not 1 to ${CALL_DEADLINE_MS_MAX} ms`;
      return undefined;
    case 1:
      return undefined;
    case 2:
      if (!isName(frame[2])) return 'the code of a failure is no text of up to 64 characters';
      if (typeof frame[3] !== 'string' || frame[3].length > FAILURE_CHARACTERS_MAX)
        return `the message of a failure is no text of up to ${FAILURE_CHARACTERS_MAX} characters`;
      if (frame[4] !== null && (!isCount(frame[4]) || frame[4] > RETRY_AFTER_MS_MAX))
        return `the hint of a failure is neither null nor 0 to ${RETRY_AFTER_MS_MAX} ms`;
      return undefined;
    case 3:
      return isName(frame[2]) ? undefined : 'the topic of a push is no text of up to 64 characters';
    default:
      return kind satisfies never;
  }
}

const isCount = (value: unknown): value is number =>
  Number.isSafeInteger(value) && Number(value) >= 0;
const isName = (value: unknown): value is string =>
  typeof value === 'string' && value.length <= NAME_CHARACTERS_MAX;

/** A failure frame as the error its sender threw. A code from a newer peer is kept readable as `internal`. */
export function failureOf([, , code, message, retryAfterMs]: FailureFrame): BridgeError {
  const hint = retryAfterMs === null ? {} : { retryAfterMs };
  return isCode(code)
    ? new BridgeError(code, message, hint)
    : new BridgeError('internal', `${code}: ${message}`, hint);
}

/** Of one complaint: zod names every unknown key there is, and the keys are a stranger's. */
const COMPLAINT_CHARACTERS_MAX = 200;

/** A zod error in one line: `path: what is wrong; …`, at most three of them, without control characters. */
export function sentence(error: z.ZodError): string {
  const parts = error.issues.slice(0, 3).map((issue) => {
    const path = plain(issue.path.join('.'));
    // A record's bad key carries its reason one level down.
    const reason = issue.code === 'invalid_key' ? issue.issues[0]?.message : undefined;
    const message = plain(reason ?? issue.message);
    return path === '' ? message : `${path}: ${message}`;
  });
  return parts.join('; ');
}

/** A stranger's text: cut to a length, and with nothing in it that moves a terminal's cursor. */
export const plain = (text: string): string =>
  (text.length > COMPLAINT_CHARACTERS_MAX
    ? `${text.slice(0, COMPLAINT_CHARACTERS_MAX)}…`
    : text
  ).replace(/\p{Cc}/gu, ' ');

/** Parses `value` or says in one sentence why not. @throws BridgeError `invalid` */
export function parse<T>(schema: z.ZodType<T>, value: unknown, what: string): T {
  const result = schema.safeParse(value);
  if (result.success) return result.data;
  throw new BridgeError('invalid', `${what}: ${sentence(result.error)}`);
}
