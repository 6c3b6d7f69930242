import { BridgeError } from '#bridge/wire/errors.js';
import { namespaceText } from '#bridge/wire/names.js';
import type { Handlers } from '#bridge/wire/peer.js';
import type { EXECUTION_OPERATIONS } from '#bridge/wire/protocol/executions.js';
import { EXECUTION_CANCELLED, type Params, VARIABLES_CHANGED } from '#bridge/wire/protocol.js';
import { accessOf, allows, assertAllowed } from '#server/auth/access.js';
import type { Revocations } from '#server/auth/revocations.js';
import type { Successions } from '#server/auth/successions.js';
import type { TokenRecords } from '#server/auth/token-records.js';
import type { Tokens } from '#server/auth/tokens.js';
import type { AuditNote } from '#server/services/audit/note.js';
import type { Executions, Owner, Place } from '#server/services/executions.js';
import type { MergePolicies } from '#server/services/merge-policies.js';
import type { Quotas } from '#server/services/quotas.js';
import type { Variables } from '#server/services/variables.js';
import type { Context } from './context.js';

export interface ExecutionServices {
  readonly tokens: Tokens;
  readonly revocations: Revocations;
  readonly successions: Successions;
  readonly tokenRecords: TokenRecords;
  readonly executions: Executions;
  readonly variables: Variables;
  readonly policies: MergePolicies;
  readonly quotas: Quotas;
  /** Channels that are open for a namespace, on all connections. */
  readonly channelsOf: (namespace: string) => number;
}

/** What is said of an execution when it is created. */
type Handed = Place &
  Pick<Params<typeof EXECUTION_OPERATIONS, 'execution.create'>, 'profile' | 'readOnly'>;

/** Beginning, end and results of executions. */
export function executionHandlers(
  services: ExecutionServices,
  context: Context,
): Handlers<typeof EXECUTION_OPERATIONS> {
  const { tokens, revocations, successions, tokenRecords, executions } = services;
  const { variables, policies, quotas, channelsOf } = services;
  const { identity, channels, push, assertOpen, now } = context;
  /** As of now: an operator may have told of a succession since the connection was made. */
  const owner = (): Owner => {
    const { name, thumbprint } = identity;
    const [, ...before] = successions.lineOf(thumbprint);
    return { name, thumbprints: [thumbprint, ...before] };
  };
  const handOut = async (
    { executionId, namespace, profile = 'local', readOnly = false }: Handed,
    note?: unknown,
  ) => {
    const { name, thumbprint } = identity;
    const access = accessOf(profile, readOnly ? 'ro' : 'rw');
    const grant = { executionId, namespace, ...access };
    const { jti, ...minted } = await tokens.mint(grant, thumbprint);
    const { expiresAt } = minted;
    const kept = { jti, executionId, ...access, thumbprint, by: `host:${name}`, expiresAt };
    await Promise.all([tokenRecords.add(kept, note), executions.handedOut(grant, jti)]);
    return { executionId, ...minted };
  };
  return {
    'execution.create': async ({ params, note }) => {
      const { variablesOf: namespace } = params;
      const most = quotas.limitsOf(namespace).executions;
      const executionId = await executions.create(params, owner(), most, note);
      return await handOut({ ...params, executionId, namespace });
    },

    'execution.reopen': async ({ params: { executionId }, note }) => {
      const execution = await executions.owned(executionId, owner());
      // Its first token, and those that it was given here before.
      const before = await executions.tokensOf(execution);
      const assertWelcome = () => {
        for (const jti of [executionId, ...before])
          if (revocations.isTokenRevoked({ jti, family: jti, executionId }))
            throw new BridgeError('denied', 'the token was revoked');
      };
      assertWelcome();
      const answer = await handOut(execution, note);
      assertWelcome(); // a revocation that came meanwhile is not outrun
      // What nobody can use any more does not have to stay open beside what comes in its place.
      channels.closeAll((grant) => grant.executionId === executionId && now() > grant.expiresAt);
      return answer;
    },

    'execution.open': async ({ params, note }) => {
      const grant = await tokens.verify(params.token, ...successions.lineOf(identity.thumbprint));
      const { executionId, namespace } = grant;
      Object.assign(note as AuditNote, {
        execution: executionId,
        namespace: namespaceText(namespace),
      });
      await executions.assertRunning(grant);
      // In the same turn as the channel is kept: a revocation comes before this, or finds the channel.
      if (revocations.isTokenRevoked(grant))
        throw new BridgeError('denied', 'the token was revoked');
      quotas.assertRoom(namespace, 'connections', channelsOf(namespaceText(namespace)));
      assertOpen();
      const mayRead = (key: string) => allows(grant, 'variables', 'r', key);
      const { id } = channels.add(grant, (channel) => {
        // Watching starts before the list is read: a change in between arrives twice, which versions make harmless.
        const stops = [
          variables.watch(namespace, (all, by) => {
            const changes = all.filter(({ key }) => mayRead(key));
            if (by !== executionId && changes.length > 0)
              push(channel, VARIABLES_CHANGED, { changes });
          }),
          // Before its end: who gives an execution up, whatever its host does, tells the host all the same.
          executions.onCancel(grant, (reason) => push(channel, EXECUTION_CANCELLED, { reason })),
          // Ended through another channel or connection: this one is over too.
          executions.onEnd(grant, () => channels.close(channel)),
        ];
        return () => {
          for (const stop of stops) stop();
        };
      });
      try {
        return {
          executionId,
          channel: id,
          expiresAt: grant.expiresAt,
          variables: (await variables.list(namespace)).filter(({ key }) => mayRead(key)),
          merged: [...(await policies.of(namespace)).keys()].filter(mayRead),
        };
      } catch (error) {
        channels.close(id);
        throw error;
      }
    },

    'token.renew': async ({ channel: id }) => {
      const channel = channels.get(id, now());
      const { grant } = channel;
      const { jti, ...minted } = await tokens.mint(grant, identity.thumbprint);
      channel.grant = { ...grant, jti, expiresAt: minted.expiresAt };
      return minted;
    },

    'output.set': async ({ params, channel, note }) => {
      const { grant } = channels.get(channel, now());
      assertAllowed(grant, 'output', 'w');
      await executions.setOutput(grant, params.text, note);
      return {};
    },

    'condition.set': async ({ params, channel, note }) => {
      const { grant } = channels.get(channel, now());
      assertAllowed(grant, 'condition', 'w');
      await executions.setCondition(grant, params.condition, note);
      return {};
    },

    'execution.finish': async ({ params, channel: id, note }) => {
      const { grant } = channels.get(id, now());
      await executions.finish(grant, params, note);
      channels.close(id);
      return {};
    },

    'execution.mine': async ({ params }) => ({
      executionIds: await executions.openOf({ ...params, name: identity.name }),
    }),

    'execution.lose': async ({ params: { executionIds, instance, reason }, note }) => {
      await executions.lose({ name: identity.name, instance }, executionIds, reason, (place) => ({
        ...(note as AuditNote),
        execution: place.executionId,
        namespace: namespaceText(place.namespace),
      }));
      return {};
    },

    'execution.get': async ({ params }) => await executions.get(params.executionId),

    'execution.list': async ({ params }) => ({ executions: await executions.list(params) }),

    'execution.cancel': async ({ params: { executionId, ...params }, note }) => {
      await executions.cancel(executionId, params, `${identity.role}:${identity.name}`, note);
      return {};
    },
  };
}
