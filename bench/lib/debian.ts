import { existsSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { run, say } from './running.js';

/** A download over a slow line. */
const INSTALL_MS = 10 * 60_000;

/** Asked by Debian's maintainer scripts before they start a service; 101 = do not. invoke-rc.d(8) */
const POLICY = '/usr/sbin/policy-rc.d';
const REFUSE = '#!/bin/sh\nexit 101\n';

const DIRECTORIES = ['/usr/bin', '/usr/sbin', '/usr/local/bin'];
const POSTGRES = '/usr/lib/postgresql';

/**
 * The program's path; its Debian package is installed when it is missing, without starting its service. Undefined, and why
 * on stderr: it cannot be had.
 */
export async function debianProgram(
  name: string,
  packageName: string,
): Promise<string | undefined> {
  const present = find(name);
  if (present !== undefined) return present;
  say(`${name} is missing: apt-get install ${packageName} (its service is not started)`);
  const why = await install(packageName);
  const found = find(name);
  if (found === undefined) say(`${name} cannot be had: ${why ?? `not in ${packageName}`}`);
  return found;
}

/** Undefined = done. */
async function install(packageName: string): Promise<string | undefined> {
  const env = ['DEBIAN_FRONTEND=noninteractive', 'apt-get'];
  // A policy that is there already is the machine's own: it decides.
  const ours = !existsSync(POLICY);
  if (ours) writeFileSync(POLICY, REFUSE, { mode: 0o755 });
  try {
    const args = ['install', '-y', '--no-install-recommends', packageName];
    let { code, stderr } = await run('env', [...env, ...args], INSTALL_MS);
    if (code !== 0) {
      // The lists may be old, or not there at all.
      await run('env', [...env, 'update'], INSTALL_MS);
      ({ code, stderr } = await run('env', [...env, ...args], INSTALL_MS));
    }
    return code === 0 ? undefined : (stderr.split('\n').at(-1) ?? 'apt-get failed');
  } finally {
    if (ours) rmSync(POLICY, { force: true });
  }
}

function find(name: string): string | undefined {
  // Debian keeps PostgreSQL's programs by version; the newest, should there be several.
  const versions = existsSync(POSTGRES) ? readdirSync(POSTGRES).sort((a, b) => +b - +a) : [];
  return [...DIRECTORIES, ...versions.map((version) => join(POSTGRES, version, 'bin'))]
    .map((directory) => join(directory, name))
    .find((path) => existsSync(path));
}
