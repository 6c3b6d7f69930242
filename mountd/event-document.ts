import type { RunRequest } from '#bridge/wire/control.js';
import type { EventDocument } from '#bridge/wire/protocol.js';

/** What event.json is made of. Without a runtime it is a container of somebody else's. */
export interface EventSource {
  readonly request: Pick<RunRequest, 'event' | 'user'> & {
    readonly runtime?: RunRequest['runtime'] | undefined;
    readonly script?: { readonly name: string } | undefined;
  };
  readonly acceptedAt: number;
}

/** event.json with every key, in the contract's order; what the caller left out gets a plain default. */
export function eventDocument({ request, acceptedAt }: EventSource): EventDocument {
  const { event, script, runtime, user } = request;
  const now = new Date(acceptedAt).toISOString();
  return {
    id: event.id ?? 0,
    name: event.name ?? script?.name ?? 'prepared',
    description: event.description ?? null,
    type: event.type ?? runtime?.toUpperCase() ?? 'CONTAINER',
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
