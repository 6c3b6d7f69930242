import t from 'tap';
import { ExecutionId } from '#bridge/wire/names.js';
import type { ExecutionUsage } from '#bridge/wire/watch.js';
import { ratesOf } from '#server/cli/usage-rates.js';
import { sampleText, sizeText, tableLines } from '#server/cli/usage-table.js';

interface Wanted {
  readonly at: number;
  readonly usedUs?: number;
  readonly reads?: number;
  readonly bytesRead?: number;
  readonly name?: string;
}

const usage = ({
  at,
  usedUs = 0,
  reads = 0,
  bytesRead = 0,
  name = 'a.py',
}: Wanted): ExecutionUsage => ({
  executionId: ExecutionId.parse('00000000-0000-4000-8000-000000000001'),
  script: name,
  runtime: 'python',
  startedAt: 0,
  at,
  container: {
    memory: { now: 1024 * 1024, peak: null, limit: 256 * 1024 * 1024 },
    cpu: { usedUs, limit: 1, throttledPeriods: 0, throttledUs: 0 },
    pids: { now: 2, limit: null },
    io: { read: 0, written: 0 },
    oomKills: 0,
  },
  operations: {
    lookups: 1,
    opens: 0,
    reads,
    writes: 0,
    other: 0,
    errors: 0,
    bytesRead,
    bytesWritten: 0,
  },
  scratch: { bytes: 0, bytesMax: 1, inodes: 1, inodesMax: 2 },
});
const nothing = { cpuPercent: null, operationsPerSecond: null, bytesPerSecond: null };

void t.test('rates are of the time between two readings', async (t) => {
  const before = usage({ at: 1_000, usedUs: 5_000_000, reads: 10, bytesRead: 4_096 });
  const after = usage({ at: 3_000, usedUs: 6_000_000, reads: 30, bytesRead: 8_192 });
  t.same(ratesOf(before, after), {
    cpuPercent: 50,
    operationsPerSecond: 10,
    bytesPerSecond: 2_048,
  });
  t.same(ratesOf(undefined, after), nothing, 'one reading has none');
  t.same(ratesOf(after, after), nothing, 'nor has no time');
  t.match(ratesOf({ ...before, container: null }, { ...after, operations: null }), nothing);
});

void t.test('a counter that began again gives no negative rate', async (t) => {
  const before = usage({ at: 1_000, usedUs: 5_000_000, reads: 1_000, bytesRead: 9_999 });
  const after = usage({ at: 2_000, usedUs: 5_000_000, reads: 20, bytesRead: 100 });
  t.same(ratesOf(before, after), { cpuPercent: 0, operationsPerSecond: 21, bytesPerSecond: 100 });
});

void t.test('the busiest stands first, and a name moves no cursor', async (t) => {
  const idle = {
    usage: usage({ at: 90_000, name: 'idle' }),
    rates: { ...nothing, cpuPercent: 0 },
    isFirst: false,
  };
  const busy = {
    usage: usage({ at: 3_700_000, name: 'busy\x1b[2J' }),
    rates: { cpuPercent: 99.5, operationsPerSecond: 12, bytesPerSecond: 2048 },
    isFirst: false,
  };
  const fresh = { usage: usage({ at: 0, name: 'fresh' }), rates: nothing, isFirst: true };
  const [title, ...rows] = tableLines([idle, fresh, busy]);
  t.match(title, /^EXECUTION +SCRIPT +RUNTIME +AGE +CPU +MEMORY/);
  t.match(rows[0], /busy \[2J +python +1h 1m +99\.5 % +1 MiB \/ 256 MiB +2 +12 +2 KiB\/s +0 B$/);
  t.match(rows[1], /idle +python +1m 30s +0\.0 %/);
  t.match(rows[2], /fresh +python +0s +- /);
  t.match(sampleText({ ...busy, usage: { ...busy.usage, container: null } }), /there is none yet/);
});

void t.test('sizes', async (t) => {
  t.same([0, 1023, 1024, 1536, 150_000, 1024 ** 3, 5 * 1024 ** 5].map(sizeText), [
    '0 B',
    '1023 B',
    '1 KiB',
    '1.5 KiB',
    '146 KiB',
    '1 GiB',
    '5120 TiB',
  ]);
});
