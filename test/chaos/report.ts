import { type Fault, MOUNTD_FAULTS } from './faults.js';

export interface Inflicted {
  readonly fault: Fault;
  readonly from: number;
  /** When all was well again. */
  readonly to: number;
}

/** Milliseconds of the longest calls that went on during a fault; undefined when there was none. */
export interface Pause {
  readonly fault: Fault;
  readonly helpers: number | undefined;
  readonly scratch: number | undefined;
}

export interface ChaosReport {
  readonly runs: number;
  readonly rounds: number;
  /** Milliseconds of every helper call, ascending. */
  readonly calls: readonly number[];
  /** And of every one on files that was measured. */
  readonly scratchCalls: readonly number[];
  /** One for every fault. */
  readonly pauses: readonly Pause[];
  readonly restarts: number;
  /** Sentences; empty when all is as it should be. */
  readonly errors: readonly string[];
  readonly lost: readonly string[];
  readonly doubled: readonly string[];
  /** A directory with what the daemons logged; when something was wrong. */
  readonly logs: string | undefined;
}

export const ascending = (list: readonly number[]): number[] => [...list].sort((a, b) => a - b);

/** The value that `share` of them do not exceed; 0 of none. */
export const quantile = (ascending: readonly number[], share: number): number =>
  ascending[Math.min(ascending.length - 1, Math.floor(ascending.length * share))] ?? 0;

/** For people. */
export function describe(report: ChaosReport): string {
  const { runs, rounds, calls, scratchCalls, pauses, restarts, errors, lost, doubled } = report;
  const kinds = new Map<Fault, Pause[]>();
  for (const pause of pauses) kinds.set(pause.fault, [...(kinds.get(pause.fault) ?? []), pause]);
  const three = (list: readonly number[]) =>
    `p50 ${quantile(list, 0.5)} ms, p99 ${quantile(list, 0.99)} ms, max ${quantile(list, 1)} ms`;
  const longest = (of: readonly Pause[], what: (pause: Pause) => number | undefined) =>
    three(ascending(of.map(what).filter((ms) => ms !== undefined)));
  const all = (what: string, list: readonly string[]) => [
    `${what.padEnd(26)}${list.length}`,
    ...list.slice(0, 20).map((line) => `  ${line}`),
  ];
  return [
    `faults                    ${pauses.length}: ${[...kinds].map(([kind, of]) => `${of.length} ${kind}`).join(', ')}`,
    `restarts of the server    ${restarts} under the last supervisor`,
    `runs, rounds on files     ${runs}, ${rounds}`,
    `helper calls              ${calls.length}: ${three(calls)}`,
    `calls on files            ${scratchCalls.length}: ${three(scratchCalls)}`,
    `longest call in a fault   ${longest(pauses, ({ helpers, scratch }) => Math.max(helpers ?? 0, scratch ?? 0))}`,
    ...[...kinds]
      .filter(([kind]) => kind in MOUNTD_FAULTS)
      .flatMap(([kind, of]) => [
        `  ${kind.padEnd(26)}helpers: ${longest(of, ({ helpers }) => helpers)}`,
        `${' '.repeat(28)}files:   ${longest(of, ({ scratch }) => scratch)}`,
      ]),
    ...all('errors', errors),
    ...all('acknowledged, then lost', lost),
    ...all('done twice', doubled),
    ...(report.logs === undefined ? [] : [`logs                      ${report.logs}`]),
  ].join('\n');
}

export const isGood = ({
  errors,
  lost,
  doubled,
}: Pick<ChaosReport, 'errors' | 'lost' | 'doubled'>): boolean =>
  errors.length + lost.length + doubled.length === 0;
