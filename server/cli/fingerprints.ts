/** A thumbprint as openssl-x509(1) shows it, in small letters and without colons: base64url can begin with "-". */
export const fingerprintOf = (thumbprint: string): string =>
  Buffer.from(thumbprint, 'base64url').toString('hex');

/** The thumbprint of a whole SHA-256 fingerprint: hexadecimal, with or without colons, or base64url. */
export function thumbprintOfFingerprint(text: string): string | undefined {
  const digits = text.replaceAll(':', '');
  if (/^[0-9a-f]{64}$/i.test(digits)) return Buffer.from(digits, 'hex').toString('base64url');
  return /^[A-Za-z0-9_-]{43}$/.test(text) ? text : undefined;
}
