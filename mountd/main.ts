/** The serving process: composes everything, runs until told to stop or until it lost what it cannot do without. */
import { spawn } from 'node:child_process';
import { chmodSync, existsSync, readFileSync, writeFileSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { pino } from 'pino';
import { Channels } from '#bridge/client/execution-channel.js';
import { Link } from '#bridge/client/link.js';
import { abortConnection, unmount } from '#bridge/fuse/mount.js';
import { JOURNAL_FORMAT } from '#bridge/wire/control.js';
import { asBridgeError, BridgeError } from '#bridge/wire/errors.js';
import type { ExecutionId } from '#bridge/wire/names.js';
import { type Beat, Go, MountdConfig, type Replaced, type StartReport } from './config.js';
import { Containers } from './containers.js';
import { ControlServer, type Upgrade } from './control-server.js';
import { Egress } from './egress.js';
import { Executions } from './executions.js';
import { beat } from './heartbeat.js';
import { Life } from './life.js';
import { LostExecutions } from './lost-executions.js';
import { loadFuseThread, MountHost } from './mount-host.js';
import { MountState } from './mount-state.js';
import { PreparedExecutions } from './prepared.js';
import { PreparedRecords } from './prepared-records.js';
import { markOf } from './process-mark.js';
import { Reaper } from './reaper.js';
import { SCRATCH_QUOTA } from './run-channel.js';
import { placeOf, RunRecords } from './run-records.js';
import { VolumePlugin } from './volume-plugin.js';
import { WarmContainers } from './warm-containers.js';
import { Watch } from './watch.js';

/** The supervisor passes /dev/fuse, mounted, as this descriptor; the driver fuse-native mounts by itself. */
const FUSE_FD = 3;

/** After the mount is lost, ending the executions may take this long; then the supervisor starts us anew. */
const GIVE_UP_MS = 10_000;

const config = MountdConfig.parse(JSON.parse(process.argv[2] ?? ''));
const log = pino({ level: config.logLevel, base: { process: 'mountd' } });
process.umask(0o077);
/** From the beginning: whoever stops mountd does not wait until we have loaded our programs. */
const stopping = new AbortController();
process.once('SIGTERM', () => stopping.abort());
process.once('SIGINT', () => stopping.abort());

/** When mountd stops, what scripts did last may take this long to reach the server. */
const LINK_LEFT_MS = 8_000;

/** Docker removes what an earlier life left behind within seconds; if not, serving does not wait for it. */
const FIRST_REAP_MS = 10_000;

/** Docker waits a second, then two, then four. */
const PLUGIN_RETRY_MS = 500;

const canBeTakenOver = () =>
  config.driver === 'kernel' && new MountState(config.backing).canBeTakenOver;

const report = (message: StartReport | Beat | Replaced) => process.send?.(message);

/** Until the supervisor says so, this process has loaded its programs and waits. */
async function go(): Promise<Go> {
  return await new Promise((resolve) => {
    const gone = () => process.exit(0);
    // Whoever started us died while we loaded our programs: nobody would tell us again.
    if (!process.connected) gone();
    process.once('disconnect', gone);
    process.once('message', (message) => {
      process.off('disconnect', gone);
      resolve(Go.parse(message));
    });
  });
}

const fuseThread = config.driver === 'kernel' ? loadFuseThread() : undefined;

const openMount = async (takeOver: boolean): Promise<MountHost> =>
  await MountHost.open(
    {
      ...(config.driver === 'kernel'
        ? { driver: config.driver, fuseFd: FUSE_FD, takeOver }
        : { driver: config.driver, mountPoint: config.mountPoint }),
      backing: config.backing,
      logLevel: config.logLevel,
    },
    fuseThread,
  );

/** Who is called when the supervisor is gone: another one like it, or that of another version. */
let successor = {
  supervisor: fileURLToPath(new URL('./supervisor.js', import.meta.url)),
  config: process.argv[2] ?? '',
};

/**
 * The supervisor was killed. Another one gets the mount, and starts a process that takes over from this one: that is proven,
 * and this one would have nobody to watch it.
 */
function callSupervisor(): never {
  const { supervisor, config: text } = successor;
  const mark = JSON.stringify(markOf(process.pid));
  const child = spawn(process.execPath, ['--enable-source-maps', supervisor, text, mark], {
    detached: true,
    stdio: ['ignore', 'inherit', 'inherit', FUSE_FD],
    cwd: '/',
  });
  child.unref();
  // Before it has loaded its programs: who stops mountd now must find it.
  if (child.pid !== undefined) {
    const { pid, startTicks } = markOf(child.pid);
    writeFileSync(config.supervisorFile, `${JSON.stringify({ pid, startTicks })}\n`);
  }
  process.exit(1);
}

/** For the answer to whoever asked to leave. */
const LEAVE_MS = 100;

/** @throws BridgeError `conflict` when the other version could not go on */
function upgrade({ supervisor, config: text, journalFormat }: Upgrade): void {
  if (!canBeTakenOver())
    throw new BridgeError(
      'conflict',
      'this mountd cannot hand its executions over (it needs the kernel driver and Linux 6.9): use cronium down and up when none runs',
    );
  if (journalFormat !== JOURNAL_FORMAT)
    throw new BridgeError(
      'conflict',
      `the other version reads journals of format ${journalFormat}, and the executions that run have format ${JOURNAL_FORMAT}: use cronium down and up when none runs`,
    );
  if (!existsSync(supervisor))
    throw new BridgeError('not_found', `there is no program ${supervisor}`);
  log.info({ supervisor }, 'handing over to another version');
  successor = { supervisor, config: text };
  setTimeout(() => report({ state: 'replaced' }), LEAVE_MS);
}

/**
 * Undefined when none is wanted. When this process takes over, the name may be held for a moment by one that is dying, and scripts do
 * not wait for Docker: it is tried again and again. @throws BridgeError at a start
 */
async function openPlugin(
  volumes: PreparedExecutions,
  takeOver: boolean,
): Promise<AsyncDisposable | undefined> {
  const { volumePlugin } = config;
  if (volumePlugin === undefined) return undefined;
  const open = async () => await VolumePlugin.open(volumePlugin.socket, volumePlugin.name, volumes);
  if (!takeOver) return await open();
  const closing = new AbortController();
  const opened = (async () => {
    for (let isTold = false; !closing.signal.aborted; isTold = true)
      try {
        return await open();
      } catch (error) {
        if (!isTold) log.error({ err: error }, 'Docker cannot mount prepared executions');
        await sleep(PLUGIN_RETRY_MS, undefined, { signal: closing.signal }).catch(() => {});
      }
    return undefined;
  })();
  return {
    [Symbol.asyncDispose]: async () => {
      closing.abort();
      await (await opened)?.[Symbol.asyncDispose]();
    },
  };
}

async function serve({ takeOver }: Go): Promise<number> {
  const startedAt = Date.now();
  const stopped = new Promise<number>((resolve) => {
    if (stopping.signal.aborted) resolve(0);
    stopping.signal.addEventListener('abort', () => resolve(0), { once: true });
    // The supervisor is gone, and with it whoever would have unmounted after us.
    process.once('disconnect', () => {
      if (canBeTakenOver() && !stopping.signal.aborted) callSupervisor();
      resolve(1);
    });
  });
  let mounted: MountHost | undefined;
  using _heart = beat(
    () => report({ state: 'alive' }),
    async () => await mounted?.beat(),
  );
  // Scripts wait for this. Everything else can wait.
  const taken = takeOver ? await openMount(true) : undefined;
  mounted = taken;
  writeFileSync(config.hostsFile, '127.0.0.1 localhost\n::1 localhost\n');
  chmodSync(config.hostsFile, 0o644); // scripts read it
  const records = new RunRecords(config.runs);
  const life = new Life(config.lifeFile);
  const containers = new Containers(config.dockerSocket, {
    instance: config.instance,
    seccomp: JSON.stringify(JSON.parse(readFileSync(config.seccompFile, 'utf8'))),
  });
  const egress = new Egress({ ...config, takeOver, log });
  let executions: Executions | undefined;
  let waiting: WarmContainers | undefined;
  let prepared: PreparedExecutions | undefined;
  if (!takeOver) records.clear();
  const before = records.all();
  const preparedRecords = new PreparedRecords(config.prepared);
  const preparedBefore = preparedRecords.all();
  const resumed = new Set<string>(
    [...before, ...(takeOver ? preparedBefore : [])].map(({ executionId }) => executionId),
  );
  const isOurs = (executionId: string) =>
    (executions?.isOurs(executionId) ?? resumed.has(executionId)) ||
    prepared?.isOurs(executionId) === true;
  const places = new Set(before.map(placeOf));
  const isUsed = (place: string) =>
    (executions?.uses(place) ?? places.has(place)) || waiting?.has(place) === true;
  using reaper = new Reaper([containers, egress], isUsed, log);
  if (!takeOver)
    await Promise.race([reaper.first, sleep(FIRST_REAP_MS, undefined, { ref: false })]);
  await using link = new Link({
    address: config.server,
    software: config.software,
    // Read at every connection: after `cronium cert rotate host` the next one uses the new certificate.
    get tls() {
      return {
        ca: readFileSync(config.tls.ca, 'utf8'),
        cert: readFileSync(config.tls.cert, 'utf8'),
        key: readFileSync(config.tls.key, 'utf8'),
        certPath: config.tls.cert,
      };
    },
  });
  await using mount = taken ?? (await openMount(false));
  mounted = mount;
  link.onStatus = (status) => mount.linkChanged(status);
  await using lost = new LostExecutions({ link, life, isOurs, log });
  // Of the other driver, open(2) cannot be made to wait.
  const most = config.driver === 'kernel' ? config.warmContainers : 0;
  const quota = SCRATCH_QUOTA;
  await using warm = new WarmContainers({ ...config, mount, containers, most, quota, log });
  waiting = warm;
  const watch = new Watch(mount);
  const shared = {
    ...config,
    warm,
    watch,
    instance: life.instance,
    link,
    channels: new Channels(link),
    mount,
    containers,
    egress,
    log,
    onUnknown: (executionId: ExecutionId, reason: string) => lost.add(executionId, reason),
  };
  await using volumes = new PreparedExecutions({
    ...shared,
    records: preparedRecords,
    driver: config.volumePlugin?.name,
  });
  prepared = volumes;
  if (takeOver) volumes.resume(preparedBefore);
  await using runs = new Executions({ ...shared, records });
  executions = runs;
  runs.resume(before);
  const isKept = (id: string) => places.has(id) || volumes.isOurs(id);
  for (const id of mount.takenOver.restored) if (!isKept(id)) await mount.removeTree(id);
  for (const [id] of mount.takenOver.damaged) if (!isKept(id)) await mount.discard(id);
  await using _plugin = await openPlugin(volumes, takeOver);
  // Docker asks the plugin whether they are still there.
  if (!takeOver) for (const record of preparedBefore) volumes.clear(record);
  await using _control = await ControlServer.open(config.controlSocket, {
    run: async (request, listener, signal) => await runs.run(request, listener, signal),
    create: async (request, signal) => await volumes.create(request, signal),
    finish: async (request) => await volumes.finish(request),
    upgrade,
    logs: async (...asked) => await watch.logs(...asked),
    stats: async ({ executionId }) => ({
      executions: await watch.stats(runs.running, executionId),
    }),
    status: () => ({
      software: config.software,
      ...(canBeTakenOver() && { journalFormat: JOURNAL_FORMAT }),
      pid: process.pid,
      startedAt,
      mount: config.mountPoint,
      driver: config.driver,
      link: link.status,
      waiting: warm.count,
      executions: runs.running,
      prepared: volumes.status,
    }),
  });
  report({ state: 'ready' });
  log.info({ mount: config.mountPoint, driver: config.driver }, 'serving');
  const gone = mount.ended.then(({ reason, isMounted }) => {
    log.error({ reason }, isMounted ? 'the file system has died' : 'the mount is gone');
    // Another process can answer what this one cannot any more.
    if (isMounted && canBeTakenOver()) process.exit(1);
    new MountState(config.backing).end();
    // Whoever waits in the kernel for an answer of ours waits in vain, and Docker could not stop a container of such.
    abortConnection(config.mountPoint);
    setTimeout(() => process.exit(1), GIVE_UP_MS).unref();
    return 1;
  });
  const code = await Promise.race([stopped, gone]);
  log.info('stopping');
  // A server that is away now is not waited for as long as by a script: containers and the mount have to go first.
  setTimeout(() => void link[Symbol.asyncDispose](), LINK_LEFT_MS).unref();
  // First of all, while whoever asked for a run can still be told how it ended.
  await Promise.all([runs, volumes, warm].map(async (one) => await one[Symbol.asyncDispose]()));
  return code;
}

go()
  .then(serve)
  .then(
    async (code) => {
      if (!process.connected) {
        abortConnection(config.mountPoint);
        await unmount(config.mountPoint);
      }
      process.exit(code);
    },
    (error: unknown) => {
      const { message } = asBridgeError(error);
      log.fatal({ err: error }, 'cannot serve');
      report({ state: 'failed', message });
      process.exit(1);
    },
  );
