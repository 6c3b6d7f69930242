import { X509Certificate } from 'node:crypto';
import type { Duplex } from 'node:stream';
import { TLSSocket } from 'node:tls';
import { thumbprintOf } from '#server/auth/identity.js';

/** What is known of whom is refused: nothing without a certificate, and no name unless our authority has signed it. */
export interface RefusedPeer {
  readonly role?: string;
  readonly name?: string;
  readonly thumbprint?: string;
}

/** `ca`: PEM text of the authority. Anybody can write a name into a certificate of his own: that one is not repeated. */
export function refusedPeer(socket: Duplex, ca: string): RefusedPeer {
  const certificate = socket instanceof TLSSocket ? socket.getPeerX509Certificate() : undefined;
  if (certificate === undefined) return {};
  const thumbprint = thumbprintOf(certificate.raw);
  if (!isSignedBy(certificate, ca)) return { thumbprint };
  const { CN: name, OU: role }: Record<string, unknown> = certificate.toLegacyObject().subject;
  return {
    thumbprint,
    ...(typeof name === 'string' && { name }),
    ...(typeof role === 'string' && { role }),
  };
}

/** Says nothing of dates: one that has expired was ours all the same. */
function isSignedBy(certificate: X509Certificate, ca: string): boolean {
  try {
    return certificate.verify(new X509Certificate(ca).publicKey);
  } catch {
    return false; // a key of another kind
  }
}
