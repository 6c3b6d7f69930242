import { BridgeError } from '#bridge/wire/errors.js';
import { admit } from './admission.js';
import { type Chunked, Chunks, isOwnerKey, newGeneration, type Owner } from './chunks.js';
import { Feeds } from './feeds.js';
import { type Flight, Flights } from './flights.js';
import { encodeKey, keyOfOp, lastPerKey, namespaceOfKey } from './key-bytes.js';
import {
  chunkedOf,
  decodeOps,
  encodeOps,
  headRecord,
  MARKER_BYTES,
  plainRecord,
  pointsTo,
  redoOf,
  redoRecord,
} from './large-records.js';
import { bytesOfChecks, bytesOfOp, inPieces } from './pieces.js';
import {
  type Change,
  type Check,
  type Commit,
  type Committed,
  type Entry,
  type Key,
  type Limits,
  type Op,
  type RangeOptions,
  type Reader,
  type Recorder,
  type Snapshot,
  type Store,
  SYSTEM,
} from './store.js';

/** A variable of 10 MiB with its history entry, and a legacy document of 100,000 members, fit; memory takes a few at once. */
export const LARGE_LIMITS: Limits = {
  valueBytesMax: 16 * 1024 * 1024,
  commitBytesMax: 64 * 1024 * 1024,
  commitOpsMax: 250_000,
};

/** Longer than any writer takes from its first chunk to its commit; one that is slower has to begin again. */
const ORPHAN_MS = 10 * 60 * 1000;
/** How often whoever owns the store should call `sweep`. */
export const SWEEP_EVERY_MS = 10 * 60 * 1000;

/** While this record exists, a large commit is made but not everywhere to be seen; its version is that commit's. */
const REDO_KEY: Key = ['redo', SYSTEM];
const REDO_ABSENT: Check = { key: REDO_KEY, version: 0 };
const REDO_BYTES = encodeKey(REDO_KEY).length;

/** Each time somebody else's large commit was in the way, and was finished: more in a row is no accident. */
const TRIES_MAX = 1000;

/** Chunked values whose keys are remembered, so that overwriting them removes the chunks at once: 20 MB. `sweep` finds the rest. */
const KNOWN_MAX = 100_000;

export interface LargeValuesOptions {
  readonly limits?: Limits;
  /** No other process has the store below: spares every read and commit a look whether one left a large commit behind. */
  readonly exclusive?: boolean;
  /** The store below takes no commits: nothing is finished or tidied up. */
  readonly readOnly?: boolean;
  /** A watcher threw, or something could not be tidied up, which `sweep` will do. */
  readonly onError?: (error: unknown) => void;
}

/** A commit as it goes to the store below, but for its large values. Owns all bytes. */
interface Plan {
  /** It fits in one commit of the store below. */
  readonly isSmall: boolean;
  readonly checks: readonly Check[];
  readonly ops: readonly Op[];
  /** Values that need chunks, by their place in `ops`, which has a stand-in there. */
  readonly large: ReadonlyMap<number, Buffer>;
  /** Chunked values that the commit replaces. */
  readonly replaced: readonly Replaced[];
  readonly id: string | undefined;
  readonly note: LargeNote | undefined;
}

interface Replaced {
  readonly name: string;
  readonly chunked: Chunked;
}

/** Tells a caller's note apart from none when the commit is made again. */
interface LargeNote {
  readonly note: unknown;
}

interface Written {
  readonly chunked: Chunked;
  readonly check: Check;
}

/**
 * Values and commits larger than the store below takes.
 *
 * A large value lies in chunks, written before the commit that puts the head which points to them. Their owner record says
 * whose they are, so that `sweep` finds those to which nothing points: of a crash, or of a value that was replaced when
 * nobody knew that it was large.
 *
 * A large commit is staged in chunks; then one commit with the caller's checks puts the redo record, and with it the large
 * commit is made, under that version. Whoever meets the record, in whatever process, applies the staged ops under that
 * version, then removes the record; nobody else's commit goes through meanwhile. All of it can be repeated at any point.
 */
export class LargeValues implements Store {
  readonly limits: Limits;
  readonly #inner: Store;
  readonly #chunks: Chunks;
  readonly #feeds: Feeds;
  readonly #onError: (error: unknown) => void;
  readonly #plainBytesMax: number;
  readonly #stopRedo: () => void;
  /** By encoded key. */
  readonly #known = new Map<string, Chunked>();
  /** Values and commits of this process on their way, by generation: watchers hear of them before anything is read back. */
  readonly #values = new Map<string, Buffer>();
  readonly #staged = new Map<string, readonly Omit<Entry, 'version'>[]>();
  readonly #flights = new Flights();
  /** Calls that did not look for a redo record: one must not be put while they are under way. */
  readonly #unguarded = new Flights();
  #applying: { version: number; done: Promise<void> } | undefined;
  /** Nobody else puts redo records, and we know of all of ours. */
  #isExclusive: boolean;
  /** There may be a redo record of ours. */
  #isSuspect = true;
  #issuing = 0;
  #issued = 0;
  #isClosed = false;

  private constructor(inner: Store, options: LargeValuesOptions) {
    this.#inner = inner;
    this.limits = options.limits ?? LARGE_LIMITS;
    this.#isExclusive = options.exclusive ?? false;
    this.#onError = options.onError ?? (() => {});
    this.#chunks = new Chunks(inner);
    const { valueBytesMax, commitBytesMax } = inner.limits;
    this.#plainBytesMax = Math.min(valueBytesMax, Math.floor(commitBytesMax / 2)) - MARKER_BYTES;
    this.#feeds = new Feeds(inner, (entry) => this.#loadForWatch(entry), this.#onError);
    this.#stopRedo = inner.watch(REDO_KEY, (change) => this.#tellLarge(change));
  }

  /**
   * Finishes a large commit that was interrupted, and tidies up. Takes over `inner` unless it throws: closing this closes it.
   */
  static async open(inner: Store, options: LargeValuesOptions = {}): Promise<LargeValues> {
    const store = new LargeValues(inner, options);
    if (options.readOnly === true) return store;
    try {
      await store.#finishRedo();
      await store.sweep();
      return store;
    } catch (error) {
      store.#stopRedo();
      throw error;
    }
  }

  get version(): number {
    return this.#inner.version;
  }

  now(): number {
    return this.#inner.now();
  }

  async get(key: Key): Promise<Entry | undefined> {
    if (this.#mustLook) return (await this.getMany([key]))[0];
    const entry = await this.#inner.get(key);
    if (entry === undefined) return undefined;
    const loaded = load(entry) ?? (await this.#loadChunked(this.#inner, entry));
    if (loaded !== undefined) return loaded;
    await using snapshot = await this.snapshot();
    return await snapshot.get(key);
  }

  async getMany(keys: readonly Key[]): Promise<(Entry | undefined)[]> {
    const entries = await this.#getMany(keys);
    const loaded: (Entry | undefined)[] = [];
    for (const entry of entries) {
      const one = entry && (load(entry) ?? (await this.#loadChunked(this.#inner, entry)));
      if (entry !== undefined && one === undefined) {
        // Replaced since: one moment in which all chunks are there.
        await using snapshot = await this.snapshot();
        return await snapshot.getMany(keys);
      }
      loaded.push(one);
    }
    return loaded;
  }

  async *range(prefix: Key, options: RangeOptions = {}): AsyncIterable<Entry> {
    await using snapshot = await this.snapshot();
    yield* snapshot.range(prefix, options);
  }

  async snapshot(): Promise<Snapshot> {
    for (let tries = 0; tries < TRIES_MAX; tries++) {
      const snapshot = await this.#innerSnapshot();
      let redo: Entry | undefined;
      if (this.#mustLook) {
        try {
          const issued = this.#issued;
          redo = await snapshot.get(REDO_KEY);
          if (redo === undefined) this.#sawNoRedo(issued);
        } catch (error) {
          await snapshot[Symbol.asyncDispose]();
          throw error;
        }
      }
      if (redo === undefined)
        return {
          ...this.#loading(snapshot),
          version: snapshot.version,
          [Symbol.asyncDispose]: async () => await snapshot[Symbol.asyncDispose](),
        };
      await snapshot[Symbol.asyncDispose]();
      await this.#apply(redo);
    }
    throw tooBusy();
  }

  async commit(commit: Commit): Promise<Committed> {
    if (this.#isClosed) throw new BridgeError('unavailable', 'the store is closed');
    const flight = this.#flights.start();
    try {
      // No await before the inner commit of a small one: commits are made in the order they are asked for.
      const plan = this.#plan(commit);
      for (let tries = 0; tries < TRIES_MAX; tries++) {
        const committed = plan.isSmall
          ? await this.#commitReplacing(plan, plan.checks, plan.ops)
          : await this.#commitLarge(plan);
        if (isInTheWay(committed)) {
          await this.#finishRedo();
          continue;
        }
        if (!this.#feeds.isQuiet) await this.#feeds.quiet();
        return committed;
      }
      throw tooBusy();
    } finally {
      this.#flights.land(flight);
    }
  }

  watch(prefix: Key, listener: (change: Change) => void, since?: number): () => void {
    const past = since === undefined ? undefined : { version: since, reader: this };
    return this.#feeds.add(prefix, listener, past);
  }

  recordWith(recorder: Recorder): void {
    this.#inner.recordWith({
      record: (group) => {
        // What will be made again has not happened yet.
        const noted = group
          .filter(({ committed }) => !isInTheWay(committed))
          .map(({ note, committed }) => ({ note: (note as LargeNote).note, committed }));
        return noted.length === 0 ? [] : this.#recorded(recorder.record(noted));
      },
      // What a recorder has put never was part of a large commit, so it needs no look for one.
      reset: async (reader) => await recorder.reset(this.#loading(reader)),
    });
  }

  /**
   * Removes chunks to which nothing points and whose writer had its time. Call it every SWEEP_EVERY_MS.
   * Returns how many values were removed.
   */
  async sweep(): Promise<number> {
    const flight = this.#flights.start();
    try {
      if (this.#mustLook) await this.#finishRedo();
      let removed = 0;
      for await (const owner of this.#chunks.owners()) if (await this.#sweepOne(owner)) removed++;
      return removed;
    } finally {
      this.#flights.land(flight);
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#isClosed = true;
    await this.#flights.landed();
    await this.#feeds.quiet();
    this.#feeds.stop();
    this.#stopRedo();
    await this.#inner[Symbol.asyncDispose]();
  }

  // ---------------------------------------------------------------- commits

  /** Everything that must happen before anybody can change the caller's buffers. */
  #plan(commit: Commit): Plan {
    const { checks = [], ops: given, id, note } = commit;
    const isClearlySmall = this.#isClearlySmall(checks, given);
    // What the store below takes is within our limits too, and it looks for itself.
    if (!isClearlySmall) admit(commit, this.limits);
    const ops = isClearlySmall ? given : [...lastPerKey(given)];
    const large = new Map<number, Buffer>();
    const replaced: Replaced[] = [];
    const framed = ops.map((op, i): Op => {
      if (this.#known.size > 0) {
        const name = nameOf(keyOfOp(op));
        const chunked = this.#known.get(name);
        if (chunked !== undefined) replaced.push({ name, chunked });
      }
      if ('del' in op) return op;
      if (op.value.byteLength <= this.#plainBytesMax)
        return { ...op, value: plainRecord(op.value) };
      large.set(i, Buffer.from(op.value));
      return { ...op, value: new Uint8Array() };
    });
    return {
      isSmall: isClearlySmall || (large.size === 0 && this.#fits(checks, framed)),
      checks,
      ops: framed,
      large,
      replaced,
      id,
      note: note === undefined ? undefined : { note },
    };
  }

  /** By a cheap estimate. */
  #isClearlySmall(checks: readonly Check[], ops: readonly Op[]): boolean {
    const { commitBytesMax, commitOpsMax } = this.#inner.limits;
    if (checks.length + ops.length + 1 > commitOpsMax) return false;
    let most = REDO_BYTES;
    for (const { key } of checks) most += bytesAtMost(key);
    for (const op of ops) {
      most += bytesAtMost(keyOfOp(op));
      if (!('put' in op)) continue;
      if (op.value.byteLength > this.#plainBytesMax) return false;
      most += op.value.byteLength + MARKER_BYTES;
    }
    return most <= commitBytesMax;
  }

  #fits(checks: readonly Check[], ops: readonly Op[]): boolean {
    const { commitBytesMax, commitOpsMax } = this.#inner.limits;
    if (checks.length + ops.length + 1 > commitOpsMax) return false;
    const bytes = ops.reduce((sum, op) => sum + bytesOfOp(op), bytesOfChecks(checks));
    return bytes + REDO_BYTES <= commitBytesMax;
  }

  /** `ops`, and the deletion of the chunks they replace: in the same commit if it fits, else afterwards. */
  async #commitReplacing(
    plan: Plan,
    checks: readonly Check[],
    ops: readonly Op[],
  ): Promise<Committed> {
    const deletions = plan.replaced.flatMap(({ chunked }) => this.#chunks.deletions(chunked));
    const isTogether = deletions.length > 0 && this.#fits(checks, [...ops, ...deletions]);
    const committed = await this.#guarded(checks, isTogether ? [...ops, ...deletions] : ops, plan);
    if (committed.ok && committed.repeated === undefined && plan.replaced.length > 0)
      await this.#forget(plan.replaced, isTogether);
    return committed;
  }

  /** One inner commit that goes through only while there is no redo record. */
  async #guarded(
    checks: readonly Check[],
    ops: readonly Op[],
    { id, note }: Pick<Plan, 'id' | 'note'>,
  ): Promise<Committed> {
    const flight = this.#startUnguarded();
    try {
      return await this.#inner.commit({
        checks: flight === undefined ? [...checks, REDO_ABSENT] : checks,
        ops,
        ...(id !== undefined && { id }),
        ...(note !== undefined && { note }),
      });
    } finally {
      if (flight !== undefined) this.#unguarded.land(flight);
    }
  }

  async #commitLarge(plan: Plan): Promise<Committed> {
    const written: (Written & { key: Key })[] = [];
    const generations: string[] = [];
    const ops = [...plan.ops];
    try {
      for (const [i, value] of plan.large) {
        const op = plan.ops[i];
        if (op === undefined || 'del' in op) continue;
        const generation = newGeneration();
        generations.push(generation);
        this.#values.set(generation, value);
        const one = await this.#chunks.write(op.put, namespaceOfKey(op.put), value, generation);
        written.push({ ...one, key: op.put });
        ops[i] = { ...op, value: headRecord(one.chunked) };
      }
      const checks = [...plan.checks, ...written.map(({ check }) => check)];
      const committed = this.#fits(checks, ops)
        ? await this.#commitReplacing(plan, checks, ops)
        : await this.#commitStaged(plan, checks, ops);
      if (committed.ok && committed.repeated === undefined)
        for (const { key, chunked } of written) this.#know(nameOf(key), chunked);
      else await this.#tidy(written);
      return committed;
    } catch (error) {
      if (isRefusal(error)) await this.#tidy(written);
      throw error;
    } finally {
      for (const generation of generations) this.#values.delete(generation);
    }
  }

  async #commitStaged(
    plan: Plan,
    checks: readonly Check[],
    ops: readonly Op[],
  ): Promise<Committed> {
    const byNamespace = new Map<string, Op[]>();
    for (const op of ops) {
      const namespace = namespaceOfKey(keyOfOp(op));
      const list = byNamespace.get(namespace);
      if (list === undefined) byNamespace.set(namespace, [op]);
      else list.push(op);
    }
    const stages: Written[] = [];
    for (const [namespace, list] of byNamespace)
      stages.push(await this.#chunks.write(REDO_KEY, namespace, encodeOps(list)));
    const [first] = stages;
    if (first === undefined) throw new RangeError('a large commit without ops');
    const redo = redoRecord({ stages: stages.map(({ chunked }) => chunked) });
    const allChecks = [...checks, REDO_ABSENT, ...stages.map(({ check }) => check)];

    this.#staged.set(first.chunked.generation, this.#entriesOf(plan));
    this.#issuing++;
    this.#issued++;
    this.#isSuspect = true;
    let committed: Committed;
    try {
      await this.#unguarded.landed();
      committed = await this.#inner.commit({
        checks: allChecks,
        ops: [{ put: REDO_KEY, value: redo }],
        ...(plan.id !== undefined && { id: plan.id }),
        ...(plan.note !== undefined && { note: plan.note }),
      });
    } catch (error) {
      if (isRefusal(error)) await this.#tidy(stages);
      // It may come to light later: from now on everybody looks.
      else this.#isExclusive = false;
      throw error;
    } finally {
      this.#issuing--;
      this.#staged.delete(first.chunked.generation);
    }
    if (!committed.ok || committed.repeated !== undefined) {
      await this.#tidy(stages);
      return committed;
    }
    try {
      await this.#finishRedo();
    } catch (error) {
      // The commit is made: whoever reads next finishes it.
      this.#onError(error);
    }
    await this.#forget(plan.replaced, false);
    return committed;
  }

  /** What watchers will hear of a large commit. */
  #entriesOf(plan: Plan): Omit<Entry, 'version'>[] {
    return plan.ops.flatMap((op, i) =>
      'put' in op && op.version === undefined
        ? [{ key: op.put, value: plan.large.get(i) ?? op.value.subarray(MARKER_BYTES) }]
        : [],
    );
  }

  async #forget(replaced: readonly Replaced[], areRemoved: boolean): Promise<void> {
    for (const { name, chunked } of replaced)
      if (this.#known.get(name)?.generation === chunked.generation) this.#known.delete(name);
    if (!areRemoved) await this.#tidy(replaced);
  }

  async #tidy(leftovers: readonly { readonly chunked: Chunked }[]): Promise<void> {
    try {
      for (const { chunked } of leftovers) await this.#chunks.remove(chunked);
    } catch (error) {
      this.#onError(error);
    }
  }

  #know(name: string, chunked: Chunked): void {
    this.#known.delete(name);
    this.#known.set(name, chunked);
    if (this.#known.size <= KNOWN_MAX) return;
    for (const oldest of this.#known.keys()) {
      this.#known.delete(oldest);
      return;
    }
  }

  /** The recorder's ops are in one commit with others', however large: chunks, owner and head together. */
  #recorded(ops: readonly Op[]): Op[] {
    return ops.flatMap((op): Op[] => {
      const before = this.#known.size === 0 ? undefined : this.#known.get(nameOf(keyOfOp(op)));
      const deletions = before === undefined ? [] : this.#chunks.deletions(before);
      if ('del' in op) return [op, ...deletions];
      if (op.value.byteLength <= this.#plainBytesMax)
        return [{ ...op, value: plainRecord(op.value) }, ...deletions];
      const large = this.#chunks.ops(op.put, namespaceOfKey(op.put), op.value);
      return [...large.ops, { ...op, value: headRecord(large.chunked) }, ...deletions];
    });
  }

  // ---------------------------------------------------------------- the redo record

  get #mustLook(): boolean {
    return !this.#isExclusive || this.#isSuspect;
  }

  /** Undefined when the call has to look for a redo record, or check that there is none. */
  #startUnguarded(): Flight | undefined {
    return this.#mustLook ? undefined : this.#unguarded.start();
  }

  /** `issued`: before the look, how many redo records we had begun to put. */
  #sawNoRedo(issued: number): void {
    if (this.#issuing === 0 && this.#issued === issued) this.#isSuspect = false;
  }

  async #finishRedo(): Promise<void> {
    const issued = this.#issued;
    const redo = await this.#inner.get(REDO_KEY);
    if (redo === undefined) this.#sawNoRedo(issued);
    else await this.#apply(redo);
  }

  /** Once in this process, however many wait for it. */
  async #apply(redo: Entry): Promise<void> {
    if (this.#applying?.version !== redo.version) {
      const applying = { version: redo.version, done: this.#applyStages(redo) };
      this.#applying = applying;
      const forget = () => {
        if (this.#applying === applying) this.#applying = undefined;
      };
      void applying.done.then(forget, forget);
    }
    await this.#applying.done;
  }

  async #applyStages({ value, version }: Entry): Promise<void> {
    const { stages } = redoOf(value);
    // Fails once somebody has finished: only until then nobody else writes to these keys.
    const checks = [{ key: REDO_KEY, version }];
    for (const stage of stages) {
      const staged = await this.#chunks.read(this.#inner, stage);
      // Finished by another, which the next check tells; or its namespace was erased, and so were these ops.
      if (staged === undefined) continue;
      for (const ops of inPieces(decodeOps(staged, version), this.#inner.limits, checks))
        if (!(await this.#inner.commit({ checks, ops })).ok) return;
    }
    const { ok } = await this.#inner.commit({ checks, ops: [{ del: REDO_KEY }] });
    if (ok) await this.#tidy(stages.map((chunked) => ({ chunked })));
  }

  /** Called in commit order: before any later commit's changes. */
  #tellLarge({ version, entries: [redo] }: Change): void {
    if (redo === undefined || this.#feeds.isEmpty) return;
    const { stages } = redoOf(redo.value);
    const staged = this.#staged.get(stages[0]?.generation ?? '');
    this.#feeds.tell(
      version,
      staged?.map((entry) => ({ ...entry, version })) ?? this.#entriesOfStages(stages, version),
    );
  }

  /** Of another process's large commit: what of it is still there. */
  async #entriesOfStages(stages: readonly Chunked[], version: number): Promise<Entry[]> {
    const keys: Key[] = [];
    for (const stage of stages) {
      const staged = await this.#chunks.read(this.#inner, stage);
      if (staged === undefined) continue;
      for (const op of decodeOps(staged, version))
        if ('put' in op && op.version === version) keys.push(op.put);
    }
    const entries = await this.getMany(keys);
    return entries.filter((entry): entry is Entry => entry?.version === version);
  }

  // ---------------------------------------------------------------- reading

  /** As of a moment without redo record. */
  async #getMany(keys: readonly Key[]): Promise<(Entry | undefined)[]> {
    const flight = this.#startUnguarded();
    if (flight !== undefined) {
      try {
        return await this.#inner.getMany(keys);
      } finally {
        this.#unguarded.land(flight);
      }
    }
    for (let tries = 0; tries < TRIES_MAX; tries++) {
      const issued = this.#issued;
      const entries = await this.#inner.getMany([...keys, REDO_KEY]);
      const redo = entries.pop();
      if (redo === undefined) {
        this.#sawNoRedo(issued);
        return entries;
      }
      await this.#apply(redo);
    }
    throw tooBusy();
  }

  async #innerSnapshot(): Promise<Snapshot> {
    const flight = this.#startUnguarded();
    try {
      return await this.#inner.snapshot();
    } finally {
      if (flight !== undefined) this.#unguarded.land(flight);
    }
  }

  #loading(inner: Reader): Reader {
    const loaded = async (entry: Entry): Promise<Entry> => {
      const one = load(entry) ?? (await this.#loadChunked(inner, entry));
      if (one !== undefined) return one;
      throw new BridgeError(
        'internal',
        `a value of family ${entry.key[0]} lacks a part: restore a backup`,
      );
    };
    return {
      get: async (key) => {
        const entry = await inner.get(key);
        return entry && (await loaded(entry));
      },
      getMany: async (keys) => {
        const all: (Entry | undefined)[] = [];
        for (const entry of await inner.getMany(keys)) all.push(entry && (await loaded(entry)));
        return all;
      },
      range: async function* (prefix, options) {
        for await (const entry of inner.range(prefix, options))
          yield load(entry) ?? (await loaded(entry));
      },
    };
  }

  /** Undefined when a chunk is missing. */
  async #loadChunked(reader: Reader, { key, value, version }: Entry): Promise<Entry | undefined> {
    const chunked = chunkedOf(key, value);
    const bytes = chunked && (await this.#chunks.read(reader, chunked));
    return bytes && { key, value: bytes, version };
  }

  #loadForWatch(entry: Entry): Entry | Promise<Entry | undefined> {
    const { key, value, version } = entry;
    const generation = chunkedOf(key, value)?.generation;
    if (generation === undefined) return plain(entry);
    const ours = this.#values.get(generation);
    return ours === undefined
      ? this.#loadChunked(this.#inner, entry)
      : { key, value: ours, version };
  }

  // ---------------------------------------------------------------- tidying up

  async #sweepOne(owner: Owner): Promise<boolean> {
    const { key, at, chunked } = owner;
    const record = await this.#inner.get(key);
    if (record !== undefined && pointsTo(key, record.value, chunked.generation)) {
      const whole = chunkedOf(key, record.value);
      if (whole !== undefined) this.#know(nameOf(key), whole);
      return false;
    }
    if (at > this.now() - ORPHAN_MS) return false;
    const isRedo = nameOf(key) === nameOf(REDO_KEY);
    if (!(await this.#chunks.claim(owner, record?.version ?? 0, isRedo ? [] : [REDO_ABSENT])))
      return false;
    await this.#chunks.remove(chunked);
    return true;
  }
}

/** A commit that met a redo record, or whose chunks were taken for an orphan's: it is made again. */
const isInTheWay = (committed: Committed): boolean =>
  !committed.ok && committed.conflicts.some((key) => key[0] === REDO_KEY[0] || isOwnerKey(key));

/** Nothing was committed, for certain. After any other error nobody knows, and `sweep` will see what is in use. */
const isRefusal = (error: unknown): boolean =>
  error instanceof BridgeError && (error.code === 'too_large' || error.code === 'invalid');

/** Undefined for a value that lies in chunks. */
const load = (entry: Entry): Entry | undefined =>
  chunkedOf(entry.key, entry.value) === undefined ? plain(entry) : undefined;

const plain = ({ key, value, version }: Entry): Entry => ({
  key,
  value: value.subarray(MARKER_BYTES),
  version,
});

const nameOf = (key: Key): string => encodeKey(key).toString('latin1');

/** Never less than encodeKey makes of it, and cheaper: a UTF-16 unit takes at most three bytes. */
function bytesAtMost(key: Key): number {
  let bytes = 0;
  for (const part of key) bytes += typeof part === 'number' ? 9 : part.length * 3 + 2;
  return bytes;
}

const tooBusy = () =>
  new BridgeError('unavailable', 'large commits are always in the way: try again later');
