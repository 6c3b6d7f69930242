import type { Log } from '#bridge/wire/control.js';
import { MASK, MASKED_BYTES_MAX, type MaskedStream, Masker } from '#bridge/wire/mask.js';

/** Values by key, and those that were replaced. */
export interface Secrets {
  readonly present: [string, string][];
  readonly replaced: string[];
}

/** What is told of a variable: all of it, a change (null = deleted), or what a script wrote. */
interface Told {
  readonly key: string;
  readonly text: string | null;
  readonly secret?: true | undefined;
}

/**
 * What a script prints, with the values of secret variables masked. Within a stream every byte keeps its place. What may be the
 * beginning of a secret waits for what follows it (at most a KiB), and the other stream does not wait for it.
 *
 * A variable that was secret at any time of the run is so to its end, with every value it has had: what was printed of an older
 * value may still be on its way.
 */
export class MaskedLog {
  readonly #passOn: (log: Log) => Promise<void>;
  /** The newest value of every secret variable; it stays when the variable is deleted. */
  readonly #present = new Map<string, string>();
  /** Values that were replaced, the oldest first. */
  readonly #replaced = new Set<string>();
  /** Undefined: to be made from the above. */
  #masker: Masker | undefined;
  #streams: Readonly<Record<Log['stream'], MaskedStream>>;
  #isWithheld = false;
  /** Called when the secrets are not what they were. */
  onSecrets: () => void = () => {};

  /** `before`: what an earlier process knew. */
  constructor(passOn: (log: Log) => Promise<void>, before?: Secrets) {
    this.#passOn = passOn;
    for (const [key, text] of before?.present ?? []) this.#present.set(key, text);
    for (const text of before?.replaced ?? []) this.#replaced.add(text);
    const masker = new Masker([]);
    if (before === undefined) this.#masker = masker;
    this.#streams = { stdout: masker.stream(), stderr: masker.stream() };
  }

  get secrets(): Secrets {
    return { present: [...this.#present], replaced: [...this.#replaced] };
  }

  /** Whether a variable is, or was during the run, secret. */
  isSecret(key: string): boolean {
    return this.#present.has(key);
  }

  /** Set when secrets were too many to be masked: then nothing more is passed on. */
  get warning(): string | undefined {
    return this.#isWithheld
      ? `Warning: the secret variables have more than ${MASKED_BYTES_MAX} bytes, which is too much to be masked: what the script printed is not shown`
      : undefined;
  }

  /** From now on these are masked: those that are secret, and new values of those that were. */
  learn(told: Iterable<Told>): void {
    let isNews = false;
    for (const { key, text, secret } of told) {
      const before = this.#present.get(key);
      if (text === null || text === before) continue;
      if (secret !== true && before === undefined) continue;
      if (before !== undefined) this.#replaced.add(before);
      this.#replaced.delete(text);
      this.#present.set(key, text);
      this.#masker = undefined;
      isNews = true;
    }
    if (isNews) this.onSecrets();
  }

  /** In the order of the calls; waits as long as the reader does. */
  async push({ stream, data }: Log): Promise<void> {
    this.#catchUp();
    if (this.#isWithheld) return;
    await this.#give(stream, this.#streams[stream].push(data));
  }

  /** A warning of ours, which may quote what the script wrote. */
  async warn(text: string): Promise<void> {
    const data = Buffer.from(`${this.mask(text)}\n`);
    await this.#passOn({ stream: 'stderr', data, isWarning: true });
  }

  /** Passes on what is held back, a KiB at most: there is nothing to follow. A reader who is slow or gone is not waited for. */
  end(): void {
    this.#catchUp();
    if (this.#isWithheld) return;
    for (const stream of ['stdout', 'stderr'] as const)
      this.#give(stream, this.#streams[stream].end()).catch(() => {});
  }

  /** A text of ours that may quote what a script wrote. */
  mask(text: string): string {
    const masker = this.#catchUp();
    return this.#isWithheld ? MASK : masker.mask(text);
  }

  async #give(stream: Log['stream'], data: Uint8Array): Promise<void> {
    if (data.byteLength > 0) await this.#passOn({ stream, data });
  }

  #catchUp(): Masker {
    if (this.#masker !== undefined) return this.#masker;
    const { secrets, isComplete } = this.#secrets();
    this.#isWithheld ||= !isComplete;
    const masker = new Masker(secrets);
    this.#streams = {
      stdout: masker.stream(this.#streams.stdout),
      stderr: masker.stream(this.#streams.stderr),
    };
    this.#masker = masker;
    return masker;
  }

  /** As many as one masker takes: all present ones, or it is not complete; of the replaced ones the newest. */
  #secrets(): { secrets: (string | Uint8Array)[]; isComplete: boolean } {
    const secrets: (string | Uint8Array)[] = [];
    let left = MASKED_BYTES_MAX;
    const take = (text: string): boolean => {
      const forms = formsOf(text);
      const size = forms.reduce((sum, form) => sum + Buffer.byteLength(form), 0);
      if (size > left) return false;
      left -= size;
      secrets.push(...forms);
      return true;
    };
    for (const text of this.#present.values())
      if (!take(text)) return { secrets: [], isComplete: false };
    for (const text of [...this.#replaced].reverse()) if (!take(text)) this.#replaced.delete(text);
    return { secrets, isComplete: true };
  }
}

/** A variable's value, and the bytes it stands for when it is of type bytes: base64, as far as can be seen. */
function formsOf(text: string): (string | Uint8Array)[] {
  const [, base64] =
    /^\s*"((?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?)"\s*$/.exec(text) ?? [];
  return base64 === undefined ? [text] : [text, Buffer.from(base64, 'base64')];
}
