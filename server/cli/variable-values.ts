import { readFileSync } from 'node:fs';
import type { Connection } from '#bridge/client/connection.js';
import { isJson } from '#bridge/wire/json-source.js';
import { VariableKey } from '#bridge/wire/names.js';
import { VARIABLE_TYPES, type VariableDetails, type VariableType } from '#bridge/wire/protocol.js';
import { Installation } from '#server/admin/installation.js';
import { State } from '#server/admin/state.js';
import { atMost, COMMON, type Io, Misuse } from './command.js';
import { duration, jsonArgument, oneOf, textArgument } from './values.js';

/** What the `var` commands have in common: how variables are named, read and shown. */

export const OPTIONS = { ...COMMON, user: { type: 'string' }, org: { type: 'string' } } as const;
export const REVEAL = { reveal: { type: 'boolean', default: false } } as const;
export const OWNERS = '  --user ID, --org ID  whose variables (default: user "default")';

/** Longest life that can be said in a duration; a longer one is a date, or `never`. */
const EXPIRES_MS_MAX = 10 * 365 * 24 * 60 * 60 * 1000;

/** Shown for a value that must not be. */
export const HIDDEN = '(secret)';

export async function connect(state: string | undefined, io: Io): Promise<Connection> {
  return await new Installation(State.of(state, io.env)).operator();
}

export function keyArgument(positionals: readonly string[], most: number): VariableKey {
  const [key] = positionals;
  if (key === undefined) throw new Misuse('which variable? see: cronium var list');
  atMost(positionals, most);
  return checkedKey(key);
}

export function checkedKey(key: string): VariableKey {
  const result = VariableKey.safeParse(key);
  if (result.success) return result.data;
  throw new Misuse(
    `variable ${JSON.stringify(key)}: ${result.error.issues[0]?.message ?? 'not a key'}`,
  );
}

export function versionArgument(text: string, what: string): number {
  const version = Number(text);
  if (/^\d+$/.test(text) && Number.isSafeInteger(version)) return version;
  throw new Misuse(`${what} ${text}: a version is a whole number; see: cronium var history`);
}

/**
 * The JSON text that a VALUE, @FILE or - stands for: itself where it is JSON, else a string. Of type bytes, or `string`, it is
 * never taken for JSON.
 */
export async function valueArgument(
  argument: string,
  how: { string?: boolean; type?: VariableType | null | undefined },
  io: Io,
): Promise<string> {
  if (how.type === 'bytes')
    return JSON.stringify((await bytesArgument(argument, io)).toString('base64'));
  const read = await textArgument(argument, 'VALUE', io);
  // As `$(cat FILE)` does: an editor's last line end is no part of a password.
  const given = argument === read ? read : read.replace(/\r?\n$/, '');
  const isText = how.string === true || !isJson(given);
  if (isText || (how.type === 'string' && !given.trim().startsWith('"')))
    return JSON.stringify(given);
  return given.trim();
}

async function bytesArgument(argument: string, io: Io): Promise<Buffer> {
  if (argument === '-') return await io.stdin();
  if (!argument.startsWith('@')) return Buffer.from(argument, 'utf8');
  try {
    return readFileSync(argument.slice(1));
  } catch (error) {
    const why = error instanceof Error ? error.message : String(error);
    throw new Misuse(`VALUE: cannot read ${argument.slice(1)}: ${why}`);
  }
}

interface AttributeOptions {
  readonly type?: string | undefined;
  readonly schema?: string | undefined;
  readonly secret: boolean;
  readonly 'no-secret': boolean;
  readonly expires?: string | undefined;
  readonly label?: readonly string[] | undefined;
  readonly 'no-labels': boolean;
}

interface GivenAttributes {
  type?: VariableType | null;
  schema?: string | null;
  secret?: boolean;
  expiresAt?: number | null;
  metadata?: Record<string, string> | null;
}

/** What is said of a variable; what is not given is not a member, and null takes it away. */
export async function attributesArgument(
  values: AttributeOptions,
  io: Io,
): Promise<GivenAttributes> {
  const given: GivenAttributes = {};
  if (values.type !== undefined) {
    const type = oneOf(values.type, [...VARIABLE_TYPES, 'none'], '--type');
    given.type = type === 'none' ? null : type;
  }
  if (values.schema !== undefined)
    given.schema =
      values.schema === 'none' ? null : await jsonArgument(values.schema, '--schema', io);
  if (values.secret && values['no-secret'])
    throw new Misuse('--secret and --no-secret exclude each other');
  if (values.secret || values['no-secret']) given.secret = values.secret;
  if (values.expires !== undefined) given.expiresAt = expiryArgument(values.expires, Date.now());
  if (values.label !== undefined && values['no-labels'])
    throw new Misuse('--label and --no-labels exclude each other');
  if (values['no-labels']) given.metadata = null;
  if (values.label !== undefined) given.metadata = labelsArgument(values.label);
  return given;
}

/** Milliseconds since the epoch of `30m`, of a time in ISO 8601 that is to come, or null for `never`. */
export function expiryArgument(text: string, now: number): number | null {
  if (text === 'never') return null;
  if (!/^\d{4}-\d\d-\d\d/.test(text)) {
    if (/^[\d.]+(ms|s|m|h|d)?$/.test(text))
      return now + duration(text, '--expires', EXPIRES_MS_MAX);
    throw new Misuse(
      `--expires ${text}: write how long (30m, 12h, 7d), when (2030-01-31T12:00:00Z), or never`,
    );
  }
  const at = Date.parse(text);
  if (Number.isNaN(at))
    throw new Misuse(`--expires ${text}: there is no such time; write 2030-01-31T12:00:00Z`);
  if (at <= now)
    throw new Misuse(`--expires ${text}: that is over; to end a variable: cronium var delete`);
  return at;
}

function labelsArgument(pairs: readonly string[]): Record<string, string> {
  const labels = pairs.map((pair): [string, string] => {
    const at = pair.indexOf('=');
    if (at < 1) throw new Misuse(`--label ${JSON.stringify(pair)}: write NAME=VALUE`);
    return [pair.slice(0, at), pair.slice(at + 1)];
  });
  return Object.fromEntries(labels);
}

/** A string as its text, anything else as JSON. */
export const plain = (text: string): string =>
  text.startsWith('"') ? (JSON.parse(text) as string) : text;

export const isoTime = (ms: number): string => new Date(ms).toISOString();

type Shown = Pick<VariableDetails, 'key' | 'text' | 'version' | 'updatedAt'> &
  Partial<VariableDetails>;

/** Everything that is known of a variable. Value and schema are their own source texts; a value that is hidden is left out. */
export function variableJson({
  key,
  text,
  secret,
  version,
  updatedAt,
  by,
  type,
  schema,
  expiresAt,
  metadata,
}: Shown): string {
  const members: [string, string | undefined | null][] = [
    ['key', JSON.stringify(key)],
    ['value', text],
    ['secret', secret && 'true'],
    ['version', String(version)],
    ['updatedAt', JSON.stringify(isoTime(updatedAt))],
    ['by', by && JSON.stringify(by)],
    ['type', type && JSON.stringify(type)],
    ['schema', schema],
    ['expiresAt', expiresAt === undefined ? undefined : JSON.stringify(isoTime(expiresAt))],
    ['labels', metadata && JSON.stringify(metadata)],
  ];
  const present = members.filter(([, source]) => source !== undefined && source !== null);
  return `{${present.map(([name, source]) => `"${name}":${source}`).join(',')}}`;
}
