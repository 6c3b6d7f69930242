import { readFileSync } from 'node:fs';
import { checkJson, decodeText, JsonSyntaxError } from '#bridge/wire/json-source.js';
import { type Namespace, OwnerId } from '#bridge/wire/names.js';
import { type Io, Misuse } from './command.js';

/** Used when nobody says whose variables are meant: a machine with one user needs no name for him. */
export const DEFAULT_USER = 'default';

/** The text an argument stands for: itself, `@FILE`, or `-` for standard input. */
export async function textArgument(argument: string, what: string, io: Io): Promise<string> {
  if (argument === '-') return decodeText(await io.stdin());
  if (!argument.startsWith('@')) return argument;
  const path = argument.slice(1);
  try {
    return decodeText(readFileSync(path));
  } catch (error) {
    throw new Misuse(
      `${what}: cannot read ${path}: ${error instanceof Error ? error.message : String(error)}`,
    );
  }
}

/** The source text of the JSON an argument stands for. */
export async function jsonArgument(argument: string, what: string, io: Io): Promise<string> {
  const text = await textArgument(argument, what, io);
  try {
    return checkJson(text);
  } catch (error) {
    if (error instanceof JsonSyntaxError)
      throw new Misuse(
        `${what} is not valid JSON: ${error.message}; quote it for the shell, as in '{"n": 1}'`,
      );
    throw error;
  }
}

export function owner(id: string, option: string): string {
  const result = OwnerId.safeParse(id);
  if (result.success) return result.data;
  throw new Misuse(
    `${option} ${JSON.stringify(id)}: ${result.error.issues[0]?.message ?? 'not an id'}`,
  );
}

/** Whose variables a command means: --org, else --user, else the default user. */
export function namespaceOf(values: {
  user?: string | undefined;
  org?: string | undefined;
}): Namespace {
  if (values.user !== undefined && values.org !== undefined)
    throw new Misuse('--user and --org exclude each other: variables belong to one of them');
  if (values.org !== undefined) return { org: owner(values.org, '--org') };
  return { user: owner(values.user ?? DEFAULT_USER, '--user') };
}

/** Milliseconds of `500ms`, `30s`, `5m`, `2h`, `7d`; a bare number is seconds. */
export function duration(text: string, option: string, mostMs: number): number {
  const match = /^(\d+(?:\.\d+)?)(ms|s|m|h|d)?$/.exec(text);
  const ms = Math.round(Number(match?.[1]) * (UNITS_MS[match?.[2] ?? 's'] ?? 0));
  if (match === null || ms < 1)
    throw new Misuse(`${option} ${text}: write a time like 30s, 5m or 500ms`);
  if (ms > mostMs)
    throw new Misuse(`${option} ${text}: the longest is ${Math.floor(mostMs / UNIT_HOUR_MS)}h`);
  return ms;
}

const UNIT_HOUR_MS = 3_600_000;

const UNITS_MS: Readonly<Record<string, number>> = {
  ms: 1,
  s: 1000,
  m: 60_000,
  h: UNIT_HOUR_MS,
  d: 24 * UNIT_HOUR_MS,
};

/** Bytes of `256m`, `1g`, `64k`; a bare number is bytes. */
export function bytes(text: string, option: string): number {
  const match = /^(\d+(?:\.\d+)?)([kmg])?b?$/i.exec(text);
  const count = Math.round(
    Number(match?.[1]) * (UNITS_BYTES[(match?.[2] ?? '').toLowerCase()] ?? 1),
  );
  if (match === null || count < 1)
    throw new Misuse(`${option} ${text}: write a size like 256m or 1g`);
  return count;
}

const UNITS_BYTES: Readonly<Record<string, number>> = { k: 1024, m: 1024 ** 2, g: 1024 ** 3 };

/** One of a few words. */
export function oneOf<const T extends string>(
  value: string,
  allowed: readonly T[],
  option: string,
): T {
  const found = allowed.find((one) => one === value);
  if (found === undefined)
    throw new Misuse(`${option} ${JSON.stringify(value)}: use one of ${allowed.join(', ')}`);
  return found;
}
