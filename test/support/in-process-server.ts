import { generateKeyPairSync } from 'node:crypto';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { pino } from 'pino';
import type { TlsFiles } from '#bridge/client/connection.js';
import { Authority, type LeafRequest } from '#server/admin/certificates.js';
import { Revocations } from '#server/auth/revocations.js';
import { SigningKeys } from '#server/auth/signing-keys.js';
import { Successions } from '#server/auth/successions.js';
import { TokenRecords } from '#server/auth/token-records.js';
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
  readonly executions = new Executions(this.store);
  readonly tokenRecords = new TokenRecords(this.store);
  readonly tokens: Tokens;
  #credentials: { revocations: Revocations; successions: Successions } | undefined;
  #listener: Listener | undefined;
  #port = 0;
  #issued = 0;

  private constructor(directory: string, tokenLifetimeMs: number | undefined) {
    this.directory = directory;
    const { privateKey } = generateKeyPairSync('ed25519');
    this.tokens = new Tokens(new SigningKeys(privateKey), Date.now, tokenLifetimeMs);
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

  /** As of the last `resume`: a server that starts reads what is stored. */
  get revocations(): Revocations {
    if (this.#credentials === undefined) throw new Error('the server has not been started');
    return this.#credentials.revocations;
  }

  get successions(): Successions {
    if (this.#credentials === undefined) throw new Error('the server has not been started');
    return this.#credentials.successions;
  }

  /** Connections that are open. */
  get connections(): number {
    return this.#listener?.connections ?? 0;
  }

  /** A certificate from the server's authority, or from a stranger's. */
  async issue(
    request: Omit<LeafRequest, 'files'> & { file?: string },
    isForeign = false,
  ): Promise<TlsFiles> {
    const { file = `leaf-${this.#issued++}`, ...leaf } = request;
    const authority = await Authority.open(this.#files(isForeign ? 'foreign-ca' : 'ca'));
    await authority.issue({ ...leaf, files: this.#files(file) });
    return this.tls(file);
  }

  get listener(): Listener {
    if (this.#listener === undefined) throw new Error('the server is paused');
    return this.#listener;
  }

  /** Gives the server, while it runs, what is in its certificate files now. */
  reloadCertificate(): void {
    this.listener.reloadCertificate(this.tls('server'));
  }

  get address(): { host: string; port: number } {
    return { host: '127.0.0.1', port: this.#port };
  }

  /** `host`, `operator`, or what `issue` was told. */
  tls(of: string): TlsFiles {
    const { cert, key } = this.#files(of);
    const read = (path: string) => readFileSync(path, 'utf8');
    return { ca: read(this.#files('ca').cert), cert: read(cert), key: read(key), certPath: cert };
  }

  /** Listens, on the port it had before. */
  async resume(): Promise<void> {
    const log = pino({ level: 'silent' });
    const revocations = await Revocations.open(this.store);
    const successions = await Successions.open(this.store, (thumbprint) =>
      revocations.isRevoked(thumbprint),
    );
    this.#credentials = { revocations, successions };
    const services = {
      tokens: this.tokens,
      revocations,
      successions,
      tokenRecords: this.tokenRecords,
      variables: this.variables,
      policies: this.policies,
      executions: this.executions,
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
      tls: this.tls('server'),
      log,
      isRevoked: (thumbprint) => revocations.isRevoked(thumbprint),
      connect: (identity, send) => new Session(identity, services, log, send),
    });
    const listener = this.#listener;
    revocations.onRevoked(({ kind, id }) => {
      if (kind === 'certificate') listener.closeRevoked(id);
    });
    this.#port = this.#listener.port;
  }

  /** Closes every connection and stops listening; what is stored stays. */
  async pause(): Promise<void> {
    await this.#listener?.[Symbol.asyncDispose]();
    this.#listener = undefined;
    this.#credentials?.revocations[Symbol.dispose]();
    this.#credentials?.successions[Symbol.dispose]();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.pause();
    rmSync(this.directory, { recursive: true, force: true });
  }

  #files(of: string): { cert: string; key: string } {
    return { cert: join(this.directory, `${of}.crt`), key: join(this.directory, `${of}.key`) };
  }
}
