import { z } from 'zod';
import { KEY_BYTES_MAX } from '../limits.js';
import { ExecutionId } from '../names.js';
import type { Operations } from '../protocol.js';
import { Nothing, Time } from './common.js';

/** What a token can open; a name that is not here is refused, so that a newer token never means less than it says. */
export const AREAS = [
  'variables',
  'output',
  'condition',
  'events',
  'locks',
  'streams',
  'tools',
] as const;
export type Area = (typeof AREAS)[number];

/** One for what is the same everywhere, one for what differs: `app_*`, `*_url`, `app_*_url`; more would only be slower to read. */
export const PATTERN_STARS_MAX = 2;
/** Scripts name a handful of families of keys; a token is sent with every opening and should stay small. */
export const PATTERNS_MAX = 32;
export const CAPABILITIES_MAX = 32;
/** Characters of a token: what `execution.open` takes. */
export const TOKEN_LENGTH_MAX = 8192;
/** A token that an operator hands out lives a working day at most; a longer need is renewed over an open channel. */
export const TOKEN_LIFETIME_MS_MAX = 24 * 60 * 60 * 1000;
/** What stands in logs and lists for a long time. */
export const REASON_LENGTH_MAX = 256;

/** A key, or several by `*`, which stands for any characters, none too. */
export const KeyPattern = z
  .string()
  .min(1, 'a key pattern cannot be empty')
  .refine(
    (pattern) => Buffer.byteLength(pattern) <= KEY_BYTES_MAX,
    `a key pattern has at most ${KEY_BYTES_MAX} bytes`,
  )
  .refine(
    (pattern) => pattern.split('*').length - 1 <= PATTERN_STARS_MAX,
    `a key pattern has at most ${PATTERN_STARS_MAX} "*"`,
  )
  .refine((pattern) => !/[\p{Cc}\p{Surrogate}]/u.test(pattern), 'a key pattern is plain text');

/** Without `keys`: the whole area. `rw` is also `r`. */
export const Capability = z.strictObject({
  area: z.enum(AREAS),
  access: z.enum(['r', 'rw']),
  keys: z.array(KeyPattern).min(1).max(PATTERNS_MAX).readonly().optional(),
});
export type Capability = z.infer<typeof Capability>;
export const Capabilities = z.array(Capability).max(CAPABILITIES_MAX).readonly();

export const PROFILES = ['local', 'remote'] as const;
export const Profile = z.enum(PROFILES);
export type Profile = z.infer<typeof Profile>;

/** `ro` refuses every write, whatever else the token says. */
export const Mode = z.enum(['rw', 'ro']);
export type Mode = z.infer<typeof Mode>;

/** base64url SHA-256 of a DER certificate: `x5t#S256` of RFC 8705. */
export const Thumbprint = z
  .string()
  .regex(/^[A-Za-z0-9_-]{43}$/, 'a thumbprint is 43 characters of base64url');

const Reason = z.string().max(REASON_LENGTH_MAX);

export const Revocation = z.strictObject({
  kind: z.enum(['certificate', 'token']),
  /** A thumbprint; or a token's id or an execution's, which means all of its tokens. */
  id: z.string(),
  reason: z.string(),
  by: z.string(),
  revokedAt: Time,
});
export type Revocation = z.infer<typeof Revocation>;

/** What is kept of a token that was handed out: everything but the token. */
export const TokenRecord = z.strictObject({
  jti: z.uuid(),
  executionId: ExecutionId,
  profile: Profile,
  mode: Mode,
  cap: Capabilities,
  thumbprint: z.string(),
  by: z.string(),
  expiresAt: Time,
});
export type TokenRecord = z.infer<typeof TokenRecord>;

/** Certificates and tokens of a running server. */
export const CREDENTIAL_OPERATIONS = {
  /** Refuses a certificate from now on and closes its connections. A second time changes nothing. */
  'cert.revoke': {
    caller: 'operator',
    params: z.strictObject({ thumbprint: Thumbprint, reason: Reason }),
    result: Revocation,
  },
  /** Certificates and tokens, the oldest first. */
  'cert.revoked': {
    caller: 'auditor',
    params: Nothing,
    result: z.strictObject({ revocations: z.array(Revocation) }),
  },
  /**
   * `successor` takes over from `thumbprint` at the same host: tokens bound to the one are good on connections of the other,
   * as long as neither is revoked. Without it, rotating a host's certificate would end its executions at the next reconnection.
   */
  'cert.succeed': {
    caller: 'operator',
    params: z.strictObject({ thumbprint: Thumbprint, successor: Thumbprint }),
    result: Nothing,
  },
  /** One more token for an execution that runs. */
  'token.mint': {
    caller: 'operator',
    params: z.strictObject({
      executionId: ExecutionId,
      /** Of the host certificate the token is bound to. */
      thumbprint: Thumbprint,
      profile: Profile,
      mode: Mode,
      /** Narrows the profile; without it, all that the profile allows. */
      scopes: z.array(Capability).min(1).max(CAPABILITIES_MAX).optional(),
      lifetimeMs: z.int().min(1000).max(TOKEN_LIFETIME_MS_MAX),
    }),
    result: z.strictObject({ token: z.string(), lifetimeMs: z.int(), ...TokenRecord.shape }),
  },
  /** Tokens that were handed out and have not expired; what was renewed over a channel is not listed. */
  'token.list': {
    caller: 'auditor',
    params: Nothing,
    result: z.strictObject({
      tokens: z.array(z.strictObject({ ...TokenRecord.shape, isRevoked: z.boolean() })),
    }),
  },
  /** By a token's id (and all that was renewed from it) or an execution's (all of its tokens); their channels are closed. */
  'token.revoke': {
    caller: 'operator',
    params: z.strictObject({ id: z.uuid(), reason: Reason }),
    result: z.strictObject({ ...Revocation.shape, isKnown: z.boolean() }),
  },
  /** Reads the server's own certificate and signing keys anew; connections go on. */
  'server.reload': {
    caller: 'operator',
    params: Nothing,
    result: z.strictObject({ thumbprint: z.string(), notAfter: Time, signingKey: z.string() }),
  },
} as const satisfies Operations;
export type CredentialOperations = typeof CREDENTIAL_OPERATIONS;
