import { createPrivateKey, X509Certificate } from 'node:crypto';
import { readFileSync, statSync } from 'node:fs';
import type { MountdStatus } from '#bridge/wire/control.js';
import { errnoCode } from '#bridge/wire/errors.js';
import { CLOCK_BEHIND_MS_MAX } from '#server/store/clock.js';
import type { CertificateFiles } from './certificates.js';
import { bad, type Finding, levelOf, ok, quoted, size, warn } from './doctor-finding.js';
import { parseMountinfo } from './mountinfo.js';
import type { OwnCertificate } from './state.js';

/** What an installation is made of: its certificates, keys, disk, mount, processes and time. */

const DAY_MS = 24 * 60 * 60 * 1000;
/** `cronium up` renews 30 days before the end; who is below this has not called it for long. */
const EXPIRY_WARNING_MS = 14 * DAY_MS;

export interface CertificateLook {
  /** Why it cannot be used: missing, unreadable, another key's, another authority's. */
  readonly problem?: string;
  /** Milliseconds since the epoch. */
  readonly notBefore: number;
  readonly notAfter: number;
}

/** Reads a certificate and its key; `authority`: the file of the certificate that must have signed it. */
export function lookAtCertificate(files: CertificateFiles, authority: string): CertificateLook {
  const unusable = (problem: string) => ({ problem, notBefore: 0, notAfter: 0 });
  let at = files.cert;
  try {
    const certificate = new X509Certificate(readFileSync(at));
    at = files.key;
    const key = createPrivateKey(readFileSync(at));
    at = authority;
    const { publicKey } = new X509Certificate(readFileSync(at));
    if (!certificate.checkPrivateKey(key))
      return unusable(`${files.key} is not the key of ${files.cert}`);
    if (!certificate.verify(publicKey))
      return unusable(`${files.cert} was signed by another authority than ${authority}`);
    return {
      notBefore: Date.parse(certificate.validFrom),
      notAfter: Date.parse(certificate.validTo),
    };
  } catch (error) {
    const code = errnoCode(error);
    if (code === 'ENOENT') return unusable(`${at} is missing`);
    return unusable(`${at} cannot be read${code === undefined ? '' : ` (${code})`}`);
  }
}

/** `at`: now, in milliseconds since the epoch. */
export function certificateFinding(
  of: 'ca' | OwnCertificate,
  { problem, notBefore, notAfter }: CertificateLook,
  at: number,
): Finding {
  const check = `certificate ${of}`;
  // `up` renews what is over; the server reads its own only at the start, or when a rotation tells it to.
  const renewed = {
    ca: 'cronium down && mv STATE/pki STATE/pki.old && cronium up   # issued certificates are worth nothing then',
    server: 'cronium down && cronium up',
    host: 'cronium up',
    operator: 'cronium up',
  }[of];
  if (problem !== undefined) return bad(check, problem, renewed);
  const day = new Date(notAfter).toISOString().slice(0, 10);
  if (notAfter <= at) return bad(check, `expired on ${day}`, renewed);
  if (notBefore > at)
    return bad(
      check,
      `not valid before ${new Date(notBefore).toISOString()}`,
      'timedatectl set-ntp true   # the clock is behind',
    );
  const days = Math.floor((notAfter - at) / DAY_MS);
  if (notAfter - at < EXPIRY_WARNING_MS)
    return warn(
      check,
      `expires on ${day}, in ${days === 1 ? '1 day' : `${days} days`}`,
      of === 'ca' ? renewed : `cronium cert rotate ${of}`,
    );
  return ok(check, `valid until ${day}`);
}

export interface FileLook {
  readonly path: string;
  /** Permission bits; undefined when it is not there, or cannot be looked at. */
  readonly mode: number | undefined;
  readonly uid: number | undefined;
}

export function lookAtFile(path: string): FileLook {
  try {
    const { mode, uid } = statSync(path);
    return { path, mode: mode & 0o7777, uid };
  } catch {
    return { path, mode: undefined, uid: undefined };
  }
}

export interface KeyFiles {
  /** Those that are not there are another check's. */
  readonly keys: readonly FileLook[];
  readonly directories: readonly FileLook[];
  /** Undefined where a command prints it. */
  readonly masterKey: FileLook | undefined;
  /** Wrapped by the master key. */
  readonly keyring: FileLook;
}

/** Keys must be ours alone, and nobody else may put files beside them. `uid`: ours. */
export function keysFinding({ masterKey, keyring, ...files }: KeyFiles, uid: number): Finding {
  const check = 'keys';
  if (masterKey !== undefined && masterKey.mode === undefined && keyring.mode !== undefined)
    return bad(
      check,
      `the master key ${masterKey.path} is missing: without it nothing of the store can be read`,
      `put its copy back: install -m 600 COPY ${quoted(masterKey.path)}`,
    );
  const keys = [...files.keys, keyring, ...(masterKey === undefined ? [] : [masterKey])];
  const strangers = [...keys, ...files.directories].filter(
    (file) => file.uid !== undefined && file.uid !== uid,
  );
  if (strangers.length > 0)
    return bad(check, `of another user: ${names(strangers)}`, `chown ${uid} ${words(strangers)}`);
  const readable = keys.filter(({ mode = 0 }) => (mode & 0o077) !== 0);
  if (readable.length > 0)
    return bad(check, `others can read ${names(readable)}`, `chmod 600 ${words(readable)}`);
  const writable = files.directories.filter(({ mode = 0 }) => (mode & 0o022) !== 0);
  if (writable.length > 0)
    return bad(check, `others may write to ${names(writable)}`, `chmod go-w ${words(writable)}`);
  const source = masterKey === undefined ? '; a command prints the master key' : '';
  return ok(check, `only we can read them${source}`);
}

const names = (files: readonly FileLook[]): string =>
  files.map(({ path, mode }) => `${path} (mode ${mode?.toString(8)})`).join(', ');
const words = (files: readonly FileLook[]): string =>
  files.map(({ path }) => quoted(path)).join(' ');

/** statfs(2), as far as we need it. */
export interface DiskLook {
  readonly bsize: number;
  readonly blocks: number;
  /** For whoever is not root. */
  readonly bavail: number;
  /** 0 where inodes are made as they are needed. */
  readonly files: number;
  readonly ffree: number;
}

const MIB = 1024 * 1024;
/** An execution alone may use 1 GiB; below 100 MiB a store cannot even merge its tables. */
const DISK_BYTES = { warn: 1024 * MIB, bad: 100 * MIB };
const DISK_SHARE_MIN = 0.05;
/** An execution may make 100,000 files. */
const INODES = { warn: 100_000, bad: 1_000 };

/** `path`: a directory of the file system. */
export function diskFindings(path: string, disk: DiskLook): Finding[] {
  const free = disk.bavail * disk.bsize;
  const share = (part: number, whole: number) => (whole === 0 ? 1 : part / whole);
  const percent = (part: number) => `${Math.floor(part * 100)} %`;
  const ofSpace = share(disk.bavail, disk.blocks);
  const space = grade('disk', `${size(free)} free (${percent(ofSpace)}) for ${path}`, {
    level: levelOf(free, DISK_BYTES),
    share: ofSpace,
    next: `du -xh --max-depth=2 ${quoted(path)} | sort -h | tail   # remove or move what is not needed`,
  });
  if (disk.files === 0) return [space, ok('inodes', 'made as they are needed')];
  const ofInodes = share(disk.ffree, disk.files);
  const inodes = grade('inodes', `${disk.ffree} free (${percent(ofInodes)}) for ${path}`, {
    level: levelOf(disk.ffree, INODES),
    share: ofInodes,
    next: `du -x --inodes --max-depth=2 ${quoted(path)} | sort -n | tail   # remove or move what is not needed`,
  });
  return [space, inodes];
}

function grade(
  check: string,
  found: string,
  { level, share, next }: { level: Finding['level']; share: number; next: string },
): Finding {
  if (level === 'bad') return bad(check, `${found}: commits fail with ENOSPC soon`, next);
  return level === 'warn' || share < DISK_SHARE_MIN ? warn(check, found, next) : ok(check, found);
}

/** Something that happened before now, if the clock is right. */
export interface Evidence {
  /** As in `STATE/log/server.log was written`. */
  readonly what: string;
  /** Milliseconds since the epoch. */
  readonly at: number;
  /** Being behind it is bad at once: peers refuse a certificate that is not valid yet. */
  readonly isCertificate?: boolean;
}

/** Clocks that are set by the network go back by less. */
const CLOCK_STEP_MS_MAX = 60_000;

/** Needs no network: what lies here was made before now. `at`: now, in milliseconds since the epoch. */
export function clockFinding(evidence: readonly Evidence[], at: number): Finding {
  const check = 'clock';
  const now = new Date(at).toISOString();
  const behind = evidence
    .map((one) => ({ ...one, ms: one.at - at }))
    .filter(({ ms, isCertificate }) => ms > (isCertificate === true ? 0 : CLOCK_STEP_MS_MAX))
    .sort((a, b) => b.ms - a.ms)[0];
  if (behind === undefined) return ok(check, `${now}, not before anything that lies here`);
  const { what, ms, isCertificate } = behind;
  const found = `it is ${now} by this machine's clock, but ${what} at ${new Date(behind.at).toISOString()}`;
  const next = 'timedatectl set-ntp true   # or: date --set TIME';
  return isCertificate === true || ms > CLOCK_BEHIND_MS_MAX
    ? bad(check, found, next)
    : warn(check, found, next);
}

/** `isServed`: a process of this installation answers the kernel. */
export function mountFinding(mountinfo: string, directory: string, isServed: boolean): Finding {
  const check = 'mount';
  const found = parseMountinfo(mountinfo).filter(
    ({ path, type }) => type.startsWith('fuse') && `${path}/`.startsWith(`${directory}/`),
  );
  // Of several at one path, nobody sees those below; mountd serves one.
  const stale = isServed ? found.slice(0, -1) : found;
  if (stale.length > 0) {
    const commands = stale.map(
      ({ path, minor }) =>
        `echo 1 > /sys/fs/fuse/connections/${minor}/abort; umount -l ${quoted(path)}`,
    );
    return bad(
      check,
      `nobody serves the mount at ${[...new Set(stale.map(({ path }) => path))].join(', ')}: whoever looks there may hang`,
      isServed
        ? `cronium down; ${commands.join('; ')}; cronium up`
        : `cronium up   # clears it; or: ${commands.join('; ')}`,
    );
  }
  const [mount] = found;
  return ok(check, mount === undefined ? 'nothing is mounted' : `${mount.path} is served`);
}

/** A process of the installation: not there, silent, or with what it says of itself. */
export type ProcessLook<S> =
  | { readonly state: 'down' }
  | { readonly state: 'silent'; readonly pid: number; readonly problem: string }
  | { readonly state: 'up'; readonly pid: number; readonly status: S };

export function serverFinding(
  look: ProcessLook<{ readonly problems: readonly string[] }>,
  logFile: string,
): Finding {
  const check = 'server';
  switch (look.state) {
    case 'down':
      return warn(check, 'it does not run', 'cronium up');
    case 'silent':
      return silent(check, look, logFile);
    case 'up': {
      const { problems } = look.status;
      return problems.length > 0
        ? bad(
            check,
            `the store can only be read: ${problems.join('; ')}`,
            'cronium down && cronium store restore FILE   # a backup',
          )
        : ok(check, `it runs as process ${look.pid}`);
    }
  }
}

export function mountdFinding(
  look: ProcessLook<Pick<MountdStatus, 'driver' | 'link'>>,
  logFile: string,
): Finding {
  const check = 'mountd';
  switch (look.state) {
    case 'down':
      return warn(check, 'it does not run', 'cronium up');
    case 'silent':
      return silent(check, look, logFile);
    case 'up': {
      const { driver, link } = look.status;
      return link.connected
        ? ok(check, `it runs as process ${look.pid} (driver ${driver}), connected with the server`)
        : warn(
            check,
            `it runs, but is not connected with the server: ${link.problem ?? 'unknown'}`,
            `cronium up   # if the server runs: tail ${quoted(logFile)}`,
          );
    }
  }
}

const silent = (
  check: string,
  { pid, problem }: { readonly pid: number; readonly problem: string },
  logFile: string,
): Finding =>
  bad(
    check,
    `process ${pid} runs, but does not answer: ${problem}`,
    `tail ${quoted(logFile)}   # then: cronium down && cronium up`,
  );
