/**
 * `npm run soak -- --minutes N`: the scripts of the chaos run, undisturbed, while memory, descriptors, journals and backing files of
 * every process are looked at. Prints a line a minute, and how the last third compares with the first after a warm-up.
 */
import { readdirSync, readFileSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { Random, seedOf } from '#test/support/chance.js';
import type { TestInstallation } from '#test/support/installation.js';
import { chaos } from './chaos.js';
import { describe, isGood } from './report.js';

const SAMPLE_MS = 5_000;
/** Programs are compiled and caches filled meanwhile. */
const WARM_UP_SHARE = 0.2;
const MIB = 1024 * 1024;

/** What is measured, at one moment. */
type Sample = Readonly<Record<string, number>>;

const say = (text: string) => process.stdout.write(`${text}\n`);

function sampleOf(cronium: TestInstallation): Sample {
  const { supervisor, serving } = cronium.mountdPids;
  const processes = {
    server: cronium.serverPid,
    'server supervisor': cronium.installation.server.pid ?? 0,
    mountd: serving,
    'mountd supervisor': supervisor,
  };
  const sample: Record<string, number> = {};
  for (const [name, pid] of Object.entries(processes)) {
    sample[`${name}, MiB`] = residentBytes(pid) / MIB;
    sample[`${name}, descriptors`] = readdirSync(`/proc/${pid}/fd`).length;
  }
  const scratch = join(cronium.state, 'mountd/scratch');
  const files = readdirSync(scratch, { recursive: true, encoding: 'utf8' });
  const sizeOf = (name: string) =>
    statSync(join(scratch, name), { throwIfNoEntry: false })?.size ?? 0;
  const journals = files.filter((name) => name.includes('journal.'));
  sample['journals, KiB'] = journals.reduce((sum, name) => sum + sizeOf(name), 0) / 1024;
  sample['backing files'] = files.length - journals.length;
  return sample;
}

function residentBytes(pid: number): number {
  const [, kib] = /^VmRSS:\s+(\d+) kB$/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8')) ?? [];
  return Number(kib) * 1024;
}

const median = (values: readonly number[]): number =>
  [...values].sort((a, b) => a - b)[values.length >> 1] ?? Number.NaN;

function describeSamples(samples: readonly Sample[]): string {
  const warm = samples.slice(Math.floor(samples.length * WARM_UP_SHARE));
  const third = Math.floor(warm.length / 3);
  const lines = Object.keys(samples[0] ?? {}).map((name) => {
    const of = (part: readonly Sample[]) => part.map((sample) => sample[name] ?? Number.NaN);
    const [first, last] = [median(of(warm.slice(0, third))), median(of(warm.slice(-third)))];
    const most = Math.max(...of(warm));
    const cell = (value: number) => value.toFixed(1).padStart(10);
    return `${name.padEnd(32)}${cell(first)}${cell(last)}${cell(most)}   ${(last / first).toFixed(2)}x`;
  });
  return [`${''.padEnd(32)}first third last third      most`, ...lines].join('\n');
}

const { values } = parseArgs({ options: { minutes: { type: 'string', default: '30' } } });
const minutes = Number(values.minutes);
if (!(minutes > 0)) {
  process.stderr.write('usage: npm run soak -- [--minutes N]\n');
  process.exit(2);
}
const samples: Sample[] = [];
let timer: NodeJS.Timeout | undefined;
const interrupted = new AbortController();
for (const signal of ['SIGINT', 'SIGTERM']) process.on(signal, () => interrupted.abort());
say(`${minutes} minutes of soak`);
const report = await chaos(new Random(seedOf(process.env)), {
  seconds: minutes * 60,
  weights: {},
  signal: interrupted.signal,
  watch: (cronium) => {
    timer = setInterval(() => {
      try {
        samples.push(sampleOf(cronium));
      } catch {
        return; // a file that went meanwhile
      }
      const last = samples.at(-1);
      if (samples.length % (60_000 / SAMPLE_MS) === 0 && last !== undefined)
        say(
          Object.entries(last)
            .map(([name, value]) => `${name} ${value.toFixed(0)}`)
            .join('; '),
        );
    }, SAMPLE_MS);
  },
});
clearInterval(timer);
say(`\n${describe(report)}\n\n${describeSamples(samples)}`);
process.exit(isGood(report) ? 0 : 1);
