import type { Runtime } from '#bridge/client/runtime.js';
import { asBridgeError } from '#bridge/wire/errors.js';
import { checkJson, decodeText, JsonSyntaxError, scanMembers } from '#bridge/wire/json-source.js';
import { BaseDocument, NOBODY } from './base-document.js';
import type { Policy } from './documents.js';
import { FsError } from './fs-error.js';
import { DOCUMENT_BYTES_MAX, type RegularFile } from './regular-file.js';

/** output.json: any valid JSON is the execution's output, the last close wins. */
export class OutputDocument extends BaseDocument {
  readonly #runtime: Runtime;
  readonly #warn: (text: string) => void;
  text: string | null = null;
  raw: string | null = null;

  constructor(runtime: Runtime, warn: (text: string) => void) {
    super();
    this.#runtime = runtime;
    this.#warn = warn;
  }

  async finish(file: RegularFile | undefined): Promise<void> {
    await this.settled();
    if (!this.isPending(file)) return;
    try {
      const text = decodeText(file.readAll());
      try {
        checkJson(text);
      } catch (error) {
        this.raw = text;
        throw error;
      }
      await this.commit(file, undefined, NOBODY);
    } catch (error) {
      // A commit that failed has warned in other words already.
      if (error instanceof JsonSyntaxError || error instanceof FsError)
        this.#warn(`Warning: Failed to parse output.json: ${error.message}`);
    }
  }

  protected override store(_file: RegularFile, content: Uint8Array): Promise<void> | undefined {
    let text: string;
    try {
      text = checkJson(decodeText(content));
    } catch {
      return undefined;
    }
    return this.#runtime.setOutput(text).then(
      () => {
        this.text = text;
      },
      (error: unknown) => {
        this.#warn(`Warning: Failed to store output.json: ${asBridgeError(error).message}`);
        throw error;
      },
    );
  }
}

/** condition.json: the truth value of its member `condition`. */
export class ConditionDocument extends BaseDocument {
  readonly #runtime: Runtime;
  readonly #policy: Policy;
  readonly #warn: (text: string) => void;
  value: boolean | null = null;

  constructor(runtime: Runtime, policy: Policy, warn: (text: string) => void) {
    super();
    this.#runtime = runtime;
    this.#policy = policy;
    this.#warn = warn;
  }

  async finish(file: RegularFile | undefined, success: boolean): Promise<void> {
    await this.settled();
    if (this.isPending(file)) {
      if (file.size > DOCUMENT_BYTES_MAX || conditionIn(file.readAll()) === undefined)
        this.#warn(
          'Warning: Failed to parse condition.json: it must be an object with a "condition" member',
        );
      else await this.commit(file, undefined, NOBODY)?.catch(() => {}); // warned when it happened
    }
    if (this.#policy.commit === 'live' || this.value === null) return;
    if (success) await this.#store(this.value).catch(() => {});
    else this.value = null;
  }

  protected override store(_file: RegularFile, content: Uint8Array): Promise<void> | undefined {
    const condition = conditionIn(content);
    if (condition === undefined) return undefined;
    if (this.#policy.commit === 'live') return this.#store(condition);
    this.value = condition;
    return Promise.resolve();
  }

  async #store(condition: boolean): Promise<void> {
    try {
      await this.#runtime.setCondition(condition);
      this.value = condition;
    } catch (error) {
      this.#warn(`Warning: Failed to store condition.json: ${asBridgeError(error).message}`);
      throw error;
    }
  }
}

/** The JavaScript truth value of the member `condition`; undefined when there is none. */
function conditionIn(content: Uint8Array): boolean | undefined {
  try {
    const members = scanMembers(decodeText(content));
    const text = members?.get('condition');
    return text === undefined ? undefined : Boolean(JSON.parse(text));
  } catch {
    return undefined;
  }
}
