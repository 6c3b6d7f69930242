import type { RunHost } from '#bridge/client/runtime.js';
import type { Variable, VariableChange } from '#bridge/wire/protocol.js';
import type { BaseDocument, FileRecord } from './base-document.js';
import type { DocumentDraft, DraftRecord } from './draft.js';
import { Directory, type Inode, Symlink } from './inode.js';
import { JournalDamaged, type JournalRecord } from './journal-file.js';
import { type OpenFile, RegularFile } from './regular-file.js';
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
  /** Room was refused to the script, at least once. */
  readonly wasFull: boolean;
}

/** What is already there when documents are restored. */
export interface RestoreFinder {
  /** Undefined when it is gone. */
  file(inodeId: number): RegularFile | undefined;
  opened(handle: OpenFile): void;
}

/** H handle, file, flags, document, draft · W handle, offset, bytes · L handle, length · h handle, state · Y handle: closed */
interface HandleRecords {
  readonly opened: readonly unknown[];
  readonly later: JournalRecord[];
}

function lastOf(records: readonly JournalRecord[], kind: string): Map<unknown, JournalRecord> {
  const last = new Map<unknown, JournalRecord>();
  for (const record of records) if (record[0] === kind) last.set(record[1], record);
  return last;
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
  readonly #warn: (text: string) => void;
  /** Hears every warning once. */
  onWarning: (text: string) => void = () => {};

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
      root.tree.journal?.note(['w', text]);
      this.onWarning(text);
      void volume.background(async () => await runtime.warned(text));
    };
    this.#variables = new VariablesDocument(volume, root, runtime, policy, start, warn);
    this.#output = new OutputDocument(root.tree, runtime, policy, warn);
    this.#condition = new ConditionDocument(root.tree, runtime, policy, warn);
    this.#warn = warn;
    root.work.documents = {
      'variables.json': this.#variables,
      'output.json': this.#output,
      'condition.json': this.#condition,
    };
  }

  /** Puts variables.json there; only the kernel hears of it after this has returned. */
  start(volume: Volume): void {
    const rendered = this.#variables.render();
    void volume.background(async () => await rendered);
  }

  /** For the execution's warnings. */
  warn(text: string): void {
    this.#warn(text);
  }

  get #all(): readonly BaseDocument[] {
    return [this.#variables, this.#output, this.#condition];
  }

  /** A journal is begun anew: from now on it needs everything again. */
  startRecords(): void {
    for (const document of this.#all) document.startRecords();
  }

  *records(): Iterable<JournalRecord> {
    for (const document of this.#all) yield* document.records();
    for (const text of this.#warnings) yield ['w', text];
  }

  /** `drafts` takes what is restored, by handle. @throws JournalDamaged */
  restore(records: readonly JournalRecord[], find: RestoreFinder): void {
    const handles = new Map<number, HandleRecords>();
    for (const record of records) {
      const [kind, id, ...what] = record;
      if (kind === 'w') this.#warnings.add(id as string);
      if (kind === 'O') this.#output.restore(id as string | null, what[0] as string | null);
      if (kind === 'N') this.#condition.value = id as boolean | null;
      if (kind === 'H') handles.set(id as number, { opened: what, later: [] });
      if (kind === 'W' || kind === 'L' || kind === 'h')
        handles.get(id as number)?.later.push(record);
      if (kind === 'Y') handles.delete(id as number);
    }
    const drafts = new Map<number, DocumentDraft>();
    const states: (() => void)[] = [];
    for (const [id, { opened, later }] of handles) {
      const [inodeId, flags, name, draftRecord] = opened;
      const [record, state] = draftRecord as [DraftRecord, readonly unknown[]];
      const document = this.#named(name);
      const file = find.file(inodeId as number);
      if (file === undefined) throw new JournalDamaged(`it has a handle, and not its file`);
      const draft = document.restoreDraft(file, id, record);
      drafts.set(id, draft);
      find.opened({ id, file, flags: flags as number, draft, wrote: false });
      let last = state;
      for (const [kind, , ...what] of later) {
        if (kind === 'W') draft.wrote(Buffer.from(what[1] as string, 'base64'), what[0] as number);
        else if (kind === 'L') draft.truncated(what[0] as number);
        else last = what;
      }
      states.push(() => document.restoreDraftState(draft, last));
    }
    this.#variables.restore(records, (id) => drafts.get(id));
    for (const restore of states) restore();
    for (const [, inodeId, name, record] of lastOf(records, 'F').values()) {
      const file = name === null ? undefined : find.file(inodeId as number);
      if (file !== undefined) this.#named(name).restoreFile(file, record as FileRecord);
    }
    for (const document of this.#all) document.restored();
  }

  #named(name: unknown): BaseDocument {
    const document = this.#all.find((one) => one.name === name);
    if (document === undefined) throw new JournalDamaged(`it names a document ${String(name)}`);
    return document;
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
      wasFull: this.#root.tree.wasFull,
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
