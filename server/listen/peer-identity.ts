import type { Duplex } from 'node:stream';
import { TLSSocket } from 'node:tls';
import { BridgeError } from '#bridge/wire/errors.js';
import { type Identity, identityOf } from '#server/auth/identity.js';

/** Who is at the other end of a TLS socket. @throws BridgeError `denied`, in words the other side is told */
export function peerIdentity(socket: Duplex): Identity {
  if (!(socket instanceof TLSSocket))
    throw new BridgeError('denied', 'this is not a TLS connection');
  const certificate = socket.getPeerX509Certificate();
  if (certificate === undefined) throw new BridgeError('denied', 'a client certificate is needed');
  if (!socket.authorized)
    throw new BridgeError(
      'denied',
      REFUSALS[String(socket.authorizationError)] ?? 'the client certificate is not valid',
    );
  return identityOf(certificate);
}

const UNKNOWN_ISSUER = 'the client certificate comes from another CA';

/** OpenSSL's verdicts, X509_STORE_CTX_get_error(3). */
const REFUSALS: Readonly<Record<string, string>> = {
  CERT_HAS_EXPIRED: 'the client certificate has expired',
  CERT_NOT_YET_VALID: 'the client certificate is not valid yet: check the clocks',
  UNABLE_TO_GET_ISSUER_CERT: UNKNOWN_ISSUER,
  UNABLE_TO_GET_ISSUER_CERT_LOCALLY: UNKNOWN_ISSUER,
  UNABLE_TO_VERIFY_LEAF_SIGNATURE: UNKNOWN_ISSUER,
  SELF_SIGNED_CERT_IN_CHAIN: UNKNOWN_ISSUER,
  DEPTH_ZERO_SELF_SIGNED_CERT: UNKNOWN_ISSUER,
};
