import { z } from 'zod';
import { BridgeError } from '#bridge/wire/errors.js';

const Int = z.int().min(0);

/** The next event of each chain that may still be written, and the time all others were read to. */
const ForwardCursor = z.strictObject({
  at: Int,
  next: z.array(z.tuple([Int, Int])).readonly(),
});
export type ForwardCursor = {
  readonly at: number;
  readonly next: readonly (readonly [writer: number, seq: number])[];
};

/** Time, writer and number of the last event that was read. */
const ReverseCursor = z.strictObject({ before: z.tuple([Int, Int, Int]) });
export type ReverseCursor = { readonly before: readonly [number, number, number] };

export const cursorText = (cursor: ForwardCursor | ReverseCursor): string =>
  Buffer.from(JSON.stringify(cursor)).toString('base64url');

/** @throws BridgeError `invalid` */
export function parseCursor(text: string): ForwardCursor | ReverseCursor {
  try {
    const json: unknown = JSON.parse(Buffer.from(text, 'base64url').toString());
    return z.union([ForwardCursor, ReverseCursor]).parse(json);
  } catch (cause) {
    throw new BridgeError('invalid', 'that is no cursor of the audit log', { cause });
  }
}
