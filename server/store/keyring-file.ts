import { createCipheriv, createDecipheriv, createHmac, timingSafeEqual } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { z } from 'zod';
import { BridgeError } from '#bridge/wire/errors.js';

/** RFC 3394 key wrap with its default initial value. */
const WRAP = 'id-aes256-wrap';
const WRAP_IV = Buffer.alloc(8, 0xa6);

/** Data key numbers take four bytes in a record. */
export const KEY_ID_MAX = 2 ** 32 - 1;

/** A key, and the same key wrapped by the master key, as it stands in the file. */
export interface Secret {
  readonly key: Buffer;
  readonly wrapped: string;
}

export interface DataKey extends Secret {
  /** Unique in the keyring, never used again. */
  readonly id: number;
  readonly createdAt: string;
  /** Since this process started. 2^32 is the most a key may do with random nonces (NIST SP 800-38D, 8.3). */
  encryptions: number;
  readonly namespace: string;
}

export interface Namespace {
  /** The hidden name: what stands in stored keys. */
  readonly id: string;
  /** Tells namespaces apart in caches: one that was erased and made again is another one. */
  readonly serial: number;
  /** Hides what follows the namespace in a key. */
  readonly names: Secret;
  /** In order of their ids. */
  readonly keys: readonly DataKey[];
  /** The newest: it encrypts. */
  readonly current: DataKey;
}

/** A namespace whose keys are gone while some of its records are still there. */
export interface Shredding {
  readonly namespace: string;
  readonly keyIds: readonly number[];
}

export interface KeyringState {
  /** Hides the names of namespaces. */
  readonly names: Secret;
  /** For the tags of the store below, and of this file. */
  readonly integrity: Secret;
  readonly nextKeyId: number;
  /** Every family anything was ever put into: where to look for records to encrypt anew or to erase. */
  readonly families: ReadonlySet<string>;
  readonly namespaces: ReadonlyMap<string, Namespace>;
  readonly shredding: readonly Shredding[];
}

const KeyId = z.int().min(1).max(KEY_ID_MAX);

const KeyringFile = z.strictObject({
  format: z.literal(2),
  names: z.string(),
  integrity: z.string(),
  nextKeyId: z.int().min(1),
  families: z.array(z.string()),
  namespaces: z.record(
    z.string(),
    z.strictObject({
      names: z.string(),
      keys: z
        .array(z.strictObject({ id: KeyId, wrapped: z.string(), createdAt: z.string() }))
        .min(1),
    }),
  ),
  shredding: z.array(z.strictObject({ namespace: z.string(), keyIds: z.array(KeyId) })),
  /** HMAC of all of the above by the integrity key: keys cannot change places, and nothing can be taken out. */
  tag: z.string(),
});
type KeyringFile = z.infer<typeof KeyringFile>;

export function encodeKeyring(state: KeyringState): string {
  return `${JSON.stringify({ ...contentsOf(state), tag: tagOf(state).toString('base64url') }, null, 2)}\n`;
}

/** @throws BridgeError `internal` when it is damaged, `invalid` for another format */
export function readKeyringFile(path: string): KeyringFile {
  let contents: unknown;
  try {
    contents = JSON.parse(readFileSync(path, 'utf8'));
  } catch (cause) {
    throw damagedKeyring(path, cause);
  }
  const format = z.object({ format: z.number() }).safeParse(contents).data?.format;
  if (format === 1)
    throw new BridgeError(
      'invalid',
      `the keyring ${path} has the old format 1, with one data key for everybody: this version needs a new store`,
    );
  if (format !== undefined && format !== 2)
    throw new BridgeError(
      'invalid',
      `the keyring ${path} has format ${format}, which this version does not know: use the version that wrote it`,
    );
  const parsed = KeyringFile.safeParse(contents);
  if (!parsed.success) throw damagedKeyring(path, parsed.error);
  return parsed.data;
}

export function opensKeyring(master: Buffer, file: KeyringFile): boolean {
  try {
    unwrap(master, file.names);
    return true;
  } catch {
    return false;
  }
}

/** @throws BridgeError `internal` when something in it was changed */
export function unwrapKeyring(path: string, file: KeyringFile, master: Buffer): KeyringState {
  let state: KeyringState;
  try {
    const namespaces = Object.entries(file.namespaces).map(([id, { names, keys }], serial) =>
      makeNamespace(
        id,
        serial,
        unwrap(master, names),
        keys.map((key) => ({
          ...unwrap(master, key.wrapped),
          id: key.id,
          createdAt: key.createdAt,
          encryptions: 0,
          namespace: id,
        })),
      ),
    );
    state = {
      names: unwrap(master, file.names),
      integrity: unwrap(master, file.integrity),
      nextKeyId: file.nextKeyId,
      families: new Set(file.families),
      namespaces: new Map(namespaces.map((namespace) => [namespace.id, namespace])),
      shredding: file.shredding,
    };
  } catch (cause) {
    throw damagedKeyring(path, cause);
  }
  const tag = Buffer.from(file.tag, 'base64url');
  const expected = tagOf(state);
  if (tag.length !== expected.length || !timingSafeEqual(tag, expected)) throw damagedKeyring(path);
  return state;
}

export function makeNamespace(
  id: string,
  serial: number,
  names: Secret,
  keys: readonly DataKey[],
): Namespace {
  const sorted = [...keys].sort((a, b) => a.id - b.id);
  const current = sorted.at(-1);
  if (current === undefined) throw new RangeError('a namespace without a data key');
  return { id, serial, names, keys: sorted, current };
}

/** The same keys, wrapped by `master`. */
export function rewrapKeyring(state: KeyringState, master: Buffer): KeyringState {
  const again = <T extends Secret>(secret: T): T => ({ ...secret, ...wrap(master, secret.key) });
  const namespaces = [...state.namespaces.values()].map(
    ({ id, serial, names, keys }) =>
      [id, makeNamespace(id, serial, again(names), keys.map(again))] as const,
  );
  return {
    ...state,
    names: again(state.names),
    integrity: again(state.integrity),
    namespaces: new Map(namespaces),
  };
}

export function wrap(master: Buffer, key: Buffer): Secret {
  const cipher = createCipheriv(WRAP, master, WRAP_IV);
  return {
    key,
    wrapped: Buffer.concat([cipher.update(key), cipher.final()]).toString('base64url'),
  };
}

function unwrap(master: Buffer, wrapped: string): Secret {
  const decipher = createDecipheriv(WRAP, master, WRAP_IV);
  const key = Buffer.concat([decipher.update(Buffer.from(wrapped, 'base64url')), decipher.final()]);
  return { key, wrapped };
}

const contentsOf = (state: KeyringState): Omit<KeyringFile, 'tag'> => ({
  format: 2,
  names: state.names.wrapped,
  integrity: state.integrity.wrapped,
  nextKeyId: state.nextKeyId,
  families: [...state.families],
  namespaces: Object.fromEntries(
    [...state.namespaces].map(([id, { names, keys }]) => [
      id,
      {
        names: names.wrapped,
        keys: keys.map((key) => ({ id: key.id, wrapped: key.wrapped, createdAt: key.createdAt })),
      },
    ]),
  ),
  shredding: state.shredding.map(({ namespace, keyIds }) => ({ namespace, keyIds: [...keyIds] })),
});

const tagOf = (state: KeyringState): Buffer =>
  createHmac('sha256', state.integrity.key)
    .update(`keyring\0${JSON.stringify(contentsOf(state))}`)
    .digest();

const damagedKeyring = (path: string, cause?: unknown) =>
  new BridgeError('internal', `the keyring ${path} is damaged: restore it from a backup`, {
    cause,
  });
