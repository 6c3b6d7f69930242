import { RegularFile } from './regular-file.js';
import type { Volume } from './volume.js';
import type { ExecutionDirectory } from './work-directory.js';

/** Problems that `errors` shows: the last ones. */
const ERRORS_MAX = 100;

/** The link to the server, as far as scripts are concerned. */
export interface LinkState {
  readonly connected: boolean;
  /** When that began, milliseconds since the epoch. */
  readonly since: number;
  /** Why there is none. */
  readonly problem?: string;
}

const ROOT = { uid: 0, gid: 0 };

/**
 * `errors` and `status` beside work/: what went wrong, one JSON object a line, and whether the server can be reached, and if not of
 * when the values are that can be read. Read-only; every change is another file, so a reader never sees half of one.
 */
export class StateFiles {
  readonly #volume: Volume;
  readonly #root: ExecutionDirectory;
  readonly #errors: string[] = [];

  constructor(volume: Volume, root: ExecutionDirectory) {
    this.#volume = volume;
    this.#root = root;
    const before = root.get('errors');
    if (before instanceof RegularFile)
      this.#errors.push(...Buffer.from(before.readAll()).toString().split('\n').filter(Boolean));
    else this.#put('errors', '');
  }

  error(message: string): void {
    if (this.#errors.length >= ERRORS_MAX) this.#errors.shift();
    this.#errors.push(JSON.stringify({ at: new Date().toISOString(), message }));
    this.#put('errors', `${this.#errors.join('\n')}\n`);
  }

  /** `asOf`: values that can be read are those of this time, or newer ones of this execution itself. */
  link({ connected, since, problem }: LinkState): void {
    const at = new Date(since).toISOString();
    const state = connected
      ? { link: 'up', since: at }
      : { link: 'down', since: at, asOf: at, ...(problem !== undefined && { problem }) };
    this.#put('status', `${JSON.stringify(state)}\n`);
  }

  #put(name: 'errors' | 'status', text: string): void {
    const { tree } = this.#root;
    if (tree.isGone) return;
    const file = new RegularFile(tree, 0o444, ROOT, true);
    if (text !== '') file.fill(Buffer.from(text));
    void this.#volume.background(async () => await this.#volume.supersede(this.#root, name, file));
  }
}
