import { setImmediate as nextTurn } from 'node:timers/promises';
import type { Runtime, VariablesEdit } from '#bridge/client/runtime.js';
import { asBridgeError, BridgeError } from '#bridge/wire/errors.js';
import {
  decodeText,
  JsonScan,
  type Members,
  renderMembers,
  scanMembers,
} from '#bridge/wire/json-source.js';
import { UPDATED, VariableKey } from '#bridge/wire/names.js';
import type { Variable, VariableChange } from '#bridge/wire/protocol.js';
import { BaseDocument, SLICE_BYTES } from './base-document.js';
import type { Outcome, Policy, Start } from './documents.js';
import type { DocumentDraft } from './draft.js';
import { FsError } from './fs-error.js';
import type { Caller } from './inode.js';
import { processFamily } from './process-family.js';
import { RegularFile } from './regular-file.js';
import { MemberDiff, showSame } from './variables-merge.js';
import type { Volume } from './volume.js';
import type { ExecutionDirectory } from './work-directory.js';

/** variables.json: what a script changed since it read is merged with what others committed meanwhile. */
export class VariablesDocument extends BaseDocument {
  readonly #volume: Volume;
  readonly #root: ExecutionDirectory;
  readonly #runtime: Runtime;
  readonly #policy: Policy;
  /** What the server holds, as far as we were told; deleted ones stay with text null and their version. */
  readonly #known = new Map<string, VariableChange>();
  /**
   * Keys with a merge policy. What others make of them is not shown until the execution has changed them itself: a helper reads
   * the file once for the old value and again to write it, and both must show the same for the difference to be right.
   */
  readonly #merged: ReadonlySet<string>;
  /** on-success: what the script committed so far. */
  readonly #pending = new Map<string, string | null>();
  /** What a process read last, by process id, for it and its ancestors; 0 = the execution. */
  readonly #read = new Map<number, Members>();
  readonly #bases = new WeakMap<DocumentDraft, Members>();
  /** Where it cannot be told what was read, and so nothing counts as read: what it was most likely. */
  readonly #likely = new WeakMap<Members, Members>();
  /** on-success: what the script had read of a key before it first set it. */
  readonly #pendingBases = new Map<string, string>();
  /** Which processes a handle was opened for reading by. */
  readonly #readers = new WeakMap<DocumentDraft, readonly number[]>();
  /** Members of a file's committed content. */
  readonly #contents = new WeakMap<RegularFile, Members>();
  readonly #set = new Map<string, string>();
  readonly #deleted = new Set<string>();
  /** The helpers' time stamp: visible inside the run, never stored. */
  #updated: string | undefined;
  #lastOrder = 0;

  constructor(
    volume: Volume,
    root: ExecutionDirectory,
    runtime: Runtime,
    policy: Policy,
    { variables, merged }: Start,
    warn: (text: string) => void,
  ) {
    super(policy.strict, warn);
    this.#volume = volume;
    this.#root = root;
    this.#runtime = runtime;
    this.#policy = policy;
    this.#merged = new Set(merged);
    for (const variable of variables) this.#learn(variable);
    this.#read.set(EXECUTION, this.#view());
  }

  get outcome(): Outcome['variables'] {
    return { set: [...this.#set], deleted: [...this.#deleted] };
  }

  changed(changes: readonly VariableChange[]): void {
    let news = false;
    for (const change of changes)
      news = (!this.#merged.has(change.key) && this.#learn(change)) || news;
    if (news) this.#refreshFile();
  }

  refreshed(variables: readonly Variable[]): void {
    const present = new Set(variables.map(({ key }) => key as string));
    let news = false;
    for (const variable of variables)
      news = (!this.#merged.has(variable.key) && this.#learn(variable)) || news;
    for (const [key, known] of this.#known) {
      if (present.has(key) || known.text === null || this.#merged.has(key)) continue;
      this.#known.set(key, { ...known, text: null });
      news = true;
    }
    if (news) this.#refreshFile();
  }

  /** Puts a fresh rendering at the name, as a new inode: whoever has the old one open keeps reading that, untorn. */
  async render(): Promise<void> {
    if (this.#root.tree.isGone) return;
    const { work, tree } = this.#root;
    const old = work.get('variables.json');
    const file = new RegularFile(tree, (old?.mode ?? 0o644) & 0o777, old ?? work, true);
    const members = this.#view();
    if (this.#updated !== undefined) members.set(UPDATED, this.#updated);
    file.document = this;
    file.fill(Buffer.from(renderMembers(members)));
    this.markCommitted(file);
    this.#contents.set(file, members);
    await this.#volume.supersede(work, 'variables.json', file);
  }

  async finish(file: RegularFile | undefined, success: boolean): Promise<void> {
    await this.settled();
    if (file !== undefined) await this.#finalCommit(file);
    if (this.#policy.commit === 'live') return;
    if (!success || this.#pending.size === 0) {
      this.#set.clear();
      this.#deleted.clear();
      return;
    }
    const set: [VariableKey, string][] = [];
    const deleted: VariableKey[] = [];
    for (const [key, text] of this.#pending) {
      if (text === null) deleted.push(VariableKey.parse(key));
      else set.push([VariableKey.parse(key), text]);
    }
    try {
      const bases = set.flatMap(([key]): [VariableKey, string][] => {
        const base = this.#pendingBases.get(key);
        return base === undefined ? [] : [[key, base]];
      });
      this.#committed(await this.#runtime.commitVariables({ set, delete: deleted, bases }));
    } catch (error) {
      this.#set.clear();
      this.#deleted.clear();
      this.#failed(asBridgeError(error).message);
    }
  }

  protected override noticed(
    file: RegularFile,
    draft: DocumentDraft,
    reads: boolean,
    caller: Caller,
  ): void {
    const family = processFamily(caller.pid);
    if (reads) {
      const members = this.#contentOf(file);
      this.#remember(family, members);
      this.#bases.set(draft, members);
      this.#readers.set(draft, family);
    } else this.#bases.set(draft, this.#baseOf(family));
  }

  /**
   * Somebody changed the file between this reader's open and its close: what it saw cannot be told, so nothing it leaves
   * out later counts as deleted. (Of eight writers at once one used to delete what another had just added.)
   */
  protected override readEnded(draft: DocumentDraft): void {
    const family = this.#readers.get(draft);
    if (family === undefined || draft.isAlone) return;
    const nothing: Members = new Map();
    this.#likely.set(nothing, this.#bases.get(draft) ?? this.#view());
    this.#bases.set(draft, nothing);
    for (const pid of family.length === 0 ? [EXECUTION] : family) this.#read.set(pid, nothing);
  }

  protected override readonly scanKind = 'members';

  protected override prepare(
    file: RegularFile,
    draft: DocumentDraft | undefined,
    caller: Caller,
  ): (document: JsonScan, content: Uint8Array) => Promise<void> | undefined {
    const family = processFamily(caller.pid);
    if (draft !== undefined) this.readEnded(draft); // r+: the same doubt, if others wrote meanwhile
    const base = (draft && this.#bases.get(draft)) ?? this.#baseOf(family);
    const seen = this.#likely.get(base) ?? base;
    return (document, content) => {
      const written = this.#membersOf(document, content);
      return written && this.#commitAndShow(file, written, { base, seen }, draft, family);
    };
  }

  async #commitAndShow(
    file: RegularFile,
    written: Members,
    { base, seen }: { readonly base: Members; readonly seen: Members },
    draft: DocumentDraft | undefined,
    family: readonly number[],
  ): Promise<void> {
    try {
      const difference = new MemberDiff(base, written, !this.#policy.exact);
      while (!difference.step(SLICE_BYTES)) await nextTurn();
      await this.#commit(checkKeys(difference.edit, seen));
    } catch (error) {
      this.#failed(asBridgeError(error).message);
      throw error;
    }
    this.#updated = written.get(UPDATED) ?? this.#updated;
    if (draft !== undefined) this.#bases.set(draft, written);
    this.#remember(family, written);
    this.#contents.set(file, written);
    const mixed = draft?.isAlone === false;
    if (this.hasDirtyDrafts || (!mixed && showSame(written, this.#view()))) return;
    const shown = this.#volume.background(async () => await this.#replace());
    // A close waits until the kernel shows the merged document. A rename holds the directory's lock until it is
    // answered, and the kernel needs that lock to forget the name: waiting here would never end.
    if (draft !== undefined) await shown;
  }

  async #commit(edit: VariablesEdit): Promise<void> {
    if (edit.set.length === 0 && edit.delete.length === 0) return;
    if (this.#policy.commit === 'live') {
      const changes = await this.#runtime.commitVariables(edit);
      for (const change of changes) this.#learn(change);
      this.#committed(changes);
      return;
    }
    const bases = new Map<string, string>(edit.bases);
    for (const [key, text] of edit.set) {
      const base = bases.get(key);
      if (base !== undefined && !this.#pending.has(key)) this.#pendingBases.set(key, base);
      this.#pending.set(key, text);
    }
    for (const key of edit.delete) this.#pending.set(key, null);
  }

  /** What the run has changed, as it was stored: a merge policy may have made something else of what was written. */
  #committed(changes: readonly VariableChange[]): void {
    for (const { key, text } of changes) {
      if (text === null) this.#set.delete(key);
      else this.#set.set(key, text);
      if (text === null) this.#deleted.add(key);
      else this.#deleted.delete(key);
    }
  }

  /** What the name leads to at the end, if no close committed it. */
  async #finalCommit(file: RegularFile): Promise<void> {
    if (!this.isPending(file)) return;
    try {
      await this.commitAtEnd(file);
    } catch (error) {
      if (error instanceof FsError) this.#failed(error.message);
      // Any other failure has warned when it happened.
    }
  }

  protected override complaint(content: Uint8Array): string {
    let why: string;
    try {
      why =
        scanMembers(content) === undefined
          ? 'variables.json is not a JSON object'
          : 'every value must be a string';
    } catch (error) {
      why = (error as Error).message;
    }
    return `Failed to persist variable changes: ${why}`;
  }

  /** The members of a valid document; undefined for everything that is not one. */
  #membersOf(document: JsonScan, content: Uint8Array): Members | undefined {
    try {
      const { members } = document;
      if (!this.#policy.exact) return members;
      if (members === undefined)
        return EMPTY_ARRAY.test(decodeText(content)) ? new Map() : undefined;
      return [...members.values()].every((value) => value.startsWith('"')) ? members : undefined;
    } catch {
      return undefined;
    }
  }

  /** As `#membersOf`, at once: for what is small, or when nobody else waits any more. */
  #parse(content: Uint8Array): Members | undefined {
    const document = new JsonScan(content, 'members');
    document.step(Number.POSITIVE_INFINITY);
    return this.#membersOf(document, content);
  }

  #contentOf(file: RegularFile): Members {
    const known = this.#contents.get(file);
    if (known !== undefined && !this.isDirty(file)) return known;
    // Read in the middle of someone's write: what is not there cannot be missed, so nothing is deleted because of it.
    if (file.size > SLICE_BYTES) return new Map();
    return this.#parse(file.readAll()) ?? new Map();
  }

  #baseOf(family: readonly number[]): Members {
    for (const pid of family) {
      const members = this.#read.get(pid);
      if (members !== undefined) return members;
    }
    return this.#read.get(EXECUTION) ?? new Map();
  }

  #remember(family: readonly number[], members: Members): void {
    this.#read.set(EXECUTION, members);
    for (const pid of family) this.#read.set(pid, members);
    // Processes end without telling us; the oldest entries are theirs.
    for (const pid of this.#read.keys()) {
      if (this.#read.size <= READERS_MAX) break;
      if (pid !== EXECUTION) this.#read.delete(pid);
    }
  }

  /** Takes over a change unless a newer one is known. Returns whether it said something new. */
  #learn(change: VariableChange): boolean {
    const known = this.#known.get(change.key);
    if (known !== undefined && known.version >= change.version) return false;
    this.#known.set(change.key, change);
    this.#lastOrder = Math.max(this.#lastOrder, change.order);
    return known?.text !== change.text;
  }

  /** The document as this execution sees it, in stored order. */
  #view(): Members {
    const members: Members = new Map();
    const known = [...this.#known.values()].sort(
      (a, b) => a.order - b.order || (a.key < b.key ? -1 : 1),
    );
    for (const { key, text } of known) {
      const own = this.#pending.get(key);
      const value = own === undefined ? text : own;
      if (value !== null) members.set(key, value);
    }
    for (const [key, text] of this.#pending) if (text !== null) members.set(key, text);
    return members;
  }

  /** Others changed something: shows it, unless the script's own text stands there and waits for its commit. */
  #refreshFile(): void {
    const current = this.#root.work.get('variables.json');
    if (!(current instanceof RegularFile) || current.document !== this) return;
    if (this.hasDirtyDrafts || this.isDirty(current)) return;
    const shown = this.#contents.get(current);
    if (shown === undefined || !showSame(shown, this.#view()))
      void this.#volume.background(async () => await this.render());
  }

  /** A file was committed, but its text is no longer the whole truth. */
  async #replace(): Promise<void> {
    const current = this.#root.work.get('variables.json');
    if (current instanceof RegularFile && current.document === this) await this.render();
  }

  #failed(why: string): void {
    this.warn(`Warning: Failed to persist variable changes: ${why}`);
  }
}

/** What counts as `{}` in the old behaviour. */
const EMPTY_ARRAY = /^\s*\[\s*\]\s*$/;

/** Key of the execution as a whole among process ids. */
const EXECUTION = 0;
/** Processes whose last read is remembered; a script with more at once falls back to its ancestors' reads. */
const READERS_MAX = 4096;

/** `seen`: what the writer had read. @throws BridgeError `invalid` naming the first key that cannot be stored */
function checkKeys(edit: MemberDiff['edit'], seen: Members): VariablesEdit {
  const check = (key: string): VariableKey => {
    const result = VariableKey.safeParse(key);
    if (result.success) return result.data;
    const shown = JSON.stringify(key.slice(0, 64));
    throw new BridgeError(
      'invalid',
      `variable ${shown}: ${result.error.issues[0]?.message ?? 'not a key'}`,
    );
  };
  const set = [...edit.set].map(([key, text]) => [check(key), text] as const);
  return {
    set,
    delete: [...edit.delete].map(check),
    bases: set.flatMap(([key]) => {
      const base = seen.get(key);
      return base === undefined ? [] : [[key, base] as const];
    }),
  };
}
