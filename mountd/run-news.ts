import type { ChannelListener } from '#bridge/client/execution-channel.js';
import type { Variable, VariableChange } from '#bridge/wire/protocol.js';
import type { MaskedLog } from './masked-log.js';
import type { MountedTree } from './mount-host.js';

/** Changes that arrive between the execution's creation and its tree's are kept for the tree. */
export class News implements ChannelListener {
  readonly #printed: MaskedLog;
  readonly #cancelling = new AbortController();
  #tree: MountedTree | undefined;
  #early: ((tree: MountedTree) => void)[] = [];

  constructor(printed: MaskedLog) {
    this.#printed = printed;
  }

  /** Aborts with the reason, a string, when an operator wants the execution stopped. */
  get stop(): AbortSignal {
    return this.#cancelling.signal;
  }

  changed(changes: readonly VariableChange[]): void {
    this.#printed.learn(changes);
    this.#tell((tree) => tree.changed(changes));
  }

  refreshed(variables: readonly Variable[]): void {
    this.#printed.learn(variables);
    this.#tell((tree) => tree.refreshed(variables));
  }

  cancelled(reason: string): void {
    this.#cancelling.abort(reason);
  }

  deliverTo(tree: MountedTree): void {
    this.#tree = tree;
    for (const tell of this.#early.splice(0)) tell(tree);
  }

  #tell(tell: (tree: MountedTree) => void): void {
    if (this.#tree === undefined) this.#early.push(tell);
    else tell(this.#tree);
  }
}
