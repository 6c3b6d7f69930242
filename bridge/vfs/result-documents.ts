import type { Runtime } from '#bridge/client/runtime.js';
import { asBridgeError } from '#bridge/wire/errors.js';
import { checkJson, decodeText, type JsonScan } from '#bridge/wire/json-source.js';
import { BaseDocument } from './base-document.js';
import type { Policy } from './documents.js';
import type { JournalRecord } from './journal-file.js';
import { DOCUMENT_BYTES_MAX, type RegularFile } from './regular-file.js';
import type { Tree } from './tree.js';

const FULL = `Warning: output.json has ${DOCUMENT_BYTES_MAX} bytes, which is the most it may have: whatever was written beyond them was refused`;

/** output.json: any valid JSON is the execution's output, the last close wins. */
export class OutputDocument extends BaseDocument {
  readonly #runtime: Runtime;
  text: string | null = null;
  raw: string | null = null;

  constructor(tree: Tree, runtime: Runtime, policy: Policy, warn: (text: string) => void) {
    super('output.json', tree, policy.strict, warn);
    this.#runtime = runtime;
  }

  override *records(): Iterable<JournalRecord> {
    yield ['O', this.text, this.raw];
  }

  restore(text: string | null, raw: string | null): void {
    this.text = text;
    this.raw = raw;
  }

  /** What the name leads to at the end counts: it is committed, or what was committed before is taken back. */
  async finish(file: RegularFile | undefined): Promise<void> {
    await this.settled();
    try {
      if (file === undefined) await this.#takeBack();
      else if (this.isInvalid(file)) await this.#spoilt(file);
      else {
        // A name that leads elsewhere now, through a symbolic link: what was stored of that file once was not the last.
        if (!this.isDirty(file) && this.isNews(file)) this.markDirty(file);
        if (this.isPending(file) && !(await this.commitAtEnd(file))) await this.#spoilt(file);
        // A number that was cut is still one. Whoever did not look at the error of his write hears of it here.
        else if (file.size === DOCUMENT_BYTES_MAX) this.warn(FULL);
      }
    } catch {
      // A commit that failed has warned when it happened.
    }
  }

  async #spoilt(file: RegularFile): Promise<void> {
    this.raw = file.size > DOCUMENT_BYTES_MAX ? '' : decodeText(file.readAll());
    this.note(['O', this.text, this.raw]);
    await this.#takeBack();
  }

  async #takeBack(): Promise<void> {
    if (this.text !== null) await this.#set(null);
  }

  protected override complaint(content: Uint8Array): string {
    try {
      checkJson(content);
    } catch (error) {
      return `Failed to parse output.json: ${(error as Error).message}`;
    }
    return '';
  }

  protected override readonly scanKind = 'verdict';

  protected override prepare() {
    return (document: JsonScan, content: Uint8Array): Promise<void> | undefined =>
      document.isValid ? this.#set(decodeText(content).trim()) : undefined;
  }

  async #set(text: string | null): Promise<void> {
    try {
      await this.#runtime.setOutput(text);
      this.text = text;
      this.note(['O', text, this.raw]);
    } catch (error) {
      this.warn(`Warning: Failed to store output.json: ${asBridgeError(error).message}`);
      throw error;
    }
  }
}

/** condition.json: the truth value of its member `condition`. */
export class ConditionDocument extends BaseDocument {
  readonly #runtime: Runtime;
  readonly #policy: Policy;
  value: boolean | null = null;

  constructor(tree: Tree, runtime: Runtime, policy: Policy, warn: (text: string) => void) {
    super('condition.json', tree, policy.strict, warn);
    this.#runtime = runtime;
    this.#policy = policy;
  }

  override *records(): Iterable<JournalRecord> {
    yield ['N', this.value];
  }

  /** As of now; it is stored, or will be. */
  learn(value: boolean | null): void {
    this.value = value;
    this.note(['N', value]);
  }

  /** As for the output; on-success the value is stored now, or not at all. */
  async finish(file: RegularFile | undefined, success: boolean): Promise<void> {
    await this.settled();
    try {
      if (file === undefined || this.isInvalid(file)) await this.#takeBack();
      else {
        if (!this.isDirty(file) && this.isNews(file)) this.markDirty(file);
        if (this.isPending(file) && !(await this.commitAtEnd(file))) await this.#takeBack();
      }
      if (this.#policy.commit === 'live' || this.value === null) return;
      if (success) await this.#set(this.value);
      else this.learn(null);
    } catch {
      // A commit that failed has warned when it happened.
    }
  }

  protected override complaint(): string {
    return 'Failed to parse condition.json: it must be an object with a "condition" member';
  }

  async #takeBack(): Promise<void> {
    if (this.value === null) return;
    if (this.#policy.commit === 'live') await this.#set(null);
    else this.learn(null);
  }

  protected override readonly scanKind = 'members';

  protected override prepare() {
    return (document: JsonScan): Promise<void> | undefined => {
      const condition = conditionIn(document);
      if (condition === undefined) return undefined;
      if (this.#policy.commit === 'live') return this.#set(condition);
      this.learn(condition);
      return Promise.resolve();
    };
  }

  async #set(condition: boolean | null): Promise<void> {
    try {
      await this.#runtime.setCondition(condition);
      this.learn(condition);
    } catch (error) {
      this.warn(`Warning: Failed to store condition.json: ${asBridgeError(error).message}`);
      throw error;
    }
  }
}

/** The JavaScript truth value of the member `condition`; undefined when there is none. */
function conditionIn(document: JsonScan): boolean | undefined {
  try {
    const text = document.members?.get('condition');
    return text === undefined ? undefined : Boolean(JSON.parse(text));
  } catch {
    return undefined;
  }
}
