import { EACCES, ESTALE } from './fs-error.js';
import type { Caller } from './inode.js';
import { RegularFile } from './regular-file.js';
import type { Tree } from './tree.js';

/**
 * An empty file whose open(2) waits until the gate is opened. What a container does before it has an execution: it costs no
 * processor time, and going on takes one answer to the kernel. A process that takes over finds a plain file. Only the container's user
 * waits: a backup of the host that reads every file must not.
 */
export class GateFile extends RegularFile {
  readonly #inFront = new Set<(error?: Error) => void>();
  #isOpen = false;
  /** Called when somebody comes to stand in front of it. */
  onReached: () => void = () => {};

  constructor(tree: Tree, owner: Pick<Caller, 'uid' | 'gid'>) {
    super(tree, 0o400, owner);
  }

  get isOpen(): boolean {
    return this.#isOpen;
  }

  /** Whether somebody waits in front of it now. */
  get isReached(): boolean {
    return this.#inFront.size > 0;
  }

  /** Lets all through. */
  open(): void {
    this.#isOpen = true;
    for (const go of this.#inFront) go();
  }

  /**
   * Resolves once it is open. Rejects when `signal` aborts, with its reason, and when the file is gone.
   * @throws FsError EACCES for a stranger, while it is closed
   */
  async passed(caller: Pick<Caller, 'uid'>, signal: AbortSignal): Promise<void> {
    if (this.#isOpen) return;
    if (caller.uid !== this.uid) throw EACCES;
    await new Promise<void>((resolve, reject) => {
      const go = (error?: Error) => {
        this.#inFront.delete(go);
        signal.removeEventListener('abort', turnBack);
        if (error === undefined) resolve();
        else reject(error);
      };
      const turnBack = () => go(signal.reason instanceof Error ? signal.reason : ESTALE);
      this.#inFront.add(go);
      signal.addEventListener('abort', turnBack, { once: true });
      this.onReached();
    });
  }

  override dispose(): void {
    super.dispose();
    for (const go of this.#inFront) go(ESTALE);
  }
}
