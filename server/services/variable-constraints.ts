import { Ajv, type ValidateFunction } from 'ajv';
import { BridgeError } from '#bridge/wire/errors.js';
import type { VariableType } from '#bridge/wire/protocol.js';
import type { VariableRecord } from './variable-records.js';

/** Schemas kept compiled: compiling takes milliseconds, checking microseconds. */
const COMPILED_MAX = 1000;

/** A schema larger than this describes no variable, it is one. */
export const SCHEMA_BYTES_MAX = 64 * 1024;

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
    if (validate(value)) return;
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
      validate = this.#ajv.compile(parsed);
    } catch (cause) {
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

const isBase64 = (text: string): boolean =>
  text.length % 4 === 0 && /^[A-Za-z0-9+/]*={0,2}$/.test(text);
