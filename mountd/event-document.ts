import type { EventDocument } from '#bridge/wire/protocol.js';
import type { RunRecord } from './run-records.js';

/** event.json with every key, in the contract's order; what the caller left out gets a plain default. */
export function eventDocument({ request, acceptedAt }: RunRecord): EventDocument {
  const { event, script, runtime, user } = request;
  const now = new Date(acceptedAt).toISOString();
  return {
    id: event.id ?? 0,
    name: event.name ?? script.name,
    description: event.description ?? null,
    type: event.type ?? runtime.toUpperCase(),
    runLocation: event.runLocation ?? 'LOCAL',
    createdAt: event.createdAt ?? now,
    updatedAt: event.updatedAt ?? now,
    userId: event.userId ?? user,
    server: event.server ?? null,
    successCount: event.successCount ?? 0,
    failureCount: event.failureCount ?? 0,
    lastRunAt: event.lastRunAt ?? null,
  };
}
