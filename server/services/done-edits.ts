import type { VariableKey } from '#bridge/wire/names.js';
import type { VariableChange } from '#bridge/wire/protocol.js';
import { bytesOf } from './variable-records.js';

/** What a merging edit has made, for a caller whose answer got lost. */
export interface Done {
  /** The edit's commit id. */
  readonly id: string;
  /** 0 = that of the record itself. */
  readonly version: number;
  readonly updatedAt: number;
  /** Key, order, and what the merge made of it; null = as the edit says. */
  readonly keys: readonly (readonly [VariableKey, number, string | null])[];
}

export interface Merges {
  readonly version: number;
  readonly done: readonly Done[];
}

/** An execution has a few commits under way at once, and asks again for none that was answered. */
const DONE_MAX = 16;
const DONE_BYTES_MAX = 256 * 1024;

/** The newest of them, as many as may be kept; always the very last. */
export function lastOf(done: readonly Done[]): Done[] {
  const kept: Done[] = [];
  let bytes = 0;
  for (const one of [...done].reverse()) {
    for (const [key, , text] of one.keys) bytes += bytesOf(key, text ?? '');
    if (kept.length > 0 && (kept.length >= DONE_MAX || bytes > DONE_BYTES_MAX)) break;
    kept.unshift(one);
  }
  return kept;
}

/** The answer to an edit that was made before. */
export function doneAgain(
  { version, updatedAt, keys }: Done,
  edit: { readonly set: readonly (readonly [VariableKey, string])[] },
): { version: number; changes: VariableChange[] } {
  const texts = new Map(edit.set);
  const changes = keys.map(([key, order, text]) => ({
    key,
    order,
    updatedAt,
    text: text ?? texts.get(key) ?? null,
    version,
  }));
  return { version, changes };
}
