import { generateKeyPairSync } from 'node:crypto';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { pino } from 'pino';
import type { TlsFiles } from '#bridge/client/connection.js';
import { Authority, type LeafRequest } from '#server/admin/certificates.js';
import { SigningKeys } from '#server/auth/signing-keys.js';
import { Tokens } from '#server/auth/tokens.js';
import { Listener } from '#server/listen/listener.js';
import { Runtime } from '#server/runtime.js';
import type { Services } from '#server/session/session.js';
import { LARGE_LIMITS } from '#server/store/large-values.js';
import { MemoryStore } from '#server/store/memory-store.js';

/** The real server, TLS and all, in this process, over a store in memory; it can be stopped and started again. */
export class InProcessServer implements AsyncDisposable {
  readonly directory: string;
  readonly store = new MemoryStore(undefined, LARGE_LIMITS);
  readonly tokens: Tokens;
  #runtime: Runtime | undefined;
  #disposed: (() => Promise<void>) | undefined;
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
  get services(): Services {
    if (this.#runtime === undefined) throw new Error('the server has not been started');
    return this.#runtime.services;
  }

  get variables(): Services['variables'] {
    return this.services.variables;
  }

  get audit(): Services['audit'] {
    return this.services.audit;
  }

  get policies(): Services['policies'] {
    return this.services.policies;
  }

  get executions(): Services['executions'] {
    return this.services.executions;
  }

  get tokenRecords(): Services['tokenRecords'] {
    return this.services.tokenRecords;
  }

  get revocations(): Services['revocations'] {
    return this.services.revocations;
  }

  get successions(): Services['successions'] {
    return this.services.successions;
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
    const { tokens } = this;
    const runtime = await Runtime.open(this.store, { tokens, log, software: 'test' });
    this.#runtime = runtime;
    this.#disposed = async () => {
      this.#disposed = undefined;
      await runtime[Symbol.asyncDispose]();
    };
    const { revocations } = runtime.services;
    this.#listener = await Listener.open({
      host: '127.0.0.1',
      port: this.#port,
      tls: this.tls('server'),
      log,
      isRevoked: (thumbprint) => revocations.isRevoked(thumbprint),
      connect: (identity, send) => runtime.connect(identity, send),
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
    await this.#disposed?.();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.pause();
    rmSync(this.directory, { recursive: true, force: true });
  }

  #files(of: string): { cert: string; key: string } {
    return { cert: join(this.directory, `${of}.crt`), key: join(this.directory, `${of}.key`) };
  }
}
