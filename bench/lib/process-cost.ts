import { readdirSync, readFileSync } from 'node:fs';

/** USER_HZ of proc(5): a hundred ticks a second on every architecture Node runs on. */
const TICK_US = 10_000;
const KIB = 1024;

/**
 * Microseconds of CPU that a process has used: all its threads, its children, theirs, and those of them that have ended and
 * were waited for. In steps of 10 ms.
 */
export function cpuMicroseconds(pid: number): number {
  let ticks = 0;
  for (const each of family(pid)) {
    // The name, in parentheses, may hold spaces: fields are counted after it. utime, stime, cutime, cstime are 14 to 17.
    const stat = read(`/proc/${each}/stat`);
    const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
    for (const at of [11, 12, 13, 14]) ticks += Number(fields[at] ?? 0);
  }
  return ticks * TICK_US;
}

/** What a process takes now, and took at most, in bytes. */
export interface Memory {
  readonly resident: number;
  /** The kernel's mark; of several processes what they have now, because their marks are of different moments. */
  readonly peak: number;
}

/** Pages that several processes of the family share are counted once. */
export function memoryOf(pid: number): Memory {
  const all = family(pid).map((each) => read(`/proc/${each}/status`));
  const field = (status: string, name: string) =>
    KIB * Number(new RegExp(`^${name}:\\s+(\\d+) kB`, 'm').exec(status)?.[1] ?? 0);
  const shared = (name: string) => Math.max(0, ...all.map((status) => field(status, name)));
  const own = all.reduce((sum, status) => sum + field(status, 'RssAnon'), 0);
  const resident = own + shared('RssFile') + shared('RssShmem');
  return { resident, peak: all.length === 1 ? field(all[0] ?? '', 'VmHWM') : resident };
}

function family(pid: number): number[] {
  const found = [pid];
  for (const each of found)
    for (const thread of list(`/proc/${each}/task`))
      found.push(
        ...read(`/proc/${each}/task/${thread}/children`)
          .split(' ')
          .filter((word) => word !== '')
          .map(Number),
      );
  return found;
}

/** A process may end between being listed and being read. */
function read(path: string): string {
  try {
    return readFileSync(path, 'utf8');
  } catch {
    return '';
  }
}

function list(path: string): string[] {
  try {
    return readdirSync(path);
  } catch {
    return [];
  }
}
