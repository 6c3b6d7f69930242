import { BridgeError } from '#bridge/wire/errors.js';
import { type Namespace, namespaceText } from '#bridge/wire/names.js';
import type { Call, Handlers } from '#bridge/wire/peer.js';
import type { VARIABLE_OPERATIONS } from '#bridge/wire/protocol/variables.js';
import type { VariableChange } from '#bridge/wire/protocol.js';
import { allows, assertAllowed } from '#server/auth/access.js';
import type { Grant } from '#server/auth/tokens.js';
import type { MergePolicies } from '#server/services/merge-policies.js';
import type { Sharing } from '#server/services/sharing.js';
import type { Variables } from '#server/services/variables.js';
import { type Context, grantOf, originOf } from './context.js';

export interface VariableServices {
  readonly variables: Variables;
  readonly policies: MergePolicies;
  readonly sharing: Sharing;
}

/** Variables, for executions and operators. */
export function variableHandlers(
  { variables, policies, sharing }: VariableServices,
  context: Context,
): Handlers<typeof VARIABLE_OPERATIONS> {
  /** The namespace a call means. @throws BridgeError `denied`, `read_only` when the caller may not use the key there */
  const target = async (
    call: Call<{ namespace?: Namespace | undefined; key: string }>,
    want: 'r' | 'w',
  ): Promise<Namespace> => {
    const { namespace, key } = call.params;
    const grant = grantOf(context, call);
    if (grant === undefined) return asked(namespace);
    assertAllowed(grant, 'variables', want, key);
    if (isOwn(grant, namespace)) return grant.namespace;
    const prefixes = await sharing.prefixes(namespace, grant.namespace, want);
    if (!prefixes.some((prefix) => key.startsWith(prefix))) throw notShared(namespace);
    return namespace;
  };

  return {
    'variables.commit': async (call) => {
      const { params, channel, note } = call;
      const { grant } = context.channels.get(channel, context.now());
      for (const [key] of params.set) assertAllowed(grant, 'variables', 'w', key);
      for (const key of params.delete) assertAllowed(grant, 'variables', 'w', key);
      if (params.set.length + params.delete.length === 0) assertAllowed(grant, 'variables', 'w');
      return await variables.edit(grant.namespace, params, { by: grant.executionId, note });
    },

    'variable.get': async (call) => {
      const { params } = call;
      const found = await variables.get(await target(call, 'r'), params.key);
      const isHidden =
        found.secret === true && params.reveal !== true && context.identity.role !== 'host';
      return isHidden ? { ...found, text: null } : found;
    },

    'variable.list': async (call) => {
      const { namespace, prefix = '' } = call.params;
      const { role } = context.identity;
      if (role !== 'host') {
        const all = await variables.list(asked(namespace), prefix);
        return { variables: all.map((one) => withoutSecret(one, role === 'auditor')) };
      }
      const { grant } = context.channels.get(call.channel, context.now());
      const owner = isOwn(grant, namespace) ? grant.namespace : namespace;
      const shared = isOwn(grant, namespace)
        ? ['']
        : await sharing.prefixes(namespace, grant.namespace, 'r');
      if (shared.length === 0) throw notShared(owner);
      const all = await variables.list(owner, prefix);
      return {
        variables: all.filter(
          ({ key }) =>
            shared.some((start) => key.startsWith(start)) && allows(grant, 'variables', 'r', key),
        ),
      };
    },

    'variable.set': async (call) => {
      // A schema takes time to compile and to check, and whoever sets one decides for all who write.
      if (call.params.schema !== undefined && grantOf(context, call) !== undefined)
        throw new BridgeError('denied', 'schemas are set by operators: cronium var set --schema');
      const { namespace: _, key, text, ifVersion, commitId, ...attributes } = call.params;
      const where = await target(call, 'w');
      const setting = { text, ifVersion, commitId, attributes };
      const { version } = await variables.set(where, key, setting, originOf(context, call));
      return { version };
    },

    'variable.delete': async (call) => {
      const { key, ifVersion, commitId } = call.params;
      const where = await target(call, 'w');
      return await variables.delete(where, key, { ifVersion, commitId }, originOf(context, call));
    },

    'variable.add': async (call) => {
      const { key, by, commitId } = call.params;
      const where = await target(call, 'w');
      const { version, text } = await variables.add(
        where,
        key,
        by,
        commitId,
        originOf(context, call),
      );
      return { version, text };
    },

    'variable.append': async (call) => {
      const { key, more, commitId } = call.params;
      const where = await target(call, 'w');
      const origin = originOf(context, call);
      const { version } = await variables.append(where, key, more, commitId, origin);
      return { version };
    },

    'variable.history': async ({ params: { namespace, key, reveal } }) => {
      const present = await variables.get(namespace, key).catch((error: unknown) => {
        if (error instanceof BridgeError && error.code === 'not_found') return undefined;
        throw error;
      });
      const entries = await variables.history(namespace, key);
      // A deleted variable may have been made secret after it had these values: then they are not shown either.
      const isShown = present !== undefined && present.secret !== true;
      return {
        entries: entries.map(({ secret, ...one }) =>
          reveal === true || (isShown && secret !== true) ? one : { ...one, text: null },
        ),
      };
    },

    'variable.restore': async (call) => {
      const { namespace, key, version: wanted, commitId } = call.params;
      const origin = originOf(context, call);
      const { version } = await variables.restore(namespace, key, wanted, commitId, origin);
      return { version };
    },

    'variable.edit': async (call) =>
      await variables.edit(
        call.params.namespace,
        { set: call.params.set, delete: call.params.delete, ...idOf(call.params) },
        originOf(context, call),
      ),

    'policy.set': async ({ params: { namespace, key, policy }, note }) => {
      await policies.set(namespace, key, policy, note);
      return {};
    },

    'policy.list': async ({ params }) => ({
      policies: [...(await policies.of(params.namespace))],
    }),

    'share.set': async ({ params: { namespace, share }, note }) => {
      await sharing.set(namespace, share, note);
      return {};
    },

    'share.remove': async ({ params: { namespace, ...share }, note }) => {
      await sharing.remove(namespace, share, note);
      return {};
    },

    'share.list': async ({ params }) => ({ shares: [...(await sharing.list(params.namespace))] }),
  };
}

const idOf = ({ commitId }: { commitId?: string | undefined }) =>
  commitId === undefined ? {} : { commitId };

/** An operator has no variables of his own. @throws BridgeError `invalid` */
function asked(namespace: Namespace | undefined): Namespace {
  if (namespace !== undefined) return namespace;
  throw new BridgeError('invalid', 'namespace: say whose variable is meant');
}

const isOwn = (grant: Grant, namespace: Namespace | undefined): namespace is undefined =>
  namespace === undefined || namespaceText(namespace) === namespaceText(grant.namespace);

/** The same whether there is such a namespace or not. */
const notShared = (namespace: Namespace) =>
  new BridgeError('denied', `${namespaceText(namespace)} does not share that with this execution`);

const withoutSecret = (one: VariableChange, hidesAll: boolean): VariableChange =>
  hidesAll || one.secret === true ? { ...one, text: null } : one;
