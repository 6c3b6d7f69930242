import type { Logger } from 'pino';
import { BridgeError } from '#bridge/wire/errors.js';
import { type Namespace, namespaceText } from '#bridge/wire/names.js';
import type { CredentialOperations } from '#bridge/wire/protocol/credentials.js';
import type { Result } from '#bridge/wire/protocol.js';
import type { Identity } from './auth/identity.js';
import { Revocations } from './auth/revocations.js';
import { Successions } from './auth/successions.js';
import { TokenRecords } from './auth/token-records.js';
import type { Tokens } from './auth/tokens.js';
import type { RefusedPeer } from './listen/refused-peer.js';
import { noteOf, target } from './services/audit/note.js';
import { Audit } from './services/audit.js';
import { Executions } from './services/executions.js';
import { FairQueue } from './services/fair-queue.js';
import type { Maintenance } from './services/maintenance.js';
import { MergePolicies } from './services/merge-policies.js';
import { Quotas } from './services/quotas.js';
import { type Rate, RateLimits, type RateSettings } from './services/rate-limits.js';
import { Sharing } from './services/sharing.js';
import { Variables } from './services/variables.js';
import { type Services, Session } from './session/session.js';
import { MemoryStore } from './store/memory-store.js';
import type { Store } from './store/store.js';

const REVOKED = new BridgeError('denied', 'the client certificate was revoked');

/** Expired variables are gone from every list at once, and from the store and the running executions by this. */
const SWEEP_EVERY_MS = 1000;

/**
 * Refused connections that are on record one by one: all of a fleet whose certificates have expired, but whoever connects
 * again and again without one must not fill the disk. Those left out are counted.
 */
const REFUSALS: Rate = { burst: 200, perSecond: 1 };

export interface RuntimeOptions {
  readonly tokens: Tokens;
  readonly log: Logger;
  readonly software: string;
  readonly rates?: RateSettings;
  /** Undefined over a store that has no files. */
  readonly maintenance?: Maintenance;
  /** Why the store can only be read. */
  readonly problems?: readonly string[];
  /** How often a supervisor has started the server again. */
  readonly restarts?: number;
  readonly observe?: Services['observe'];
  readonly reload?: () => Promise<Result<CredentialOperations, 'server.reload'>>;
}

/** Everything of the server above the store and below the network: what sessions are served with. */
export class Runtime implements AsyncDisposable {
  readonly services: Services;
  readonly #log: Logger;
  readonly #audit: Audit;
  readonly #sessions = new Set<Session>();
  readonly #sweeper: NodeJS.Timeout | undefined;
  #sweeping: Promise<unknown> | undefined;
  readonly #disposables: readonly Disposable[];
  readonly #refusals = new RateLimits({ rates: { peer: { admin: REFUSALS } } });
  /** Refused connections that are not on record yet. */
  #uncounted = 0;

  private constructor(
    services: Services,
    log: Logger,
    sessions: Set<Session>,
    disposables: readonly Disposable[],
    sweeps: boolean,
  ) {
    this.services = services;
    this.#log = log;
    this.#audit = services.audit;
    this.#sessions = sessions;
    this.#disposables = disposables;
    services.revocations.onRevoked(({ kind, id }) => {
      if (kind === 'certificate') this.disconnect(({ thumbprint }) => thumbprint === id, REVOKED);
    });
    if (sweeps) this.#sweeper = setInterval(() => this.#sweep(), SWEEP_EVERY_MS).unref();
  }

  static async open(store: Store, options: RuntimeOptions): Promise<Runtime> {
    const {
      tokens,
      log,
      software,
      rates,
      problems = [],
      observe = () => {},
      restarts = 0,
    } = options;
    const startedAt = Date.now();
    // Of a store that can only be read nothing can be on record but in the log.
    const auditStore = problems.length === 0 ? store : new MemoryStore();
    const audit = await Audit.open(
      auditStore,
      (error) => log.error({ reason: error.message }, 'the audit log waits'),
      store,
    );
    const revocations = await Revocations.open(store);
    const successions = await Successions.open(store, (thumbprint) =>
      revocations.isRevoked(thumbprint),
    );
    const quotas = await Quotas.open(store);
    const policies = new MergePolicies(store);
    const executions = new Executions(store);
    const variables = new Variables(
      store,
      policies,
      () => store.now(),
      (namespace) => quotas.limitsOf(namespace),
    );
    const channels = new Map<string, number>();
    const sessions = new Set<Session>();
    const services: Services = {
      tokens,
      revocations,
      successions,
      tokenRecords: new TokenRecords(store),
      executions,
      variables,
      policies,
      sharing: new Sharing(store),
      quotas,
      maintenance: options.maintenance,
      audit,
      rates: new RateLimits(rates),
      turns: new FairQueue(),
      observe,
      now: () => store.now(),
      channelsOf: (namespace) => channels.get(namespace) ?? 0,
      channelsChanged: (by, namespace) => {
        const count = (channels.get(namespace) ?? 0) + by;
        if (count === 0) channels.delete(namespace);
        else channels.set(namespace, count);
      },
      usageOf: async (namespace: Namespace) => ({
        ...(await variables.usage(namespace)),
        executions: await executions.running(namespace),
        connections: channels.get(namespaceText(namespace)) ?? 0,
      }),
      reload:
        options.reload ??
        (async () => {
          throw new TypeError('this server has nothing to reload');
        }),
      status: () => ({
        software,
        pid: process.pid,
        startedAt,
        restarts,
        connections: sessions.size,
        channels: [...sessions].reduce((sum, session) => sum + session.channels, 0),
        storeVersion: store.version,
        problems: [...problems],
      }),
    };
    const disposables = [revocations, successions, quotas];
    return new Runtime(services, log, sessions, disposables, problems.length === 0);
  }

  get connections(): number {
    return this.#sessions.size;
  }

  get channels(): number {
    return [...this.#sessions].reduce((sum, session) => sum + session.channels, 0);
  }

  /** Whether a certificate that is good in itself is welcome here. @throws BridgeError `denied` */
  admit({ thumbprint }: Identity): void {
    if (this.services.revocations.isRevoked(thumbprint)) throw REVOKED;
  }

  /** Closes the connections of whom it is told; set by whoever has them. */
  disconnect: (isUnwelcome: (identity: Identity) => boolean, reason: BridgeError) => void =
    () => {};

  /** One connection: for the listener. */
  connect(identity: Identity, send: (bytes: Uint8Array) => void): Session {
    const session = new Session(identity, this.services, this.#log, send, () =>
      this.#sessions.delete(session),
    );
    this.#sessions.add(session);
    return session;
  }

  /** Puts on record that a connection was refused before it had a session: for the listener. */
  refused(reason: BridgeError, peer: RefusedPeer): void {
    try {
      this.#refusals.take({ peer: 'refused' }, 'admin', 1, this.services.now());
    } catch {
      this.#uncounted++;
      return;
    }
    const { role = 'nobody', name = 'unknown', thumbprint = '' } = peer;
    const others = this.#uncounted === 0 ? '' : `; ${this.#uncounted} more were refused before`;
    this.#uncounted = 0;
    const error = new BridgeError(reason.code, `${reason.message}${others}`);
    const note = noteOf({ role, name, thumbprint }, 'connect');
    this.#audit.failed(note, error)?.catch(() => {}); // nobody waits for it; the log has it
  }

  /** After the listener has closed and before the store does. */
  async [Symbol.asyncDispose](): Promise<void> {
    clearInterval(this.#sweeper);
    await this.#sweeping;
    await this.#audit[Symbol.asyncDispose]();
    for (const disposable of this.#disposables) disposable[Symbol.dispose]();
  }

  #sweep(): void {
    this.#sweeping ??= this.services.variables
      .sweep((key, namespace) => {
        const note = noteOf({ role: 'server', name: 'expiry', thumbprint: '' }, 'variable.expire');
        note.namespace = namespaceText(namespace);
        return target(note, [key]);
      })
      .catch((error: unknown) => this.#log.error({ err: error }, 'expired variables stay'))
      .finally(() => {
        this.#sweeping = undefined;
      });
  }
}
