import { readFileSync } from 'node:fs';
import { z } from 'zod';

/** Names a process for good: its number may be another's by now, but not with the same start time. */
export const ProcessMark = z.strictObject({ pid: z.int(), startTicks: z.string() });
export type ProcessMark = z.infer<typeof ProcessMark>;

/** The mark in `file`; undefined when there is none, or none that can be read (a crash while it was written). */
export function readMark(file: string): ProcessMark | undefined {
  try {
    return ProcessMark.parse(JSON.parse(readFileSync(file, 'utf8')));
  } catch {
    return undefined;
  }
}

/** The mark of a running process. */
export const markOf = (pid: number): ProcessMark => ({ pid, startTicks: startTicksOf(pid) ?? '' });

export const thisProcess = (): ProcessMark => markOf(process.pid);

export const isRunning = ({ pid, startTicks }: ProcessMark): boolean =>
  startTicksOf(pid) === startTicks;

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
