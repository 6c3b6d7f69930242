import { readFileSync } from 'node:fs';

/** Deeper process chains are cut: a script's are a few levels deep. */
const ANCESTORS_MAX = 32;

/**
 * The process of thread `pid` and its ancestors, nearest first; empty when it is gone or cannot be seen. Reads
 * proc_pid_status(5), which takes no lock that a process blocked on our mount could hold.
 */
export function processFamily(pid: number): number[] {
  const family: number[] = [];
  for (let at = pid; at > 1 && family.length < ANCESTORS_MAX; ) {
    const status = readStatus(at);
    if (status === undefined) break;
    // A request carries the thread's id; what a script reads and writes belongs to the whole process.
    family.push(Number(field(status, 'Tgid')));
    at = Number(field(status, 'PPid'));
  }
  return family;
}

/** Whether a fatal signal is pending: the kernel turns every signal that will end a process into a pending SIGKILL. */
export function isDying(pid: number): boolean {
  const status = readStatus(pid);
  if (status === undefined) return true;
  const pending = BigInt(`0x${field(status, 'SigPnd')}`) | BigInt(`0x${field(status, 'ShdPnd')}`);
  return (pending & SIGKILL_BIT) !== 0n;
}

const SIGKILL_BIT = 1n << 8n; // signal 9

function readStatus(pid: number): string | undefined {
  try {
    return readFileSync(`/proc/${pid}/status`, 'latin1');
  } catch {
    return undefined;
  }
}

function field(status: string, name: string): string {
  const at = status.indexOf(`\n${name}:`) + name.length + 2;
  return status.slice(at, status.indexOf('\n', at)).trim();
}
