import { generateKeyPairSync, type KeyObject, X509Certificate } from 'node:crypto';
import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { pino } from 'pino';
import type { TlsFiles } from '#bridge/client/connection.js';
import { BridgeError } from '#bridge/wire/errors.js';
import { Peer, type Serve } from '#bridge/wire/peer.js';
import { PROTOCOL_VERSION, SERVER_OPERATIONS } from '#bridge/wire/protocol.js';
import { Authority, type LeafRequest } from '#server/admin/certificates.js';
import { thumbprintOf } from '#server/auth/identity.js';
import { SigningKeys } from '#server/auth/signing-keys.js';
import { Tokens } from '#server/auth/tokens.js';
import type { Health } from '#server/listen/endpoints.js';
import { Listener, type ListenLimits, type ServerTls } from '#server/listen/listener.js';
import { Metrics } from '#server/metrics.js';
import { Runtime } from '#server/runtime.js';
import { Maintenance } from '#server/services/maintenance.js';
import type { RateSettings } from '#server/services/rate-limits.js';
import type { Services } from '#server/session/session.js';
import { EncryptedStore } from '#server/store/encrypted-store.js';
import { Keyring } from '#server/store/keyring.js';
import { LARGE_LIMITS, LargeValues } from '#server/store/large-values.js';
import { LevelStore } from '#server/store/level-store.js';
import { masterKeyFile } from '#server/store/master-key.js';
import { MemoryStore } from '#server/store/memory-store.js';
import type { Store } from '#server/store/store.js';

export interface InProcessOptions {
  readonly tokenLifetimeMs?: number;
  readonly limits?: Partial<ListenLimits>;
  readonly rates?: RateSettings;
  /** `level`: LevelDB in the server's directory, closed by `pause` and opened by `resume`. Default: in memory, which stays. */
  readonly store?: 'memory' | 'level';
  /** Answers every call but hello, instead of sessions over the services. */
  readonly serve?: Serve;
}

/** The real server, TLS and all, in this process; it can be stopped and started again. */
export class InProcessServer implements AsyncDisposable {
  readonly directory: string;
  readonly #memory = new MemoryStore(undefined, LARGE_LIMITS);
  readonly metrics = new Metrics(() => ({
    connections: this.connections,
    channels: this.#runtime?.channels ?? 0,
    storeVersion: this.store.version,
  }));
  readonly log = pino({ level: 'silent' });
  readonly tokens: Tokens;
  /** What `tokens` signs with: for tokens that the server would not make. */
  readonly signingKey: KeyObject;
  health: Health = 'ok';
  /** Thumbprints that are not let in, besides those that were revoked. */
  readonly revoked = new Set<string>();
  readonly #options: InProcessOptions;
  #store: Store = this.#memory;
  #runtime: Runtime | undefined;
  #stop: (() => Promise<void>) | undefined;
  #listener: Listener | undefined;
  #port = 0;
  #issued = 0;

  private constructor(directory: string, options: InProcessOptions) {
    this.directory = directory;
    this.#options = options;
    const { privateKey } = generateKeyPairSync('ed25519');
    this.signingKey = privateKey;
    this.tokens = new Tokens(new SigningKeys(privateKey), Date.now, options.tokenLifetimeMs);
  }

  static async start(options: InProcessOptions = {}): Promise<InProcessServer> {
    const directory = mkdtempSync(join(tmpdir(), 'cronium-server-'));
    const server = new InProcessServer(directory, options);
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

  get store(): Store {
    return this.#store;
  }

  /** As of the last `resume`: a server that starts reads what is stored. */
  get runtime(): Runtime {
    if (this.#runtime === undefined) throw new Error('the server has not been started');
    return this.#runtime;
  }

  get services(): Services {
    return this.runtime.services;
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

  get listener(): Listener {
    if (this.#listener === undefined) throw new Error('the server is paused');
    return this.#listener;
  }

  get address(): { host: string; port: number } {
    return { host: '127.0.0.1', port: this.#port };
  }

  /** Of the authority that issues, for certificates that it would not issue. */
  get authorityFiles(): { cert: string; key: string } {
    return this.#files('ca');
  }

  get socketPath(): string {
    return join(this.directory, 'server.sock');
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

  /** The same into files that have that name; `ca`: of which authority. */
  async issueAs(
    file: string,
    role: LeafRequest['role'],
    { notAfter, ca = 'ca' }: { notAfter?: Date; ca?: string } = {},
  ): Promise<void> {
    const authority = await Authority.open(this.#files(ca));
    const request = { files: this.#files(file), name: `test-${file}`, role };
    await authority.issue(notAfter === undefined ? request : { ...request, notAfter });
  }

  /** Gives the server, while it runs, what is in its certificate files now. */
  reloadCertificate(): void {
    this.listener.reloadCertificate(this.tls('server'));
  }

  /** `host`, `operator`, or what `issue` was told; `ca`: the authority that whoever has them trusts. */
  tls(of: string, ca = 'ca'): TlsFiles {
    const { cert, key } = this.#files(of);
    const read = (path: string) => readFileSync(path, 'utf8');
    return { ca: read(this.#files(ca).cert), cert: read(cert), key: read(key), certPath: cert };
  }

  /** What the server shows. */
  get serverTls(): ServerTls {
    const { ca, cert, key } = this.tls('server');
    return { ca, cert, key };
  }

  /** Listens, on the port it had before. */
  async resume(): Promise<void> {
    const { log, tokens } = this;
    const { store, rates, limits, serve } = this.#options;
    const opened = store === 'level' ? await this.#openLevel() : undefined;
    if (opened !== undefined) this.#store = opened.store;
    const runtime = await Runtime.open(this.#store, {
      tokens,
      log,
      software: 'test',
      observe: this.metrics.observe,
      reload: async () => {
        this.reloadCertificate();
        const certificate = new X509Certificate(this.tls('server').cert);
        return {
          thumbprint: thumbprintOf(certificate.raw),
          notAfter: Date.parse(certificate.validTo),
          signingKey: tokens.keyId,
        };
      },
      ...(rates && { rates }),
      ...(opened && { maintenance: opened.maintenance }),
    });
    this.#runtime = runtime;
    const listener = await Listener.open({
      host: '127.0.0.1',
      port: this.#port,
      socketPath: this.socketPath,
      tls: this.serverTls,
      log,
      limits,
      health: () => this.health,
      metrics: async () => await this.metrics.scrape(),
      admit: (identity) => {
        if (this.revoked.has(identity.thumbprint)) throw REVOKED;
        runtime.admit(identity);
      },
      refused: (reason, peer) => runtime.refused(reason, peer),
      connect: (identity, send) =>
        serve === undefined
          ? runtime.connect(identity, send)
          : new Peer(send, {}, SERVER_OPERATIONS, greeting(serve)),
    });
    this.#listener = listener;
    runtime.disconnect = (isUnwelcome, reason) => listener.disconnect(isUnwelcome, reason);
    this.#port = listener.port;
    this.#stop = async () => {
      await listener[Symbol.asyncDispose]();
      await runtime[Symbol.asyncDispose]();
      await opened?.maintenance[Symbol.asyncDispose]();
      await opened?.store[Symbol.asyncDispose]();
    };
  }

  /** Closes every connection and stops listening; what is stored stays. */
  async pause(): Promise<void> {
    const stop = this.#stop;
    this.#stop = undefined;
    this.#listener = undefined;
    await stop?.();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.pause();
    rmSync(this.directory, { recursive: true, force: true });
  }

  /** As the server has it: LevelDB, encrypted, with values of any size. */
  async #openLevel(): Promise<{ store: Store; maintenance: Maintenance }> {
    const directory = join(this.directory, 'db');
    const keyringFile = join(this.directory, 'keyring.json');
    const master = masterKeyFile(join(this.directory, 'master.key'));
    const keyring = Keyring.open(
      { keyring: keyringFile, master },
      !existsSync(join(directory, 'CURRENT')),
    );
    const level = await LevelStore.open(directory, { integrityKey: () => keyring.integrityKey });
    const encrypted = new EncryptedStore(level, keyring);
    const store = await LargeValues.open(encrypted, { exclusive: true });
    return { store, maintenance: new Maintenance({ level, encrypted, keyring, keyringFile }) };
  }

  #files(of: string): { cert: string; key: string } {
    return { cert: join(this.directory, `${of}.crt`), key: join(this.directory, `${of}.key`) };
  }
}

const REVOKED = new BridgeError('denied', 'the client certificate was revoked');

const greeting =
  (serve: Serve): Serve =>
  async (op, call) =>
    op === 'hello'
      ? { protocol: PROTOCOL_VERSION, software: 'test', role: 'host', name: 'test' }
      : await serve(op, call);
