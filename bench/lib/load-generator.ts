// The closed loop: so many callers, each of which calls again when it was answered. The same for every peer.

import { type KeyValueClient, VALUE_BYTES } from './key-value-client.js';
import { cpuMicroseconds } from './process-cost.js';

export const KEYS = 1000;

export const ACTIONS = ['get', 'set'] as const;
export type Action = (typeof ACTIONS)[number];

export interface Cell {
  readonly action: Action;
  readonly outstanding: number;
  /** Before anything is counted. */
  readonly warmMs: number;
  readonly ms: number;
  /** Of the server: its CPU time is taken for the same moments. */
  readonly serverPid: number;
}

export interface Quantiles {
  readonly p50Us: number;
  readonly p99Us: number;
}

export interface Measured extends Quantiles {
  readonly operations: number;
  readonly perSecond: number;
  readonly serverCpuUs: number;
  /** Of the load generator, to see which of the two was the bottleneck. */
  readonly clientCpuUs: number;
}

/** Writes every key once. */
export async function fill(client: KeyValueClient): Promise<void> {
  for (let i = 0; i < KEYS; i++) await client.set(keyOf(i), valueOf(i, 0));
}

/** @throws what the first call that failed threw */
export async function measure(client: KeyValueClient, cell: Cell): Promise<Measured> {
  const { action, outstanding, warmMs, ms, serverPid } = cell;
  const latencies: number[] = [];
  let phase: 'warm' | 'counting' | 'over' = 'warm';
  let failure: { readonly error: unknown } | undefined;
  let turn = Math.floor(Math.random() * 2 ** 31);
  const caller = async () => {
    while (phase !== 'over' && failure === undefined) {
      turn = (Math.imul(turn, 1_103_515_245) + 12_345) & 0x7fff_ffff; // any order that no cache can guess
      const at = (turn >>> 8) % KEYS;
      const started = performance.now();
      if (action === 'set') await client.set(keyOf(at), valueOf(at, turn));
      else {
        const text = await client.get(keyOf(at));
        if (text.length !== VALUE_BYTES) throw new Error(`a value of ${text.length} characters`);
      }
      if (phase === 'counting') latencies.push(performance.now() - started);
    }
  };
  const callers = Promise.all(
    Array.from({ length: outstanding }, async () => {
      await caller().catch((error: unknown) => {
        failure ??= { error };
      });
    }),
  );
  const before = await after(warmMs, () => {
    phase = 'counting';
    return counters(serverPid);
  });
  const then = await after(ms, () => {
    phase = 'over';
    return counters(serverPid);
  });
  const operations = latencies.length;
  await callers;
  if (failure !== undefined) throw failure.error;
  return {
    operations,
    perSecond: (operations * 1000) / (then.at - before.at),
    ...quantiles(latencies),
    serverCpuUs: (then.serverUs - before.serverUs) / operations,
    clientCpuUs: (then.clientUs - before.clientUs) / operations,
  };
}

/** Of milliseconds. */
export function quantiles(latencies: readonly number[]): Quantiles {
  const sorted = Float64Array.from(latencies).sort();
  const at = (q: number) => 1000 * (sorted[Math.floor(q * sorted.length)] ?? Number.NaN);
  return { p50Us: at(0.5), p99Us: at(0.99) };
}

const counters = (serverPid: number) => {
  const { user, system } = process.cpuUsage();
  return {
    at: performance.now(),
    serverUs: cpuMicroseconds(serverPid),
    clientUs: user + system,
  };
};

const after = async <T>(ms: number, take: () => T): Promise<T> =>
  await new Promise((resolve) => {
    setTimeout(() => resolve(take()), ms);
  });

export const keyOf = (i: number): string => `variable_${i}`;

/** JSON, every one different, so that no store can leave a write out. */
export function valueOf(i: number, turn: number): string {
  const head = `{"variable":${i},"turn":${turn},"text":"`;
  return `${head}${FILLER.slice(0, VALUE_BYTES - head.length - 2)}"}`;
}

const FILLER = 'The quick brown fox jumps over the lazy dog. '.repeat(VALUE_BYTES / 45 + 1);
