import { execFileSync } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { existsSync, readFileSync, renameSync, rmSync, statSync } from 'node:fs';
import { dirname } from 'node:path';
import { BridgeError } from '#bridge/wire/errors.js';
import { syncDirectory, writeDurably } from './durable-file.js';

export const MASTER_KEY_BYTES = 32;

/** The server waits for it: long enough for a key service on another continent, short enough to notice one that hangs. */
const COMMAND_MS_MAX = 10_000;
const STDERR_LENGTH_MAX = 200;

/** Where the key is from that wraps all others. The keyring calls it at open and when the master key is rotated. */
export interface MasterKeySource {
  /** For messages: `the master key in …`. */
  readonly name: string;
  /** @throws BridgeError `not_found`, `denied` when others can read it or it is no key, `unavailable` when a command fails */
  read(): Buffer;
  /** Makes the key of a new store, unless there is one. */
  create(): void;
  /** What `prepare` left when nobody adopted it: a rotation was interrupted. */
  pending(): Buffer | undefined;
  /** The key that follows `current`. @throws BridgeError when there is none yet */
  prepare(current: Buffer): Buffer;
  /** From now on `read` gives the prepared key: the keyring is wrapped by it. */
  adopt(): void;
  /** Forgets the prepared key: the keyring is not wrapped by it. */
  discard(): void;
}

/** A key in a file of mode 0600, as base64url. The next one lies beside it while the keyring is wrapped anew. */
export function masterKeyFile(path: string): MasterKeySource {
  const next = `${path}.next`;
  return {
    name: `the master key in ${path}`,
    read() {
      if (!existsSync(path))
        throw new BridgeError(
          'not_found',
          `the master key ${path} is missing, and without it the store cannot be read: restore it from a backup`,
        );
      return readKey(path);
    },
    create() {
      if (!existsSync(path)) writeKey(path, randomBytes(MASTER_KEY_BYTES));
    },
    pending: () => (existsSync(next) ? readKey(next) : undefined),
    prepare() {
      const key = randomBytes(MASTER_KEY_BYTES);
      writeKey(next, key);
      return key;
    },
    adopt() {
      renameSync(next, path);
      syncDirectory(dirname(path));
    },
    discard: () => rmSync(next, { force: true }),
  };
}

/**
 * A key that a command prints as base64url. To rotate it, the operator changes what the command prints and then asks for
 * the rotation: until then a restart needs the old one.
 */
export function masterKeyCommand(command: string): MasterKeySource {
  const read = () => parseKey(outputOf(command), 'what the command for the master key prints');
  return {
    name: 'the master key that the command prints',
    read,
    create: () => {},
    pending: () => undefined,
    prepare(current) {
      const key = read();
      if (!key.equals(current)) return key;
      throw new BridgeError(
        'invalid',
        'the command still prints the old master key: change what it prints, then rotate again',
      );
    },
    adopt: () => {},
    discard: () => {},
  };
}

const writeKey = (path: string, key: Buffer) =>
  writeDurably(path, `${key.toString('base64url')}\n`);

function readKey(path: string): Buffer {
  const mode = statSync(path).mode & 0o777;
  if ((mode & 0o077) !== 0)
    throw new BridgeError(
      'denied',
      `others can read the master key ${path} (mode ${mode.toString(8)}): run chmod 600 ${path}`,
    );
  return parseKey(readFileSync(path, 'utf8'), path);
}

function parseKey(text: string, where: string): Buffer {
  const key = Buffer.from(text.trim(), 'base64url');
  if (key.length === MASTER_KEY_BYTES) return key;
  throw new BridgeError('denied', `${where} is not a ${MASTER_KEY_BYTES}-byte key in base64url`);
}

function outputOf(command: string): string {
  try {
    return execFileSync('/bin/sh', ['-c', command], {
      encoding: 'utf8',
      stdio: ['ignore', 'pipe', 'pipe'],
      timeout: COMMAND_MS_MAX,
      killSignal: 'SIGKILL',
    });
  } catch (cause) {
    throw new BridgeError('unavailable', `the command for the master key ${reasonOf(cause)}`, {
      cause,
    });
  }
}

function reasonOf(error: unknown): string {
  const { code, status, stderr } = error as {
    code?: unknown;
    status?: number | null;
    stderr?: string | null;
  };
  if (code === 'ETIMEDOUT') return `took longer than ${COMMAND_MS_MAX / 1000} s`;
  const [line = ''] = (stderr ?? '').trim().split('\n');
  const text = line.slice(0, STDERR_LENGTH_MAX);
  return `failed (status ${status ?? 'unknown'})${text === '' ? '' : `: ${text}`}`;
}

/** As a configuration names it. */
export const masterKeySource = (
  from: { readonly file: string } | { readonly command: string },
): MasterKeySource => ('file' in from ? masterKeyFile(from.file) : masterKeyCommand(from.command));
