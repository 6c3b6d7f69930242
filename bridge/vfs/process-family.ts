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
    const process = processOf(at);
    if (process === undefined) break;
    // A request carries the thread's id; what a script reads and writes belongs to the whole process.
    family.push(process.group);
    at = process.parent;
  }
  return family;
}

/** What /proc said of a process or thread. */
interface Seen {
  /** Tgid: the process a thread belongs to. */
  readonly group: number;
  readonly parent: number;
  /** performance.now() */
  readonly at: number;
}

/**
 * How long a look is believed. A number is given out again only after all others were; and who is orphaned meanwhile keeps
 * the ancestors it had, whose reads it builds on. A look costs 20 us, and there is one for each ancestor: without this, reading
 * variables.json cost eight times as much.
 */
const SEEN_MS = 1000;
const SEEN_MAX = 4096;
const seen = new Map<number, Seen>();

function processOf(pid: number): Seen | undefined {
  const now = performance.now();
  const known = seen.get(pid);
  if (known !== undefined && now - known.at < SEEN_MS) return known;
  const status = readStatus(pid);
  if (status === undefined) {
    seen.delete(pid);
    return undefined;
  }
  if (seen.size >= SEEN_MAX) seen.clear();
  const found = {
    group: Number(field(status, 'Tgid')),
    parent: Number(field(status, 'PPid')),
    at: now,
  };
  seen.set(pid, found);
  return found;
}

/**
 * What will become of a process that waits. `killed`: a fatal signal is pending (the kernel turns every signal that will end a
 * process into a pending SIGKILL), or has ended it already, or it is gone. `exiting`: it ends by itself and closes its files on
 * the way; from then on no signal reaches it any more, so whoever keeps it waiting keeps it for good.
 * `unseen`: it is in a process namespace that this process does not see (the kernel then says 0), so it cannot be told.
 */
export function fateOf(pid: number): 'alive' | 'exiting' | 'killed' | 'unseen' {
  if (pid === 0) return 'unseen';
  const status = readStatus(pid);
  if (status === undefined) return 'killed';
  const pending = BigInt(`0x${field(status, 'SigPnd')}`) | BigInt(`0x${field(status, 'ShdPnd')}`);
  if ((pending & SIGKILL_BIT) !== 0n) return 'killed';
  const stat = readProc(pid, 'stat');
  if (stat === undefined) return 'killed';
  // proc_pid_stat(5): the name in parentheses may hold anything; after it comes field 3.
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
  const [flags, exitCode] = [Number(fields[9 - 3]), Number(fields[52 - 3])];
  if ((flags & PF_EXITING) === 0) return 'alive';
  return (exitCode & 0x7f) === 0 ? 'exiting' : 'killed'; // wait(2): the low bits are the signal
}

/** linux/sched.h: exit(2) has begun. */
const PF_EXITING = 0x4;
const SIGKILL_BIT = 1n << 8n; // signal 9

const readStatus = (pid: number): string | undefined => readProc(pid, 'status');

function readProc(pid: number, file: 'status' | 'stat'): string | undefined {
  try {
    return readFileSync(`/proc/${pid}/${file}`, 'latin1');
  } catch {
    return undefined;
  }
}

function field(status: string, name: string): string {
  const at = status.indexOf(`\n${name}:`) + name.length + 2;
  return status.slice(at, status.indexOf('\n', at)).trim();
}
