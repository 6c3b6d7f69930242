import { z } from 'zod';
import { COMMIT_MEMBERS_MAX } from './limits.js';

/** Members of an object that a schema names; none has more than a few dozen. */
const MEMBERS_MAX = 1000;

/**
 * Whether something large stands in `value` where `schema` wants something small: bytes or a list for an object, an object
 * with thousands of members, a list longer than any. It is wrong in any case, but zod would first name every one of a
 * million bytes or members in its error: seconds and gigabytes for a message of a few megabytes.
 */
export function misplaced(schema: unknown, value: unknown): boolean {
  if (typeof value !== 'object' || value === null) return false;
  if (schema instanceof z.ZodObject) {
    if (Array.isArray(value) || ArrayBuffer.isView(value)) return true;
    let members = 0;
    for (const _ in value) if (++members > MEMBERS_MAX) return true;
    const shape: Readonly<Record<string, unknown>> = schema.shape;
    return Object.keys(shape).some((name) => misplaced(shape[name], Reflect.get(value, name)));
  }
  if (schema instanceof z.ZodArray) {
    if (!Array.isArray(value)) return false; // which zod says at once
    // No list of ours may be longer; one that must be shorter is refused by zod itself soon enough.
    return (
      value.length > COMMIT_MEMBERS_MAX || value.some((item) => misplaced(schema.element, item))
    );
  }
  if (schema instanceof z.ZodTuple && Array.isArray(value)) {
    const items: readonly unknown[] = schema.def.items;
    return items.some((item, i) => misplaced(item, value[i]));
  }
  if (schema instanceof z.ZodUnion)
    return schema.options.every((option: unknown) => misplaced(option, value));
  if (schema instanceof z.ZodOptional || schema instanceof z.ZodNullable)
    return misplaced(schema.unwrap(), value);
  return false;
}
