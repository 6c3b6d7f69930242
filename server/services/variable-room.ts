import { BridgeError } from '#bridge/wire/errors.js';
import { type Namespace, namespaceText } from '#bridge/wire/names.js';

/** What a namespace may hold. */
export interface VariableQuota {
  readonly variables: number;
  readonly bytes: number;
}

/** Whether a namespace has room for a commit, with what the commits under way will take. */
export class VariableRoom {
  readonly #quotaOf: (namespace: Namespace) => VariableQuota;
  /** Bytes and variables that commits under way will add. */
  readonly #pending = new Map<string, { bytes: number; variables: number }>();

  constructor(quotaOf: (namespace: Namespace) => VariableQuota) {
    this.#quotaOf = quotaOf;
  }

  /** Takes room for what is about to be committed. Returns its release. @throws BridgeError `quota` when there is none */
  reserve(
    namespace: Namespace,
    bytes: number,
    variables: number,
    { variableBytes, variableCount }: { variableBytes: number; variableCount: number },
  ): () => void {
    const id = namespaceText(namespace);
    const quota = this.#quotaOf(namespace);
    const pending = this.#pending.get(id) ?? { bytes: 0, variables: 0 };
    const total = variableBytes + pending.bytes + bytes;
    if (bytes > 0 && total > quota.bytes)
      throw new BridgeError(
        'quota',
        `the variables of ${id} would take ${total} bytes, of ${quota.bytes}: delete some first, or see: cronium quota set --help`,
      );
    const count = variableCount + pending.variables + variables;
    if (variables > 0 && count > quota.variables)
      throw new BridgeError(
        'quota',
        `${id} would have ${count} variables, of ${quota.variables}: delete some first, or see: cronium quota set --help`,
      );
    pending.bytes += Math.max(0, bytes);
    pending.variables += Math.max(0, variables);
    this.#pending.set(id, pending);
    return () => {
      pending.bytes -= Math.max(0, bytes);
      pending.variables -= Math.max(0, variables);
      if (pending.bytes === 0 && pending.variables === 0) this.#pending.delete(id);
    };
  }
}
