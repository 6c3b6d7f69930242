import {
  accessSync,
  closeSync,
  existsSync,
  openSync,
  readdirSync,
  readFileSync,
  statfsSync,
  statSync,
} from 'node:fs';
import { dirname, join } from 'node:path';
import { z } from 'zod';
import { asBridgeError, errnoCode } from '#bridge/wire/errors.js';
import { egressFinding, lookAtFilter } from './doctor-egress.js';
import { engineFindings, lookAtEngine } from './doctor-engine.js';
import { bad, type Finding, ok, quoted } from './doctor-finding.js';
import {
  type DeviceLook,
  fusectlFinding,
  fuseFinding,
  kernelFinding,
  memoryFinding,
  nodeFinding,
  openFilesFinding,
  userFinding,
} from './doctor-host.js';
import {
  certificateFinding,
  clockFinding,
  diskFindings,
  type Evidence,
  keysFinding,
  lookAtCertificate,
  lookAtFile,
  mountdFinding,
  mountFinding,
  type ProcessLook,
  serverFinding,
} from './doctor-state.js';
import { DOCKER_SOCKET, type Installation } from './installation.js';
import { isRunning, ProcessMark } from './process-mark.js';
import { OWN_CERTIFICATES, type State } from './state.js';

const CERTIFICATES = ['ca', ...OWN_CERTIFICATES] as const;

/** For a process that runs to say how it is; one that is stopped never does. */
const ANSWER_MS = 5_000;

/** Looks at this machine and at what is installed on it. Changes nothing, and never looks into the mount. */
export async function examine(installation: Installation): Promise<Finding[]> {
  const { state } = installation;
  const groups = await Promise.all([
    guarded('host', hostFindings),
    guarded('docker', async () => engineFindings(await lookAtEngine(dockerSocketOf(state)))),
    guarded('egress', async () => [egressFinding(await lookAtFilter())]),
    guarded('disk', () => diskOf(state)),
    guarded('mount', () => mountOf(installation)),
    guarded('installation', async () => await installationFindings(installation)),
  ]);
  return groups.flat();
}

/** What we did not foresee is a finding, too: the other checks are worth having. */
async function guarded(
  check: string,
  look: () => Finding[] | Promise<Finding[]>,
): Promise<Finding[]> {
  try {
    return await look();
  } catch (error) {
    const { message } = asBridgeError(error);
    return [bad(check, `it cannot be looked at: ${message}`, 'sudo cronium doctor')];
  }
}

const proc = (path: string): string => readFileSync(`/proc/${path}`, 'utf8');

function hostFindings(): Finding[] {
  const { platform, versions } = process;
  const isLinux = platform === 'linux';
  const kernel = kernelFinding(platform, isLinux ? proc('sys/kernel/osrelease').trim() : '');
  if (!isLinux) return [kernel, nodeFinding(versions.node)];
  return [
    userFinding(process.geteuid?.() ?? -1, proc('self/status')),
    nodeFinding(versions.node),
    kernel,
    fuseFinding(lookAtDevice('/dev/fuse')),
    fusectlFinding(proc('self/mountinfo')),
    openFilesFinding(proc('self/limits')),
    memoryFinding(proc('meminfo')),
  ];
}

/** Opening it connects with nothing: only mount(2) does. */
function lookAtDevice(path: string): DeviceLook {
  try {
    const isCharacterDevice = statSync(path).isCharacterDevice();
    if (isCharacterDevice) closeSync(openSync(path, 'r+'));
    return { isCharacterDevice, problem: undefined };
  } catch (error) {
    return { isCharacterDevice: false, problem: errnoCode(error) ?? String(error) };
  }
}

/** Settings that cannot be read are another check's. */
function dockerSocketOf(state: State): string {
  try {
    return state.settings().dockerSocket ?? DOCKER_SOCKET;
  } catch {
    return DOCKER_SOCKET;
  }
}

/** Of a state directory that is not there yet: of where it will be. */
function diskOf({ directory }: State): Finding[] {
  let path = directory;
  while (!existsSync(path) && path !== dirname(path)) path = dirname(path);
  return diskFindings(path, statfsSync(path));
}

/** Nothing where we may not see who serves: another check says so. */
function mountOf(installation: Installation): Finding[] {
  const { state } = installation;
  if (whyUnseen(state) !== undefined) return [];
  const isServed = isMountServed(installation);
  return [mountFinding(proc('self/mountinfo'), state.path('mountd'), isServed)];
}

const Serving = z.object({ serving: ProcessMark });

/** A serving process whose supervisor was killed goes on, and gets another one. */
function isMountServed({ state, mountd }: Installation): boolean {
  if (mountd.pid !== undefined) return true;
  try {
    const text = readFileSync(state.path('run', 'mountd-serving.json'), 'utf8');
    return isRunning(Serving.parse(JSON.parse(text)).serving);
  } catch {
    return false;
  }
}

async function installationFindings(installation: Installation): Promise<Finding[]> {
  const { state } = installation;
  const problem = whyUnseen(state);
  if (problem !== undefined)
    return [
      bad('state', `${state.directory} cannot be looked at (${problem})`, 'sudo cronium doctor'),
    ];
  if (!state.exists) {
    const checks = ['clock', ...CERTIFICATES.map((of) => `certificate ${of}`), 'keys'];
    return [...checks, 'server', 'mountd'].map((check) =>
      ok(check, `nothing is installed in ${state.directory} yet`),
    );
  }
  const settings = await guarded('settings', () => {
    state.settings();
    return [];
  });
  // Without them it is not known where the server listens, nor whether the master key is in a file.
  if (settings.length > 0)
    return settings.map((finding) => ({
      ...finding,
      next: `correct ${quoted(state.settingsFile)}: docs/operations.md shows it`,
    }));
  const groups = await Promise.all([
    guarded('clock', () => [clockOf(state)]),
    guarded('certificates', () => certificatesOf(state)),
    guarded('keys', () => [keysOf(state)]),
    guarded('server', async () => [
      serverFinding(await lookAtServer(installation), installation.server.logFile),
    ]),
    guarded('mountd', async () => [
      mountdFinding(await lookAtMountd(installation), installation.mountd.logFile),
    ]),
  ]);
  return groups.flat();
}

/** The errno's name when the state directory is there but not for us: it would look as if nothing were installed. */
function whyUnseen({ settingsFile }: State): string | undefined {
  try {
    accessSync(settingsFile);
    return undefined;
  } catch (error) {
    const code = errnoCode(error);
    return code === 'ENOENT' ? undefined : code;
  }
}

function certificatesOf(state: State): Finding[] {
  const { cert: authority } = state.certificate('ca');
  const now = Date.now();
  return CERTIFICATES.map((of) =>
    certificateFinding(of, lookAtCertificate(state.certificate(of), authority), now),
  );
}

function clockOf(state: State): Finding {
  const authority = state.certificate('ca').cert;
  const evidence = CERTIFICATES.flatMap((of): Evidence[] => {
    const { problem, notBefore } = lookAtCertificate(state.certificate(of), authority);
    const what = `the certificate ${of} became valid`;
    return problem === undefined ? [{ what, at: notBefore, isCertificate: true }] : [];
  });
  // Not what lies deeper: executions' files have the times that scripts give them.
  for (const part of ['', 'pki', 'server', 'run', 'log'])
    for (const entry of readdirSync(state.path(part), { withFileTypes: true })) {
      if (!entry.isFile()) continue;
      const path = join(state.path(part), entry.name);
      const at = statSync(path, { throwIfNoEntry: false })?.mtimeMs;
      if (at !== undefined) evidence.push({ what: `${path} was written`, at });
    }
  return clockFinding(evidence, Date.now());
}

function keysOf(state: State): Finding {
  const source = state.masterKey;
  const keys = [
    ...CERTIFICATES.map((of) => state.certificate(of).key),
    state.path('server', 'token.key'),
    state.path('server', 'master.key.next'),
  ];
  const directories = ['', 'pki', 'server'].map((part) => state.path(part));
  return keysFinding(
    {
      keys: keys.map(lookAtFile),
      directories: directories.map(lookAtFile),
      masterKey: 'file' in source ? lookAtFile(source.file) : undefined,
      keyring: lookAtFile(state.path('server', 'keyring.json')),
    },
    process.geteuid?.() ?? -1,
  );
}

async function lookAtServer(installation: Installation) {
  return await lookAt(installation.server.pid, async () => {
    using connection = await installation.operator();
    return await connection.call('server.status', {}, { deadlineMs: ANSWER_MS });
  });
}

async function lookAtMountd(installation: Installation) {
  return await lookAt(installation.mountd.pid, async () => {
    using connection = await installation.control();
    return await connection.call('status', {}, { deadlineMs: ANSWER_MS });
  });
}

async function lookAt<S extends { readonly pid: number }>(
  pid: number | undefined,
  ask: () => Promise<S>,
): Promise<ProcessLook<S>> {
  if (pid === undefined) return { state: 'down' };
  try {
    const status = await ask();
    return { state: 'up', pid: status.pid, status };
  } catch (error) {
    return { state: 'silent', pid, problem: asBridgeError(error).message };
  }
}
