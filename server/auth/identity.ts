import type { X509Certificate } from 'node:crypto';
import { createHash } from 'node:crypto';
import { BridgeError } from '#bridge/wire/errors.js';

/** What a certificate of our CA may be for: a host runs scripts, an operator may do everything, an auditor may look. */
export const ROLES = ['host', 'operator', 'auditor'] as const;
export type Role = (typeof ROLES)[number];

/** Who is at the other end of a connection, by its client certificate. */
export interface Identity {
  readonly role: Role;
  /** Common name: the host's, operator's or auditor's. */
  readonly name: string;
  /** RFC 8705 `x5t#S256`: base64url SHA-256 of the DER certificate. Tokens are bound to it. */
  readonly thumbprint: string;
  /** Milliseconds since the epoch: until when the certificate is valid. */
  readonly notAfter?: number;
}

export const thumbprintOf = (der: Uint8Array): string =>
  createHash('sha256').update(der).digest('base64url');

/**
 * The role stands in OU, the name in CN; the TLS layer has checked the chain and the dates.
 * A resumed TLS session keeps the certificate of the first handshake, so dates are checked here again.
 * @throws BridgeError `denied`
 */
export function identityOf(certificate: X509Certificate, now = Date.now()): Identity {
  // One value each: a list means that the subject names several, and which counts would be a guess.
  const { CN: name, OU: role }: Record<string, unknown> = certificate.toLegacyObject().subject;
  const notAfter = Date.parse(certificate.validTo);
  if (now > notAfter || now < Date.parse(certificate.validFrom))
    throw new BridgeError('denied', `the certificate of ${String(name)} is not valid at this time`);
  if (typeof name !== 'string' || !isRole(role))
    throw new BridgeError('denied', 'the certificate names no host, operator or auditor');
  return { role, name, thumbprint: thumbprintOf(certificate.raw), notAfter };
}

const isRole = (role: unknown): role is Role => ROLES.some((one) => one === role);
