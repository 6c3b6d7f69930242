import { Packr } from 'msgpackr';
import { z } from 'zod';
import { BridgeError, isCode } from './errors.js';
import { CALL_DEADLINE_MS_MAX, MESSAGE_BYTES_MAX } from './limits.js';

/**
 * One WebSocket message is one MessagePack array, told apart by its first element:
 *
 *     [0, id, op, channel, deadlineMs, params]   a call; channel 0 = the connection itself
 *     [1, id, value]                             its result
 *     [2, id, code, message]                     or its failure
 *     [3, channel, topic, value]                 a push: unasked, unanswered
 */
const id = z.int().min(0).max(Number.MAX_SAFE_INTEGER);
const name = z.string().max(64);
const deadlineMs = z.int().min(1).max(CALL_DEADLINE_MS_MAX);

export const CallFrame = z.tuple([z.literal(0), id, name, id, deadlineMs, z.unknown()]);
export const ResultFrame = z.tuple([z.literal(1), id, z.unknown()]);
export const FailureFrame = z.tuple([z.literal(2), id, name, z.string().max(8192)]);
export const PushFrame = z.tuple([z.literal(3), id, name, z.unknown()]);
export type CallFrame = z.infer<typeof CallFrame>;
export type ResultFrame = z.infer<typeof ResultFrame>;
export type FailureFrame = z.infer<typeof FailureFrame>;
export type PushFrame = z.infer<typeof PushFrame>;
export type Frame = CallFrame | ResultFrame | FailureFrame | PushFrame;

/** By first element. */
const FRAMES: readonly z.ZodType<Frame>[] = [CallFrame, ResultFrame, FailureFrame, PushFrame];

// Plain MessagePack: no private extensions, and integers beyond 2^53 become bigint, which every schema refuses.
const packr = new Packr({ useRecords: false, moreTypes: false });

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

/** @throws BridgeError `invalid` for anything that is not one well-formed frame; the link should be closed then. */
export function decodeFrame(bytes: Uint8Array): Frame {
  if (bytes.byteLength > MESSAGE_BYTES_MAX)
    throw new BridgeError('too_large', `a message of ${bytes.byteLength} bytes is over the limit`);
  let value: unknown;
  try {
    value = packr.unpack(bytes);
  } catch (cause) {
    throw new BridgeError('invalid', 'a message is not MessagePack', { cause });
  }
  const kind: unknown = Array.isArray(value) ? value[0] : undefined;
  const schema = typeof kind === 'number' ? FRAMES[kind] : undefined;
  if (schema === undefined) throw new BridgeError('invalid', 'a message is not a frame');
  return parse(schema, value, 'a message is not a frame');
}

/** A failure frame as the error its sender threw. A code from a newer peer is kept readable as `internal`. */
export const failureOf = (code: string, message: string): BridgeError =>
  isCode(code)
    ? new BridgeError(code, message)
    : new BridgeError('internal', `${code}: ${message}`);

/** A zod error in one line: `path: what is wrong; …`, at most three of them. */
export function sentence(error: z.ZodError): string {
  const parts = error.issues.slice(0, 3).map((issue) => {
    const path = issue.path.join('.');
    // A record's bad key carries its reason one level down.
    const reason = issue.code === 'invalid_key' ? issue.issues[0]?.message : undefined;
    const message = reason ?? issue.message;
    return path === '' ? message : `${path}: ${message}`;
  });
  return parts.join('; ');
}

/** Parses `value` or says in one sentence why not. @throws BridgeError `invalid` */
export function parse<T>(schema: z.ZodType<T>, value: unknown, what: string): T {
  const result = schema.safeParse(value);
  if (result.success) return result.data;
  throw new BridgeError('invalid', `${what}: ${sentence(result.error)}`);
}
