import 'reflect-metadata'; // asked for by a dependency of @peculiar/x509
import { createPrivateKey, webcrypto, X509Certificate } from 'node:crypto';
import { existsSync, readFileSync } from 'node:fs';
import { hostname } from 'node:os';
import * as x509 from '@peculiar/x509';
import { type Role, thumbprintOf } from '#server/auth/identity.js';
import { writeDurably } from '#server/store/durable-file.js';
import type { Issued } from './issued-certificates.js';

/** P-256: what every TLS 1.3 peer has, and three times faster to verify than RSA here. */
const ALGORITHM = { name: 'ECDSA', namedCurve: 'P-256', hash: 'SHA-256' } as const;

const DAY_MS = 24 * 60 * 60 * 1000;
const CA_DAYS = 3650;
const LEAF_DAYS = 365;
/** A leaf with less left than this is issued anew at `cronium up`. */
const RENEW_DAYS = 30;
/** Clocks differ; a certificate is valid from a little before it was made. */
const BACKDATE_MS = 5 * 60 * 1000;

/** Two PEM files: a certificate and its PKCS #8 key (mode 0600). */
export interface CertificateFiles {
  readonly cert: string;
  readonly key: string;
}

export interface LeafRequest {
  readonly files: CertificateFiles;
  readonly name: string;
  readonly role: Role | 'server';
  /** Defaults to a little before now. */
  readonly notBefore?: Date;
  /** Defaults to a year from now. */
  readonly notAfter?: Date;
}

/** The certificate authority of one installation, on disk. */
export class Authority {
  readonly #certificate: x509.X509Certificate;
  readonly #key: CryptoKey;

  private constructor(certificate: x509.X509Certificate, key: CryptoKey) {
    this.#certificate = certificate;
    this.#key = key;
  }

  /** Reads the authority, or makes it when its files are missing. */
  static async open(files: CertificateFiles): Promise<Authority> {
    if (!existsSync(files.cert)) {
      const keys = await webcrypto.subtle.generateKey(ALGORITHM, true, ['sign', 'verify']);
      const certificate = await x509.X509CertificateGenerator.createSelfSigned({
        name: `CN=cronium bridge CA on ${hostname()}`,
        keys,
        serialNumber: serialNumber(),
        notBefore: new Date(Date.now() - BACKDATE_MS),
        notAfter: new Date(Date.now() + CA_DAYS * DAY_MS),
        signingAlgorithm: ALGORITHM,
        extensions: [
          new x509.BasicConstraintsExtension(true, 0, true),
          new x509.KeyUsagesExtension(
            x509.KeyUsageFlags.keyCertSign | x509.KeyUsageFlags.cRLSign,
            true,
          ),
          await x509.SubjectKeyIdentifierExtension.create(keys.publicKey),
        ],
      });
      await writeFiles(files, certificate, keys.privateKey);
    }
    const certificate = new x509.X509Certificate(readFileSync(files.cert, 'utf8'));
    const der = x509.PemConverter.decodeFirst(readFileSync(files.key, 'utf8'));
    const key = await webcrypto.subtle.importKey('pkcs8', der, ALGORITHM, false, ['sign']);
    return new Authority(certificate, key);
  }

  /** Issues a leaf unless its files hold one that is still good. Returns what it issued. */
  async ensure(request: LeafRequest): Promise<Issued | undefined> {
    const { files } = request;
    if (existsSync(files.cert) && existsSync(files.key) && this.#isGood(files)) return undefined;
    return await this.issue(request);
  }

  /** Role in OU, name in CN: server/auth/identity.ts reads them. */
  async issue({ files, name, role, notBefore, notAfter }: LeafRequest): Promise<Issued> {
    const keys = await webcrypto.subtle.generateKey(ALGORITHM, true, ['sign', 'verify']);
    const end = notAfter ?? new Date(Date.now() + LEAF_DAYS * DAY_MS);
    const usage =
      role === 'server' ? x509.ExtendedKeyUsage.serverAuth : x509.ExtendedKeyUsage.clientAuth;
    const certificate = await x509.X509CertificateGenerator.create({
      // As parts, not as text: a name with a comma must not become a second role.
      subject: [{ CN: [name] }, { OU: [role] }],
      issuer: this.#certificate.subject,
      serialNumber: serialNumber(),
      notBefore: notBefore ?? new Date(Math.min(Date.now(), end.getTime()) - BACKDATE_MS),
      notAfter: end,
      publicKey: keys.publicKey,
      signingKey: this.#key,
      signingAlgorithm: ALGORITHM,
      extensions: [
        new x509.BasicConstraintsExtension(false, undefined, true),
        new x509.KeyUsagesExtension(x509.KeyUsageFlags.digitalSignature, true),
        new x509.ExtendedKeyUsageExtension([usage]),
        ...(role === 'server'
          ? [
              new x509.SubjectAlternativeNameExtension([
                { type: 'dns', value: 'localhost' },
                { type: 'ip', value: '127.0.0.1' },
              ]),
            ]
          : []),
        await x509.AuthorityKeyIdentifierExtension.create(this.#certificate.publicKey),
      ],
    });
    await writeFiles(files, certificate, keys.privateKey);
    const thumbprint = thumbprintOf(Buffer.from(certificate.rawData));
    return { name, role, thumbprint, notAfter: certificate.notAfter.getTime() };
  }

  /** Signed by this authority, belonging to the key beside it, and valid for a while. */
  #isGood(files: CertificateFiles): boolean {
    try {
      const certificate = new X509Certificate(readFileSync(files.cert));
      const authority = new X509Certificate(Buffer.from(this.#certificate.rawData));
      return (
        certificate.verify(authority.publicKey) &&
        certificate.checkPrivateKey(createPrivateKey(readFileSync(files.key))) &&
        Date.parse(certificate.validTo) > Date.now() + RENEW_DAYS * DAY_MS
      );
    } catch {
      return false; // unreadable: what is broken is made anew
    }
  }
}

/** 20 octets at most, positive (RFC 5280, 4.1.2.2), and random: serial numbers need no state then. */
const serialNumber = (): string =>
  `01${Buffer.from(webcrypto.getRandomValues(new Uint8Array(16))).toString('hex')}`;

async function writeFiles(
  files: CertificateFiles,
  certificate: x509.X509Certificate,
  key: CryptoKey,
): Promise<void> {
  const der = await webcrypto.subtle.exportKey('pkcs8', key);
  // The key first: a certificate without its key would look complete.
  writeDurably(files.key, `${x509.PemConverter.encode(der, 'PRIVATE KEY')}\n`);
  writeDurably(files.cert, `${certificate.toString('pem')}\n`, 0o644);
}

type CryptoKey = webcrypto.CryptoKey;
