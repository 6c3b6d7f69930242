import { spawn } from 'node:child_process';
import { openSync, readFileSync, writeFileSync } from 'node:fs';
import { BridgeError, errnoCode } from '#bridge/wire/errors.js';

/**
 * Mounting and unmounting, always from a process that does not serve the mount: mount(8) and umount(8) touch it.
 * https://docs.kernel.org/filesystems/fuse.html describes the options.
 */
const OPTIONS = 'rootmode=40000,user_id=0,group_id=0,allow_other,default_permissions,nosuid,nodev';

/** An unmounted tree needs no longer than this; afterwards it is detached, and goes when its last user does. */
const UNMOUNT_MS = 5_000;

/** @throws BridgeError `unavailable` naming what to install or to load */
export function openFuseDevice(): number {
  try {
    return openSync('/dev/fuse', 'r+');
  } catch (cause) {
    const code = errnoCode(cause);
    const next =
      code === 'ENOENT'
        ? 'load the kernel module (modprobe fuse) or create the node (mknod /dev/fuse c 10 229)'
        : 'run as root, on a machine or container that may use it';
    throw new BridgeError('unavailable', `cannot open /dev/fuse (${code}): ${next}`, { cause });
  }
}

/** mount(2) through mount(8), which gets the descriptor as number 3. Returns once mounted; the kernel's INIT then waits. */
export async function mountFuse(fd: number, directory: string): Promise<void> {
  const { code, text } = await run(
    'mount',
    ['-i', '-t', 'fuse.cronium', '-o', `fd=3,${OPTIONS}`, 'cronium', directory],
    fd,
  );
  if (code !== 0) throw new BridgeError('unavailable', `cannot mount ${directory}: ${text}`);
}

/** Unmounts, or detaches when somebody still uses it. Nothing mounted = nothing to do. */
export async function unmount(directory: string): Promise<void> {
  if (mountedAt(directory) === undefined) return;
  const { code } = await run('umount', [directory]);
  if (code !== 0) await run('umount', ['-l', directory]);
}

/** Ends the connection of the mount at `directory` from outside: every waiting call fails, whatever the server does. */
export function abortConnection(directory: string): void {
  const minor = mountedAt(directory)?.minor;
  if (minor === undefined) return;
  try {
    writeFileSync(`/sys/fs/fuse/connections/${minor}/abort`, '1');
  } catch {
    // fusectl is not mounted, or the connection is gone already; unmounting is what remains.
  }
}

/** The topmost mount at `directory`, from proc_pid_mountinfo(5), which never touches the mount itself. */
export function mountedAt(directory: string): { type: string; minor: number } | undefined {
  const escaped = directory.replace(
    /[ \t\n\\]/g,
    (c) => `\\${c.charCodeAt(0).toString(8).padStart(3, '0')}`,
  );
  let found: { type: string; minor: number } | undefined;
  for (const line of readFileSync('/proc/self/mountinfo', 'utf8').split('\n')) {
    const fields = line.split(' ');
    if (fields[4] !== escaped) continue;
    const type = fields[fields.indexOf('-') + 1] ?? '';
    found = { type, minor: Number(fields[2]?.split(':')[1]) };
  }
  return found;
}

async function run(
  command: string,
  args: readonly string[],
  fd?: number,
): Promise<{ code: number; text: string }> {
  const child = spawn(command, args, {
    stdio: fd === undefined ? ['ignore', 'ignore', 'pipe'] : ['ignore', 'ignore', 'pipe', fd],
    timeout: UNMOUNT_MS,
  });
  let text = '';
  child.stderr?.on('data', (chunk: Buffer) => {
    text += chunk.toString();
  });
  return await new Promise((resolve) => {
    child.on('error', (error) => resolve({ code: 127, text: error.message }));
    child.on('close', (code) => resolve({ code: code ?? 1, text: text.trim() }));
  });
}
