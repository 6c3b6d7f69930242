import type { AuditLink, Unplaced } from '#bridge/wire/audit-chain.js';
import { asBridgeError, type Code } from '#bridge/wire/errors.js';
import type { Committed } from '#server/store/store.js';

/** Keys or ids that an event names. */
export const TARGETS_MAX = 3;

/** Characters of one text; all of an event stay below a record even where each takes six bytes. */
const TEXT_LENGTH_MAX = 256;
const PEER_LENGTH = 16;

/**
 * What is known of an operation when it begins. One object for each call: as `Commit.note` it gets the operation on record
 * in the same commit, with what became of that.
 */
export interface AuditNote {
  readonly who: string;
  readonly peer: string;
  readonly op: string;
  execution?: string;
  namespace?: string;
  target?: readonly string[];
  targets?: number;
  /** A commit that happened has it on record. */
  recorded?: boolean;
  links?: readonly AuditLink[];
  detail?: string;
}

export interface AuditAdded extends AuditNote {
  readonly outcome: string;
  readonly version?: number;
}

/** An event that waits to be written. */
export interface Pending {
  readonly at: number;
  readonly note: AuditNote;
  readonly outcome: string;
  readonly detail: string | undefined;
  readonly version: number | undefined;
}

/** Refusals whose sentence says nothing of what was sent; those of others may quote a value. */
const TELLING: ReadonlySet<Code> = new Set<Code>([
  'denied',
  'token_expired',
  'rate_limited',
  'busy',
  'quota',
  'too_large',
  'no_space',
  'read_only',
  'unavailable',
  'timeout',
]);

/** A note for an operation of whoever is at the other end. */
export const noteOf = (
  { role, name, thumbprint }: { role: string; name: string; thumbprint: string },
  op: string,
): AuditNote => ({ who: `${role}:${name}`, peer: thumbprint.slice(0, PEER_LENGTH), op });

/** Names what a note is about: the first few, and how many when there are more. */
export function target(note: AuditNote, names: readonly string[]): AuditNote {
  note.target = names.length > TARGETS_MAX ? names.slice(0, TARGETS_MAX) : names;
  if (names.length > TARGETS_MAX) note.targets = names.length;
  return note;
}

/** How the operation ended that threw `error`. */
export function failureOf(error: unknown): { outcome: Code; detail: string | undefined } {
  const { code, message } = asBridgeError(error);
  return { outcome: code, detail: TELLING.has(code) ? message : undefined };
}

export const isNote = (note: unknown): note is AuditNote =>
  typeof note === 'object' && note !== null && 'op' in note && 'who' in note;

/** What an event says of a commit. */
export const resultOf = (committed: Committed): { outcome: string; version: number | undefined } =>
  committed.ok
    ? { outcome: committed.repeated === true ? 'repeated' : 'ok', version: committed.version }
    : { outcome: 'conflict', version: undefined };

export const unplaced = ({ note, outcome, detail, version }: Omit<Pending, 'at'>): Unplaced => ({
  who: clipped(note.who),
  peer: clipped(note.peer),
  op: clipped(note.op),
  outcome: clipped(outcome),
  execution: note.execution && clipped(note.execution),
  namespace: note.namespace && clipped(note.namespace),
  target: note.target?.slice(0, TARGETS_MAX).map(clipped),
  targets: note.targets,
  detail: detail && clipped(detail),
  version,
  links: note.links,
});

const clipped = (text: string): string =>
  text.length <= TEXT_LENGTH_MAX ? text : `${text.slice(0, TEXT_LENGTH_MAX - 1)}…`;
