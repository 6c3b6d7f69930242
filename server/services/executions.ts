import { randomUUID } from 'node:crypto';
import { BridgeError } from '#bridge/wire/errors.js';
import { ExecutionId } from '#bridge/wire/names.js';
import type { Params, Result, ServerOperations } from '#bridge/wire/protocol.js';
import type { Key, Store } from '#server/store/store.js';
import { packRecord, unpackRecord } from './record.js';
import { mergesKeyOf } from './variables.js';

type Create = Params<ServerOperations, 'execution.create'>;
type Finish = Params<ServerOperations, 'execution.finish'>;

/** What the server keeps of an execution: who and what it is, its output and condition, and how it ended. */
export class Executions {
  readonly #store: Store;
  readonly #now: () => number;

  constructor(store: Store, now: () => number = Date.now) {
    this.#store = store;
    this.#now = now;
  }

  async create(params: Create, host: string): Promise<ExecutionId> {
    const id = ExecutionId.parse(randomUUID());
    await this.#put(id, 'record', { ...params, host, createdAt: this.#now() });
    return id;
  }

  /** @throws BridgeError `denied` unless it exists and has not ended: what is over takes no more writes. */
  async assertRunning(id: ExecutionId): Promise<void> {
    const [record, end] = await Promise.all([this.#get(id, 'record'), this.#get(id, 'end')]);
    if (record === undefined) throw new BridgeError('denied', `there is no execution ${id}`);
    if (end !== undefined) throw new BridgeError('denied', `execution ${id} has ended`);
  }

  /** Last call wins: nothing is awaited before the commit is queued, so calls keep their order. */
  async setOutput(id: ExecutionId, text: string | null): Promise<void> {
    await this.#put(id, 'output', { text });
  }

  async setCondition(id: ExecutionId, condition: boolean | null): Promise<void> {
    await this.#put(id, 'condition', { condition });
  }

  /** @throws BridgeError `denied` when it has ended already: the first end counts */
  async finish(id: ExecutionId, end: Finish): Promise<void> {
    const key: Key = ['exec', id, 'end'];
    const committed = await this.#store.commit({
      checks: [{ key, version: 0 }],
      ops: [{ put: key, value: packRecord(end) }, { del: mergesKeyOf(id) }],
    });
    if (!committed.ok) throw new BridgeError('denied', `execution ${id} has ended`);
  }

  /** Calls `listener` when the execution ends. Returns the stop. */
  onEnd(id: ExecutionId, listener: () => void): () => void {
    return this.#store.watch(['exec', id, 'end'], listener);
  }

  /** @throws BridgeError `not_found` */
  async get(id: ExecutionId): Promise<Result<ServerOperations, 'execution.get'>> {
    const [record, output, condition, end] = await Promise.all([
      this.#get<Record<string, unknown>>(id, 'record'),
      this.#get<{ text: string | null }>(id, 'output'),
      this.#get<{ condition: boolean | null }>(id, 'condition'),
      this.#get<Record<string, unknown>>(id, 'end'),
    ]);
    if (record === undefined) throw new BridgeError('not_found', `there is no execution ${id}`);
    return {
      executionId: id,
      record: { ...record, ...end },
      output: output?.text ?? null,
      condition: condition?.condition ?? null,
    };
  }

  async #put(
    id: ExecutionId,
    part: string,
    record: Readonly<Record<string, unknown>>,
  ): Promise<void> {
    await this.#store.commit({ ops: [{ put: ['exec', id, part], value: packRecord(record) }] });
  }

  async #get<T>(id: ExecutionId, part: string): Promise<T | undefined> {
    const entry = await this.#store.get(['exec', id, part]);
    return entry && unpackRecord<T>(entry.value);
  }
}
