import {
  createHash,
  createPrivateKey,
  createPublicKey,
  generateKeyPairSync,
  type KeyObject,
} from 'node:crypto';
import { existsSync, readFileSync } from 'node:fs';
import { z } from 'zod';
import { BridgeError } from '#bridge/wire/errors.js';
import { TOKEN_LIFETIME_MS_MAX } from '#bridge/wire/protocol/credentials.js';
import { writeDurably } from '#server/store/durable-file.js';

/** A key that signs no more stays good until the last token it signed has expired, and a minute for clocks that differ. */
const RETIRED_MS = TOKEN_LIFETIME_MS_MAX + 60_000;

/** Of 43 characters of a thumbprint: enough to tell a handful of keys of one server apart. */
const KEY_ID_LENGTH = 16;

const KeyFile = z.strictObject({
  version: z.literal(1),
  /** PKCS #8 PEM. */
  signing: z.string(),
  /** SPKI PEM, the newest first; until then, in milliseconds since the epoch, tokens it signed are good. */
  retired: z.array(z.strictObject({ publicKey: z.string(), until: z.int() })),
});
type KeyFile = z.infer<typeof KeyFile>;

export interface SigningKey {
  readonly id: string;
  readonly privateKey: KeyObject;
}

/** The key that signs tokens and those that did before it. */
export class SigningKeys {
  readonly newest: SigningKey;
  readonly #public = new Map<string, { readonly key: KeyObject; readonly until: number }>();

  constructor(
    privateKey: KeyObject,
    retired: readonly { readonly publicKey: KeyObject; readonly until: number }[] = [],
  ) {
    for (const { publicKey, until } of retired)
      this.#public.set(keyIdOf(publicKey), { key: publicKey, until });
    const publicKey = createPublicKey(privateKey);
    this.newest = { id: keyIdOf(publicKey), privateKey };
    this.#public.set(this.newest.id, { key: publicKey, until: Number.POSITIVE_INFINITY });
  }

  /** Those in `file` (mode 0600), which is made when missing. @throws BridgeError `invalid` when it holds none */
  static open(file: string): SigningKeys {
    if (!existsSync(file)) write(file, newPrivateKey(), []);
    const { signing, retired } = read(file);
    try {
      return new SigningKeys(
        ed25519(createPrivateKey(signing)),
        retired.map(({ publicKey, until }) => ({
          publicKey: ed25519(createPublicKey(publicKey)),
          until,
        })),
      );
    } catch (cause) {
      throw unreadable(file, cause);
    }
  }

  /** Makes a new signing key in `file`; the present one still verifies what it signed. */
  static rotate(file: string, now: number): SigningKeys {
    const { newest } = SigningKeys.open(file);
    const publicKey = createPublicKey(newest.privateKey);
    write(file, newPrivateKey(), [
      { publicKey: pem(publicKey), until: now + RETIRED_MS },
      ...read(file).retired.filter(({ until }) => until > now),
    ]);
    return SigningKeys.open(file);
  }

  /** The public key that verifies tokens of that key id at that time. */
  find(id: string, now: number): KeyObject | undefined {
    const found = this.#public.get(id);
    return found !== undefined && now < found.until ? found.key : undefined;
  }
}

/** The start of the RFC 7638 thumbprint. */
export function keyIdOf(publicKey: KeyObject): string {
  const { crv, kty, x } = publicKey.export({ format: 'jwk' });
  const thumbprint = createHash('sha256').update(JSON.stringify({ crv, kty, x }));
  return thumbprint.digest('base64url').slice(0, KEY_ID_LENGTH);
}

function read(file: string): KeyFile {
  const text = readFileSync(file, 'utf8');
  // The first version kept the signing key alone.
  if (text.startsWith('-----BEGIN ')) return { version: 1, signing: text, retired: [] };
  try {
    return KeyFile.parse(JSON.parse(text));
  } catch (cause) {
    throw unreadable(file, cause);
  }
}

function write(file: string, privateKey: KeyObject, retired: KeyFile['retired']): void {
  const signing = privateKey.export({ format: 'pem', type: 'pkcs8' }).toString();
  const content: KeyFile = { version: 1, signing, retired };
  writeDurably(file, `${JSON.stringify(content, null, 2)}\n`);
}

const newPrivateKey = (): KeyObject => generateKeyPairSync('ed25519').privateKey;

const pem = (publicKey: KeyObject): string =>
  publicKey.export({ format: 'pem', type: 'spki' }).toString();

function ed25519(key: KeyObject): KeyObject {
  if (key.asymmetricKeyType !== 'ed25519') throw new TypeError(`${key.asymmetricKeyType} key`);
  return key;
}

const unreadable = (file: string, cause: unknown) =>
  new BridgeError(
    'invalid',
    `${file} holds no signing keys: put its copy back, or remove it, which ends the tokens of running executions`,
    { cause },
  );
