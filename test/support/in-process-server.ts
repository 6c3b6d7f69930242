import { generateKeyPairSync } from 'node:crypto';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { pino } from 'pino';
import type { TlsFiles } from '#bridge/client/connection.js';
import { Authority } from '#server/admin/certificates.js';
import { SigningKeys } from '#server/auth/signing-keys.js';
import { Tokens } from '#server/auth/tokens.js';
import { Listener } from '#server/listen/listener.js';
import { Executions } from '#server/services/executions.js';
import { MergePolicies } from '#server/services/merge-policies.js';
import { Variables } from '#server/services/variables.js';
import { Session } from '#server/session/session.js';
import { MemoryStore } from '#server/store/memory-store.js';

/** The real server, TLS and all, in this process, over a store in memory; it can be stopped and started again. */
export class InProcessServer implements AsyncDisposable {
  readonly directory: string;
  readonly store = new MemoryStore();
  readonly policies = new MergePolicies(this.store);
  readonly variables = new Variables(this.store, this.policies);
  readonly #tokens: Tokens;
  #listener: Listener | undefined;
  #port = 0;

  private constructor(directory: string, tokenLifetimeMs: number | undefined) {
    this.directory = directory;
    const { privateKey } = generateKeyPairSync('ed25519');
    this.#tokens = new Tokens(new SigningKeys(privateKey), Date.now, tokenLifetimeMs);
  }

  static async start(options: { tokenLifetimeMs?: number } = {}): Promise<InProcessServer> {
    const directory = mkdtempSync(join(tmpdir(), 'cronium-server-'));
    const server = new InProcessServer(directory, options.tokenLifetimeMs);
    const authority = await Authority.open(server.#files('ca'));
    await authority.issue({ files: server.#files('server'), name: 'server', role: 'server' });
    await authority.issue({ files: server.#files('host'), name: 'test-host', role: 'host' });
    await authority.issue({
      files: server.#files('operator'),
      name: 'test-operator',
      role: 'operator',
    });
    await server.resume();
    return server;
  }

  get address(): { host: string; port: number } {
    return { host: '127.0.0.1', port: this.#port };
  }

  tls(of: 'host' | 'operator'): TlsFiles {
    const { cert, key } = this.#files(of);
    const read = (path: string) => readFileSync(path, 'utf8');
    return { ca: read(this.#files('ca').cert), cert: read(cert), key: read(key), certPath: cert };
  }

  /** Listens, on the port it had before. */
  async resume(): Promise<void> {
    const { cert, key } = this.#files('server');
    const log = pino({ level: 'silent' });
    const services = {
      tokens: this.#tokens,
      variables: this.variables,
      policies: this.policies,
      executions: new Executions(this.store),
      status: () => ({
        software: 'test',
        startedAt: 0,
        connections: 0,
        channels: 0,
        storeVersion: this.store.version,
      }),
    };
    this.#listener = await Listener.open({
      host: '127.0.0.1',
      port: this.#port,
      tls: {
        ca: readFileSync(this.#files('ca').cert, 'utf8'),
        cert: readFileSync(cert, 'utf8'),
        key: readFileSync(key, 'utf8'),
      },
      log,
      connect: (identity, send) => new Session(identity, services, log, send),
    });
    this.#port = this.#listener.port;
  }

  /** Closes every connection and stops listening; what is stored stays. */
  async pause(): Promise<void> {
    await this.#listener?.[Symbol.asyncDispose]();
    this.#listener = undefined;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.pause();
    rmSync(this.directory, { recursive: true, force: true });
  }

  #files(of: string): { cert: string; key: string } {
    return { cert: join(this.directory, `${of}.crt`), key: join(this.directory, `${of}.key`) };
  }
}
