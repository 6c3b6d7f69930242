import { randomUUID } from 'node:crypto';
import { BridgeError } from '#bridge/wire/errors.js';
import { ExecutionId, type Namespace, namespaceText } from '#bridge/wire/names.js';
import type { Params, Result, ServerOperations } from '#bridge/wire/protocol.js';
import { type Key, type Op, type Store, SYSTEM } from '#server/store/store.js';
import { packRecord, unpackRecord } from './record.js';
import { mergesKeyOf } from './variable-records.js';

type Create = Params<ServerOperations, 'execution.create'>;
type Finish = Params<ServerOperations, 'execution.finish'>;
type List = Params<ServerOperations, 'execution.list'>;
type Listed = Result<ServerOperations, 'execution.list'>['executions'][number];

type ExecutionRecord = Create & { readonly host: string; readonly createdAt: number };

/** An execution, and whose variables it uses: its records are under that namespace. */
export interface Place {
  readonly executionId: ExecutionId;
  readonly namespace: Namespace;
}

/** Entries of the list that are looked at for one page: a page may be short, but never slow. */
const LOOKED_AT_MAX = 5000;

/** What the server keeps of an execution: who and what it is, its output and condition, and how it ended. */
export class Executions {
  readonly #store: Store;

  constructor(store: Store) {
    this.#store = store;
  }

  /**
   * Made again by the same host with the same id, it is the same execution. @throws BridgeError `denied` for somebody else's,
   * `quota` when `mostRunning` of the namespace run already
   */
  async create(
    { executionId: wanted, ...params }: Create,
    host: string,
    mostRunning = Number.POSITIVE_INFINITY,
    note?: unknown,
  ): Promise<ExecutionId> {
    const executionId = wanted ?? ExecutionId.parse(randomUUID());
    const place = { executionId, namespace: params.variablesOf };
    const createdAt = this.#store.now();
    const record: ExecutionRecord = { ...params, host, createdAt };
    const running = await this.running(params.variablesOf);
    if (running >= mostRunning) {
      if (wanted !== undefined && (await this.#isOf(place, host))) return executionId;
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
      ],
      note,
    });
    if (!committed.ok && !(await this.#isOf(place, host)))
      throw new BridgeError('denied', `execution ${executionId} is not yours to create`);
    return executionId;
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
    const { executionId, namespace } = place;
    const key = keyOf(place, 'end');
    const committed = await this.#store.commit({
      checks: [{ key, version: 0 }],
      ops: [
        { put: key, value: packRecord(end) },
        { del: mergesKeyOf(namespace, executionId) },
        { del: openKeyOf(place) },
      ],
      note,
    });
    if (committed.ok) return;
    const ended = await this.#get<Finish>(place, 'end');
    if (ended?.finishedAt !== end.finishedAt || ended.status !== end.status)
      throw new BridgeError('denied', `execution ${executionId} has ended`);
  }

  /** Calls `listener` when the execution ends, also if it has: between a look and this. Returns the stop. */
  onEnd(place: Place, listener: () => void): () => void {
    return this.#store.watch(keyOf(place, 'end'), listener, 0);
  }

  /** Asks its host, wherever that is connected, to stop it. @throws BridgeError `not_found`, `conflict` when it has ended */
  async cancel(
    executionId: ExecutionId,
    reason: string,
    by: string,
    note?: unknown,
  ): Promise<void> {
    const place = await this.place(executionId);
    const committed = await this.#store.commit({
      checks: [{ key: keyOf(place, 'end'), version: 0 }],
      ops: [
        {
          put: keyOf(place, 'cancel'),
          value: packRecord({ reason, by, at: this.#store.now() }),
        },
      ],
      note,
    });
    if (!committed.ok) throw new BridgeError('conflict', `execution ${executionId} has ended`);
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

  async #isOf(place: Place, host: string): Promise<boolean> {
    const [record, end] = await this.#store.getMany([keyOf(place, 'record'), keyOf(place, 'end')]);
    if (record === undefined || end !== undefined) return false;
    return unpackRecord<ExecutionRecord>(record.value).host === host;
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
/** Those that have not ended. */
const openKeyOf = ({ executionId, namespace }: Place): Key => [
  'exec-open',
  namespaceText(namespace),
  executionId,
];
