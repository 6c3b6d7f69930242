import type { Logger } from 'pino';
import { asBridgeError, BridgeError, type Code } from '#bridge/wire/errors.js';
import { namespaceText } from '#bridge/wire/names.js';
import { type Call, Peer, type Serve, serveTable } from '#bridge/wire/peer.js';
import {
  PROTOCOL_VERSION,
  type Result,
  SERVER_OPERATIONS,
  type ServerOperations,
} from '#bridge/wire/protocol.js';
import type { Identity } from '#server/auth/identity.js';
import type { Grant } from '#server/auth/tokens.js';
import { type AuditNote, noteOf } from '#server/services/audit/note.js';
import type { Audit } from '#server/services/audit.js';
import type { FairQueue } from '#server/services/fair-queue.js';
import { CLASS_OF, costOf, type RateLimits, type Who } from '#server/services/rate-limits.js';
import { auditHandlers } from './audit-handlers.js';
import { Channels } from './channels.js';
import type { Context } from './context.js';
import { type CredentialServices, credentialHandlers } from './credential-handlers.js';
import { type ExecutionServices, executionHandlers } from './execution-handlers.js';
import { type QuotaServices, quotaHandlers } from './quota-handlers.js';
import { type StoreServices, storeHandlers } from './store-handlers.js';
import { targetsOf } from './targets.js';
import { type VariableServices, variableHandlers } from './variable-handlers.js';

export interface Services
  extends ExecutionServices,
    VariableServices,
    CredentialServices,
    QuotaServices,
    StoreServices {
  readonly audit: Audit;
  readonly rates: RateLimits;
  readonly turns: FairQueue;
  readonly status: () => Result<ServerOperations, 'server.status'>;
  /** Store clock. */
  readonly now: () => number;
  /** Hears of every call: how it ended (`ok` or a code) and how long it took. */
  readonly observe: (op: string, outcome: string, seconds: number) => void;
  /** Hears of every execution that is opened on a connection, and of its end there. */
  readonly channelsChanged: (by: 1 | -1, namespace: string) => void;
}

/** One connection of one host, operator or auditor: authorises every call, counts it, has it on record, and hands it on. */
export class Session {
  readonly #identity: Identity;
  readonly #services: Services;
  readonly #log: Logger;
  readonly #peer: Peer<Record<never, never>, ServerOperations>;
  readonly #channels: Channels;
  readonly #handle: Serve;
  readonly #unwatchRevocations: () => void;
  readonly #onClosed: () => void;
  #greeted = false;
  #closed = false;
  /** By code: when it was last on record, and how many there have been since. */
  readonly #often = new Map<Code, { at: number; more: number }>();

  constructor(
    identity: Identity,
    services: Services,
    log: Logger,
    send: (bytes: Uint8Array) => void,
    closed: () => void = () => {},
  ) {
    this.#onClosed = closed;
    this.#identity = identity;
    this.#services = services;
    this.#log = log.child({ role: identity.role, peer: identity.name });
    this.#peer = new Peer(send, {}, SERVER_OPERATIONS, this.#serve);
    this.#peer.onRefused = (op, channel, error) => this.#refused(op, channel, error);
    this.#channels = new Channels((by, { namespace }) =>
      services.channelsChanged(by, namespaceText(namespace)),
    );
    const { revocations } = services;
    this.#unwatchRevocations = revocations.onRevoked(() => {
      const count = this.#channels.closeRevoked((grant) => revocations.isTokenRevoked(grant));
      if (count > 0) this.#log.info({ count }, 'channels closed: token revoked');
    });
    this.#handle = this.#handlers();
  }

  get channels(): number {
    return this.#channels.size;
  }

  /** @throws BridgeError when the bytes are no frame; close the connection then. */
  receive(bytes: Uint8Array): void {
    this.#peer.receive(bytes);
  }

  /** Refuses calls from now on; resolves when those under way have been answered. */
  async drain(reason: BridgeError): Promise<void> {
    await this.#peer.drain(reason);
  }

  close(reason: BridgeError): void {
    if (this.#closed) return;
    this.#peer.close(reason);
    this.#closed = true;
    this.#unwatchRevocations();
    this.#channels.closeAll();
    this.#onClosed();
  }

  readonly #serve: Serve = async (name, call) => {
    const op = name as keyof ServerOperations; // the peer has looked it up
    const started = performance.now();
    const grant = this.#channels.grantOf(call.channel);
    const note = targetsOf(
      this.#noteOf(op, grant),
      call.params as Readonly<Record<string, unknown>>,
    );
    call.note = note;
    let outcome = 'ok';
    try {
      const result = await this.#admitted(op, call, grant);
      if (!isOnRecord(op, call)) await this.#services.audit.done(note);
      if (CLASS_OF[op] === 'admin') this.#log.info({ op, execution: grant?.executionId }, 'done');
      return result;
    } catch (cause) {
      const error = asBridgeError(cause);
      outcome = error.code;
      await this.#failed(note, error)?.catch(() => {}); // the caller hears the first error
      const context = { op, execution: grant?.executionId };
      if (error.code === 'internal') this.#log.error({ ...context, err: cause }, 'call failed');
      else
        this.#log[LOGGED[error.code] ?? 'debug']({ ...context, code: error.code }, 'call refused');
      throw error;
    } finally {
      this.#services.observe(op, outcome, (performance.now() - started) / 1000);
    }
  };

  #failed(note: AuditNote, error: BridgeError): Promise<void> | undefined {
    return error.code === 'rate_limited'
      ? this.#failedOften(note, error)
      : this.#services.audit.failed(note, error);
  }

  /** Calls that nothing has counted are on record once a second, with their number: a flood must not fill the disk. */
  #failedOften(note: AuditNote, error: BridgeError): Promise<void> | undefined {
    const now = this.#services.now();
    const often = this.#often.get(error.code) ?? { at: 0, more: 0 };
    this.#often.set(error.code, often);
    if (now - often.at < OFTEN_MS) {
      often.more++;
      return undefined;
    }
    const more = often.more === 0 ? '' : `; ${often.more} more were before`;
    often.at = now;
    often.more = 0;
    return this.#services.audit.failed(
      note,
      new BridgeError(error.code, `${error.message}${more}`),
    );
  }

  /** What the peer's end of the wire has refused: there are no parameters that anybody could name. */
  #refused(op: string, channel: number, error: BridgeError): void {
    const known = Object.hasOwn(SERVER_OPERATIONS, op) ? op : 'unknown';
    const note = this.#noteOf(known, this.#channels.grantOf(channel));
    this.#failedOften(note, error)?.catch(() => {}); // nobody waits for it
    this.#services.observe(known, error.code, 0);
  }

  /** Calls the handler, if the call may be made, and when it is its turn. */
  async #admitted(
    op: keyof ServerOperations,
    call: Call<unknown>,
    grant: Grant | undefined,
  ): Promise<unknown> {
    const { rates, turns, now } = this.#services;
    const tenant = grant === undefined ? this.#identity.name : namespaceText(grant.namespace);
    const who: Who = {
      peer: this.#identity.thumbprint,
      ...(grant && { execution: grant.executionId, namespace: tenant }),
    };
    const bytes = call.bytes ?? 0;
    // Counted before it is judged: whoever makes calls that are refused can make only so many.
    rates.enter(who, CLASS_OF[op], costOf(bytes), now());
    try {
      this.#authorise(op, call.channel);
      const turn = turns.enter(tenant, bytes, () => call.signal);
      if (turn !== undefined) await turn;
      try {
        return await this.#handle(op, call);
      } finally {
        turns.leave(tenant);
      }
    } finally {
      rates.leave(who);
    }
  }

  #authorise(op: keyof ServerOperations, channel: number): void {
    const { caller } = SERVER_OPERATIONS[op];
    const { role, name } = this.#identity;
    if (!this.#greeted && op !== 'hello') throw new BridgeError('denied', `say hello before ${op}`);
    if (!CALLERS[caller].includes(role))
      throw new BridgeError('denied', `${op} is not for the ${role} ${name}`);
    const isOnChannel = caller === 'channel' || (role === 'host' && ON_CHANNEL.includes(caller));
    if (isOnChannel) this.#channels.get(channel, this.#services.now());
  }

  #noteOf(op: string, grant: Grant | undefined): AuditNote {
    const note = noteOf(this.#identity, op);
    if (grant !== undefined) {
      note.execution = grant.executionId;
      note.namespace = namespaceText(grant.namespace);
    }
    return note;
  }

  #handlers(): Serve {
    const services = this.#services;
    const context: Context = {
      identity: this.#identity,
      channels: this.#channels,
      push: (channel, topic, value) => this.#peer.push(channel, topic, value),
      assertOpen: () => {
        if (this.#closed) throw new BridgeError('unavailable', 'the connection was closed');
      },
      now: services.now,
    };
    return serveTable<ServerOperations>({
      hello: async ({ params }) => this.#hello(params.protocol),
      'server.status': async () => services.status(),
      ...executionHandlers(services, context),
      ...variableHandlers(services, context),
      ...credentialHandlers(services, context),
      ...quotaHandlers(services),
      ...auditHandlers(services, context),
      ...storeHandlers(services),
    });
  }

  #hello(protocol: number): Result<ServerOperations, 'hello'> {
    if (protocol !== PROTOCOL_VERSION)
      throw new BridgeError(
        'invalid',
        `this server speaks protocol ${PROTOCOL_VERSION}, the peer ${protocol}: update the older one`,
      );
    this.#greeted = true;
    const { role, name } = this.#identity;
    return { protocol: PROTOCOL_VERSION, software: this.#services.status().software, role, name };
  }
}

const OFTEN_MS = 1000;

/** What follows on a call that is on record already: pages of the log, pieces of a backup. */
const isOnRecord = (op: string, { params }: Call<unknown>): boolean =>
  op.startsWith('audit.') ||
  (op === 'store.backup' && (params as { id?: number }).id !== undefined);

/** What an operator may want to act on; all else is per call. */
const LOGGED: { readonly [C in Code]?: 'info' } = {
  denied: 'info',
  token_expired: 'info',
  quota: 'info',
};

type Caller = ServerOperations[keyof ServerOperations]['caller'];
type Role = Identity['role'];

/** Certificates that a kind of operation takes. */
const CALLERS: { readonly [C in Caller]: readonly Role[] } = {
  any: ['host', 'operator', 'auditor'],
  host: ['host'],
  operator: ['operator'],
  auditor: ['operator', 'auditor'],
  channel: ['host'],
  user: ['host', 'operator'],
  reader: ['host', 'operator', 'auditor'],
};

/** Kinds that a host may call for an execution only. */
const ON_CHANNEL: readonly Caller[] = ['user', 'reader'];
