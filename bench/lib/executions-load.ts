// Many executions on our server: so many calls a second of all together, or one of them that never stops calling.

import { BridgeError } from '#bridge/wire/errors.js';
import {
  ACTIONS,
  type Action,
  keyOf,
  type Quantiles,
  quantiles,
  valueOf,
} from './load-generator.js';
import { OurConnection, type OurExecution, type OurTarget } from './our-client.js';
import { memoryOf } from './process-cost.js';

/** Executions of one user share its variables, and hear of each other's changes. */
export const EXECUTIONS_PER_USER = 5;

export interface ExecutionsConfig {
  readonly target: OurTarget;
  readonly connections: number;
  readonly executions: number;
  /** Prefix of the user names: two generators are two sets of tenants. */
  readonly users: string;
}

export type LoadQuestion =
  | {
      readonly kind: 'paced';
      /** Calls a second, of all executions together; half of them gets. */
      readonly rate: number;
      readonly warmMs: number;
      readonly ms: number;
      readonly serverPid: number;
    }
  | {
      readonly kind: 'closed';
      readonly outstanding: number;
      readonly warmMs: number;
      readonly ms: number;
    };

export interface LoadMeasured {
  readonly perSecond: number;
  /** Calls the server refused because there were too many; the caller calls again at once, without looking at the hint. */
  readonly refusedPerSecond: number;
  readonly get: Quantiles;
  readonly set: Quantiles;
  /** Most calls that waited for an answer at one time. */
  readonly outstandingMax: number;
  /** Of the server, bytes: most that was seen while counting. 0 when nobody asked. */
  readonly residentMax: number;
}

/** Executions start in crowds, but no server needs to take a thousand at once. */
const STARTS_AT_ONCE = 32;
/** A pacemaker's step; calls that are due by then go together. */
const STEP_MS = 1;
const SAMPLE_MS = 100;
/** A server that is this far behind does not keep the rate: the figures would show the queue only. */
const BEHIND_MAX = 20_000;
/** The last answers of a run. */
const DRAIN_MS = 20_000;

export interface OpenExecutions {
  readonly executions: readonly OurExecution[];
  close(): void;
}

/** Opens the connections and executions, and writes one variable of each. */
export async function openExecutions(config: ExecutionsConfig): Promise<OpenExecutions> {
  const connections: OurConnection[] = [];
  for (let i = 0; i < config.connections; i++)
    connections.push(await OurConnection.open(config.target));
  const each = Math.ceil(config.executions / config.connections);
  const executions: OurExecution[] = [];
  let next = 0;
  const start = async () => {
    while (next < config.executions) {
      const i = next++;
      const connection = connections[Math.floor(i / each)];
      if (connection === undefined) throw new Error('no connection');
      const user = `${config.users}-${Math.floor(i / EXECUTIONS_PER_USER)}`;
      const execution = await connection.execution(user);
      await execution.set(keyOf(i % EXECUTIONS_PER_USER), valueOf(i, 0));
      executions[i] = execution;
    }
  };
  await Promise.all(Array.from({ length: STARTS_AT_ONCE }, start));
  return {
    executions,
    close: () => {
      for (const connection of connections) connection[Symbol.dispose]();
    },
  };
}

/** @throws what the first call that failed threw */
export async function measureLoad(
  executions: readonly OurExecution[],
  question: LoadQuestion,
): Promise<LoadMeasured> {
  const run = new LoadRun(executions, question.warmMs, question.ms);
  const done =
    question.kind === 'paced'
      ? run.paced(question.rate, question.serverPid)
      : run.closed(question.outstanding);
  await done;
  return run.measured();
}

class LoadRun {
  readonly #executions: readonly OurExecution[];
  readonly #latencies: Record<Action, number[]> = { get: [], set: [] };
  readonly #from: number;
  readonly #until: number;
  #outstanding = 0;
  #outstandingMax = 0;
  #residentMax = 0;
  #refused = 0;
  #turn = 0;
  #failure: { readonly error: unknown } | undefined;

  constructor(executions: readonly OurExecution[], warmMs: number, ms: number) {
    this.#executions = executions;
    this.#from = performance.now() + warmMs;
    this.#until = this.#from + ms;
  }

  /** An open loop: a call is due at its time, whatever became of those before, and its latency counts from then. */
  async paced(rate: number, serverPid: number): Promise<void> {
    const started = performance.now();
    let sampled = started;
    for (let i = 0; ; ) {
      const now = performance.now();
      if (now >= this.#until || this.#failure !== undefined) break;
      for (; started + (i * 1000) / rate <= now; i++) {
        const due = started + (i * 1000) / rate;
        void this.#call(due).catch((error: unknown) => {
          this.#failure ??= { error };
        });
      }
      if (this.#outstanding > BEHIND_MAX)
        throw new Error(
          `${BEHIND_MAX} calls wait: the server does not keep up with ${rate} a second`,
        );
      if (now - sampled >= SAMPLE_MS && now >= this.#from) {
        sampled = now;
        this.#residentMax = Math.max(this.#residentMax, memoryOf(serverPid).resident);
      }
      await wait(STEP_MS);
    }
    for (const deadline = performance.now() + DRAIN_MS; this.#outstanding > 0; ) {
      if (performance.now() > deadline) throw new Error('calls were not answered');
      await wait(STEP_MS);
    }
  }

  async closed(outstanding: number): Promise<void> {
    const caller = async () => {
      while (performance.now() < this.#until && this.#failure === undefined)
        await this.#call(performance.now());
    };
    await Promise.all(Array.from({ length: outstanding }, caller));
  }

  /** @throws Error what the first call that failed threw */
  measured(): LoadMeasured {
    if (this.#failure !== undefined) throw this.#failure.error;
    const { get, set } = this.#latencies;
    const seconds = (this.#until - this.#from) / 1000;
    return {
      perSecond: (get.length + set.length) / seconds,
      refusedPerSecond: this.#refused / seconds,
      get: quantiles(get),
      set: quantiles(set),
      outstandingMax: this.#outstandingMax,
      residentMax: this.#residentMax,
    };
  }

  /** Gets and sets in turn, and the executions in turn; sets of an execution's own variable, gets of any of its user's. */
  async #call(due: number): Promise<void> {
    const turn = this.#turn++;
    const action = ACTIONS[turn % ACTIONS.length] ?? 'get';
    const at = Math.floor(turn / ACTIONS.length) % this.#executions.length;
    const execution = this.#executions[at];
    if (execution === undefined) throw new Error('no execution');
    const own = at % EXECUTIONS_PER_USER;
    const users = Math.min(EXECUTIONS_PER_USER, this.#executions.length - (at - own));
    this.#outstandingMax = Math.max(this.#outstandingMax, ++this.#outstanding);
    try {
      if (action === 'set') await execution.set(keyOf(own), valueOf(at, turn));
      else await execution.get(keyOf((turn >>> 4) % users));
    } catch (error) {
      if (!(error instanceof BridgeError) || error.code !== 'rate_limited') throw error;
      if (due >= this.#from && due < this.#until) this.#refused++;
      return;
    } finally {
      this.#outstanding--;
    }
    const now = performance.now();
    if (due >= this.#from && due < this.#until) this.#latencies[action].push(now - due);
  }
}

const wait = async (ms: number): Promise<void> =>
  await new Promise((resolve) => {
    setTimeout(resolve, ms);
  });
