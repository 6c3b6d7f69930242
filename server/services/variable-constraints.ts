import { Script } from 'node:vm';
import { Ajv, type ValidateFunction } from 'ajv';
import { BridgeError } from '#bridge/wire/errors.js';
import type { VariableType } from '#bridge/wire/protocol.js';
import type { VariableRecord } from './variable-records.js';

/** Schemas kept compiled: compiling takes milliseconds, checking microseconds. */
const COMPILED_MAX = 1000;

/** A schema larger than this describes no variable, it is one. */
export const SCHEMA_BYTES_MAX = 64 * 1024;

/**
 * A check takes microseconds. One that takes this long has a pattern that backtracks, or compares all with all, and would
 * keep everybody else waiting.
 */
const CHECK_MS_MAX = 100;
/** Compiling the largest schema there may be, on a busy machine. */
const COMPILE_MS_MAX = 1000;

const TYPES: { readonly [T in VariableType]: (value: unknown) => boolean } = {
  string: (value) => typeof value === 'string',
  number: (value) => typeof value === 'number',
  boolean: (value) => typeof value === 'boolean',
  object: (value) => typeof value === 'object' && value !== null && !Array.isArray(value),
  array: Array.isArray,
  bytes: (value) => typeof value === 'string' && isBase64(value),
};

/** Checks values against what was said about their variables. */
export class Constraints {
  /** Unknown keywords are refused, since they are mistakes; what JSON Schema allows is not. */
  readonly #ajv = new Ajv({
    strictSchema: true,
    strictNumbers: true,
    strictTypes: false,
    strictTuples: false,
    strictRequired: false,
    allowUnionTypes: true,
    allErrors: false,
    logger: false,
  });
  readonly #compiled = new Map<string, ValidateFunction>();

  /** @throws BridgeError `invalid`, with what is wrong where */
  check({
    key,
    text,
    type,
    schema,
  }: Pick<VariableRecord, 'key' | 'text' | 'type' | 'schema'>): void {
    if (text === null || (type === undefined && schema === undefined)) return;
    const value: unknown = JSON.parse(text);
    const name = JSON.stringify(key);
    if (type !== undefined && !TYPES[type](value))
      throw new BridgeError(
        'invalid',
        `variable ${name} must be ${type === 'bytes' ? 'bytes in base64' : `of type ${type}`}; see: cronium var show ${key}`,
      );
    if (schema === undefined) return;
    const validate = this.#validator(schema);
    if (bounded(CHECK_MS_MAX, () => validate(value))) return;
    const [problem] = validate.errors ?? [];
    const where = problem?.instancePath === '' ? 'it' : problem?.instancePath;
    throw new BridgeError(
      'invalid',
      `variable ${name} does not fit its schema: ${where} ${problem?.message ?? 'is not valid'}; see: cronium var show ${key}`,
    );
  }

  /** @throws BridgeError `invalid` when it is no schema that can be used */
  checkSchema(schema: string): void {
    if (Buffer.byteLength(schema) > SCHEMA_BYTES_MAX)
      throw new BridgeError('invalid', `a schema has at most ${SCHEMA_BYTES_MAX} bytes`);
    this.#validator(schema);
  }

  #validator(schema: string): ValidateFunction {
    const known = this.#compiled.get(schema);
    if (known !== undefined) return known;
    let validate: ValidateFunction;
    try {
      const parsed = JSON.parse(schema) as unknown;
      if (typeof parsed !== 'boolean' && (typeof parsed !== 'object' || parsed === null))
        throw new TypeError('a schema is an object');
      // Without its own id: two variables may use schemas of the same name.
      if (typeof parsed === 'object') Reflect.deleteProperty(parsed, '$id');
      validate = bounded(COMPILE_MS_MAX, () => this.#ajv.compile(parsed));
    } catch (cause) {
      if (cause instanceof BridgeError) throw cause;
      const text = cause instanceof Error ? cause.message : String(cause);
      throw new BridgeError('invalid', `the schema cannot be used: ${text}`, { cause });
    }
    if (this.#compiled.size >= COMPILED_MAX)
      for (const [oldest] of this.#compiled) {
        this.#compiled.delete(oldest);
        break;
      }
    this.#compiled.set(schema, validate);
    return validate;
  }
}

/**
 * `work`, stopped when it takes too long: only what a script runs can be stopped, so a script calls it. Costs a tenth of a
 * millisecond. @throws BridgeError `invalid` for work that takes too long, or more stack than there is
 */
function bounded<T>(mostMs: number, work: () => T): T {
  const target = globalThis as { [WORK]?: (() => T) | undefined };
  target[WORK] = work;
  try {
    return SCRIPT.runInThisContext({ timeout: mostMs }) as T;
  } catch (cause) {
    const isOver =
      cause instanceof RangeError ||
      (cause instanceof Error && 'code' in cause && cause.code === 'ERR_SCRIPT_EXECUTION_TIMEOUT');
    if (!isOver) throw cause;
    throw new BridgeError(
      'invalid',
      'checking the value against its schema takes too long; use a simpler schema, or a smaller value',
      { cause },
    );
  } finally {
    target[WORK] = undefined;
  }
}

const WORK = Symbol.for('cronium.bounded-work');
const SCRIPT = new Script('globalThis[Symbol.for("cronium.bounded-work")]()');

const isBase64 = (text: string): boolean =>
  text.length % 4 === 0 && /^[A-Za-z0-9+/]*={0,2}$/.test(text);
