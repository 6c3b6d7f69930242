import { X509Certificate } from 'node:crypto';
import { copyFileSync, lstatSync, mkdirSync, readFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { BridgeError, errnoCode } from '#bridge/wire/errors.js';
import type { Role } from '#server/auth/identity.js';
import { SigningKeys } from '#server/auth/signing-keys.js';
import { exclusively } from './exclusive.js';
import { type Issued, type IssuedCertificates, readCertificate } from './issued-certificates.js';
import { OWN_CERTIFICATES, type OwnCertificate, type State } from './state.js';

/** As long as an authority lives, so no number above could ever be granted. */
export const CERTIFICATE_DAYS_MAX = 3650;

const DAY_MS = 24 * 60 * 60 * 1000;

/** `inUse`: which of the installation's own it is, if it is one now. */
export type ListedCertificate = Issued & { readonly inUse?: OwnCertificate };

export interface Rotated {
  readonly of: OwnCertificate;
  readonly certificate: Issued;
  /** What it replaces, where that could be read. */
  readonly previous?: Issued;
}

/** The certificates and signing keys of an installation, as its operator's command handles them. */
export class Pki {
  readonly #state: State;
  readonly #index: IssuedCertificates;

  constructor(state: State) {
    this.#state = state;
    this.#index = state.issued;
  }

  /**
   * Writes `name`.crt, `name`.key and ca.crt to `directory`, which is made when missing.
   * @throws BridgeError `conflict` when one is there already, `not_found` when there is no authority yet
   */
  async issue(request: {
    readonly name: string;
    readonly role: Role;
    readonly days: number;
    readonly directory: string;
  }): Promise<{ certificate: Issued; cert: string; key: string; ca: string }> {
    const { name, role, days } = request;
    const directory = resolve(request.directory);
    const [cert, key, ca] = [`${name}.crt`, `${name}.key`, 'ca.crt'].map((file) =>
      join(directory, file),
    ) as [string, string, string];
    return await this.#exclusively(async () => {
      this.#index.list(); // throws: nothing is issued that could not be listed
      const authority = await this.#authority();
      const own = this.#state.certificate('ca').cert;
      mkdirSync(directory, { recursive: true, mode: 0o700 });
      for (const path of [cert, key]) refuseToOverwrite(path);
      if (!isSameFile(ca, own)) refuseToOverwrite(ca);
      const notAfter = new Date(Date.now() + days * DAY_MS);
      const authorityEnds = new Date(new X509Certificate(readFileSync(own)).validTo);
      if (notAfter > authorityEnds)
        throw new BridgeError(
          'invalid',
          `the certificate authority itself ends on ${authorityEnds.toISOString()}; choose fewer --days`,
        );
      const certificate = await authority.issue({ files: { cert, key }, name, role, notAfter });
      this.#index.add(certificate);
      if (!isSameFile(ca, own)) copyFileSync(own, ca);
      return { certificate, cert, key, ca };
    });
  }

  /** Issues the installation's own certificates anew. The old ones stay good until they expire or are revoked. */
  async rotate(which: readonly OwnCertificate[]): Promise<Rotated[]> {
    return await this.#exclusively(async () => {
      this.#index.list(); // throws: nothing is issued that could not be listed
      const authority = await this.#authority();
      const rotated: Rotated[] = [];
      for (const of of which) {
        const previous = this.#own(of);
        const certificate = await authority.issue(this.#state.leafRequest(of));
        this.#index.add(...(previous === undefined ? [] : [previous]), certificate);
        rotated.push({ of, certificate, ...(previous && { previous }) });
      }
      return rotated;
    });
  }

  /** The installation's own and all others its authority has issued. */
  list(): ListedCertificate[] {
    const own = OWN_CERTIFICATES.flatMap((inUse) => {
      const certificate = this.#own(inUse);
      return certificate === undefined ? [] : [{ ...certificate, inUse }];
    });
    const others = this.#index
      .list()
      .filter(({ thumbprint }) => !own.some((one) => one.thumbprint === thumbprint));
    return [...own, ...others];
  }

  /** A new key to sign tokens with; a server that runs has to be told to reload. */
  async rotateSigningKey(): Promise<void> {
    await this.#exclusively(async () => {
      SigningKeys.rotate(this.#state.path('server', 'token.key'), Date.now());
    });
  }

  async #exclusively<T>(work: () => Promise<T>): Promise<T> {
    if (!this.#state.exists) this.#state.settings(); // throws, with what to do
    return await exclusively(this.#state.lockFile, work);
  }

  async #authority() {
    // Loaded only here: the X.509 library takes longer to load than most commands take to run.
    const { Authority } = await import('./certificates.js');
    return await Authority.open(this.#state.certificate('ca'));
  }

  /** Undefined when it is missing or broken: `cronium up` and a rotation make it anew. */
  #own(of: OwnCertificate): Issued | undefined {
    try {
      return readCertificate(this.#state.certificate(of).cert);
    } catch {
      return undefined;
    }
  }
}

/** @throws BridgeError `conflict` for whatever is there, a link to nowhere too */
function refuseToOverwrite(path: string): void {
  try {
    lstatSync(path);
  } catch (error) {
    if (errnoCode(error) === 'ENOENT') return;
    throw error;
  }
  throw new BridgeError(
    'conflict',
    `${path} is there already; choose another directory with --out`,
  );
}

function isSameFile(path: string, other: string): boolean {
  try {
    return readFileSync(path).equals(readFileSync(other));
  } catch {
    return false;
  }
}
