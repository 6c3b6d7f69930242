import { createHash } from 'node:crypto';
import { existsSync, mkdirSync, readFileSync, realpathSync, statSync } from 'node:fs';
import { hostname } from 'node:os';
import { join, resolve } from 'node:path';
import { z } from 'zod';
import { BridgeError, errnoCode } from '#bridge/wire/errors.js';
import { RateSettings, type ServerConfig } from '#server/config.js';
import { writeDurably } from '#server/store/durable-file.js';
import type { CertificateFiles, LeafRequest } from './certificates.js';
import { IssuedCertificates } from './issued-certificates.js';

/** Used when neither --state nor CRONIUM_STATE says otherwise. */
export const STATE_DIRECTORY = '/var/lib/cronium';

/** Containers that wait for a script, at most: each takes some memory and a place among the machine's processes. */
export const WARM_MAX = 100;

const Settings = z.strictObject({
  listen: z.strictObject({ host: z.string(), port: z.int().min(0).max(65535) }),
  /** Prints the master key; without it the key is in a file of ours. */
  masterKeyCommand: z.string().optional(),
  /** Where the Docker engine listens, when that is not the usual place. */
  dockerSocket: z.string().optional(),
  /** How many containers wait for the next script. */
  warm: z.int().min(0).max(WARM_MAX).optional(),
  /** Docker's name for the volume plugin, when there is one. */
  volumePlugin: z.string().optional(),
  /** What differs from the default rates: docs/operations.md. */
  rates: RateSettings.optional(),
});
type Settings = z.infer<typeof Settings>;

/** The certificates an installation has for itself. */
export const OWN_CERTIFICATES = ['server', 'host', 'operator'] as const;
export type OwnCertificate = (typeof OWN_CERTIFICATES)[number];

/** Where everything of one installation lies. Nothing outside it is written but the mount and the containers. */
export class State {
  readonly directory: string;

  constructor(directory: string) {
    this.directory = existsSync(directory) ? realpathSync(directory) : resolve(directory);
  }

  /** The directory a command works on: the option, else CRONIUM_STATE, else the default. */
  static of(option: string | undefined, env: NodeJS.ProcessEnv): State {
    return new State(option ?? env['CRONIUM_STATE'] ?? STATE_DIRECTORY);
  }

  readonly path = (...parts: string[]): string => join(this.directory, ...parts);

  get exists(): boolean {
    return existsSync(this.settingsFile);
  }

  get settingsFile(): string {
    return this.path('settings.json');
  }

  /** Tells this installation's containers from others' on the same machine. */
  get instance(): string {
    return createHash('sha256').update(this.directory).digest('hex').slice(0, 16);
  }

  /** A certificate and its key: of the authority, the server, this host, or its operator. */
  certificate(of: 'ca' | OwnCertificate): CertificateFiles {
    return { cert: this.path('pki', `${of}.crt`), key: this.path('pki', `${of}.key`) };
  }

  /** What to ask the authority for. */
  leafRequest(of: OwnCertificate): LeafRequest {
    const names = { server: 'cronium-server', host: hostname(), operator: 'operator' };
    return { files: this.certificate(of), name: names[of], role: of };
  }

  /** Where the server's master key comes from. */
  get masterKey(): ServerConfig['masterKey'] {
    const command = this.exists ? this.settings().masterKeyCommand : undefined;
    return command === undefined ? { file: this.path('server', 'master.key') } : { command };
  }

  get issued(): IssuedCertificates {
    return new IssuedCertificates(this.path('pki', 'issued.json'));
  }

  /** Held by whoever starts, stops or changes this installation. */
  get lockFile(): string {
    return this.path('run', 'lock');
  }

  /** Creates the directories that are missing. @throws BridgeError `denied` when one is not ours alone */
  prepareDirectories(): void {
    for (const name of ['mountd.sock', 'server.sock']) {
      const socket = this.path('run', name);
      if (Buffer.byteLength(socket) > SOCKET_PATH_BYTES_MAX)
        throw new BridgeError(
          'invalid',
          `${socket} is too long for a socket: choose a shorter --state directory`,
        );
    }
    for (const part of ['', 'pki', 'server', 'mountd', 'run', 'log', MOUNT]) {
      const directory = this.path(part);
      try {
        if (part === MOUNT) makeUnseen(directory);
        else {
          mkdirSync(directory, { recursive: true, mode: 0o700 });
          assertOurs(directory);
        }
      } catch (cause) {
        if (cause instanceof BridgeError) throw cause;
        throw new BridgeError(
          'denied',
          `cannot use ${directory}: ${errnoCode(cause) ?? String(cause)}; choose another with --state`,
          {
            cause,
          },
        );
      }
    }
  }

  /** Issues the certificates that are missing or nearly over. */
  async prepareCertificates(): Promise<void> {
    // Loaded only here: the X.509 library takes longer to load than most commands take to run.
    const { Authority } = await import('./certificates.js');
    const authority = await Authority.open(this.certificate('ca'));
    for (const of of OWN_CERTIFICATES) {
      const issued = await authority.ensure(this.leafRequest(of));
      if (issued !== undefined) this.issued.add(issued);
    }
  }

  /** @throws BridgeError `not_found` when nothing was ever started here */
  settings(): Settings {
    if (!this.exists)
      throw new BridgeError(
        'not_found',
        `nothing is installed in ${this.directory}; start it with: cronium up`,
      );
    try {
      return Settings.parse(JSON.parse(readFileSync(this.settingsFile, 'utf8')));
    } catch (cause) {
      throw new BridgeError(
        'invalid',
        `${this.settingsFile} cannot be read; it should be like {"listen": {"host": "127.0.0.1", "port": 7443}}`,
        { cause },
      );
    }
  }

  writeSettings(settings: Settings): void {
    writeDurably(this.settingsFile, `${JSON.stringify(settings, null, 2)}\n`);
  }
}

/** sockaddr_un of unix(7) holds 108 bytes with the NUL. */
const SOCKET_PATH_BYTES_MAX = 107;

const MOUNT = 'mountd/mnt';

/** mkdir(2) alone: whoever looks at what is mounted there waits for a mountd that may hang. */
function makeUnseen(directory: string): void {
  try {
    mkdirSync(directory, { mode: 0o700 });
  } catch (error) {
    if (errnoCode(error) !== 'EEXIST') throw error;
  }
}

/** Keys lie below: nobody else may put files there or swap directories. @throws BridgeError `denied` */
function assertOurs(directory: string): void {
  const { uid, mode } = statSync(directory);
  if (uid !== process.getuid?.())
    throw new BridgeError(
      'denied',
      `${directory} belongs to user ${uid}; use a directory of your own`,
    );
  if ((mode & 0o022) !== 0)
    throw new BridgeError(
      'denied',
      `others may write to ${directory}; run: chmod go-w ${directory}`,
    );
}
