import { existsSync, readFileSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { Connection, ControlConnection, type TlsFiles } from '#bridge/client/connection.js';
import {
  CONTROL_OPERATIONS,
  type ControlOperations,
  type DriverName,
  JOURNAL_FORMAT,
  type MountdStatus,
} from '#bridge/wire/control.js';
import { asBridgeError, BridgeError, errnoCode } from '#bridge/wire/errors.js';
import type { ServerConfig } from '#server/config.js';
import { Daemon, type DaemonName, PROGRAMS } from './daemons.js';
import { exclusively } from './exclusive.js';
import { Pki } from './pki.js';
import type { State } from './state.js';

export const SOFTWARE = `cronium-bridge/${versionOf(new URL('../../../package.json', import.meta.url))}`;

/** This machine only, and whatever port is free. */
const ANY_PORT = { host: '127.0.0.1', port: 0 };

/** Where an engine listens, unless settings.json says otherwise. */
export const DOCKER_SOCKET = '/var/run/docker.sock';
/** Where Docker looks for plugins: the name of the socket is the name of the driver. */
const DOCKER_PLUGINS = '/run/docker/plugins';
/** A server that died is back within a second; one that takes longer is worth a word. */
const RESTART_MS = 3_000;
const RESTART_POLL_MS = 100;
const TAKE_OVER_POLL_MS = 20;
/** For one mountd to take over from another. */
const UPGRADE_MS = 20_000;

/** What mountd needs of this version beside its programs. */
const HELPERS = fileURLToPath(new URL('../../../helpers-legacy/', import.meta.url));
const SECCOMP_FILE = fileURLToPath(new URL('../../../images/seccomp.json', import.meta.url));

/** The images' user `cronium`. */
const SCRIPT_UID = 1000;
const SCRIPT_GID = 1000;

/** Containers that wait: the next two scripts of one kind start at once. Each has less than a MiB, and 13 MiB of Docker's. */
const WARM = 2;

export interface UpOptions {
  /** Undefined: where it listened before, or any free port. */
  readonly listen: ServerConfig['listen'] | undefined;
  readonly logLevel: string;
  readonly driver: DriverName;
  /** Docker's name for the volume plugin, kept from then on; null: none from now on; undefined: as before. */
  readonly volumePlugin: string | null | undefined;
  /** Kept from then on. */
  readonly masterKeyCommand: string | undefined;
  /** How many containers wait for the next script; undefined: as before. Kept from then on. */
  readonly warm: number | undefined;
  /** Serve a damaged store, for reading only. */
  readonly damaged: boolean;
}

/** Server and mountd of one state directory, as the operator's command sees them. */
export class Installation {
  readonly state: State;
  readonly server: Daemon;
  readonly mountd: Daemon;

  constructor(state: State) {
    this.state = state;
    this.server = new Daemon(state, 'server');
    this.mountd = new Daemon(state, 'mountd');
  }

  /** Starts what does not run yet. Returns what it started. @throws BridgeError */
  async up(options: UpOptions): Promise<DaemonName[]> {
    const { state } = this;
    const { listen, logLevel, driver, masterKeyCommand, warm } = options;
    state.prepareDirectories();
    return await exclusively(state.lockFile, async () => {
      const started: DaemonName[] = [];
      await state.prepareCertificates();
      if (this.server.pid === undefined) {
        const before = state.exists ? state.settings() : { listen: ANY_PORT };
        const wanted = listen ?? before.listen;
        if (masterKeyCommand !== undefined) state.writeSettings({ ...before, masterKeyCommand });
        const { port } = await this.server.start(this.#serverConfig(wanted, options));
        // Kept once it worked: a port that was free at the first start stays ours, so that mountd finds the server again.
        state.writeSettings({
          ...(state.exists ? state.settings() : before),
          listen: { ...wanted, port: port ?? wanted.port },
        });
        started.push('server');
      }
      const plugin = this.#volumePlugin(options.volumePlugin);
      if (this.mountd.pid === undefined) {
        if (warm !== undefined) state.writeSettings({ ...state.settings(), warm });
        await this.mountd.start(this.#mountdConfig(logLevel, driver, plugin));
        const { volumePlugin: before, ...settings } = state.settings();
        if (plugin !== before)
          // Kept once it worked: a name that is taken would keep mountd from every start.
          state.writeSettings({
            ...settings,
            ...(plugin !== undefined && { volumePlugin: plugin }),
          });
        started.push('mountd');
      } else if (plugin !== state.settings().volumePlugin)
        throw new BridgeError(
          'conflict',
          'mountd runs already, and the volume plugin is opened at its start: use cronium down first',
        );
      return started;
    });
  }

  /**
   * Replaces both by this version; scripts go on and see a pause. Returns what ran before. @throws BridgeError `conflict` when it could not go on with what
   * runs, and nothing has changed; `timeout`
   */
  async upgrade(logLevel: string): Promise<MountdStatus> {
    return await exclusively(this.state.lockFile, async () => {
      const before = await this.#mountdStatus();
      {
        const config = this.#mountdConfig(logLevel, before.driver, this.#volumePlugin(undefined));
        // Found out later, nobody would serve: this version could not start, and the other one has left.
        for (const path of [HELPERS, SECCOMP_FILE])
          if (!existsSync(path))
            throw new BridgeError(
              'not_found',
              `this version is not complete: ${path} is missing; nothing has changed`,
            );
        using mountd = await this.control();
        await mountd.call('upgrade', {
          supervisor: PROGRAMS.mountd,
          config: JSON.stringify(config),
          journalFormat: JOURNAL_FORMAT,
        });
      }
      for (const deadline = Date.now() + UPGRADE_MS; ; await sleep(RESTART_POLL_MS)) {
        const now = await this.#mountdStatus().catch(() => before); // its process is just going
        if (now.pid !== before.pid) break;
        if (Date.now() > deadline)
          throw new BridgeError(
            'timeout',
            `mountd was not replaced within ${UPGRADE_MS} ms; see ${this.mountd.logFile}`,
          );
      }
      await this.server.stop();
      const { listen } = this.state.settings();
      await this.server.start(this.#serverConfig(listen, { logLevel, damaged: false }));
      return before;
    });
  }

  async #mountdStatus(): Promise<MountdStatus> {
    using mountd = await this.control(UPGRADE_MS);
    return await mountd.call('status', {});
  }

  /** Stops both, scripts first. Returns what ran. */
  async down(): Promise<DaemonName[]> {
    if (!this.state.exists && this.server.pid === undefined) return [];
    return await exclusively(this.state.lockFile, async () => {
      const stopped: DaemonName[] = [];
      if (await this.mountd.stop()) stopped.push('mountd');
      if (await this.server.stop()) stopped.push('server');
      return stopped;
    });
  }

  get pki(): Pki {
    return new Pki(this.state);
  }

  get #serverSocket(): string {
    return this.state.path('run', 'server.sock');
  }

  /** A connection to the server as its operator; one that is being started again is waited for. */
  async operator(): Promise<Connection> {
    const { host, port } = this.state.settings().listen;
    const address = { host, port, socketPath: this.#serverSocket };
    const tls = this.tls('operator');
    for (const deadline = Date.now() + RESTART_MS; ; await sleep(RESTART_POLL_MS)) {
      try {
        return await Connection.open({ address, tls, software: SOFTWARE });
      } catch (error) {
        const { code } = asBridgeError(error);
        if (code !== 'unavailable' || this.server.pid === undefined) throw error;
        if (Date.now() < deadline) continue;
        if (errnoCode(error) !== 'ECONNREFUSED') throw error;
        throw new BridgeError(
          'unavailable',
          `the server died and does not come back; the reason is in ${this.server.logFile}`,
          { cause: error },
        );
      }
    }
  }

  /** A connection to mountd; while one process takes over from another it is waited for. */
  async control(waitMs = RESTART_MS): Promise<ControlConnection<ControlOperations>> {
    const socket = this.state.path('run', 'mountd.sock');
    for (const deadline = Date.now() + waitMs; ; await sleep(TAKE_OVER_POLL_MS))
      try {
        return await ControlConnection.open(socket, CONTROL_OPERATIONS);
      } catch (error) {
        if (!this.mountd.isWanted || Date.now() > deadline) throw error;
      }
  }

  /** @throws BridgeError `not_found` when `cronium up` never made them, `denied` when they cannot be read */
  tls(of: 'host' | 'operator'): TlsFiles {
    const { cert, key } = this.state.certificate(of);
    const read = (path: string) => {
      try {
        return readFileSync(path, 'utf8');
      } catch (cause) {
        const missing = errnoCode(cause) === 'ENOENT';
        throw new BridgeError(
          missing ? 'not_found' : 'denied',
          missing
            ? `${path} is missing; make it with: cronium up`
            : `cannot read ${path}: run as the user that started cronium`,
          { cause },
        );
      }
    };
    return {
      ca: read(this.state.certificate('ca').cert),
      cert: read(cert),
      key: read(key),
      certPath: cert,
    };
  }

  #serverConfig(
    listen: ServerConfig['listen'],
    { logLevel, damaged }: Pick<UpOptions, 'logLevel' | 'damaged'>,
  ): ServerConfig {
    const { path } = this.state;
    return {
      software: SOFTWARE,
      listen,
      socket: this.#serverSocket,
      database: path('server', 'db'),
      keyring: path('server', 'keyring.json'),
      masterKey: this.state.masterKey,
      damaged,
      ...(this.state.exists &&
        this.state.settings().rates && { rates: this.state.settings().rates }),
      tokenKey: path('server', 'token.key'),
      tls: { ca: this.state.certificate('ca').cert, ...this.state.certificate('server') },
      logLevel,
      processFile: this.server.processFile,
      restarts: 0,
    };
  }

  /** Undefined: none. */
  #volumePlugin(wanted: UpOptions['volumePlugin']): string | undefined {
    return wanted === undefined ? this.state.settings().volumePlugin : (wanted ?? undefined);
  }

  /** mountd/config.ts parses it; the server's folders may not import mountd's. */
  #mountdConfig(logLevel: string, driver: DriverName, plugin: string | undefined): object {
    const { path } = this.state;
    return {
      software: SOFTWARE,
      instance: this.state.instance,
      driver,
      mountPoint: path('mountd', 'mnt'),
      backing: path('mountd', 'scratch'),
      controlSocket: path('run', 'mountd.sock'),
      lifeFile: path('mountd', 'life.json'),
      servingFile: path('run', 'mountd-serving.json'),
      supervisorFile: path('run', 'mountd.json'),
      runs: path('mountd', 'runs'),
      prepared: path('mountd', 'prepared'),
      ...(plugin !== undefined && {
        volumePlugin: { name: plugin, socket: `${DOCKER_PLUGINS}/${plugin}.sock` },
      }),
      dockerSocket: this.state.settings().dockerSocket ?? DOCKER_SOCKET,
      hostsFile: path('run', 'hosts'),
      helpers: HELPERS,
      seccompFile: SECCOMP_FILE,
      server: { ...this.state.settings().listen, socketPath: this.#serverSocket },
      tls: { ca: this.state.certificate('ca').cert, ...this.state.certificate('host') },
      uid: SCRIPT_UID,
      gid: SCRIPT_GID,
      warmContainers: this.state.settings().warm ?? WARM,
      logLevel,
    };
  }
}

function versionOf(packageFile: URL): string {
  return (JSON.parse(readFileSync(packageFile, 'utf8')) as { version: string }).version;
}
