import type { RunHost } from '#bridge/client/runtime.js';
import type { Variable, VariableChange } from '#bridge/wire/protocol.js';
import { Directory, type Inode, Symlink } from './inode.js';
import { RegularFile } from './regular-file.js';
import { ConditionDocument, OutputDocument } from './result-documents.js';
import { VariablesDocument } from './variables-document.js';
import type { Volume } from './volume.js';
import type { DocumentName, ExecutionDirectory } from './work-directory.js';

/** How an event wants its files treated: legacy-contract.md. */
export interface Policy {
  /** `live`: durable at close. `on-success`: variables and condition are committed at exit 0, or not at all. */
  readonly commit: 'live' | 'on-success';
  /** The old behaviour to the letter: string values only, no guard, `[]` counts as `{}`. */
  readonly exact: boolean;
  /** A close(2) of what is no valid document fails with EINVAL; otherwise only the end of the run complains. */
  readonly strict: boolean;
}

/** What the server held when the execution began. */
export interface Start {
  readonly variables: readonly Variable[];
  /** Keys with a merge policy, whether they exist or not. */
  readonly merged: readonly string[];
}

/** What an execution's files amounted to. Values are JSON source text. */
export interface Outcome {
  readonly output: string | null;
  /** What output.json held when that was not JSON. */
  readonly rawOutput: string | null;
  readonly condition: boolean | null;
  readonly variables: {
    readonly set: readonly (readonly [string, string])[];
    readonly deleted: readonly string[];
  };
  readonly warnings: readonly string[];
}

/** Warnings an execution may collect; a script that loops over a refused write must not fill memory. */
const WARNINGS_MAX = 1000;

/** The five legacy files of one execution. */
export class Documents {
  readonly #root: ExecutionDirectory;
  readonly #variables: VariablesDocument;
  readonly #output: OutputDocument;
  readonly #condition: ConditionDocument;
  readonly #warnings = new Set<string>();

  constructor(
    volume: Volume,
    root: ExecutionDirectory,
    runtime: RunHost,
    policy: Policy,
    start: Start,
  ) {
    this.#root = root;
    const warn = (text: string) => {
      if (this.#warnings.has(text) || this.#warnings.size >= WARNINGS_MAX) return;
      this.#warnings.add(text);
      void volume.background(async () => await runtime.warned(text));
    };
    this.#variables = new VariablesDocument(volume, root, runtime, policy, start, warn);
    this.#output = new OutputDocument(runtime, policy, warn);
    this.#condition = new ConditionDocument(runtime, policy, warn);
    root.work.documents = {
      'variables.json': this.#variables,
      'output.json': this.#output,
      'condition.json': this.#condition,
    };
    const rendered = this.#variables.render(); // there when this returns; only the kernel hears later
    void volume.background(async () => await rendered);
  }

  /** Changes committed by others. */
  changed(changes: readonly VariableChange[]): void {
    this.#variables.changed(changes);
  }

  /** The whole set of variables after the link was away. */
  refreshed(variables: readonly Variable[]): void {
    this.#variables.refreshed(variables);
  }

  /**
   * Commits what no close(2) did (symbolic links, mappings, killed writers), waits for everything under way, and sums up.
   * `success` decides the fate of an on-success execution.
   */
  async finish(success: boolean): Promise<Outcome> {
    const named = (name: DocumentName) => this.#resolve(name);
    await this.#variables.finish(named('variables.json'), success);
    await this.#output.finish(named('output.json'));
    await this.#condition.finish(named('condition.json'), success);
    return this.outcome;
  }

  /** As of now: nothing is committed for it. */
  get outcome(): Outcome {
    return {
      output: this.#output.text,
      rawOutput: this.#output.raw,
      condition: this.#condition.value,
      variables: this.#variables.outcome,
      warnings: [...this.#warnings],
    };
  }

  /** The regular file a legacy name leads to at the end, through symbolic links that stay inside the tree. */
  #resolve(name: DocumentName): RegularFile | undefined {
    let inode: Inode | undefined = this.#root.work.get(name);
    for (let hops = 0; inode instanceof Symlink && hops < 40; hops++) {
      const target = Buffer.from(inode.target).toString('latin1');
      inode = this.#walk(target);
    }
    return inode instanceof RegularFile ? inode : undefined;
  }

  #walk(target: string): Inode | undefined {
    const absolute = target.startsWith('/cronium/');
    if (target.startsWith('/') && !absolute) return undefined;
    let at: Inode | undefined = absolute ? this.#root : this.#root.work;
    for (const part of (absolute ? target.slice('/cronium/'.length) : target).split('/')) {
      if (part === '' || part === '.') continue;
      if (!(at instanceof Directory)) return undefined;
      at = part === '..' ? at.parent : at.get(part);
      if (at?.tree !== this.#root.tree) return undefined;
    }
    return at;
  }
}
