import { BridgeError } from '#bridge/wire/errors.js';

/**
 * Calls that run at once. Fewer than one group of the store holds: whatever runs is in the group being synced or in the next.
 * More would wait inside the store, in order of arrival, where one tenant's thousands stand before another's first.
 */
const RUNNING_MAX = 512;

/** Of them, one tenant's: a quarter stays free for the others, who then need not even wait for a turn. */
const TENANT_RUNNING_MAX = 384;

/** Calls of one tenant that wait. Above what a namespace may have in flight: reached only where that limit was raised. */
const TENANT_QUEUED_MAX = 5_000;

/** What the waiting calls of one tenant, and of all, may take in memory. A namespace's whole document fits twice. */
const TENANT_QUEUED_BYTES_MAX = 64 * 1024 * 1024;
const QUEUED_BYTES_MAX = 256 * 1024 * 1024;

/** Calls of all that wait: ten tenants at their limit. */
const QUEUED_MAX = 50_000;

/** A full queue of one tenant is through after about as long. */
const RETRY_MS = 250;

export interface FairQueueOptions {
  readonly runningMax?: number;
  readonly tenantRunningMax?: number;
  readonly tenantQueuedMax?: number;
  readonly tenantQueuedBytesMax?: number;
  readonly queuedMax?: number;
  readonly queuedBytesMax?: number;
  /** Calls in a row that a tenant gets when it is its turn; 1 for everybody unless said. A whole number from 1. */
  readonly weightOf?: (tenant: string) => number;
}

/** A call that waits for its turn. */
interface Waiter {
  readonly bytes: number;
  readonly start: () => void;
  readonly fail: (error: BridgeError) => void;
  previous: Waiter | undefined;
  next: Waiter | undefined;
}

/** Exists while it has calls that run or wait. */
interface Tenant {
  readonly name: string;
  readonly weight: number;
  readonly waiting: Chain<Waiter>;
  queuedBytes: number;
  running: number;
  /** Calls started in the present turn. */
  started: number;
  previous: Tenant | undefined;
  next: Tenant | undefined;
}

/**
 * Turns for the calls of many tenants: round robin by tenant, so that one with thousands of calls and one with a single call
 * alternate. While there is room, a call starts at once and costs a look into a map.
 *
 *     const turn = queue.enter(tenant, bytes, () => signal);
 *     if (turn !== undefined) await turn;
 *     try { … } finally { queue.leave(tenant); }
 */
export class FairQueue {
  readonly #options: Required<FairQueueOptions>;
  readonly #tenants = new Map<string, Tenant>();
  /** Tenants that have a call waiting and may start one more, in the order of their turns. */
  readonly #turns = new Chain<Tenant>();
  #running = 0;
  #queued = 0;
  #queuedBytes = 0;
  #closed: BridgeError | undefined;

  constructor(options: FairQueueOptions = {}) {
    this.#options = {
      runningMax: RUNNING_MAX,
      tenantRunningMax: TENANT_RUNNING_MAX,
      tenantQueuedMax: TENANT_QUEUED_MAX,
      tenantQueuedBytesMax: TENANT_QUEUED_BYTES_MAX,
      queuedMax: QUEUED_MAX,
      queuedBytesMax: QUEUED_BYTES_MAX,
      weightOf: () => 1,
      ...options,
    };
  }

  get running(): number {
    return this.#running;
  }

  get queued(): number {
    return this.#queued;
  }

  /**
   * Undefined: the call may start now. Else it may once the promise resolves; it rejects when the signal aborts first (with the
   * signal's reason if that is a BridgeError, else `timeout`) or the queue is closed. For every call that may start, `leave`
   * is called once. @throws BridgeError `rate_limited` with a hint, when too much is waiting already
   */
  enter(name: string, bytes = 0, signal?: () => AbortSignal): Promise<void> | undefined {
    if (this.#closed !== undefined) throw this.#closed;
    const tenant = this.#tenants.get(name) ?? this.#add(name);
    if (
      this.#running < this.#options.runningMax &&
      tenant.running < this.#options.tenantRunningMax
    ) {
      this.#running++;
      tenant.running++;
      return undefined;
    }
    this.#assertRoom(tenant, bytes);
    // Asked for only now: making one costs as much as a small call.
    return this.#wait(tenant, bytes, signal?.());
  }

  /** A call that was started has ended. */
  leave(name: string): void {
    const tenant = this.#tenants.get(name);
    if (tenant === undefined || tenant.running === 0)
      throw new BridgeError('internal', `no call of ${name} is running`);
    this.#running--;
    tenant.running--;
    // It may have been at its own limit; then it stands behind those that waited for a turn.
    if (!tenant.waiting.isEmpty && !this.#turns.has(tenant)) this.#turns.push(tenant);
    this.#startWhatMay();
    this.#forgetIfIdle(tenant);
  }

  /** Fails every call that waits, and those to come, with `error`. What runs ends as it does. */
  close(error: BridgeError): void {
    this.#closed = error;
    for (const tenant of this.#tenants.values()) {
      for (let waiter = tenant.waiting.first; waiter !== undefined; waiter = tenant.waiting.first) {
        this.#remove(tenant, waiter);
        waiter.fail(error);
      }
      this.#forgetIfIdle(tenant);
    }
  }

  #add(name: string): Tenant {
    const tenant: Tenant = {
      name,
      weight: this.#options.weightOf(name),
      waiting: new Chain(),
      queuedBytes: 0,
      running: 0,
      started: 0,
      previous: undefined,
      next: undefined,
    };
    this.#tenants.set(name, tenant);
    return tenant;
  }

  #assertRoom(tenant: Tenant, bytes: number): void {
    const { tenantQueuedMax, tenantQueuedBytesMax, queuedMax, queuedBytesMax } = this.#options;
    const own = tenant.waiting.size;
    // What is larger than the limit still passes when nothing else is waiting.
    const isOver =
      own >= tenantQueuedMax || (own > 0 && tenant.queuedBytes + bytes > tenantQueuedBytesMax);
    const isFull =
      this.#queued >= queuedMax || (this.#queued > 0 && this.#queuedBytes + bytes > queuedBytesMax);
    if (!isOver && !isFull) return;
    this.#forgetIfIdle(tenant);
    const what = isOver
      ? `${own} calls of ${tenant.name} (${tenant.queuedBytes} bytes) are waiting for their turn`
      : `${this.#queued} calls (${this.#queuedBytes} bytes) are waiting for their turn`;
    throw new BridgeError('rate_limited', `${what}; try again in ${RETRY_MS} ms`, {
      retryAfterMs: RETRY_MS,
    });
  }

  #wait(tenant: Tenant, bytes: number, signal: AbortSignal | undefined): Promise<void> {
    return new Promise<void>((resolve, reject) => {
      const aborted = () => {
        this.#remove(tenant, waiter);
        this.#forgetIfIdle(tenant);
        const reason: unknown = signal?.reason;
        reject(
          reason instanceof BridgeError
            ? reason
            : new BridgeError('timeout', 'the deadline passed before it was the turn of this call'),
        );
      };
      // At once, not where the promise is awaited: an abort that comes in between is too late to leave the queue.
      const stopListening = () => signal?.removeEventListener('abort', aborted);
      const waiter: Waiter = {
        bytes,
        start: () => {
          stopListening();
          resolve();
        },
        fail: (error) => {
          stopListening();
          reject(error);
        },
        previous: undefined,
        next: undefined,
      };
      tenant.waiting.push(waiter);
      tenant.queuedBytes += bytes;
      this.#queued++;
      this.#queuedBytes += bytes;
      if (tenant.running < this.#options.tenantRunningMax && !this.#turns.has(tenant))
        this.#turns.push(tenant);
      if (signal?.aborted === true) aborted();
      else signal?.addEventListener('abort', aborted, { once: true });
    });
  }

  #startWhatMay(): void {
    const { runningMax, tenantRunningMax } = this.#options;
    while (this.#running < runningMax) {
      const tenant = this.#turns.first;
      const waiter = tenant?.waiting.first;
      if (tenant === undefined || waiter === undefined) return;
      this.#running++;
      tenant.running++;
      tenant.started++;
      this.#remove(tenant, waiter);
      if (tenant.running >= tenantRunningMax) this.#endTurn(tenant);
      else if (tenant.started >= tenant.weight && this.#turns.has(tenant)) {
        this.#endTurn(tenant);
        this.#turns.push(tenant);
      }
      waiter.start();
    }
  }

  #endTurn(tenant: Tenant): void {
    if (this.#turns.has(tenant)) this.#turns.remove(tenant);
    tenant.started = 0;
  }

  /** From the queue: it starts, or has given up. */
  #remove(tenant: Tenant, waiter: Waiter): void {
    tenant.waiting.remove(waiter);
    tenant.queuedBytes -= waiter.bytes;
    this.#queued--;
    this.#queuedBytes -= waiter.bytes;
    if (tenant.waiting.isEmpty) this.#endTurn(tenant);
  }

  #forgetIfIdle(tenant: Tenant): void {
    if (tenant.running === 0 && tenant.waiting.isEmpty) this.#tenants.delete(tenant.name);
  }
}

interface Linked<T> {
  previous: T | undefined;
  next: T | undefined;
}

/** A doubly linked list through its members: whoever gives up leaves from the middle at no cost. In one list at most. */
class Chain<T extends Linked<T>> {
  #first: T | undefined;
  #last: T | undefined;
  #size = 0;

  get first(): T | undefined {
    return this.#first;
  }

  get size(): number {
    return this.#size;
  }

  get isEmpty(): boolean {
    return this.#size === 0;
  }

  has(member: T): boolean {
    return member.previous !== undefined || this.#first === member;
  }

  push(member: T): void {
    member.previous = this.#last;
    if (this.#last === undefined) this.#first = member;
    else this.#last.next = member;
    this.#last = member;
    this.#size++;
  }

  /** Of this list. */
  remove(member: T): void {
    const { previous, next } = member;
    if (previous === undefined) this.#first = next;
    else previous.next = next;
    if (next === undefined) this.#last = previous;
    else next.previous = previous;
    member.previous = undefined;
    member.next = undefined;
    this.#size--;
  }
}
