import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { ContainerUsage } from '#bridge/wire/watch.js';

/**
 * What a container uses, read from its cgroup: some files of a few bytes, where Docker's own answer takes a second.
 * https://docs.kernel.org/admin-guide/cgroup-v1/ and cgroup-v2.html describe the files.
 */

/** The first process of a container. */
export interface FirstProcess {
  readonly containerId: string;
  readonly pid: number;
}

/** A controller's files of one cgroup; undefined: there is no such file. */
export type Texts = Readonly<Record<string, string | undefined>>;

/** Where a process's cgroup is, by controller. */
export interface Cgroup {
  readonly version: 1 | 2;
  /** Under version 2 it is the same directory for all. */
  readonly directories: ReadonlyMap<string, string>;
}

// biome-ignore format: a table
const FILES = {
  1: {
    memory:  ['memory.usage_in_bytes', 'memory.max_usage_in_bytes', 'memory.limit_in_bytes', 'memory.oom_control'],
    cpu:     ['cpu.stat', 'cpu.cfs_quota_us', 'cpu.cfs_period_us'],
    cpuacct: ['cpuacct.usage'],
    pids:    ['pids.current', 'pids.max'],
    blkio:   ['blkio.throttle.io_service_bytes'],
  },
  2: {
    memory:  ['memory.current', 'memory.peak', 'memory.max', 'memory.events'],
    cpu:     ['cpu.stat', 'cpu.max'],
    pids:    ['pids.current', 'pids.max'],
    io:      ['io.stat'],
  },
} as const satisfies Record<Cgroup['version'], Readonly<Record<string, readonly string[]>>>;

/** Undefined when it has ended, or is not of this machine, as where Docker runs in another one. */
export async function cgroupOf({ containerId, pid }: FirstProcess): Promise<Cgroup | undefined> {
  const [process, mounts] = await Promise.all([
    textOf(`/proc/${pid}/cgroup`),
    textOf('/proc/self/mountinfo'),
  ]);
  if (process === undefined || mounts === undefined) return undefined;
  const cgroup = findCgroup(process, mounts);
  // A process id that is somebody else's by now.
  const isIts = [...(cgroup?.directories.values() ?? [])].some((path) =>
    path.includes(containerId),
  );
  return isIts ? cgroup : undefined;
}

/** One reading. Undefined when the container has gone. */
export async function usageOf({
  version,
  directories,
}: Cgroup): Promise<ContainerUsage | undefined> {
  const texts: Record<string, string | undefined> = {};
  await Promise.all(
    Object.entries<readonly string[]>(FILES[version]).flatMap(([controller, names]) =>
      names.map(async (name) => {
        const directory = directories.get(controller);
        if (directory !== undefined) texts[name] = await textOf(join(directory, name));
      }),
    ),
  );
  return version === 1 ? usageV1(texts) : usageV2(texts);
}

/** `process`: proc_pid_cgroup(5); `mounts`: proc_pid_mountinfo(5). Undefined when no memory controller is mounted. */
export function findCgroup(process: string, mounts: string): Cgroup | undefined {
  const mounted = mountedControllers(mounts);
  const directories = new Map<string, string>();
  let unified: string | undefined;
  for (const line of process.split('\n')) {
    const [, , controllers, path] = /^(\d+):([^:]*):(.*)$/.exec(line) ?? [];
    if (path === undefined || controllers === undefined) continue;
    if (controllers === '') {
      unified = directoryIn(mounted.get(''), path);
      continue;
    }
    for (const controller of controllers.split(',')) {
      const directory = directoryIn(mounted.get(controller), path);
      if (directory !== undefined) directories.set(controller, directory);
    }
  }
  if (directories.has('memory')) return { version: 1, directories };
  if (unified === undefined) return undefined;
  const all = unified;
  return { version: 2, directories: new Map(Object.keys(FILES[2]).map((name) => [name, all])) };
}

interface Mounted {
  /** The cgroup that stands at the mount point. */
  readonly root: string;
  readonly at: string;
}

/** By controller; cgroup2 is ''. */
function mountedControllers(mounts: string): Map<string, Mounted> {
  const found = new Map<string, Mounted>();
  for (const line of mounts.split('\n')) {
    const fields = line.split(' ');
    const after = fields.slice(fields.indexOf('-') + 1);
    const [type, , options = ''] = after;
    const mounted = { root: fields[3] ?? '/', at: fields[4] ?? '' };
    if (type === 'cgroup2') found.set('', mounted);
    if (type === 'cgroup') for (const option of options.split(',')) found.set(option, mounted);
  }
  return found;
}

function directoryIn(mounted: Mounted | undefined, path: string): string | undefined {
  if (mounted === undefined) return undefined;
  const { root, at } = mounted;
  if (root === '/') return join(at, path);
  return path === root || path.startsWith(`${root}/`)
    ? join(at, path.slice(root.length))
    : undefined;
}

/** @returns undefined when there is no memory file, that is, no cgroup */
export function usageV1(texts: Texts): ContainerUsage | undefined {
  const now = numberIn(texts['memory.usage_in_bytes']);
  if (now === undefined) return undefined;
  const cpu = fieldsIn(texts['cpu.stat']);
  const quota = numberIn(texts['cpu.cfs_quota_us']);
  const period = numberIn(texts['cpu.cfs_period_us']);
  return {
    memory: {
      now,
      peak: numberIn(texts['memory.max_usage_in_bytes']) ?? null,
      limit: numberIn(texts['memory.limit_in_bytes']) ?? null,
    },
    cpu: {
      usedUs: microseconds(numberIn(texts['cpuacct.usage'])),
      limit: quota === undefined || !period ? null : quota / period,
      throttledPeriods: cpu.get('nr_throttled') ?? 0,
      throttledUs: microseconds(cpu.get('throttled_time')),
    },
    pids: {
      now: numberIn(texts['pids.current']) ?? 0,
      limit: numberIn(texts['pids.max']) ?? null,
    },
    io: diskBytesV1(texts['blkio.throttle.io_service_bytes'] ?? ''),
    oomKills: fieldsIn(texts['memory.oom_control']).get('oom_kill') ?? 0,
  };
}

/** @returns undefined when there is no memory file, that is, no cgroup */
export function usageV2(texts: Texts): ContainerUsage | undefined {
  const now = numberIn(texts['memory.current']);
  if (now === undefined) return undefined;
  const cpu = fieldsIn(texts['cpu.stat']);
  const [quota, period] = (texts['cpu.max'] ?? '').trim().split(' ').map(numberIn);
  return {
    memory: {
      now,
      peak: numberIn(texts['memory.peak']) ?? null, // since Linux 5.19
      limit: numberIn(texts['memory.max']) ?? null,
    },
    cpu: {
      usedUs: cpu.get('usage_usec') ?? 0,
      limit: quota === undefined || !period ? null : quota / period,
      throttledPeriods: cpu.get('nr_throttled') ?? 0,
      throttledUs: cpu.get('throttled_usec') ?? 0,
    },
    pids: {
      now: numberIn(texts['pids.current']) ?? 0,
      limit: numberIn(texts['pids.max']) ?? null,
    },
    io: diskBytesV2(texts['io.stat'] ?? ''),
    oomKills: fieldsIn(texts['memory.events']).get('oom_kill') ?? 0,
  };
}

/** `8:0 Read 4096` for every device and kind. */
function diskBytesV1(text: string): ContainerUsage['io'] {
  const io = { read: 0, written: 0 };
  for (const [, kind, bytes] of text.matchAll(/^\S+ (Read|Write) (\d+)$/gm))
    io[kind === 'Read' ? 'read' : 'written'] += Number(bytes);
  return io;
}

/** `8:0 rbytes=4096 wbytes=0 rios=…` for every device. */
function diskBytesV2(text: string): ContainerUsage['io'] {
  const io = { read: 0, written: 0 };
  for (const [, kind, bytes] of text.matchAll(/\b([rw])bytes=(\d+)/g))
    io[kind === 'r' ? 'read' : 'written'] += Number(bytes);
  return io;
}

/** "No limit" is "max", -1, or, of memory in version 1, 2^63 less a page: undefined, as what is no number. */
function numberIn(text: string | undefined): number | undefined {
  const match = /^\s*(\d+)\s*$/.exec(text ?? '');
  const number = Number(match?.[1]);
  return match !== null && Number.isSafeInteger(number) ? number : undefined;
}

/** Lines of a name and a number. */
const fieldsIn = (text = ''): ReadonlyMap<string, number> =>
  new Map(
    [...text.matchAll(/^(\w+) (\d+)$/gm)].map(([, name = '', value]) => [name, Number(value)]),
  );

/** Of nanoseconds. */
const microseconds = (ns = 0): number => Math.floor(ns / 1000);

/** Undefined when there is no such file any more. */
async function textOf(path: string): Promise<string | undefined> {
  try {
    return await readFile(path, 'utf8');
  } catch {
    return undefined;
  }
}
