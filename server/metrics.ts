import { Counter, collectDefaultMetrics, Gauge, Histogram, Registry } from 'prom-client';

/** 0.1 ms to 10 s: a cached read takes less than the first, a call that waited for a lost disk more than the last. */
const CALL_SECONDS = [
  0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10,
];

/** Of the event loop's delay; the default of 10 ms wakes an idle server a hundred times a second. */
const LOOP_PRECISION_MS = 100;

/** What is asked for at every scrape. */
export interface Levels {
  readonly connections: number;
  readonly channels: number;
  readonly storeVersion: number;
}

/** The server's figures for Prometheus, in a registry of their own. Names and labels are a contract: docs/operations.md. */
export class Metrics {
  readonly #registry = new Registry();
  readonly #calls: Histogram<'op' | 'outcome'>;
  readonly #hits: Counter<'cache'>;
  readonly #misses: Counter<'cache'>;
  /** One an operation and outcome: looking labels up costs more than counting. */
  readonly #observers = new Map<string, Map<string, Histogram.Internal<'op' | 'outcome'>>>();

  constructor(levels: () => Levels) {
    const registers = [this.#registry];
    this.#calls = new Histogram({
      name: 'cronium_call_seconds',
      help: 'Time from a call’s arrival to its answer, by operation and outcome (ok or an error code)',
      labelNames: ['op', 'outcome'],
      buckets: CALL_SECONDS,
      registers,
    });
    this.#hits = new Counter({
      name: 'cronium_cache_hits_total',
      help: 'Reads answered from a cache',
      labelNames: ['cache'],
      registers,
    });
    this.#misses = new Counter({
      name: 'cronium_cache_misses_total',
      help: 'Reads that a cache could not answer',
      labelNames: ['cache'],
      registers,
    });
    const gauge = (name: string, help: string, level: keyof Levels) =>
      new Gauge({
        name,
        help,
        registers,
        collect() {
          this.set(levels()[level]);
        },
      });
    gauge('cronium_connections', 'Connections open now', 'connections');
    gauge('cronium_channels', 'Executions open now, on all connections', 'channels');
    gauge('cronium_store_version', 'Version of the last commit', 'storeVersion');
    collectDefaultMetrics({
      register: this.#registry,
      eventLoopMonitoringPrecision: LOOP_PRECISION_MS,
    });
  }

  /** A call came to its end. `op` must be one of a table and `outcome` `ok` or a code: each pair is kept for good. */
  readonly observe = (op: string, outcome: string, seconds: number): void => {
    let outcomes = this.#observers.get(op);
    if (outcomes === undefined) this.#observers.set(op, (outcomes = new Map()));
    let observer = outcomes.get(outcome);
    if (observer === undefined) outcomes.set(outcome, (observer = this.#calls.labels(op, outcome)));
    observer.observe(seconds);
  };

  /** A read that `cache`, one of a few, had or had not. */
  readonly looked = (cache: string, hit: boolean): void =>
    (hit ? this.#hits : this.#misses).inc({ cache });

  /** All of it as Prometheus reads it. */
  async scrape(): Promise<{ contentType: string; text: string }> {
    return { contentType: this.#registry.contentType, text: await this.#registry.metrics() };
  }
}
