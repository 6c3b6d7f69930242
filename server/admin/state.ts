import { createHash } from 'node:crypto';
import { existsSync, mkdirSync, readFileSync, realpathSync } from 'node:fs';
import { hostname } from 'node:os';
import { join, resolve } from 'node:path';
import { z } from 'zod';
import { BridgeError } from '#bridge/wire/errors.js';
import { writeDurably } from '#server/store/durable-file.js';
import { Authority, type CertificateFiles } from './certificates.js';

/** Used when neither --state nor CRONIUM_STATE says otherwise. */
export const STATE_DIRECTORY = '/var/lib/cronium';

const Settings = z.strictObject({
  listen: z.strictObject({ host: z.string(), port: z.int().min(0).max(65535) }),
});
type Settings = z.infer<typeof Settings>;

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
  certificate(of: 'ca' | 'server' | 'host' | 'operator'): CertificateFiles {
    return { cert: this.path('pki', `${of}.crt`), key: this.path('pki', `${of}.key`) };
  }

  /** Creates what is missing: directories, settings, certificates. @throws BridgeError */
  async prepare(listen?: Settings['listen']): Promise<void> {
    for (const part of ['', 'pki', 'server', 'mountd', 'mountd/mnt', 'run', 'log'])
      mkdirSync(this.path(part), { recursive: true, mode: 0o700 });
    if (listen !== undefined || !this.exists)
      this.writeSettings({ listen: listen ?? { host: '127.0.0.1', port: 0 } });
    const authority = await Authority.open(this.certificate('ca'));
    await authority.ensure({
      files: this.certificate('server'),
      name: 'cronium-server',
      role: 'server',
    });
    await authority.ensure({ files: this.certificate('host'), name: hostname(), role: 'host' });
    await authority.ensure({
      files: this.certificate('operator'),
      name: 'operator',
      role: 'operator',
    });
  }

  /** @throws BridgeError `not_found` when nothing was ever started here */
  settings(): Settings {
    if (!this.exists)
      throw new BridgeError(
        'not_found',
        `nothing is installed in ${this.directory}; start it with: cronium up`,
      );
    return Settings.parse(JSON.parse(readFileSync(this.settingsFile, 'utf8')));
  }

  writeSettings(settings: Settings): void {
    writeDurably(this.settingsFile, `${JSON.stringify(settings, null, 2)}\n`);
  }
}
