import { existsSync, rmSync, statfsSync } from 'node:fs';
import { join } from 'node:path';
import type { AbstractSnapshot } from 'abstract-level';
import { BridgeError } from '#bridge/wire/errors.js';
import { type Admitted, admit, encodedOps } from './admission.js';
import { checkInChild, type StoreReport } from './check-process.js';
import { CLOCK_BEHIND_MS_MAX, StoreClock } from './clock.js';
import { encodeLink, type KeptLinks, type Link, WRITE_BUFFER_BYTES } from './commit-chain.js';
import { FileSums } from './file-sums.js';
import { ABSENT, GroupDraft, type Known } from './group-draft.js';
import { HeadFile } from './head-file.js';
import { linkKey, RECORDS_FROM } from './internal-keys.js';
import { decodeKey, encodeKey, rangeBounds } from './key-bytes.js';
import { copyDatabase, type Db, openDb, storeError } from './level-db.js';
import { keptTagOf, RecordTags, valueOf, versionOf } from './record-tags.js';
import {
  type Commit,
  type Committed,
  type Entry,
  type Key,
  type Limits,
  type Noted,
  type RangeOptions,
  type Recorder,
  type Snapshot,
  STORE_LIMITS,
  type Store,
  VALUE_OVERHEAD_BYTES_MAX,
} from './store.js';
import {
  type Chain,
  damaged,
  formatProblems,
  headProblems,
  lastLink,
  readChain,
} from './store-checks.js';
import { Watchers } from './watchers.js';

/** Commits written by one fsync: enough to amortise it, small enough that one group stays a few milliseconds. */
const GROUP_COMMITS_MAX = 1024;
const GROUP_BYTES_MAX = 1024 * 1024;

/** Version and tag of keys written or checked lately: spares a read for every key a commit replaces. */
const KNOWN_MAX = 65_536;

/** Opened again, LevelDB writes what its log holds, up to two write buffers, as tables. */
const REOPEN_BYTES = 3 * WRITE_BUFFER_BYTES;

interface Waiting {
  readonly admitted: Admitted;
  readonly commit: Commit;
  readonly resolve: (committed: Committed) => void;
  readonly reject: (error: BridgeError) => void;
}

export interface LevelStoreOptions {
  /** 32 bytes; asked for once the store is ours alone. Tags and links are made with it. */
  readonly integrityKey: () => Buffer;
  /** Opens a damaged store all the same, for reading only. */
  readonly readOnly?: boolean;
  /** A watcher threw, or the machine's clock jumped. */
  readonly onError?: (error: unknown) => void;
  /** Hears how many records were read, while they are read one by one after a crash. */
  readonly progress?: (records: number) => void;
}

/**
 * The store on LevelDB: a single committer takes everything that is queued, decides the checks, and writes one synced
 * batch (group commit), so durability costs one fdatasync per group instead of one per commit. Every record carries a tag,
 * every group a link of the commit chain, and a head file beside the database says how far it must reach.
 */
export class LevelStore implements Store {
  readonly limits: Limits = {
    ...STORE_LIMITS,
    valueBytesMax: STORE_LIMITS.valueBytesMax + VALUE_OVERHEAD_BYTES_MAX,
  };
  readonly directory: string;
  /** Why it can only be read: the damage found when it was opened. */
  readonly problems: readonly string[];
  readonly #key: Buffer;
  readonly #tags: RecordTags;
  readonly #sums: FileSums;
  readonly #head: HeadFile;
  readonly #clock: StoreClock;
  readonly #watchers: Watchers;
  readonly #known = new Map<string, Known>();
  #recorder: Recorder | undefined;
  #db: Db;
  #last: Link;
  #kept: KeptLinks;
  #queue: Waiting[] = [];
  #committing: Promise<void> | undefined;
  #closed = false;
  /** After a failed write LevelDB refuses all others until it is opened again. */
  #reopen = false;
  /** While that is done; readers wait for it. Never rejects. */
  #reopening: Promise<void> | undefined;
  /** Why it could not be done: the database is closed then, until a commit tries again. */
  #down: BridgeError | undefined;
  /** The group of the last write while it is not known to be durable, and how watchers hear of it. */
  #inDoubt: { readonly link: Link; readonly tell: () => void } | undefined;

  private constructor(
    directory: string,
    parts: { key: Buffer; db: Db; head: HeadFile; sums: FileSums; chain: Chain },
    problems: readonly string[],
    onError: (error: unknown) => void,
  ) {
    this.directory = directory;
    this.problems = problems;
    this.#key = parts.key;
    this.#tags = new RecordTags(parts.key);
    this.#sums = parts.sums;
    this.#head = parts.head;
    this.#db = parts.db;
    this.#last = parts.chain.last;
    this.#kept = parts.chain.kept;
    this.#watchers = new Watchers(onError);
    this.#clock = new StoreClock(parts.chain.last.at, (byMs) =>
      onError(new Error(`the machine's clock jumped by ${Math.round(byMs)} ms`)),
    );
  }

  /**
   * @throws BridgeError `busy` when another process has the store, `internal` when it is damaged, `invalid` for one of
   * another format or a clock that is wrong, `unavailable` when it cannot be read.
   */
  static async open(directory: string, options: LevelStoreOptions): Promise<LevelStore> {
    const { onError = () => {}, readOnly = false } = options;
    const headPath = `${directory}.head`;
    const isNew = !existsSync(join(directory, 'CURRENT'));
    // LevelDB would make a new, empty database of one that has lost this file.
    if (isNew && HeadFile.exists(headPath)) throw damaged(directory, ['CURRENT is missing']);
    const problems: string[] = [];
    let key: Buffer | undefined;
    const sums = FileSums.of(directory);
    if (!isNew) {
      key = options.integrityKey();
      if (!sums.hold(key)) {
        const request = { directory, key: key.toString('base64'), hasHead: true };
        const report = await checkInChild(request, options.progress);
        problems.push(...report.problems);
        for (const complaint of report.complaints) onError(new Error(`LevelDB: ${complaint}`));
        if (problems.length > 0 && !readOnly) throw damaged(directory, problems);
      }
    }
    const db = await openDb(directory, isNew);
    let head: HeadFile | undefined;
    try {
      key ??= options.integrityKey();
      head = HeadFile.open(headPath, key);
      const ofFormat = await formatProblems(db, directory);
      const chain = await readChain(db, key);
      for (const problem of [...ofFormat, ...chain.problems, ...headProblems(head, chain)])
        if (!problems.includes(problem)) problems.push(problem);
      if (problems.length > 0 && !readOnly) throw damaged(directory, problems);
      const behindMs = chain.last.at - Date.now();
      if (behindMs > CLOCK_BEHIND_MS_MAX && !readOnly)
        throw new BridgeError(
          'invalid',
          `this machine's clock is ${Math.round(behindMs / 60_000)} minutes behind the last commit in ${directory}: set the clock, then start again`,
        );
      // Of a verification that was killed: it would keep tables that are merged from giving their space back.
      rmSync(copyOf(directory), { recursive: true, force: true });
      // From now on the files change: a process that is killed leaves no sums.
      if (!readOnly) sums.remove();
      return new LevelStore(directory, { key, db, head, sums, chain }, problems, onError);
    } catch (error) {
      head?.[Symbol.dispose]();
      await db.close();
      throw error;
    }
  }

  get version(): number {
    return this.#last.version;
  }

  now(): number {
    return this.#clock.now();
  }

  async get(key: Key): Promise<Entry | undefined> {
    if (this.#reopening !== undefined) await this.#reopening;
    const bytes = encodeKey(key);
    let record: Buffer | undefined;
    try {
      record = await this.#open().get(bytes);
    } catch (error) {
      throw storeError(error);
    }
    return this.#entry(key, bytes, record);
  }

  async getMany(keys: readonly Key[]): Promise<(Entry | undefined)[]> {
    return await this.#getMany(keys);
  }

  async *range(prefix: Key, options: RangeOptions = {}): AsyncIterable<Entry> {
    yield* this.#range(prefix, options);
  }

  async snapshot(): Promise<Snapshot> {
    const { snapshot, link } = await this.#moment();
    const { version } = link;
    return {
      version,
      get: async (key) => (await this.#getMany([key], snapshot))[0],
      getMany: async (keys) => await this.#getMany(keys, snapshot),
      range: (prefix, options = {}) => this.#range(prefix, options, snapshot),
      [Symbol.asyncDispose]: async () => await snapshot.close(),
    };
  }

  async commit(commit: Commit): Promise<Committed> {
    if (this.#closed) throw storeClosed();
    if (this.problems.length > 0)
      throw new BridgeError(
        'read_only',
        `the store is damaged and can only be read: put a backup back with: cronium store restore FILE`,
      );
    // What cannot be stored must fail its own commit only, not the group it would share.
    const admitted = admit(commit, this.limits);
    return await new Promise<Committed>((resolve, reject) => {
      this.#queue.push({ admitted, commit, resolve, reject });
      this.#committing ??= this.#drain();
    });
  }

  watch(prefix: Key, listener: Parameters<Store['watch']>[1], since?: number): () => void {
    const past = since === undefined ? undefined : { version: since, reader: this };
    return this.#watchers.add(prefix, listener, past);
  }

  recordWith(recorder: Recorder): void {
    this.#recorder = recorder;
  }

  /** Reads and checks everything as of now, in another process and on a copy, while commits go on. */
  async verify(progress?: (records: number) => void, signal?: AbortSignal): Promise<StoreReport> {
    this.#open();
    const copy = copyOf(this.directory);
    try {
      copyDatabase(this.directory, copy);
      const request = { directory: copy, key: this.#key.toString('base64'), hasHead: false };
      const report = await checkInChild(request, progress, signal);
      const known = this.problems.filter((problem) => !report.problems.includes(problem));
      return { ...report, problems: [...known, ...report.problems] };
    } finally {
      rmSync(copy, { recursive: true, force: true });
    }
  }

  /** Gives the space of what was deleted or replaced back to the disk. */
  async compact(): Promise<void> {
    if (this.#reopening !== undefined) await this.#reopening;
    await this.#open().compactRange(Buffer.alloc(0), Buffer.from([0xff]));
  }

  /** Every record and the newest link as of now, as they are stored: what a backup holds. */
  async export(): Promise<Exported> {
    const { db, snapshot, link } = await this.#moment();
    async function* records(): AsyncGenerator<StoredPair> {
      const iterator = db.iterator({ gte: RECORDS_FROM, snapshot, fillCache: false, ...BULK });
      try {
        for (;;) {
          const batch = await iterator.nextv(1000);
          if (batch.length === 0) return;
          yield* batch;
        }
      } catch (error) {
        throw storeError(error);
      } finally {
        await iterator.close();
      }
    }
    return { link, records: records(), [Symbol.asyncDispose]: () => snapshot.close() };
  }

  /** Waits for queued commits, then closes. */
  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    await this.#committing;
    await this.#db.close();
    this.#head[Symbol.dispose]();
    if (this.problems.length === 0 && !this.#reopen) this.#sums.write(this.#key);
  }

  #open(): Db {
    if (this.#closed) throw storeClosed();
    if (this.#down !== undefined) throw this.#down;
    return this.#db;
  }

  async #moment(): Promise<{ db: Db; snapshot: AbstractSnapshot; link: Link }> {
    if (this.#reopening !== undefined) await this.#reopening;
    const db = this.#open();
    const snapshot = db.snapshot();
    try {
      return { db, snapshot, link: await lastLink(db, this.#key, snapshot) };
    } catch (error) {
      await snapshot.close();
      throw storeError(error);
    }
  }

  async #getMany(
    keys: readonly Key[],
    snapshot?: AbstractSnapshot,
  ): Promise<(Entry | undefined)[]> {
    if (this.#reopening !== undefined) await this.#reopening;
    const encoded = keys.map(encodeKey);
    let records: (Buffer | undefined)[];
    try {
      records = await this.#open().getMany(encoded, snapshot === undefined ? {} : { snapshot });
    } catch (error) {
      throw storeError(error);
    }
    return keys.map((key, i) => this.#entry(key, encoded[i] ?? Buffer.alloc(0), records[i]));
  }

  async *#range(
    prefix: Key,
    { reverse = false, limit = -1, ...bounds }: RangeOptions,
    snapshot?: AbstractSnapshot,
  ): AsyncGenerator<Entry> {
    if (this.#reopening !== undefined) await this.#reopening;
    const iterator = this.#open().iterator({
      ...rangeBounds(prefix, bounds),
      reverse,
      limit,
      ...BULK,
      ...(snapshot && { snapshot }),
    });
    try {
      for (;;) {
        const batch = await iterator.nextv(1000);
        if (batch.length === 0) return;
        for (const [key, record] of batch) {
          const entry = this.#entry(decodeKey(key), key, record);
          if (entry !== undefined) yield entry;
        }
      }
    } catch (error) {
      throw storeError(error);
    } finally {
      await iterator.close();
    }
  }

  #entry(key: Key, bytes: Buffer, record: Buffer | undefined): Entry | undefined {
    if (record === undefined) return undefined;
    if (!this.#tags.holds(bytes, record))
      throw new BridgeError(
        'internal',
        `a record of family ${key[0]} is damaged: put a backup back with: cronium store restore FILE`,
      );
    return { key, value: valueOf(record), version: versionOf(record) };
  }

  async #drain(): Promise<void> {
    while (this.#queue.length > 0) {
      const group = this.#takeGroup();
      try {
        await this.#writeGroup(group);
      } catch (error) {
        this.#reopen = true;
        const failure = storeError(error);
        for (const waiting of group) waiting.reject(failure);
      }
    }
    // In the same turn as the look at the queue: a commit that comes next must start a new drain.
    this.#committing = undefined;
  }

  #takeGroup(): Waiting[] {
    let bytes = 0;
    let count = 0;
    for (const { admitted } of this.#queue) {
      bytes += admitted.bytes;
      if (count > 0 && (bytes > GROUP_BYTES_MAX || count >= GROUP_COMMITS_MAX)) break;
      count++;
    }
    return this.#queue.splice(0, count);
  }

  async #writeGroup(all: readonly Waiting[]): Promise<void> {
    if (this.#reopen) await this.#openAgain();
    const group = refuseDamaged(all, await this.#learn(all));
    if (group.length === 0) return;
    const draft = new GroupDraft(this.#tags, this.#known, this.#last, (id) =>
      this.#kept.versionOf(id),
    );
    const done = group.map((waiting) => ({
      waiting,
      ...draft.commit(waiting.admitted, waiting.commit.id),
    }));
    await this.#record(draft, done);
    if (draft.isEmpty) {
      this.#forgetKnown();
      for (const { waiting, committed } of done) waiting.resolve(committed);
      return;
    }
    const link = this.#linkOf(draft);
    const tell = () => {
      for (const { waiting, committed, entries } of done) {
        if (committed.ok && entries.length > 0) this.#watchers.emit(committed.version, entries);
        waiting.resolve(committed); // changes nothing where it failed before it came to light
      }
      if (draft.recorded.length > 0) this.#watchers.emit(draft.version, draft.recorded);
    };
    this.#inDoubt = { link, tell };
    await this.#db.batch(draft.batch, { sync: true });
    this.#head.write(link);
    this.#inDoubt = undefined;
    this.#last = link;
    this.#kept.add(link);
    tell();
    this.#forgetKnown();
  }

  /** The recorder's share of a group whose commits are decided. */
  async #record(
    draft: GroupDraft,
    done: readonly { waiting: Waiting; committed: Committed }[],
  ): Promise<void> {
    const noted: Noted[] = [];
    for (const { waiting, committed } of done)
      if (waiting.commit.note !== undefined) noted.push({ note: waiting.commit.note, committed });
    if (noted.length === 0 || this.#recorder === undefined) return;
    const ops = encodedOps(this.#recorder.record(noted));
    const damagedNames = await this.#learn([{ admitted: { checks: [], ops } }]);
    if (damagedNames.size > 0) throw damagedRecord();
    draft.record(ops);
  }

  /** Adds the group's link, and the links and ids that nobody needs any more, to the batch. */
  #linkOf(draft: GroupDraft): Link {
    const at = this.now();
    const sequence = this.#last.sequence + 1;
    for (const old of this.#kept.forget(at)) draft.batch.push({ type: 'del', key: linkKey(old) });
    const bytes = draft.batch.reduce(
      (sum, op) => sum + op.key.length + ('value' in op ? op.value.length : 0),
      0,
    );
    const { version, sum, made } = draft;
    const parts = { sequence, version, at, sum, bytes, made, previous: this.#last.mac };
    const { bytes: value, mac } = encodeLink(this.#key, parts);
    draft.batch.push({ type: 'put', key: linkKey(sequence), value });
    return { ...parts, mac };
  }

  /** Reads what is stored under those keys that nobody has read lately. Returns the names of those that are damaged. */
  async #learn(
    group: readonly { readonly admitted: Pick<Admitted, 'checks' | 'ops'> }[],
  ): Promise<ReadonlySet<string>> {
    const damagedNames = new Set<string>();
    const unknown = new Map<string, Buffer>();
    for (const { admitted } of group) {
      for (const { name, bytes } of admitted.checks)
        if (!this.#known.has(name)) unknown.set(name, bytes);
      for (const { name, bytes } of admitted.ops)
        if (!this.#known.has(name)) unknown.set(name, bytes);
    }
    if (unknown.size === 0) return damagedNames;
    const records = await this.#db.getMany([...unknown.values()]);
    let i = 0;
    for (const [name, bytes] of unknown) {
      const record = records[i++];
      if (record === undefined) this.#known.set(name, ABSENT);
      else if (this.#tags.holds(bytes, record))
        this.#known.set(name, { version: versionOf(record), tag: keptTagOf(record) });
      else damagedNames.add(name);
    }
    return damagedNames;
  }

  #forgetKnown(): void {
    for (const name of this.#known.keys()) {
      if (this.#known.size <= KNOWN_MAX) return;
      this.#known.delete(name);
    }
  }

  async #openAgain(): Promise<void> {
    // Opened on a full disk it stays closed, and nobody could read any more.
    const { bavail, bsize } = statfsSync(this.directory);
    if (this.#down === undefined && bavail * bsize < REOPEN_BYTES)
      throw new BridgeError(
        'no_space',
        `the disk under the store is full: free ${REOPEN_BYTES} bytes or more; nothing stored is lost`,
      );
    this.#known.clear();
    const reopened = this.#closeAndOpen();
    this.#reopening = reopened.then(
      () => {},
      () => {},
    );
    try {
      await reopened;
      this.#down = undefined;
    } catch (error) {
      this.#down = storeError(error);
      throw error;
    } finally {
      this.#reopening = undefined;
    }
    const chain = await readChain(this.#db, this.#key);
    const problems = [...chain.problems, ...headProblems(this.#head, chain)];
    if (problems.length > 0) throw damaged(this.directory, problems);
    // A group that failed may be on disk all the same: its versions must not be given twice, and watchers must hear of it.
    const inDoubt = this.#inDoubt;
    this.#inDoubt = undefined;
    this.#last = chain.last;
    this.#kept = chain.kept;
    if (inDoubt?.link.mac.equals(chain.last.mac) === true) inDoubt.tell();
    await this.#recorder?.reset(this);
    this.#reopen = false;
  }

  async #closeAndOpen(): Promise<void> {
    await this.#db.close();
    this.#db = await openDb(this.directory, false);
  }
}

/** The commits of a group but those that touch a damaged record, which fail alone. */
function refuseDamaged(
  group: readonly Waiting[],
  damagedNames: ReadonlySet<string>,
): readonly Waiting[] {
  if (damagedNames.size === 0) return group;
  return group.filter(({ admitted, reject }) => {
    const isGood = [...admitted.checks, ...admitted.ops].every(
      ({ name }) => !damagedNames.has(name),
    );
    if (!isGood) reject(damagedRecord());
    return isGood;
  });
}

/** Where a copy of the database is while it is verified. */
const copyOf = (directory: string) => `${directory}.check`;

const storeClosed = () => new BridgeError('unavailable', 'the store is closed');

const damagedRecord = () =>
  new BridgeError(
    'internal',
    'a record that a commit would replace is damaged: put a backup back with: cronium store restore FILE',
  );

/** One moment of the store; dispose it soon. */
export interface Exported extends AsyncDisposable {
  /** The newest link. */
  readonly link: Link;
  readonly records: AsyncGenerator<StoredPair>;
}

/** Key and record as LevelDB holds them. */
export type StoredPair = readonly [key: Buffer, value: Buffer];

const BULK = { highWaterMarkBytes: 1024 * 1024 };
