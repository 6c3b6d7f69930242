import type { Namespace } from '#bridge/wire/names.js';
import type { Handlers } from '#bridge/wire/peer.js';
import type { QuotaOperations, QuotaUsage } from '#bridge/wire/protocol/quotas.js';
import { QUOTA_DEFAULTS, type Quotas } from '#server/services/quotas.js';

export interface QuotaServices {
  readonly quotas: Quotas;
  /** Counted by those who hold it: variables and bytes by the variables, executions and channels by the sessions. */
  readonly usageOf: (namespace: Namespace) => Promise<QuotaUsage>;
}

/** For operators: the table says so, and whoever calls a handler has checked it. */
export const quotaHandlers = ({ quotas, usageOf }: QuotaServices): Handlers<QuotaOperations> => ({
  'quota.get': async ({ params: { namespace } }) => ({
    limits: quotas.limitsOf(namespace),
    overrides: quotas.overridesOf(namespace),
    usage: await usageOf(namespace),
  }),

  'quota.set': async ({ params: { namespace, overrides }, note }) => {
    const limits =
      overrides === null
        ? await quotas.reset(namespace, note)
        : await quotas.set(namespace, overrides, note);
    return { limits, overrides: quotas.overridesOf(namespace) };
  },

  'quota.list': async () => ({ defaults: QUOTA_DEFAULTS, namespaces: quotas.list() }),
});
