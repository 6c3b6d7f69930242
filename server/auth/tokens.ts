import { type KeyObject, randomUUID } from 'node:crypto';
import { errors, jwtVerify, SignJWT } from 'jose';
import { z } from 'zod';
import { BridgeError } from '#bridge/wire/errors.js';
import { ExecutionId, Namespace } from '#bridge/wire/names.js';
import {
  Capabilities,
  Mode,
  Profile,
  TOKEN_LENGTH_MAX,
} from '#bridge/wire/protocol/credentials.js';
import type { Access } from './access.js';
import { SigningKeys } from './signing-keys.js';

/** A stolen token is useless without the host's key; five minutes bounds the rest. Renewed over the open link. */
export const TOKEN_LIFETIME_MS = 5 * 60 * 1000;

/** Clocks of hosts differ a little. */
const CLOCK_TOLERANCE_S = 5;

const ISSUER = 'cronium-server';
const AUDIENCE = 'cronium-runtime';
const TYPE = 'at+jwt';
const ALGORITHM = 'EdDSA';

/** Strict: a header that brings its own key, names a place to get one, or asks for an extension, is not ours. */
const Header = z.strictObject({
  alg: z.literal(ALGORITHM),
  typ: z.literal(TYPE),
  kid: z.string(),
});

const Confirmation = z.object({ 'x5t#S256': z.string() });

const Claims = z.object({
  sub: z
    .string()
    .startsWith('exec:')
    .transform((sub) => sub.slice('exec:'.length))
    .pipe(ExecutionId),
  jti: z.uuid(),
  /** Of the token that this one was renewed from, and that one, …: the first of them; its own jti if there is none. */
  fam: z.uuid(),
  exp: z.int(),
  ns: Namespace,
  profile: Profile,
  mode: Mode,
  cap: Capabilities,
  cnf: Confirmation,
});

/** What a verified token lets its bearer do. */
export interface Grant extends Access {
  readonly executionId: ExecutionId;
  readonly namespace: Namespace;
  readonly jti: string;
  /** The same for a token and all that was renewed from it: revoking the one revokes the others. */
  readonly family: string;
  /** Milliseconds since the epoch. */
  readonly expiresAt: number;
}

/** `family` is given where a token is renewed. */
export type GrantRequest = Omit<Grant, 'jti' | 'family' | 'expiresAt'> & {
  readonly family?: string;
};

export interface Minted {
  readonly token: string;
  readonly jti: string;
  /** Server clock, milliseconds since the epoch. */
  readonly expiresAt: number;
  /** The same as a time from now, for a bearer whose clock differs. */
  readonly lifetimeMs: number;
}

/** Mints and verifies execution tokens: Ed25519 JWTs bound to one host certificate (RFC 8705, RFC 9068). */
export class Tokens {
  #keys: SigningKeys;
  readonly #file: string | undefined;
  readonly #now: () => number;
  readonly #lifetimeMs: number;

  /** `file`: where `keys` came from, for `reload`. */
  constructor(
    keys: SigningKeys,
    now: () => number = Date.now,
    lifetimeMs = TOKEN_LIFETIME_MS,
    file?: string,
  ) {
    this.#keys = keys;
    this.#now = now;
    this.#lifetimeMs = lifetimeMs;
    this.#file = file;
  }

  /** With the signing keys in `file`, which is made when missing. */
  static open(file: string, now?: () => number): Tokens {
    return new Tokens(SigningKeys.open(file), now, undefined, file);
  }

  /** Of the key that signs. */
  get keyId(): string {
    return this.#keys.newest.id;
  }

  /** Reads the file anew, after somebody rotated it. @throws BridgeError `invalid`; the present keys stay in use then */
  reload(): void {
    if (this.#file !== undefined) this.#keys = SigningKeys.open(this.#file);
  }

  /** Signs with a new key from now on; tokens of the present one are good until they expire. */
  rotateSigningKey(): void {
    if (this.#file === undefined) throw new BridgeError('internal', 'the keys are in no file');
    this.#keys = SigningKeys.rotate(this.#file, this.#now());
  }

  /** @throws BridgeError `too_large` when capabilities make it longer than a host may send */
  async mint(
    grant: GrantRequest,
    thumbprint: string,
    lifetimeMs = this.#lifetimeMs,
  ): Promise<Minted> {
    const now = this.#now();
    const { id: kid, privateKey } = this.#keys.newest;
    // Whole seconds, as the claim has: the bearer must not believe in a life the token does not have.
    const expiresAt = Math.floor((now + lifetimeMs) / 1000) * 1000;
    const jti = randomUUID();
    const token = await new SignJWT({
      fam: grant.family ?? jti,
      ns: grant.namespace,
      profile: grant.profile,
      mode: grant.mode,
      cap: grant.cap,
      cnf: { 'x5t#S256': thumbprint },
    })
      .setProtectedHeader({ alg: ALGORITHM, typ: TYPE, kid })
      .setIssuer(ISSUER)
      .setAudience(AUDIENCE)
      .setSubject(`exec:${grant.executionId}`)
      .setJti(jti)
      .setIssuedAt(Math.floor(now / 1000))
      .setNotBefore(Math.floor(now / 1000))
      .setExpirationTime(expiresAt / 1000)
      .sign(privateKey);
    if (token.length > TOKEN_LENGTH_MAX)
      throw new BridgeError(
        'too_large',
        `the scopes make a token of ${token.length} characters; at most ${TOKEN_LENGTH_MAX} can be sent: use fewer or shorter patterns`,
      );
    return { token, jti, expiresAt, lifetimeMs: expiresAt - now };
  }

  /**
   * `bearers`: thumbprints of the certificates whose tokens the other side may use, its own among them.
   * @throws BridgeError `token_expired`, or `denied` for any other reason, without saying which part was wrong.
   */
  async verify(token: string, ...bearers: readonly string[]): Promise<Grant> {
    if (!isCompact(token)) throw new BridgeError('denied', NOT_VALID);
    const { payload } = await jwtVerify(token, (header) => this.#keyOf(header), {
      algorithms: [ALGORITHM],
      typ: TYPE,
      issuer: ISSUER,
      audience: AUDIENCE,
      clockTolerance: CLOCK_TOLERANCE_S,
      currentDate: new Date(this.#now()),
    }).catch((cause: unknown) => {
      // Its signature was good; still, only its own bearer is told.
      if (cause instanceof errors.JWTExpired && isBoundTo(bearers, cause.payload['cnf']))
        throw new BridgeError('token_expired', 'the token has expired: ask for a new execution', {
          cause,
        });
      throw new BridgeError('denied', NOT_VALID, { cause });
    });
    const claims = Claims.safeParse(payload);
    if (!claims.success) throw new BridgeError('denied', NOT_VALID);
    const { sub, jti, fam, ns, profile, mode, cap, exp, cnf } = claims.data;
    if (!isBoundTo(bearers, cnf)) throw new BridgeError('denied', NOT_VALID);
    return {
      executionId: sub,
      namespace: ns,
      profile,
      mode,
      cap,
      jti,
      family: fam,
      expiresAt: exp * 1000,
    };
  }

  #keyOf(rawHeader: unknown): KeyObject {
    const { kid } = Header.parse(rawHeader);
    const key = this.#keys.find(kid, this.#now());
    if (key === undefined) throw new BridgeError('denied', NOT_VALID);
    return key;
  }
}

/** A token is bound to a certificate (RFC 8705, 3.1): stolen, it says not even that it is genuine. */
function isBoundTo(bearers: readonly string[], cnf: unknown): boolean {
  const confirmation = Confirmation.safeParse(cnf);
  return confirmation.success && bearers.includes(confirmation.data['x5t#S256']);
}

/**
 * Three parts of base64url, each as an encoder writes it: decoders overlook white space and stray bits, and then one token has
 * many spellings.
 */
const isCompact = (token: string): boolean =>
  token.length <= TOKEN_LENGTH_MAX &&
  token.split('.').length === 3 &&
  token.split('.').every((part) => Buffer.from(part, 'base64url').toString('base64url') === part);

const NOT_VALID = 'the token is not valid here';
