import { readFileSync } from 'node:fs';
import { z } from 'zod';
import { bootId } from './life.js';

/** Names a process for good: its number may be another's by now, but not with the same start, in ticks of the same boot. */
export const ProcessMark = z.strictObject({
  pid: z.int(),
  bootId: z.string(),
  startTicks: z.string(),
});
export type ProcessMark = z.infer<typeof ProcessMark>;

/** The mark of a running process. */
export const markOf = (pid: number): ProcessMark => ({
  pid,
  bootId: bootId(),
  startTicks: startTicksOf(pid) ?? '',
});

export const isRunning = (mark: ProcessMark): boolean =>
  mark.bootId === bootId() && startTicksOf(mark.pid) === mark.startTicks;

/** proc_pid_stat(5), field 22; undefined for a process that is gone or only waits to be reaped. */
function startTicksOf(pid: number): string | undefined {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, 'latin1');
    const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' '); // from field 3 on
    return fields[0] === 'Z' ? undefined : fields[19];
  } catch {
    return undefined;
  }
}
