import { BridgeError } from '#bridge/wire/errors.js';
import { MASKED_BYTES_MAX, Masker } from '#bridge/wire/mask.js';
import { type Namespace, namespaceText, type VariableKey } from '#bridge/wire/names.js';

/** One secret's JSON text: the largest keys and certificate chains are a tenth of it. */
export const SECRET_BYTES_MAX = 64 * 1024;

/**
 * The secret values that passed through this process lately, for masking what it prints itself. It keeps as much of them as one
 * masker can know; the values that were used longest ago go first.
 */
export class Secrets {
  /** In the order of their last use. */
  readonly #texts = new Map<string, string>();
  #bytes = 0;
  #masker: Masker | undefined;

  /** A secret's JSON text was read or written; null = it is deleted, or no secret any more. @throws BridgeError `too_large` */
  note(namespace: Namespace, key: VariableKey, text: string | null): void {
    if (text !== null) assertMaskable(text);
    const id = prefixOf(namespace) + key;
    const known = this.#texts.get(id);
    if (known !== undefined && known === text) {
      this.#texts.delete(id);
      this.#texts.set(id, text);
      return;
    }
    this.#delete(id);
    if (text === null) return;
    this.#texts.set(id, text);
    this.#bytes += Buffer.byteLength(text);
    this.#masker = undefined;
    for (const oldest of this.#texts.keys()) {
      if (this.#bytes <= MASKED_BYTES_MAX) break;
      this.#delete(oldest);
    }
  }

  /** A namespace is gone for good. */
  forget(namespace: Namespace): void {
    for (const id of this.#texts.keys()) if (id.startsWith(prefixOf(namespace))) this.#delete(id);
  }

  /** Knows them all; made anew when it is asked for after a change. */
  get masker(): Masker {
    this.#masker ??= new Masker(this.#texts.values());
    return this.#masker;
  }

  #delete(id: string): void {
    const text = this.#texts.get(id);
    if (text === undefined) return;
    this.#texts.delete(id);
    this.#bytes -= Buffer.byteLength(text);
    this.#masker = undefined;
  }
}

/** An owner's name holds no slash. */
const prefixOf = (namespace: Namespace): string => `${namespaceText(namespace)}/`;

/** Before a variable becomes a secret: what could not be masked is not accepted as one. @throws BridgeError `too_large` */
export function assertMaskable(text: string): void {
  const bytes = Buffer.byteLength(text);
  if (bytes > SECRET_BYTES_MAX)
    throw new BridgeError(
      'too_large',
      `a secret of ${bytes} bytes; at most ${SECRET_BYTES_MAX} can be masked in logs`,
    );
}
