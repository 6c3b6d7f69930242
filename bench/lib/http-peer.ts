import { generateKeyPairSync } from 'node:crypto';
import { SignJWT } from 'jose';

export const ISSUER = 'cronium-bench';
export const AUDIENCE = 'cronium-bench-http';

export interface HttpServerConfig {
  /** Of the store. */
  readonly directory: string;
  /** PEM text. */
  readonly publicKey: string;
}

/** A key for the server and a token for the client, as our own tokens are: Ed25519, the namespace in a claim. */
export async function httpToken(): Promise<{ readonly publicKey: string; readonly token: string }> {
  const { privateKey, publicKey } = generateKeyPairSync('ed25519');
  const token = await new SignJWT({ ns: 'user:bench', cap: ['variables'] })
    .setProtectedHeader({ alg: 'EdDSA', typ: 'at+jwt' })
    .setIssuer(ISSUER)
    .setAudience(AUDIENCE)
    .setSubject('exec:bench')
    .setIssuedAt()
    .setExpirationTime('12h')
    .sign(privateKey);
  return { publicKey: publicKey.export({ format: 'pem', type: 'spki' }).toString(), token };
}
