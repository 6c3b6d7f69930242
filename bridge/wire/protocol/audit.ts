import { z } from 'zod';
import { DAMAGES } from '../audit-check.js';
import { Namespace } from '../names.js';
import type { Operations } from '../protocol.js';

/** Events of one answer: a page of them stays far below a message, and is read in well under a second. */
export const AUDIT_PAGE_MAX = 10_000;

/** Positions of the few chains that are being written, as text. */
export const AUDIT_CURSOR_LENGTH_MAX = 64 * 1024;

/** Heads somebody kept; one a month makes a year. */
const HEADS_MAX = 100;

const Time = z.int().min(0);
const Seq = z.int().min(0);
const Writer = z.int().min(1);
const Hash = z.string().regex(/^[0-9a-f]{64}$/, 'a head is 64 hexadecimal digits');

export const AuditLinkShape = z.strictObject({ at: Time, hash: Hash, seq: Seq, writer: Writer });

/** Texts are as long as the server wrote them; it has clipped them already. */
export const AuditRowShape = z.strictObject({
  at: Time,
  detail: z.string().optional(),
  execution: z.string().optional(),
  hash: Hash,
  links: z.array(AuditLinkShape).readonly().optional(),
  namespace: z.string().optional(),
  op: z.string(),
  outcome: z.string(),
  peer: z.string(),
  prev: Hash,
  seq: Seq,
  target: z.array(z.string()).readonly().optional(),
  targets: z.int().optional(),
  version: z.int().optional(),
  who: z.string(),
  writer: Writer,
});

const Chain = z.strictObject({ writer: Writer, first: Seq, seq: Seq, hash: Hash, at: Time });

export const AUDIT_OPERATIONS = {
  /** Events of all chains by time. Reading on with the `cursor` of an answer is part of the same reading, on record once. */
  'audit.read': {
    caller: 'auditor',
    params: z.strictObject({
      after: z.string().max(AUDIT_CURSOR_LENGTH_MAX).optional(),
      limit: z.int().min(1).max(AUDIT_PAGE_MAX),
      /** Inclusive. */
      from: Time.optional(),
      /** Exclusive. */
      to: Time.optional(),
      execution: z.string().max(128).optional(),
      namespace: Namespace.optional(),
      op: z.string().max(64).optional(),
      outcome: z.string().max(64).optional(),
      reverse: z.boolean(),
    }),
    result: z.strictObject({
      events: z.array(AuditRowShape),
      /** Of what follows these events. A page may be short, or empty, and still have `more` behind it. */
      cursor: z.string(),
      more: z.boolean(),
      /** Of what is written after this answer, for a reader that goes forward. */
      end: z.string(),
    }),
  },
  'audit.verify': {
    caller: 'auditor',
    params: z.strictObject({ heads: z.array(Hash).max(HEADS_MAX) }),
    result: z.strictObject({
      events: z.int(),
      chains: z.array(Chain),
      /** One for each chain that is not intact. */
      broken: z.array(
        z.strictObject({
          what: z.enum(DAMAGES),
          writer: z.int(),
          seq: z.int(),
          at: Time,
          text: z.string(),
        }),
      ),
    }),
  },
  /** Takes away what is older than `before`. */
  'audit.prune': {
    caller: 'operator',
    params: z.strictObject({ before: Time }),
    result: z.strictObject({ events: z.int(), batches: z.int() }),
  },
  /** Where each chain ends, after all that is queued was written. */
  'audit.head': {
    caller: 'auditor',
    params: z.strictObject({}),
    result: z.strictObject({ heads: z.array(AuditLinkShape) }),
  },
} as const satisfies Operations;
export type AuditOperations = typeof AUDIT_OPERATIONS;
