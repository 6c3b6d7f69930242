import { setTimeout as sleep, setImmediate as turn } from 'node:timers/promises';
import type { ControlConnection } from '#bridge/client/connection.js';
import type { ControlOperations } from '#bridge/wire/control.js';
import { BridgeError } from '#bridge/wire/errors.js';
import type { ExecutionId } from '#bridge/wire/names.js';
import type { ExecutionUsage } from '#bridge/wire/watch.js';
import { Installation } from '#server/admin/installation.js';
import { State } from '#server/admin/state.js';
import { atMost, COMMON, type Command, command, type Io, Misuse } from './command.js';
import { executionArgument } from './execution-commands.js';
import { notHere } from './kept-output.js';
import { LOST_WAIT_MS } from './run-command.js';
import { ratesOf } from './usage-rates.js';
import { busiestFirst, type Sample, sampleJson, sampleText, tableLines } from './usage-table.js';
import { duration } from './values.js';

/** Below, a reading tells more of the clock than of the script. */
const INTERVAL_MS_MIN = 100;
const INTERVAL_MS_MAX = 3_600_000;

const executionStats = command({
  name: 'exec stats',
  summary: 'Show what a running execution of this machine uses',
  usage: 'cronium exec stats EXECUTION [--watch] [--interval TIME] [--json]',
  help: [
    '  --watch              again and again, until it has ended; Ctrl-C ends this, not the script',
    '  --interval TIME      what the rates are of, as 1s or 500ms (default 1s)',
    '  --json               one JSON object for each time; all sizes in bytes, processor time in microseconds',
    '',
    'Memory is what the kernel counts, with cached files. "files" are requests of the kernel for /cronium: what its own cache answers is',
    'none. They count from 0 again when mountd was replaced while the script ran.',
    '',
    'example: cronium exec stats 5f0c… --watch',
  ].join('\n'),
  options: {
    ...COMMON,
    watch: { type: 'boolean', default: false },
    interval: { type: 'string', default: '1s' },
  },
  async run({ positionals, values }, io) {
    const executionId = executionArgument(positionals);
    const intervalMs = intervalArgument(values.interval);
    const target = new Installation(State.of(values.state, io.env));
    target.state.settings(); // says so when nothing is installed
    using readings = new Readings(target, executionId, io.signal);
    let shown = 0;
    try {
      for (const since = Date.now(); ; await pause(intervalMs, io.signal)) {
        const [sample] = await readings.next();
        if (sample === undefined && !values.watch && Date.now() - since > LOST_WAIT_MS)
          throw new BridgeError('unavailable', `${executionId} is still being started; try again`);
        if (sample === undefined || sample.isFirst) continue;
        if (values.json) io.out(`${JSON.stringify(sampleJson(sample))}\n`);
        else io.out(`${shown > 0 ? '\n' : ''}${sampleText(sample)}`);
        shown++;
        if (!values.watch) return 0;
      }
    } catch (error) {
      if (io.signal.aborted) return 0;
      const why = await notHere(target, executionId, NOTHING_USED, error);
      if (shown === 0 || !/^(not_found|conflict)$/.test(why.code)) throw why;
      if (!values.json) io.err(why.message);
      return 0;
    }
  },
});

const NOTHING_USED = 'it uses nothing any more';

const top = command({
  name: 'top',
  summary: 'Show what the running executions of this machine use, the busiest first',
  usage: 'cronium top [-n COUNT] [--interval TIME] [--json]',
  help: [
    '  -n COUNT             end after this many times (default: at Ctrl-C)',
    '  --interval TIME      time between them, which the rates are of, as 1s or 500ms (default 1s)',
    '  --json               one JSON object for each time: {"at", "executions"}; sizes in bytes, processor time in microseconds',
    '',
    'On a terminal the table is refreshed in place, elsewhere each one follows the last. The columns are explained by',
    'cronium exec stats --help.',
    '',
    'example: cronium top -n 1',
  ].join('\n'),
  options: {
    ...COMMON,
    count: { type: 'string', short: 'n' },
    interval: { type: 'string', default: '1s' },
  },
  async run({ positionals, values }, io) {
    atMost(positionals, 0);
    const intervalMs = intervalArgument(values.interval);
    const count = values.count === undefined ? Infinity : Number(values.count);
    if (!(count >= 1 && (count === Infinity || Number.isInteger(count))))
      throw new Misuse(`-n ${values.count}: write a number from 1`);
    const target = new Installation(State.of(values.state, io.env));
    target.state.settings(); // says so when nothing is installed
    using readings = new Readings(target, undefined, io.signal);
    const screen = new Screen(io);
    try {
      await readings.next();
      for (let shown = 0; shown < count; shown++) {
        await pause(intervalMs, io.signal);
        const samples = await readings.next();
        if (values.json) {
          const executions = busiestFirst(samples).map(sampleJson);
          io.out(`${JSON.stringify({ at: new Date().toISOString(), executions })}\n`);
        } else screen.show(samples.length === 0 ? ['nothing runs'] : tableLines(samples));
      }
    } catch (error) {
      if (!io.signal.aborted) throw error;
    }
    return 0;
  },
});

export const USAGE_COMMANDS: readonly Command[] = [executionStats, top];

function intervalArgument(text: string): number {
  const ms = duration(text, '--interval', INTERVAL_MS_MAX);
  if (ms < INTERVAL_MS_MIN)
    throw new Misuse(`--interval ${text}: the shortest is ${INTERVAL_MS_MIN}ms`);
  return ms;
}

/** Resolves at once when `signal` is aborted. */
async function pause(ms: number, signal: AbortSignal): Promise<void> {
  await sleep(ms, undefined, { signal });
}

/** What mountd reads, each with the rates since the last time; by whichever process of it serves. */
class Readings implements Disposable {
  readonly #target: Installation;
  readonly #executionId: ExecutionId | undefined;
  readonly #signal: AbortSignal;
  #mountd: ControlConnection<ControlOperations> | undefined;
  #before = new Map<ExecutionId, ExecutionUsage>();

  constructor(target: Installation, executionId: ExecutionId | undefined, signal: AbortSignal) {
    this.#target = target;
    this.#executionId = executionId;
    this.#signal = signal;
  }

  /** @throws BridgeError `not_found` or `conflict` when the one that is asked for does not run, `interrupted` */
  async next(): Promise<Sample[]> {
    const executions = await this.#read();
    const samples = executions.map((usage) => ({
      usage,
      rates: ratesOf(this.#before.get(usage.executionId), usage),
      isFirst: !this.#before.has(usage.executionId),
    }));
    this.#before = new Map(executions.map((usage) => [usage.executionId, usage]));
    return samples;
  }

  async #read(): Promise<ExecutionUsage[]> {
    const executionId = this.#executionId;
    for (;;) {
      this.#mountd ??= await this.#target.control(LOST_WAIT_MS);
      const mountd = this.#mountd;
      let isCut = false;
      void mountd.closed.then(() => {
        isCut = true;
      });
      try {
        const params = executionId === undefined ? {} : { executionId };
        return (await mountd.call('stats', params, { signal: this.#signal })).executions;
      } catch (error) {
        await turn(); // the end of the connection is told after that of its calls
        if (!isCut || this.#signal.aborted) throw error;
        mountd[Symbol.dispose]();
        this.#mountd = undefined; // another process serves, or will
      }
    }
  }

  [Symbol.dispose](): void {
    this.#mountd?.[Symbol.dispose]();
  }
}

/** CSI sequences of ECMA-48, which every terminal since the VT100 knows. */
const up = (lines: number): string => `\x1b[${lines}A\r\x1b[J`;

/** Shows one text after another: in the same place on a terminal, one below the other elsewhere. */
class Screen {
  readonly #io: Io;
  #shown = 0;

  constructor(io: Io) {
    this.#io = io;
  }

  show(lines: readonly string[]): void {
    const size = this.#io.screen?.();
    if (size === undefined) {
      this.#io.out(`${this.#shown > 0 ? '\n' : ''}${lines.join('\n')}\n`);
      this.#shown = lines.length;
      return;
    }
    // A line that is broken in two, or scrolls away, could not be written over.
    const fitting = lines
      .slice(0, Math.max(1, size.rows - 1))
      .map((line) => line.slice(0, size.columns));
    this.#io.out(`${this.#shown > 0 ? up(this.#shown) : ''}${fitting.join('\n')}\n`);
    this.#shown = fitting.length;
  }
}
