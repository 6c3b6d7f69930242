import {
  createPrivateKey,
  createPublicKey,
  generateKeyPairSync,
  type KeyObject,
  randomUUID,
} from 'node:crypto';
import { existsSync, readFileSync } from 'node:fs';
import { errors, jwtVerify, SignJWT } from 'jose';
import { z } from 'zod';
import { BridgeError } from '#bridge/wire/errors.js';
import { ExecutionId, Namespace } from '#bridge/wire/names.js';
import { writeDurably } from '#server/store/durable-file.js';

/** A stolen token is useless without the host's key; five minutes bounds the rest. Renewed over the open link. */
export const TOKEN_LIFETIME_MS = 5 * 60 * 1000;

/** Clocks of hosts differ a little. */
const CLOCK_TOLERANCE_S = 5;

const ISSUER = 'cronium-server';
const AUDIENCE = 'cronium-runtime';
const TYPE = 'at+jwt';
const ALGORITHM = 'EdDSA';

export const SCOPES = ['variables', 'output', 'condition'] as const;
const Scope = z.enum(SCOPES);
export type Scope = z.infer<typeof Scope>;

const Claims = z.object({
  sub: z
    .string()
    .startsWith('exec:')
    .transform((sub) => sub.slice('exec:'.length))
    .pipe(ExecutionId),
  jti: z.string(),
  exp: z.int(),
  ns: Namespace,
  cap: z.array(Scope),
  cnf: z.object({ 'x5t#S256': z.string() }),
});

/** What a verified token lets its bearer do. */
export interface Grant {
  readonly executionId: ExecutionId;
  readonly namespace: Namespace;
  readonly scopes: readonly Scope[];
  /** Milliseconds since the epoch. */
  readonly expiresAt: number;
}

export interface Minted {
  readonly token: string;
  /** Server clock, milliseconds since the epoch. */
  readonly expiresAt: number;
  /** The same as a time from now, for a bearer whose clock differs. */
  readonly lifetimeMs: number;
}

/** Mints and verifies execution tokens: Ed25519 JWTs bound to one host certificate (RFC 8705, RFC 9068). */
export class Tokens {
  readonly #privateKey: KeyObject;
  readonly #publicKey: KeyObject;
  readonly #now: () => number;
  readonly #lifetimeMs: number;

  constructor(privateKey: KeyObject, now: () => number = Date.now, lifetimeMs = TOKEN_LIFETIME_MS) {
    this.#lifetimeMs = lifetimeMs;
    this.#privateKey = privateKey;
    this.#publicKey = createPublicKey(privateKey);
    this.#now = now;
  }

  /** The signing key in `file` (PKCS #8 PEM, mode 0600), created when missing. */
  static open(file: string): Tokens {
    if (!existsSync(file)) {
      const { privateKey } = generateKeyPairSync('ed25519');
      writeDurably(file, privateKey.export({ format: 'pem', type: 'pkcs8' }).toString());
    }
    return new Tokens(createPrivateKey(readFileSync(file)));
  }

  async mint(
    grant: Omit<Grant, 'expiresAt'>,
    thumbprint: string,
    lifetimeMs = this.#lifetimeMs,
  ): Promise<Minted> {
    const now = this.#now();
    // Whole seconds, as the claim has: the bearer must not believe in a life the token does not have.
    const expiresAt = Math.floor((now + lifetimeMs) / 1000) * 1000;
    const token = await new SignJWT({
      ns: grant.namespace,
      cap: grant.scopes,
      cnf: { 'x5t#S256': thumbprint },
    })
      .setProtectedHeader({ alg: ALGORITHM, typ: TYPE })
      .setIssuer(ISSUER)
      .setAudience(AUDIENCE)
      .setSubject(`exec:${grant.executionId}`)
      .setJti(randomUUID())
      .setIssuedAt(Math.floor(now / 1000))
      .setNotBefore(Math.floor(now / 1000))
      .setExpirationTime(expiresAt / 1000)
      .sign(this.#privateKey);
    return { token, expiresAt, lifetimeMs: expiresAt - now };
  }

  /** @throws BridgeError `token_expired`, or `denied` for any other reason, without saying which part was wrong. */
  async verify(token: string, thumbprint: string): Promise<Grant> {
    const { payload } = await jwtVerify(token, this.#publicKey, {
      algorithms: [ALGORITHM],
      typ: TYPE,
      issuer: ISSUER,
      audience: AUDIENCE,
      clockTolerance: CLOCK_TOLERANCE_S,
      currentDate: new Date(this.#now()),
    }).catch((cause: unknown) => {
      if (cause instanceof errors.JWTExpired)
        throw new BridgeError('token_expired', 'the token has expired: ask for a new execution', {
          cause,
        });
      throw new BridgeError('denied', 'the token is not valid here', { cause });
    });
    const claims = Claims.safeParse(payload);
    if (!claims.success) throw new BridgeError('denied', 'the token is not valid here');
    const { sub, ns, cap, exp, cnf } = claims.data;
    if (cnf['x5t#S256'] !== thumbprint)
      throw new BridgeError('denied', 'the token is bound to another host certificate');
    return {
      executionId: sub,
      namespace: ns,
      scopes: cap,
      expiresAt: exp * 1000,
    };
  }
}
