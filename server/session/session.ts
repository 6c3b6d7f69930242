import type { Logger } from 'pino';
import { asBridgeError, BridgeError } from '#bridge/wire/errors.js';
import { type Handlers, Peer, type Serve, serveTable } from '#bridge/wire/peer.js';
import {
  PROTOCOL_VERSION,
  type Result,
  SERVER_OPERATIONS,
  type ServerOperations,
  VARIABLES_CHANGED,
} from '#bridge/wire/protocol.js';
import { accessOf, allows, assertAllowed } from '#server/auth/access.js';
import type { Identity } from '#server/auth/identity.js';
import type { Revocations } from '#server/auth/revocations.js';
import type { Successions } from '#server/auth/successions.js';
import type { TokenRecords } from '#server/auth/token-records.js';
import type { Grant, Tokens } from '#server/auth/tokens.js';
import type { Executions } from '#server/services/executions.js';
import type { MergePolicies } from '#server/services/merge-policies.js';
import type { Variables } from '#server/services/variables.js';

/** Executions one connection may have open: far above what one host can run, far below what would hurt. */
const CHANNELS_MAX = 10_000;

export interface Services {
  readonly tokens: Tokens;
  /** Without them nothing is revoked, succeeded or recorded; a real server has all three. */
  readonly revocations?: Revocations;
  readonly successions?: Successions;
  readonly tokenRecords?: TokenRecords;
  readonly variables: Variables;
  readonly policies: MergePolicies;
  readonly executions: Executions;
  readonly status: () => Result<ServerOperations, 'server.status'>;
}

/** One verified token on this connection: later calls name its number, so no call verifies anything again. */
interface Channel {
  readonly id: number;
  grant: Grant;
  readonly close: () => void;
}

/** One connection of one host or operator: authorises every call, then hands it to a service. */
export class Session {
  readonly #identity: Identity;
  readonly #services: Services;
  readonly #log: Logger;
  readonly #peer: Peer<Record<never, never>, ServerOperations>;
  readonly #channels = new Map<number, Channel>();
  #nextChannel = 1;
  readonly #unwatchRevocations: () => void;
  #greeted = false;
  #closed = false;

  constructor(
    identity: Identity,
    services: Services,
    log: Logger,
    send: (bytes: Uint8Array) => void,
  ) {
    this.#identity = identity;
    this.#services = services;
    this.#log = log.child({ role: identity.role, peer: identity.name });
    this.#peer = new Peer(send, {}, SERVER_OPERATIONS, this.#serve);
    const { revocations } = services;
    this.#unwatchRevocations =
      revocations?.onRevoked(() => this.#closeRevoked(revocations)) ?? (() => {});
  }

  get channels(): number {
    return this.#channels.size;
  }

  /** @throws BridgeError when the bytes are no frame; close the connection then. */
  receive(bytes: Uint8Array): void {
    this.#peer.receive(bytes);
  }

  close(reason: BridgeError): void {
    this.#peer.close(reason);
    this.#closed = true;
    this.#unwatchRevocations();
    for (const id of this.#channels.keys()) this.#closeChannel(id);
  }

  readonly #serve: Serve = async (op, call) => {
    const started = performance.now();
    const { executionId: execution } = this.#channels.get(call.channel)?.grant ?? {};
    const context = execution === undefined ? { op } : { op, execution };
    try {
      this.#authorise(op as keyof ServerOperations, call.channel);
      const result = await this.#handle(op, call);
      this.#log.debug({ ...context, ms: performance.now() - started }, 'call done');
      return result;
    } catch (cause) {
      const error = asBridgeError(cause);
      if (error.code === 'internal') this.#log.error({ ...context, err: cause }, 'call failed');
      else this.#log.info({ ...context, code: error.code }, 'call refused');
      throw error;
    }
  };

  #authorise(op: keyof ServerOperations, channel: number): void {
    const { caller } = SERVER_OPERATIONS[op];
    const { role, name } = this.#identity;
    if (!this.#greeted && op !== 'hello') throw new BridgeError('denied', `say hello before ${op}`);
    const needed = caller === 'channel' ? 'host' : caller;
    if (needed !== 'any' && needed !== role)
      throw new BridgeError('denied', `${op} is for a ${needed} certificate; ${name} is a ${role}`);
    if (caller === 'channel') this.#channel(channel);
  }

  #closeChannel(id: number): void {
    this.#channels.get(id)?.close();
    this.#channels.delete(id);
  }

  #closeRevoked(revocations: Revocations): void {
    for (const { id, grant } of this.#channels.values()) {
      if (!revocations.isTokenRevoked(grant)) continue;
      this.#log.info(
        { execution: grant.executionId, channel: id },
        'channel closed: token revoked',
      );
      this.#closeChannel(id);
    }
  }

  /** A connection can be lost in the middle of a call; nothing may be opened on it then. */
  #assertOpen(): void {
    if (this.#closed) throw new BridgeError('unavailable', 'the connection was closed');
  }

  /** @throws BridgeError `denied` for a channel of nobody, `token_expired` when it was not renewed in time. */
  #channel(id: number): Channel {
    const channel = this.#channels.get(id);
    if (channel === undefined) throw new BridgeError('denied', `channel ${id} is not open here`);
    const { grant } = channel;
    if (Date.now() > grant.expiresAt)
      throw new BridgeError(
        'token_expired',
        `the token of execution ${grant.executionId} has expired`,
      );
    return channel;
  }

  readonly #handlers: Handlers<ServerOperations> = {
    hello: async ({ params }) => {
      if (params.protocol !== PROTOCOL_VERSION)
        throw new BridgeError(
          'invalid',
          `this server speaks protocol ${PROTOCOL_VERSION}, the peer ${params.protocol}: update the older one`,
        );
      const { role, name } = this.#identity;
      if (role === 'auditor')
        throw new BridgeError('denied', 'this server has no operations for an auditor yet');
      this.#greeted = true;
      const { software } = this.#services.status();
      return { protocol: PROTOCOL_VERSION, software, role, name };
    },

    'server.status': async () => this.#services.status(),

    'execution.create': async ({ params }) => {
      const { executions, tokens, tokenRecords } = this.#services;
      const { name, thumbprint } = this.#identity;
      const executionId = await executions.create(params, name);
      const access = accessOf('local');
      const grant = { executionId, namespace: params.variablesOf, ...access };
      const { jti, ...minted } = await tokens.mint(grant, thumbprint);
      const { expiresAt } = minted;
      await tokenRecords?.add({
        jti,
        executionId,
        ...access,
        thumbprint,
        by: `host:${name}`,
        expiresAt,
      });
      this.#log.info({ execution: executionId, event: params.event.id }, 'execution created');
      return { executionId, ...minted };
    },

    'execution.open': async ({ params }) => {
      const { tokens, executions, variables, policies, successions } = this.#services;
      const { thumbprint } = this.#identity;
      const bearers = successions?.lineOf(thumbprint) ?? [thumbprint];
      const grant = await tokens.verify(params.token, ...bearers);
      await executions.assertRunning(grant.executionId);
      // In the same turn as the channel is kept: a revocation comes before this, or finds the channel.
      if (this.#services.revocations?.isTokenRevoked(grant) === true)
        throw new BridgeError('denied', 'the token was revoked');
      if (this.#channels.size >= CHANNELS_MAX)
        throw new BridgeError(
          'rate_limited',
          `${CHANNELS_MAX} executions are open on this connection`,
        );
      this.#assertOpen();
      const id = this.#nextChannel++;
      const mayRead = (key: string) => allows(grant, 'variables', 'r', key);
      // Watching starts before the list is read: a change in between arrives twice, which versions make harmless.
      const unwatch = variables.watch(grant.namespace, (all, by) => {
        const changes = all.filter(({ key }) => mayRead(key));
        if (by !== grant.executionId && changes.length > 0)
          this.#peer.push(id, VARIABLES_CHANGED, { changes });
      });
      // Ended through another channel or connection: this one is over too.
      const unwatchEnd = executions.onEnd(grant.executionId, () => this.#closeChannel(id));
      const close = () => {
        unwatch();
        unwatchEnd();
      };
      this.#channels.set(id, { id, grant, close });
      try {
        return {
          executionId: grant.executionId,
          channel: id,
          expiresAt: grant.expiresAt,
          variables: (await variables.list(grant.namespace)).filter(({ key }) => mayRead(key)),
          merged: [...(await policies.of(grant.namespace)).keys()].filter(mayRead),
        };
      } catch (error) {
        this.#closeChannel(id);
        throw error;
      }
    },

    'token.renew': async ({ channel: id }) => {
      const channel = this.#channel(id);
      const { grant } = channel;
      const { jti, ...minted } = await this.#services.tokens.mint(grant, this.#identity.thumbprint);
      channel.grant = { ...grant, jti, expiresAt: minted.expiresAt };
      return minted;
    },

    'variables.commit': async ({ params, channel }) => {
      const { grant } = this.#channel(channel);
      const { set, delete: deleted, ...merge } = params;
      const keys = [...set.map(([key]) => key), ...deleted];
      if (keys.length === 0) assertAllowed(grant, 'variables', 'w');
      for (const key of keys) assertAllowed(grant, 'variables', 'w', key);
      const edit = { set, delete: deleted, merge };
      return await this.#services.variables.edit(grant.namespace, edit, grant.executionId);
    },

    'output.set': async ({ params, channel }) => {
      const { grant } = this.#channel(channel);
      assertAllowed(grant, 'output', 'w');
      await this.#services.executions.setOutput(grant.executionId, params.text);
      return {};
    },

    'condition.set': async ({ params, channel }) => {
      const { grant } = this.#channel(channel);
      assertAllowed(grant, 'condition', 'w');
      await this.#services.executions.setCondition(grant.executionId, params.condition);
      return {};
    },

    'execution.finish': async ({ params, channel: id }) => {
      const channel = this.#channel(id);
      const { executionId } = channel.grant;
      await this.#services.executions.finish(executionId, params);
      this.#closeChannel(id);
      this.#log.info({ execution: executionId, status: params.status }, 'execution finished');
      return {};
    },

    'execution.get': async ({ params }) => await this.#services.executions.get(params.executionId),

    'variable.get': async ({ params }) =>
      await this.#services.variables.get(params.namespace, params.key),

    'variable.list': async ({ params }) => ({
      variables: await this.#services.variables.list(params.namespace),
    }),

    'variable.edit': async ({ params }) =>
      await this.#services.variables.edit(
        params.namespace,
        params,
        `operator:${this.#identity.name}`,
      ),

    'policy.set': async ({ params: { namespace, key, policy } }) => {
      await this.#services.policies.set(namespace, key, policy);
      this.#log.info({ policy }, 'merge policy set');
      return {};
    },

    'policy.list': async ({ params }) => ({
      policies: [...(await this.#services.policies.of(params.namespace))],
    }),
  };

  readonly #handle = serveTable(this.#handlers);
}
