import { X509Certificate } from 'node:crypto';
import { existsSync, readFileSync } from 'node:fs';
import { z } from 'zod';
import { BridgeError, errnoCode } from '#bridge/wire/errors.js';
import { ROLES, thumbprintOf } from '#server/auth/identity.js';
import { writeDurably } from '#server/store/durable-file.js';

/** Expired certificates stay listed for a year, for whoever asks what was in use then; the file does not grow for ever. */
const EXPIRED_KEPT_MS = 365 * 24 * 60 * 60 * 1000;

const Issued = z.strictObject({
  name: z.string(),
  role: z.enum([...ROLES, 'server']),
  /** base64url SHA-256 of the DER certificate. */
  thumbprint: z.string(),
  /** Milliseconds since the epoch. */
  notAfter: z.int(),
});
export type Issued = z.infer<typeof Issued>;

const Index = z.strictObject({ version: z.literal(1), certificates: z.array(Issued) });

/** Which certificates an authority has issued: a file beside it. Certificates are good without being in it. */
export class IssuedCertificates {
  readonly #file: string;

  constructor(file: string) {
    this.#file = file;
  }

  /** In the order they were issued. @throws BridgeError `invalid` when the file is no such list */
  list(): Issued[] {
    if (!existsSync(this.#file)) return [];
    try {
      return Index.parse(JSON.parse(readFileSync(this.#file, 'utf8'))).certificates;
    } catch (cause) {
      throw new BridgeError(
        'invalid',
        `${this.#file} is no list of certificates; put its copy back, or move it away: they stay valid, but are not listed`,
        { cause },
      );
    }
  }

  /** Whoever calls this holds the installation's lock. One that is listed already is not listed twice. */
  add(...certificates: readonly Issued[]): void {
    const known = this.list();
    const fresh = certificates.filter(
      ({ thumbprint }) => !known.some((one) => one.thumbprint === thumbprint),
    );
    if (fresh.length === 0) return;
    const oldest = Date.now() - EXPIRED_KEPT_MS;
    const kept = [...known, ...fresh].filter(({ notAfter }) => notAfter > oldest);
    const index = { version: 1, certificates: kept };
    writeDurably(this.#file, `${JSON.stringify(index, null, 2)}\n`);
  }
}

/** What a certificate file of ours says. @throws BridgeError `not_found`, `invalid` */
export function readCertificate(path: string): Issued {
  try {
    const certificate = new X509Certificate(readFileSync(path));
    const { CN: name, OU: role }: Record<string, unknown> = certificate.toLegacyObject().subject;
    return Issued.parse({
      name,
      role,
      thumbprint: thumbprintOf(certificate.raw),
      notAfter: Date.parse(certificate.validTo),
    });
  } catch (cause) {
    const missing = errnoCode(cause) === 'ENOENT';
    throw new BridgeError(
      missing ? 'not_found' : 'invalid',
      missing ? `there is no file ${path}` : `${path} is not a certificate that cronium issued`,
      { cause },
    );
  }
}
