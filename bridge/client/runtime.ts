import type { VariableKey } from '#bridge/wire/names.js';
import type { VariableChange } from '#bridge/wire/protocol.js';

export interface VariablesEdit {
  /** Of this very change: made again under the same id it is done once. */
  readonly id: string;
  /** One with a merge policy that is also deleted is deleted first; any other that is both is deleted. */
  readonly set: readonly (readonly [VariableKey, string])[];
  readonly delete: readonly VariableKey[];
  /** What the writer had read of those keys it sets that have a merge policy; null = there was none. */
  readonly bases: readonly (readonly [VariableKey, string | null])[];
}

/**
 * What a file system asks of the server on behalf of one execution. Each call resolves once the change is durable, or
 * rejects with a BridgeError whose errno the script sees: `unavailable` after the outage budget, `denied`, `no_space`, …
 */
export interface Runtime {
  /** The changes as committed, with their versions. */
  commitVariables(edit: VariablesEdit): Promise<readonly VariableChange[]>;
  /** Null takes back what was set: there is no output. */
  setOutput(text: string | null): Promise<void>;
  setCondition(condition: boolean | null): Promise<void>;
}

/** What a file system asks of whoever runs the script. */
export interface RunHost extends Runtime {
  /** Something went wrong that the script may not have noticed. */
  warned(text: string): Promise<void>;
}
