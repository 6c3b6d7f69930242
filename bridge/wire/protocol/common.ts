import { z } from 'zod';
import { COMMIT_MEMBERS_MAX } from '../limits.js';
import { JsonText, VariableKey } from '../names.js';

/** Store clock, milliseconds since the epoch. */
export const Time = z.int().min(0);
export const Nothing = z.strictObject({});
/** Of a commit; 0 = before the first. */
export const Version = z.int().min(0);
/** Made again under the same id, a change is not made again. */
export const CommitId = z.uuid();

export const Edit = {
  set: z.array(z.tuple([VariableKey, JsonText])).max(COMMIT_MEMBERS_MAX),
  delete: z.array(VariableKey).max(COMMIT_MEMBERS_MAX),
};
