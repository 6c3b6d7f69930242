import { readFileSync } from 'node:fs';

/** Processes that `pid` has started and that have not ended: proc_pid_task_tid_children(5). */
export function childrenOf(pid: number): number[] {
  try {
    const text = readFileSync(`/proc/${pid}/task/${pid}/children`, 'utf8');
    return text.split(' ').filter(Boolean).map(Number).filter(isRunning);
  } catch {
    return []; // it is gone
  }
}

/** Not one that only waits to be reaped. */
export function isRunning(pid: number): boolean {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, 'latin1');
    return stat.slice(stat.lastIndexOf(')') + 2, stat.lastIndexOf(')') + 3) !== 'Z';
  } catch {
    return false;
  }
}

/**
 * kill(2), but never with 0, which means one's own process group, the whole test run. One that has just gone is as dead as wanted.
 * @throws Error when there is no process to be named
 */
export function killProcess(pid: number | undefined, signal: NodeJS.Signals): void {
  if (pid === undefined || pid <= 1) throw new Error(`there is no process to send ${signal} to`);
  try {
    process.kill(pid, signal);
  } catch (error) {
    if (!(error instanceof Error && 'code' in error && error.code === 'ESRCH')) throw error;
  }
}
