import { randomUUID } from 'node:crypto';
import { setImmediate as nextTurn } from 'node:timers/promises';
import type { Runtime, VariablesEdit } from '#bridge/client/runtime.js';
import { asBridgeError, BridgeError, CODES } from '#bridge/wire/errors.js';
import {
  decodeText,
  JsonScan,
  type Members,
  renderMembers,
  scanMembers,
} from '#bridge/wire/json-source.js';
import {
  COMMIT_MEMBERS_MAX,
  NAMESPACE_BYTES_MAX,
  VARIABLE_OVERHEAD_BYTES,
} from '#bridge/wire/limits.js';
import { UPDATED, VariableKey } from '#bridge/wire/names.js';
import type { Variable, VariableChange } from '#bridge/wire/protocol.js';
import { BaseDocument, type FileRecord, SLICE_BYTES } from './base-document.js';
import type { Outcome, Policy, Start } from './documents.js';
import type { DocumentDraft } from './draft.js';
import { FsError } from './fs-error.js';
import type { Caller } from './inode.js';
import { JournalDamaged, type JournalRecord } from './journal-file.js';
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
  /** on-success: what the script had read of a merged key before it first set it. */
  readonly #pendingBases = new Map<string, string | null>();
  /** on-success: merged keys that were deleted before they were set. */
  readonly #pendingResets = new Set<string>();
  /** What a process read last, by process id, for it and its ancestors; 0 = the execution. */
  readonly #read = new Map<number, Base>();
  readonly #bases = new WeakMap<DocumentDraft, Base>();
  /** Commits whose answer never came: they are made again, the same, before any other. */
  readonly #unsettled: Unsettled[] = [];
  #settling: Promise<void> | undefined;
  /** The members that a file was found to hold, at one of its versions. */
  readonly #scanned = new WeakMap<RegularFile, { version: number; members: Members }>();
  /** Which processes a handle was opened for reading by. */
  readonly #readers = new WeakMap<DocumentDraft, readonly number[]>();
  /** Members of a file's committed content. */
  readonly #contents = new WeakMap<RegularFile, Members>();
  readonly #set = new Map<string, string>();
  readonly #deleted = new Set<string>();
  /** The helpers' time stamp: visible inside the run, never stored. */
  #updated: string | undefined;
  #lastOrder = 0;
  /** on-success: the one commit there is, whoever makes it. */
  #pendingId = randomUUID();
  /** What the journal calls members, and those that are in it. */
  readonly #numbers = new WeakMap<Members, number>();
  #noted = new WeakSet<Members>();
  #lastNumber = 0;

  constructor(
    volume: Volume,
    root: ExecutionDirectory,
    runtime: Runtime,
    policy: Policy,
    { variables, merged }: Start,
    warn: (text: string) => void,
  ) {
    super('variables.json', root.tree, policy.strict, warn);
    this.#volume = volume;
    this.#root = root;
    this.#runtime = runtime;
    this.#policy = policy;
    this.#merged = new Set(merged);
    for (const variable of variables) this.#learn(variable);
    this.#read.set(EXECUTION, { seen: this.#view(), isCertain: true });
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
      const gone = { ...known, text: null };
      this.#known.set(key, gone);
      this.note(['K', gone]);
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
    this.#contents.set(file, members);
    this.markCommitted(file);
    await this.#volume.supersede(work, 'variables.json', file);
  }

  async finish(file: RegularFile | undefined, success: boolean): Promise<void> {
    await this.settled();
    if (file !== undefined) await this.#finalCommit(file);
    if (this.#policy.commit === 'live') {
      await this.#settle().catch((error: unknown) => this.#failed(asBridgeError(error).message));
      return;
    }
    if (!success || this.#pending.size === 0) {
      this.#forgetCommitted();
      return;
    }
    try {
      this.#committed(await this.#runtime.commitVariables(this.#pendingEdit()));
    } catch (error) {
      this.#forgetCommitted();
      this.#failed(asBridgeError(error).message);
    }
  }

  #pendingEdit(): VariablesEdit {
    const set: [VariableKey, string][] = [];
    const deleted: VariableKey[] = [];
    for (const [name, text] of this.#pending) {
      const key = VariableKey.parse(name);
      if (text !== null) set.push([key, text]);
      if (text === null || this.#pendingResets.has(name)) deleted.push(key);
    }
    const bases = set.flatMap(([key]): [VariableKey, string | null][] => {
      const base = this.#pendingBases.get(key);
      return base === undefined ? [] : [[key, base]];
    });
    return { id: this.#pendingId, set, delete: deleted, bases };
  }

  protected override noticed(
    file: RegularFile,
    draft: DocumentDraft,
    reads: boolean,
    caller: Caller,
  ): void {
    const family = processFamily(caller.pid);
    if (reads) {
      const base = this.#contentOf(file);
      this.#remember(family, base);
      this.#bases.set(draft, base);
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
    const { seen } = this.#bases.get(draft) ?? this.#contentOf(draft.file);
    const base = { seen, isCertain: false };
    this.#setBase(draft, base);
    this.#setRead(family.length === 0 ? [EXECUTION] : family, base);
  }

  #setBase(draft: DocumentDraft, base: Base): void {
    this.#bases.set(draft, base);
    this.draftChanged(draft);
  }

  #setRead(pids: readonly number[], base: Base): void {
    for (const pid of pids) this.#read.set(pid, base);
    if (this.isJournaled) this.note(['P', pids, this.#numberOf(base.seen), base.isCertain]);
  }

  protected override readonly scanKind = 'members';

  protected override prepare(
    file: RegularFile,
    draft: DocumentDraft | undefined,
    caller: Caller,
  ): (document: JsonScan, content: Uint8Array) => Promise<void> | undefined {
    const family = processFamily(caller.pid);
    if (draft !== undefined) this.readEnded(draft); // r+: the same doubt, if others wrote meanwhile
    const base = this.#baseFor(draft, family);
    const version = draft === undefined || draft.isAlone ? file.contentVersion : undefined;
    return (document, content) => {
      const written = this.#membersOf(document, content);
      if (written === undefined) return undefined;
      if (version !== undefined) this.#scanned.set(file, { version, members: written });
      return this.#commitAndShow(file, written, base, draft, family);
    };
  }

  async #commitAndShow(
    file: RegularFile,
    written: Members,
    base: Base,
    draft: DocumentDraft | undefined,
    family: readonly number[],
  ): Promise<void> {
    try {
      let from = base;
      if (this.#unsettled.length > 0) {
        await this.#settle();
        from = this.#baseFor(draft, family);
      }
      const { seen, isCertain } = from;
      const difference = new MemberDiff(seen, written, !this.#policy.exact, isCertain);
      while (!difference.step(SLICE_BYTES)) await nextTurn();
      const edit = this.#editOf(difference.edit, seen);
      await this.#commit({ edit, seen, written, family, draft });
    } catch (error) {
      this.#failed(asBridgeError(error).message);
      throw error;
    }
    this.#updated = written.get(UPDATED) ?? this.#updated;
    this.#noteRest();
    const now = { seen: written, isCertain: true };
    if (draft !== undefined) this.#setBase(draft, now);
    this.#remember(family, now);
    this.#contents.set(file, written);
    this.fileChanged(file);
    const mixed = draft?.isAlone === false;
    if (this.hasDirtyDrafts || (!mixed && showSame(written, this.#view()))) return;
    const shown = this.#volume.background(async () => await this.#replace());
    // A close waits until the kernel shows the merged document. A rename holds the directory's lock until it is
    // answered, and the kernel needs that lock to forget the name: waiting here would never end.
    if (draft !== undefined) await shown;
  }

  async #commit(commit: Unsettled): Promise<void> {
    const { edit } = commit;
    if (edit.set.length === 0 && edit.delete.length === 0) return;
    if (this.#policy.commit === 'live') await this.#send(commit);
    else this.#keep(edit);
  }

  /** A failure after which nobody knows whether the server has done it leaves the commit unsettled. */
  async #send(commit: Unsettled): Promise<void> {
    const { id } = commit.edit;
    if (this.isJournaled && !this.#unsettled.includes(commit)) {
      this.note(this.#unsettledRecord(commit));
      this.flushNotes(); // whoever takes over makes it again under its id, and so it is made once
    }
    try {
      const changes = await this.#runtime.commitVariables(commit.edit);
      for (const change of changes) this.#learn(change);
      this.#committed(changes);
      this.note(['U', id, null]);
    } catch (error) {
      const isUnknown = CODES[asBridgeError(error).code].retry;
      if (!isUnknown) this.note(['U', id, null]);
      else if (!this.#unsettled.includes(commit)) this.#unsettled.push(commit);
      throw error;
    }
  }

  /** Makes the unsettled commits again, in their order and under their ids, so that each is done once. */
  async #settle(): Promise<void> {
    this.#settling ??= (async () => {
      for (let commit = this.#unsettled[0]; commit !== undefined; commit = this.#unsettled[0]) {
        await this.#send(commit);
        this.#unsettled.shift();
        this.#settled(commit);
      }
    })().finally(() => {
      this.#settling = undefined;
    });
    await this.#settling;
  }

  /** What it wrote is what its writer, and nobody else, builds on from now on. */
  #settled({ seen, written, family, draft }: Unsettled): void {
    const now = { seen: written, isCertain: true };
    if (draft !== undefined && this.#bases.get(draft)?.seen === seen) this.#setBase(draft, now);
    const pids = [EXECUTION, ...family].filter((pid) => this.#read.get(pid)?.seen === seen);
    if (pids.length > 0) this.#setRead(pids, now);
  }

  /** on-success: kept until the end. @throws BridgeError `quota` for what the server would refuse then */
  #keep(edit: VariablesEdit): void {
    const before = new Map(this.#pending);
    for (const [key, text] of edit.set) this.#pending.set(key, text);
    for (const key of edit.delete) this.#pending.set(key, null);
    const view = this.#view();
    let bytes = 0;
    for (const [key, text] of view)
      bytes += Buffer.byteLength(key) + Buffer.byteLength(text) + VARIABLE_OVERHEAD_BYTES;
    if (bytes > NAMESPACE_BYTES_MAX || this.#pending.size > COMMIT_MEMBERS_MAX) {
      this.#pending.clear();
      for (const [key, text] of before) this.#pending.set(key, text);
      throw new BridgeError(
        'quota',
        `the variables would take ${bytes} bytes, of ${NAMESPACE_BYTES_MAX}, and ${this.#pending.size} changes, of ${COMMIT_MEMBERS_MAX}`,
      );
    }
    for (const [key, base] of edit.bases) {
      if (before.get(key) === null) {
        this.#pendingResets.add(key);
        this.#pendingBases.set(key, null);
      } else if (!before.has(key)) this.#pendingBases.set(key, base);
    }
    this.#noteRest();
  }

  /** What the run has changed, as it was stored: a merge policy may have made something else of what was written. */
  #committed(changes: readonly VariableChange[]): void {
    const told = changes.map(({ key, text }): [string, string | null] => [key, text]);
    this.#restoreCommitted(told);
    if (told.length > 0) this.note(['Q', told]);
  }

  #forgetCommitted(): void {
    this.#set.clear();
    this.#deleted.clear();
    this.note(['Q', null]);
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

  /** What a process that opens `file` now will read. */
  #contentOf(file: RegularFile): Base {
    const known = this.#contents.get(file);
    if (known !== undefined && !this.isDirty(file)) return { seen: known, isCertain: true };
    const scanned = this.#scanned.get(file);
    if (scanned?.version === file.contentVersion) return { seen: scanned.members, isCertain: true };
    const members = file.size > SLICE_BYTES ? undefined : this.#parse(file.readAll());
    if (members !== undefined) return { seen: members, isCertain: true };
    // In the middle of someone's write: what stood there before is the best guess, and what is not there is not missed.
    return { seen: known ?? this.#view(), isCertain: false };
  }

  #baseFor(draft: DocumentDraft | undefined, family: readonly number[]): Base {
    return (draft && this.#bases.get(draft)) ?? this.#baseOf(family);
  }

  #baseOf(family: readonly number[]): Base {
    for (const pid of family) {
      const base = this.#read.get(pid);
      if (base !== undefined) return base;
    }
    return this.#read.get(EXECUTION) ?? { seen: new Map(), isCertain: false };
  }

  #remember(family: readonly number[], base: Base): void {
    this.#setRead([EXECUTION, ...family], base);
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
    this.note(['K', change]);
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

  /** `seen`: what the writer had read. @throws BridgeError `invalid` naming the first key that cannot be stored */
  #editOf(edit: MemberDiff['edit'], seen: Members): VariablesEdit {
    const set = [...edit.set].map(([key, text]) => [checkedKey(key), text] as const);
    return {
      id: randomUUID(),
      set,
      delete: [...edit.delete].map(checkedKey),
      bases: set.flatMap(([key]) =>
        this.#merged.has(key) ? [[key, seen.get(key) ?? null] as const] : [],
      ),
    };
  }

  // --- what a process that takes over must know ---------------------------------------------------------------------

  /**
   * K change: what the server holds · M number, members · P process ids, members, certain: what was read · U id, commit (null =
   * settled) · Q what the run committed (null = nothing after all) · G the rest
   */
  override *records(): Iterable<JournalRecord> {
    yield this.#restRecord();
    for (const change of this.#known.values()) yield ['K', change];
    for (const [pid, { seen, isCertain }] of this.#read)
      yield ['P', [pid], this.#numberOf(seen), isCertain];
    for (const commit of this.#unsettled) yield this.#unsettledRecord(commit);
    yield ['Q', null];
    yield ['Q', [...this.#set, ...[...this.#deleted].map((key) => [key, null])]];
  }

  /** `draftOf`: a handle's draft by its number. */
  restore(
    records: readonly JournalRecord[],
    draftOf: (handleId: number) => DocumentDraft | undefined,
  ): void {
    const members = this.#restoreMembers(records);
    const unsettled = new Map<string, readonly unknown[]>();
    for (const [kind, ...what] of records)
      switch (kind) {
        case 'K': {
          const change = what[0] as VariableChange;
          this.#known.set(change.key, change);
          this.#lastOrder = Math.max(this.#lastOrder, change.order);
          break;
        }
        case 'P':
          for (const pid of what[0] as number[])
            this.#read.set(pid, baseIn(members, what.slice(1)));
          break;
        case 'U':
          if (what[1] === null) unsettled.delete(what[0] as string);
          else unsettled.set(what[0] as string, what.slice(1));
          break;
        case 'Q':
          this.#restoreCommitted(what[0] as [string, string | null][] | null);
          break;
        case 'G':
          this.#restoreRest(what[0] as Rest);
          break;
        default:
      }
    for (const [edit, seen, written, family, draft] of unsettled.values())
      this.#unsettled.push({
        edit: edit as VariablesEdit,
        seen: membersIn(members, seen),
        written: membersIn(members, written),
        family: family as number[],
        draft: draftOf(draft as number),
      });
  }

  /** Only while what an earlier process left is taken over. */
  #members: ReadonlyMap<number, Members> = new Map();

  /** First of all: a record may come before the members that it names. */
  #restoreMembers(records: readonly JournalRecord[]): ReadonlyMap<number, Members> {
    const members = new Map<number, Members>();
    for (const [kind, number, entries] of records) {
      if (kind !== 'M' || members.has(number as number)) continue;
      const restored: Members = new Map(entries as [string, string][]);
      members.set(number as number, restored);
      this.#numbers.set(restored, number as number);
      this.#lastNumber = Math.max(this.#lastNumber, number as number);
    }
    this.#members = members;
    return members;
  }

  override restored(): void {
    this.#members = new Map();
  }

  override fileRecord(file: RegularFile): FileRecord & { contents?: number } {
    const contents = this.#contents.get(file);
    return {
      ...super.fileRecord(file),
      ...(contents !== undefined && { contents: this.#numberOf(contents) }),
    };
  }

  override restoreFile(file: RegularFile, record: FileRecord & { contents?: number }): void {
    super.restoreFile(file, record);
    if (record.contents !== undefined)
      this.#contents.set(file, membersIn(this.#members, record.contents));
  }

  protected override draftState(draft: DocumentDraft): readonly unknown[] {
    const base = this.#bases.get(draft);
    const readers = this.#readers.get(draft) ?? null;
    return base === undefined
      ? super.draftState(draft)
      : [...super.draftState(draft), this.#numberOf(base.seen), base.isCertain, readers];
  }

  override restoreDraftState(draft: DocumentDraft, state: readonly unknown[]): void {
    super.restoreDraftState(draft, state);
    const [, seen, isCertain, readers] = state;
    if (seen !== undefined) this.#bases.set(draft, baseIn(this.#members, [seen, isCertain]));
    if (Array.isArray(readers)) this.#readers.set(draft, readers as number[]);
  }

  /** A journal is begun anew: it has no members yet. */
  override startRecords(): void {
    this.#noted = new WeakSet();
  }

  #numberOf(members: Members): number {
    const number = this.#numbers.get(members) ?? ++this.#lastNumber;
    this.#numbers.set(members, number);
    if (!this.#noted.has(members)) {
      this.#noted.add(members);
      this.note(['M', number, [...members]]);
    }
    return number;
  }

  #unsettledRecord({ edit, seen, written, family, draft }: Unsettled): JournalRecord {
    const [from, to] = [this.#numberOf(seen), this.#numberOf(written)];
    return ['U', edit.id, edit, from, to, family, draft?.id ?? 0];
  }

  #restRecord(): JournalRecord {
    const rest: Rest = {
      pending: [...this.#pending],
      bases: [...this.#pendingBases],
      resets: [...this.#pendingResets],
      ...(this.#updated !== undefined && { updated: this.#updated }),
      pendingId: this.#pendingId,
    };
    return ['G', rest];
  }

  #noteRest(): void {
    if (this.isJournaled) this.note(this.#restRecord());
  }

  #restoreRest({ pending, bases, resets, updated, pendingId }: Rest): void {
    this.#pendingId = pendingId;
    this.#pending.clear();
    for (const [key, text] of pending) this.#pending.set(key, text);
    for (const [key, base] of bases) this.#pendingBases.set(key, base);
    for (const key of resets) this.#pendingResets.add(key);
    this.#updated = updated;
  }

  #restoreCommitted(changes: readonly [string, string | null][] | null): void {
    if (changes === null) {
      this.#set.clear();
      this.#deleted.clear();
      return;
    }
    for (const [key, text] of changes) {
      if (text === null) this.#set.delete(key);
      else this.#set.set(key, text);
      if (text === null) this.#deleted.add(key);
      else this.#deleted.delete(key);
    }
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

/** What a writer had read. */
interface Base {
  readonly seen: Members;
  /** False: it may have been something else, so nothing that is left out counts as deleted. */
  readonly isCertain: boolean;
}

export interface Rest {
  readonly pending: readonly [string, string | null][];
  readonly bases: readonly [string, string | null][];
  readonly resets: readonly string[];
  readonly updated?: string;
  readonly pendingId: ReturnType<typeof randomUUID>;
}

function membersIn(members: ReadonlyMap<number, Members>, number: unknown): Members {
  const found = members.get(number as number);
  if (found === undefined) throw new JournalDamaged(`members ${String(number)} are missing`);
  return found;
}

const baseIn = (
  members: ReadonlyMap<number, Members>,
  [seen, isCertain]: readonly unknown[],
): Base => ({ seen: membersIn(members, seen), isCertain: isCertain === true });

/** A commit and whose it is. */
interface Unsettled {
  readonly edit: VariablesEdit;
  readonly seen: Members;
  readonly written: Members;
  readonly family: readonly number[];
  readonly draft: DocumentDraft | undefined;
}

/** @throws BridgeError `invalid` */
function checkedKey(key: string): VariableKey {
  const result = VariableKey.safeParse(key);
  if (result.success) return result.data;
  const shown = JSON.stringify(key.slice(0, 64));
  throw new BridgeError(
    'invalid',
    `variable ${shown}: ${result.error.issues[0]?.message ?? 'not a key'}`,
  );
}
