import { createCipheriv, createDecipheriv, createHmac, randomBytes } from 'node:crypto';
import { existsSync, readFileSync } from 'node:fs';
import { z } from 'zod';
import { BridgeError } from '#bridge/wire/errors.js';
import { writeDurably } from './durable-file.js';

/** RFC 3394 key wrap with its default initial value. */
const WRAP = 'id-aes256-wrap';
const WRAP_IV = Buffer.alloc(8, 0xa6);
const KEY_BYTES = 32;

const KeyringFile = z.strictObject({
  format: z.literal(1),
  names: z.string(),
  keys: z.array(z.strictObject({ id: z.int().min(1), wrapped: z.string() })).min(1),
});

/**
 * The keys of an encrypted store: data keys by number (the highest encrypts, all decrypt) and one key that hides names.
 * They rest wrapped by the master key in a file of their own: a database would keep old versions of it around.
 */
export class Keyring {
  readonly #nameKey: Buffer;
  readonly #keys: ReadonlyMap<number, Buffer>;
  readonly currentId: number;

  private constructor(nameKey: Buffer, keys: ReadonlyMap<number, Buffer>) {
    this.#nameKey = nameKey;
    this.#keys = keys;
    this.currentId = Math.max(...keys.keys());
  }

  /**
   * Reads the keyring, or creates both files when the store is new (`fresh`).
   * @throws BridgeError `denied` for a wrong master key, `not_found` for a missing file of an existing store.
   */
  static open(files: { keyring: string; masterKey: string }, fresh: boolean): Keyring {
    if (!existsSync(files.keyring)) {
      if (!fresh) throw missing(files.keyring, 'the keyring');
      if (!existsSync(files.masterKey))
        writeDurably(files.masterKey, `${randomBytes(KEY_BYTES).toString('base64url')}\n`);
      const master = readMasterKey(files.masterKey);
      const contents: z.infer<typeof KeyringFile> = {
        format: 1,
        names: wrap(master, randomBytes(KEY_BYTES)),
        keys: [{ id: 1, wrapped: wrap(master, randomBytes(KEY_BYTES)) }],
      };
      writeDurably(files.keyring, `${JSON.stringify(contents, null, 2)}\n`);
    }
    if (!existsSync(files.masterKey)) throw missing(files.masterKey, 'the master key');
    const master = readMasterKey(files.masterKey);
    const file = readKeyring(files.keyring);
    try {
      return new Keyring(
        unwrap(master, file.names),
        new Map(file.keys.map(({ id, wrapped }) => [id, unwrap(master, wrapped)])),
      );
    } catch (cause) {
      throw new BridgeError(
        'denied',
        `the master key in ${files.masterKey} does not open ${files.keyring}: put the right one back`,
        { cause },
      );
    }
  }

  /** A keyring that exists only in this process, for tests. */
  static ephemeral(): Keyring {
    return new Keyring(randomBytes(KEY_BYTES), new Map([[1, randomBytes(KEY_BYTES)]]));
  }

  key(id: number): Buffer | undefined {
    return this.#keys.get(id);
  }

  /** 22 characters that stand for `name` in stored keys: equal names stay equal, nothing else shows. */
  hide(name: string): string {
    return createHmac('sha256', this.#nameKey)
      .update(name)
      .digest()
      .subarray(0, 16)
      .toString('base64url');
  }
}

const missing = (file: string, what: string) =>
  new BridgeError(
    'not_found',
    `${what} ${file} is missing, and without it the store cannot be read: restore it from a backup`,
  );

function readKeyring(file: string): z.infer<typeof KeyringFile> {
  try {
    return KeyringFile.parse(JSON.parse(readFileSync(file, 'utf8')));
  } catch (cause) {
    throw new BridgeError('internal', `the keyring ${file} is damaged: restore it from a backup`, {
      cause,
    });
  }
}

function readMasterKey(file: string): Buffer {
  const key = Buffer.from(readFileSync(file, 'utf8').trim(), 'base64url');
  if (key.length === KEY_BYTES) return key;
  throw new BridgeError('denied', `${file} does not hold a ${KEY_BYTES}-byte key in base64url`);
}

function wrap(master: Buffer, key: Buffer): string {
  const cipher = createCipheriv(WRAP, master, WRAP_IV);
  return Buffer.concat([cipher.update(key), cipher.final()]).toString('base64url');
}

function unwrap(master: Buffer, wrapped: string): Buffer {
  const decipher = createDecipheriv(WRAP, master, WRAP_IV);
  return Buffer.concat([decipher.update(Buffer.from(wrapped, 'base64url')), decipher.final()]);
}
