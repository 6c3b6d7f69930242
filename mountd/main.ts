/** The serving process: composes everything, runs until told to stop or until it lost what it cannot do without. */
import { chmodSync, readFileSync, writeFileSync } from 'node:fs';
import { pino } from 'pino';
import { Link } from '#bridge/client/link.js';
import { abortConnection, unmount } from '#bridge/fuse/mount.js';
import { asBridgeError } from '#bridge/wire/errors.js';
import { MountdConfig, type StartReport } from './config.js';
import { Containers } from './containers.js';
import { ControlServer } from './control-server.js';
import { Executions } from './executions.js';
import { MountHost } from './mount-host.js';

/** The supervisor passes /dev/fuse, mounted, as this descriptor; the driver fuse-native mounts by itself. */
const FUSE_FD = 3;

/** After the mount is lost, ending the executions may take this long; then the supervisor starts us anew. */
const GIVE_UP_MS = 10_000;

const config = MountdConfig.parse(JSON.parse(process.argv[2] ?? ''));
const log = pino({ level: config.logLevel, base: { process: 'mountd' } });
const startedAt = Date.now();
process.umask(0o077);

const report = (message: StartReport) => process.send?.(message);

async function serve(): Promise<number> {
  const stopped = new Promise<number>((resolve) => {
    process.once('SIGTERM', () => resolve(0));
    process.once('SIGINT', () => resolve(0));
    // The supervisor is gone, and with it whoever would have unmounted after us.
    process.once('disconnect', () => resolve(1));
  });
  writeFileSync(config.hostsFile, '127.0.0.1 localhost\n::1 localhost\n');
  chmodSync(config.hostsFile, 0o644); // scripts read it
  const containers = new Containers(config.dockerSocket, config.instance);
  await containers.reap().then(
    (count) => count > 0 && log.warn({ count }, 'removed containers of an earlier life'),
    (error: unknown) =>
      log.warn({ reason: asBridgeError(error).message }, 'Docker is not there yet'),
  );
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
  await using mount = await MountHost.open({
    ...(config.driver === 'kernel'
      ? { driver: config.driver, fuseFd: FUSE_FD }
      : { driver: config.driver, mountPoint: config.mountPoint }),
    backing: config.backing,
    logLevel: config.logLevel,
  });
  await using executions = new Executions({ ...config, link, mount, containers, log });
  await using _control = await ControlServer.open(config.controlSocket, {
    run: async (request, onLog, signal) => await executions.run(request, onLog, signal),
    status: () => ({
      software: config.software,
      pid: process.pid,
      startedAt,
      mount: config.mountPoint,
      driver: config.driver,
      link: link.status,
      executions: executions.running,
    }),
  });
  report({ state: 'ready' });
  log.info({ mount: config.mountPoint, driver: config.driver }, 'serving');
  const lost = mount.ended.then((reason) => {
    log.error({ reason }, 'the mount is gone');
    // Whoever waits in the kernel for an answer of ours waits in vain, and Docker could not stop a container of such.
    abortConnection(config.mountPoint);
    setTimeout(() => process.exit(1), GIVE_UP_MS).unref();
    return 1;
  });
  const code = await Promise.race([stopped, lost]);
  log.info('stopping');
  return code;
}

serve().then(
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
