import { z } from 'zod';
import { isJson } from './json-source.js';
import { KEY_BYTES_MAX, VALUE_BYTES_MAX } from './limits.js';

/** A user's or organisation's id, as the platform gives it. */
export const OwnerId = z
  .string()
  .regex(/^[A-Za-z0-9_.@-]{1,128}$/, 'use 1-128 letters, digits, "_", ".", "@" or "-" for an id')
  .refine((id) => id !== '.' && id !== '..', '"." and ".." are not ids');

/** Who owns a set of variables: exactly one user or one organisation. */
export const Namespace = z.union([
  z.strictObject({ user: OwnerId }),
  z.strictObject({ org: OwnerId }),
]);
export type Namespace = z.infer<typeof Namespace>;

export const namespaceText = (ns: Namespace): string =>
  'user' in ns ? `user:${ns.user}` : `org:${ns.org}`;

/** The member that legacy setVariable adds: visible inside a run, never stored. */
export const UPDATED = '__updated__';

/**
 * A variable's name. Legacy documents hold any member name, so almost anything is allowed: what no file system, log or
 * shell could show is not, and neither is the helpers' own time stamp, which is never stored.
 */
export const VariableKey = z
  .string()
  .min(1, 'a variable key cannot be empty')
  .refine(
    (key) => Buffer.byteLength(key) <= KEY_BYTES_MAX,
    `a variable key has at most ${KEY_BYTES_MAX} bytes`,
  )
  .refine((key) => !hasControl(key), 'a variable key cannot hold control characters')
  .refine((key) => !/\p{Surrogate}/u.test(key), 'a variable key must be well-formed Unicode')
  .refine((key) => key !== UPDATED, `${UPDATED} is the helpers' time stamp and never stored`)
  .brand<'VariableKey'>();
export type VariableKey = z.infer<typeof VariableKey>;

/** The source text of one JSON value. */
export const JsonText = z
  .string()
  .refine(
    (text) => Buffer.byteLength(text) <= VALUE_BYTES_MAX,
    `a value has at most ${VALUE_BYTES_MAX} bytes`,
  )
  .refine(isJson, 'not valid JSON');

export const ExecutionId = z.uuid().brand<'ExecutionId'>();
export type ExecutionId = z.infer<typeof ExecutionId>;

function hasControl(text: string): boolean {
  for (let i = 0; i < text.length; i++) {
    const c = text.charCodeAt(i);
    if (c < 0x20 || c === 0x7f) return true;
  }
  return false;
}
