import { bad, type Finding, levelOf, ok, size, warn } from './doctor-finding.js';
import { parseMountinfo } from './mountinfo.js';

/**
 * What the machine must have before anything is installed. Each function judges a text that the kernel shows, so that every
 * kind of machine can be tried.
 */

const SETUP = 'scripts/setup --only machine';

/** linux/capability.h CAP_SYS_ADMIN: who may mount. */
const CAP_SYS_ADMIN = 21n;

/** `status`: /proc/self/status. */
export function userFinding(uid: number, status: string): Finding {
  if (uid !== 0)
    return bad(
      'user',
      `this is user ${uid}: mounting, and the state directory, need root`,
      'sudo cronium doctor',
    );
  const effective = /^CapEff:\s*([0-9a-f]+)$/m.exec(status)?.[1];
  if (effective !== undefined && ((BigInt(`0x${effective}`) >> CAP_SYS_ADMIN) & 1n) === 0n)
    return bad(
      'user',
      'this is root, but without the capability to mount (CAP_SYS_ADMIN)',
      'inside a container, start it with --cap-add SYS_ADMIN --device /dev/fuse',
    );
  return ok('user', 'root');
}

/** package.json says the same. */
const NODE_MIN = [20, 15] as const;

export function nodeFinding(version: string): Finding {
  return isBelow(version, NODE_MIN)
    ? bad(
        'node',
        `Node ${version} is too old`,
        `install Node ${NODE_MIN.join('.')} or later, then: npm ci && npm run build`,
      )
    : ok('node', `Node ${version}`);
}

/** Since then FUSE sends again what nobody has answered (FUSE_NOTIFY_RESEND). */
const RESEND_KERNEL = [6, 9] as const;

/** `release`: /proc/sys/kernel/osrelease. */
export function kernelFinding(platform: string, release: string): Finding {
  if (platform !== 'linux')
    return bad('kernel', `this is ${platform}: FUSE and containers need Linux`, 'use a Linux host');
  if (isBelow(release, RESEND_KERNEL))
    return warn(
      'kernel',
      `Linux ${release}: scripts run, but when mountd's serving process dies they are lost, and there is no cronium upgrade`,
      `install a kernel of Linux ${RESEND_KERNEL.join('.')} or later`,
    );
  return ok('kernel', `Linux ${release}`);
}

function isBelow(version: string, [major, minor]: readonly [number, number]): boolean {
  const [, a = '0', b = '0'] = /(\d+)\.(\d+)/.exec(version) ?? [];
  return Number(a) < major || (Number(a) === major && Number(b) < minor);
}

export interface DeviceLook {
  readonly isCharacterDevice: boolean;
  /** The errno's name when it could not be looked at, or opened. */
  readonly problem: string | undefined;
}

export function fuseFinding({ isCharacterDevice, problem }: DeviceLook): Finding {
  const check = '/dev/fuse';
  if (problem === 'ENOENT')
    return bad(check, 'it is missing', `${SETUP}   # or: modprobe fuse; mknod /dev/fuse c 10 229`);
  if (problem === 'ENODEV' || problem === 'ENXIO')
    return bad(check, `the kernel has no FUSE (${problem})`, 'modprobe fuse');
  if (problem !== undefined)
    return bad(
      check,
      `it cannot be opened (${problem})`,
      'run as root; inside a container, start it with --cap-add SYS_ADMIN --device /dev/fuse',
    );
  if (!isCharacterDevice) return bad(check, 'it is no device', `rm /dev/fuse && ${SETUP}`);
  return ok(check, 'it can be opened');
}

const CONNECTIONS = '/sys/fs/fuse/connections';

/** `mountinfo`: /proc/self/mountinfo. */
export function fusectlFinding(mountinfo: string): Finding {
  const isMounted = parseMountinfo(mountinfo).some(
    ({ path, type }) => path === CONNECTIONS && type === 'fusectl',
  );
  return isMounted
    ? ok('fusectl', `mounted at ${CONNECTIONS}`)
    : warn(
        'fusectl',
        `not mounted at ${CONNECTIONS}: a mount that hangs cannot be aborted`,
        `mount -t fusectl none ${CONNECTIONS}`,
      );
}

/**
 * A container asks for 1,024, and fails to start where that is more than the hard limit. The store may use 1,000 for its tables,
 * mountd 128 for an execution.
 */
const OPEN_FILES = { warn: 4096, bad: 1024 };

/** `limits`: /proc/self/limits. Node raises the soft limit to the hard one. */
export function openFilesFinding(limits: string): Finding {
  const text = /^Max open files\s+\S+\s+(\S+)/m.exec(limits)?.[1];
  const check = 'open files';
  if (text === undefined || text === 'unlimited') return ok(check, `${text ?? 'no'} limit`);
  const found = `the hard limit is ${text}`;
  const next = `ulimit -Hn 65536   # in the shell that starts cronium; for Docker, LimitNOFILE of its unit`;
  const level = levelOf(Number(text), OPEN_FILES);
  if (level === 'bad')
    return bad(check, `${found}: a container needs ${OPEN_FILES.bad} for itself`, next);
  return level === 'warn'
    ? warn(check, `${found}: few executions can run at the same time`, next)
    : ok(check, found);
}

const MIB = 1024 * 1024;
/** A script gets 256 MiB unless told otherwise; server, mountd and what stands by need as much together. */
const MEMORY_BYTES = { warn: 512 * MIB, bad: 128 * MIB };

/** `meminfo`: /proc/meminfo. */
export function memoryFinding(meminfo: string): Finding {
  const check = 'memory';
  const kib = /^MemAvailable:\s+(\d+) kB$/m.exec(meminfo)?.[1];
  if (kib === undefined)
    return warn(check, 'the kernel does not say how much is available', 'cat /proc/meminfo');
  const bytes = Number(kib) * 1024;
  const found = `${size(bytes)} available`;
  const next = 'ps -e -o rss,pid,args --sort=-rss | head   # end what is not needed';
  const level = levelOf(bytes, MEMORY_BYTES);
  if (level === 'bad') return bad(check, `${found}: server and mountd may be killed`, next);
  return level === 'warn'
    ? warn(check, `${found}: hardly enough for one script`, next)
    : ok(check, found);
}
