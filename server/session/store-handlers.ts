import { BridgeError } from '#bridge/wire/errors.js';
import type { Handlers } from '#bridge/wire/peer.js';
import type { StoreOperations } from '#bridge/wire/protocol/store.js';
import type { Executions } from '#server/services/executions.js';
import type { Maintenance } from '#server/services/maintenance.js';
import type { MergePolicies } from '#server/services/merge-policies.js';
import type { Sharing } from '#server/services/sharing.js';
import type { Variables } from '#server/services/variables.js';

export interface StoreServices {
  /** Undefined over a store that has no files. */
  readonly maintenance: Maintenance | undefined;
  readonly executions: Executions;
  readonly variables: Variables;
  readonly policies: MergePolicies;
  readonly sharing: Sharing;
}

/** A terminal asks for the next piece at once; whoever does not for so long has gone. */
const BACKUP_IDLE_MS = 60_000;

interface Backup {
  readonly id: number;
  readonly pieces: AsyncGenerator<Buffer>;
  readonly timer: NodeJS.Timeout;
}

/** The database and its keys, for operators. */
export function storeHandlers({
  maintenance,
  executions,
  variables,
  policies,
  sharing,
}: StoreServices): Handlers<StoreOperations> {
  let current: Backup | undefined;
  let nextId = 1;
  const stop = () => {
    clearTimeout(current?.timer);
    current?.pieces.return(undefined).catch(() => {}); // gives its snapshot back; nobody waits for it
    current = undefined;
  };
  const files = (): Maintenance => {
    if (maintenance === undefined)
      throw new BridgeError('invalid', 'this server keeps its data in memory');
    return maintenance;
  };
  return {
    'store.verify': async () => await files().verify(),

    'store.compact': async () => {
      await files().compact();
      return {};
    },

    'store.backup': async ({ params: { id } }) => {
      if (id === undefined) {
        stop();
        const timer = setTimeout(stop, BACKUP_IDLE_MS).unref();
        current = { id: nextId++, pieces: files().backup(), timer };
      }
      const backup = current;
      if (backup === undefined || (id !== undefined && backup.id !== id))
        throw new BridgeError('not_found', `backup ${id} is over: begin another one`);
      backup.timer.refresh();
      const { value, done } = await backup.pieces.next();
      if (done === true) stop();
      return { id: backup.id, piece: value ?? new Uint8Array(), done: done === true };
    },

    'keys.status': async () => files().status(),

    'keys.rotate': async ({ params }) => {
      files().rotate(params.namespace);
      return {};
    },

    'keys.rotate-master': async () => {
      files().rotateMaster();
      return {};
    },

    'namespace.erase': async ({ params: { namespace } }) => {
      const running = await executions.running(namespace);
      if (running > 0)
        throw new BridgeError(
          'busy',
          `${running} executions use it; end them first: cronium exec list --running`,
        );
      await files().erase(namespace);
      // Else whoever has the name next would have its rules.
      variables.cache.drop(namespace);
      policies.drop(namespace);
      sharing.drop(namespace);
      return {};
    },
  };
}
