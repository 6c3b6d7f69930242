import { randomUUID } from 'node:crypto';
import { BridgeError } from '#bridge/wire/errors.js';
import { ExecutionId, type Namespace, namespaceText } from '#bridge/wire/names.js';
import { MINE_MAX } from '#bridge/wire/protocol/executions.js';
import type { Params, Result, ServerOperations } from '#bridge/wire/protocol.js';
import { type Key, type Op, type Store, SYSTEM } from '#server/store/store.js';
import { packRecord, unpackRecord } from './record.js';
import { mergesKeyOf } from './variable-records.js';

type Create = Params<ServerOperations, 'execution.create'>;
type Finish = Params<ServerOperations, 'execution.finish'>;
type List = Params<ServerOperations, 'execution.list'>;
type Cancel = Omit<Params<ServerOperations, 'execution.cancel'>, 'executionId'>;
type Listed = Result<ServerOperations, 'execution.list'>['executions'][number];

type ExecutionRecord = Create & {
  readonly host: string;
  /** Of the host's certificate; absent in records of versions before there was `execution.reopen`. */
  readonly thumbprint?: string;
  readonly createdAt: number;
};

/** A host: the execution it creates is its own, and nobody else's. A name in common is not enough. */
export interface Owner {
  readonly name: string;
  /** Of its certificate, and then of those that this one took over from. */
  readonly thumbprints: readonly [string, ...string[]];
}

/** An execution, and whose variables it uses: its records are under that namespace. */
export interface Place {
  readonly executionId: ExecutionId;
  readonly namespace: Namespace;
}

/** Whose executions they are: the name in the certificate, and which of the machines that have it. */
export interface Host {
  readonly name: string;
  readonly instance?: string | undefined;
}

/** For so long a count is good, with what this server adds and takes away; and of so many namespaces. */
const COUNTED_MS = 10_000;
const COUNTED_MAX = 10_000;

/** Entries of the list that are looked at for one page: a page may be short, but never slow. */
const LOOKED_AT_MAX = 5000;

/** What the server keeps of an execution: who and what it is, its output and condition, and how it ended. */
export class Executions {
  readonly #store: Store;
  /** Counted lately, by namespace. Other servers' are in it after COUNTED_MS. */
  readonly #running = new Map<string, { count: number; readonly at: number }>();

  constructor(store: Store) {
    this.#store = store;
  }

  /**
   * Made again by the same host with the same id, it is the same execution. @throws BridgeError `denied` for somebody else's,
   * `quota` when `mostRunning` of the namespace run already
   */
  async create(
    { executionId: wanted, ...params }: Create,
    owner: Owner,
    mostRunning = Number.POSITIVE_INFINITY,
    note?: unknown,
  ): Promise<ExecutionId> {
    const executionId = wanted ?? ExecutionId.parse(randomUUID());
    const place = { executionId, namespace: params.variablesOf };
    const createdAt = this.#store.now();
    const { name: host } = owner;
    const [thumbprint] = owner.thumbprints;
    const record: ExecutionRecord = { ...params, host, thumbprint, createdAt };
    const running = await this.#runningOr(params.variablesOf, mostRunning);
    if (running >= mostRunning) {
      if (wanted !== undefined && (await this.#isOf(place, owner))) return executionId;
      throw new BridgeError(
        'quota',
        `${running} executions of ${namespaceText(params.variablesOf)} run already, of ${mostRunning}; see: cronium quota set --help`,
      );
    }
    const key = keyOf(place, 'record');
    const committed = await this.#store.commit({
      // Ids are one for all namespaces: else whoever names another's would take its place.
      checks: [key, placeKeyOf(executionId)].map((one) => ({ key: one, version: 0 })),
      ops: [
        { put: key, value: packRecord(record) },
        { put: placeKeyOf(executionId), value: packRecord({ namespace: place.namespace }) },
        { put: timeKeyOf(createdAt, executionId), value: packRecord({ ...place }) },
        { put: openKeyOf(place), value: packRecord({ ...place, createdAt, host }) },
        { put: hostKeyOf(hostOf(record), executionId), value: packRecord({ ...place, createdAt }) },
      ],
      note,
    });
    if (committed.ok) this.#counted(params.variablesOf, 1);
    else if (!(await this.#isOf(place, owner)))
      throw new BridgeError('denied', `execution ${executionId} is not yours to create`);
    return executionId;
  }

  /** The same without counting each time; it is counted before anybody is refused. */
  async #runningOr(namespace: Namespace, most: number): Promise<number> {
    const id = namespaceText(namespace);
    const known = this.#running.get(id);
    if (known !== undefined && known.count < most && this.#store.now() - known.at < COUNTED_MS)
      return known.count;
    const count = await this.running(namespace);
    // Few namespaces have executions at the same time; beyond that all are counted anew.
    if (this.#running.size >= COUNTED_MAX) this.#running.clear();
    this.#running.set(id, { count, at: this.#store.now() });
    return count;
  }

  #counted(namespace: Namespace, by: 1 | -1): void {
    const known = this.#running.get(namespaceText(namespace));
    if (known !== undefined) known.count += by;
  }

  /**
   * What an execution was created with that has not ended. @throws BridgeError `denied`; whether there is one that is
   * somebody else's is not said
   */
  async owned(
    executionId: ExecutionId,
    owner: Owner,
  ): Promise<Place & Pick<Create, 'profile' | 'readOnly'>> {
    const entry = await this.#store.get(placeKeyOf(executionId));
    const place = entry && { executionId, ...unpackRecord<Pick<Place, 'namespace'>>(entry.value) };
    const record = place && (await this.#get<ExecutionRecord>(place, 'record'));
    if (place === undefined || record === undefined || !isOwnedBy(record, owner))
      throw new BridgeError('denied', `execution ${executionId} is not yours to open`);
    await this.assertRunning(place);
    const { profile, readOnly } = record;
    return { ...place, profile, readOnly };
  }

  /** Remembers that its host was given this token: whoever revokes that does not want it to get another. */
  async handedOut(place: Place, tokenId: string): Promise<void> {
    await this.#store.commit({
      ops: [{ put: [...keyOf(place, 'token'), tokenId], value: packRecord({}) }],
    });
  }

  /** Ids of the tokens that its host was given, but those that were renewed from one of them. */
  async tokensOf(place: Place): Promise<string[]> {
    const ids: string[] = [];
    for await (const { key } of this.#store.range(keyOf(place, 'token')))
      ids.push(String(key.at(-1)));
    return ids;
  }

  /** How many of a namespace have not ended. */
  async running(namespace: Namespace): Promise<number> {
    let count = 0;
    for await (const _ of this.#store.range(['exec-open', namespaceText(namespace)])) count++;
    return count;
  }

  /** @throws BridgeError `denied` unless it exists and has not ended: what is over takes no more writes. */
  async assertRunning({ executionId, namespace }: Place): Promise<void> {
    const place = { executionId, namespace };
    const [record, end] = await this.#store.getMany([keyOf(place, 'record'), keyOf(place, 'end')]);
    if (record === undefined)
      throw new BridgeError('denied', `there is no execution ${executionId}`);
    if (end !== undefined) throw new BridgeError('denied', `execution ${executionId} has ended`);
  }

  /** Last call wins: nothing is awaited before the commit is queued, so calls keep their order. */
  async setOutput(place: Place, text: string | null, note?: unknown): Promise<void> {
    await this.#put(place, 'output', { text }, note);
  }

  async setCondition(place: Place, condition: boolean | null, note?: unknown): Promise<void> {
    await this.#put(place, 'condition', { condition }, note);
  }

  /** The first end counts; told again, it changes nothing. @throws BridgeError `denied` when it has ended otherwise */
  async finish(place: Place, end: Finish, note?: unknown): Promise<void> {
    const { executionId } = place;
    const record = await this.#get<ExecutionRecord>(place, 'record');
    if (await this.#end(place, record && hostOf(record), end, note)) return;
    const ended = await this.#get<Finish>(place, 'end');
    if (ended?.finishedAt !== end.finishedAt || ended.status !== end.status)
      throw new BridgeError('denied', `execution ${executionId} has ended`);
  }

  /** A host's that have not ended. */
  async openOf(host: Host): Promise<ExecutionId[]> {
    const found: ExecutionId[] = [];
    const entries = this.#store.range(hostKeyOf(host), { limit: MINE_MAX });
    for await (const { value } of entries) found.push(unpackRecord<Place>(value).executionId);
    return found;
  }

  /** Ends those of a host that have not ended as lost, and leaves all others. `noteOf`: of each commit. */
  async lose(
    host: Host,
    executionIds: readonly ExecutionId[],
    reason: string,
    noteOf?: (place: Place) => unknown,
  ): Promise<void> {
    const keys = [...new Set(executionIds)].map((id) => hostKeyOf(host, id));
    const entries = await this.#store.getMany(keys);
    await Promise.all(
      entries.map(async (entry) => {
        if (entry === undefined) return;
        const open = unpackRecord<Place & { createdAt: number }>(entry.value);
        const place = { executionId: open.executionId, namespace: open.namespace };
        const end = lost(open.createdAt, this.#store.now(), reason);
        await this.#end(place, host, end, noteOf?.(place));
      }),
    );
  }

  /** Calls `listener` when the execution ends, also if it has: between a look and this. Returns the stop. */
  onEnd(place: Place, listener: () => void): () => void {
    return this.#store.watch(keyOf(place, 'end'), listener, 0);
  }

  /**
   * Asks its host, wherever that is connected, to stop it; with `force` it has ended as lost when this resolves.
   * @throws BridgeError `not_found`, `conflict` when it has ended
   */
  async cancel(
    executionId: ExecutionId,
    { reason, force = false }: Cancel,
    by: string,
    note?: unknown,
  ): Promise<void> {
    const place = await this.place(executionId);
    const at = this.#store.now();
    const cancel: Op = {
      put: keyOf(place, 'cancel'),
      value: packRecord({ reason, by, at, ...(force && { force }) }),
    };
    let isDone: boolean;
    if (force) {
      const record = await this.#get<ExecutionRecord>(place, 'record');
      const why = `given up by ${by}${reason === '' ? '' : `: ${reason}`}`;
      const end = lost(record?.createdAt ?? at, at, why);
      isDone = await this.#end(place, record && hostOf(record), end, note, cancel);
    } else {
      const checks = [{ key: keyOf(place, 'end'), version: 0 }];
      isDone = (await this.#store.commit({ checks, ops: [cancel], note })).ok;
    }
    if (!isDone) throw new BridgeError('conflict', `execution ${executionId} has ended`);
  }

  /** Calls `listener` when somebody wants it stopped, also if that was before. Returns the stop. */
  onCancel(place: Place, listener: (reason: string) => void): () => void {
    return this.#store.watch(
      keyOf(place, 'cancel'),
      ({ entries }) => {
        for (const { value } of entries) listener(unpackRecord<{ reason: string }>(value).reason);
      },
      0,
    );
  }

  /** Where an execution's records are. @throws BridgeError `not_found` */
  async place(executionId: ExecutionId): Promise<Place> {
    const entry = await this.#store.get(placeKeyOf(executionId));
    if (entry === undefined)
      throw new BridgeError(
        'not_found',
        `there is no execution ${executionId}; see: cronium exec list`,
      );
    const { namespace } = unpackRecord<{ namespace: Namespace }>(entry.value);
    return { executionId, namespace };
  }

  /** @throws BridgeError `not_found` */
  async get(executionId: ExecutionId): Promise<Result<ServerOperations, 'execution.get'>> {
    const place = await this.place(executionId);
    const parts = ['record', 'output', 'condition', 'end', 'cancel'];
    const [record, output, condition, end, cancel] = await this.#store.getMany(
      parts.map((part) => keyOf(place, part)),
    );
    if (record === undefined)
      throw new BridgeError('not_found', `execution ${executionId} was erased`);
    return {
      executionId,
      record: {
        ...unpackRecord<Record<string, unknown>>(record.value),
        ...(end && unpackRecord<Record<string, unknown>>(end.value)),
        ...(cancel && { cancel: unpackRecord<Record<string, unknown>>(cancel.value) }),
      },
      output: (output && unpackRecord<{ text: string | null }>(output.value).text) ?? null,
      condition:
        (condition && unpackRecord<{ condition: boolean | null }>(condition.value).condition) ??
        null,
    };
  }

  /** Newest first. */
  async list({ namespace, running = false, limit, before }: List): Promise<Listed[]> {
    const found: Listed[] = [];
    const wanted = namespace && namespaceText(namespace);
    let places: Place[] = [];
    const take = async () => {
      for (const listed of await this.#listed(places))
        if (found.length < limit && (!running || listed.status === 'running')) found.push(listed);
      places = [];
    };
    const entries = this.#store.range(['exec-time', SYSTEM], {
      reverse: true,
      limit: LOOKED_AT_MAX,
      ...(before !== undefined && { to: before }),
    });
    for await (const { value } of entries) {
      const place = unpackRecord<Place>(value);
      if (wanted !== undefined && namespaceText(place.namespace) !== wanted) continue;
      places.push(place);
      if (places.length >= limit) await take();
      if (found.length >= limit) break;
    }
    await take();
    return found;
  }

  async #listed(places: readonly Place[]): Promise<Listed[]> {
    const entries = await this.#store.getMany(
      places.flatMap((place) => [keyOf(place, 'record'), keyOf(place, 'end')]),
    );
    return places.flatMap((place, i) => {
      const [record, end] = [entries[2 * i], entries[2 * i + 1]];
      if (record === undefined) return []; // its namespace was erased
      const { event, runtime, host, createdAt } = unpackRecord<ExecutionRecord>(record.value);
      const ended = end && unpackRecord<Finish>(end.value);
      return {
        ...place,
        name: event.name,
        runtime,
        host,
        createdAt,
        status: ended?.status ?? ('running' as const),
        finishedAt: ended?.finishedAt ?? null,
      };
    });
  }

  /** Resolves with whether this was its end: it may have ended already. */
  async #end(
    place: Place,
    host: Host | undefined,
    end: Finish,
    note: unknown,
    ...more: readonly Op[]
  ): Promise<boolean> {
    const { executionId, namespace } = place;
    const key = keyOf(place, 'end');
    const { ok } = await this.#store.commit({
      checks: [{ key, version: 0 }],
      ops: [
        ...more,
        { put: key, value: packRecord(end) },
        { del: mergesKeyOf(namespace, executionId) },
        { del: openKeyOf(place) },
        ...(host === undefined ? [] : [{ del: hostKeyOf(host, executionId) }]),
      ],
      note,
    });
    if (ok) this.#counted(namespace, -1);
    return ok;
  }

  async #isOf(place: Place, owner: Owner): Promise<boolean> {
    const [record, end] = await this.#store.getMany([keyOf(place, 'record'), keyOf(place, 'end')]);
    if (record === undefined || end !== undefined) return false;
    return isOwnedBy(unpackRecord<ExecutionRecord>(record.value), owner);
  }

  async #put(
    place: Place,
    part: string,
    record: Readonly<Record<string, unknown>>,
    note: unknown,
  ): Promise<void> {
    const { ok } = await this.#store.commit({
      // One that was under way when the execution ended must not change what it ended with.
      checks: [{ key: keyOf(place, 'end'), version: 0 }],
      ops: [{ put: keyOf(place, part), value: packRecord(record) } satisfies Op],
      note,
    });
    if (!ok) throw new BridgeError('denied', `execution ${place.executionId} has ended`);
  }

  async #get<T>(place: Place, part: string): Promise<T | undefined> {
    const entry = await this.#store.get(keyOf(place, part));
    return entry && unpackRecord<T>(entry.value);
  }
}

const hostOf = ({ host, instance }: ExecutionRecord): Host => ({ name: host, instance });

const lost = (startedAt: number, finishedAt: number, reason: string): Finish => ({
  status: 'lost',
  exitCode: null,
  signal: null,
  warnings: [`Warning: lost: ${reason}`],
  startedAt,
  finishedAt,
});

const isOwnedBy = ({ host, thumbprint }: ExecutionRecord, { name, thumbprints }: Owner): boolean =>
  host === name && thumbprint !== undefined && thumbprints.includes(thumbprint);

const keyOf = ({ executionId, namespace }: Place, part: string): Key => [
  'exec',
  namespaceText(namespace),
  executionId,
  part,
];
const placeKeyOf = (executionId: ExecutionId): Key => ['exec-place', SYSTEM, executionId];
const timeKeyOf = (createdAt: number, executionId: ExecutionId): Key => [
  'exec-time',
  SYSTEM,
  createdAt,
  executionId,
];
/** Those that have not ended, by host. A host may have no instance: then that part is empty. */
const hostKeyOf = ({ name, instance = '' }: Host, ...id: readonly ExecutionId[]): Key => [
  'exec-host',
  SYSTEM,
  name,
  instance,
  ...id,
];
/** Those that have not ended. */
const openKeyOf = ({ executionId, namespace }: Place): Key => [
  'exec-open',
  namespaceText(namespace),
  executionId,
];
