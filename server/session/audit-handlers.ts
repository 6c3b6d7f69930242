import { namespaceText } from '#bridge/wire/names.js';
import type { Handlers } from '#bridge/wire/peer.js';
import type { AuditOperations } from '#bridge/wire/protocol/audit.js';
import type { Identity } from '#server/auth/identity.js';
import { type AuditNote, noteOf, target } from '#server/services/audit/note.js';
import type { Audit } from '#server/services/audit.js';

/** Cursors of a connection that may be read on without another event: a follower has one, a terminal a few. */
const CURSORS_MAX = 16;

/**
 * Operations on the audit log. They put their own success on record, so the session adds refusals only: a follower that
 * asks twice a second is one event, not one for each page.
 */
export function auditHandlers(
  { audit }: { audit: Audit },
  { identity }: { identity: Identity },
): Handlers<AuditOperations> {
  const cursors = new Set<string>();
  const give = (cursor: string) => {
    cursors.delete(cursor);
    cursors.add(cursor);
    for (const old of cursors) {
      if (cursors.size <= CURSORS_MAX) break;
      cursors.delete(old);
    }
  };
  const note = (op: string): AuditNote => noteOf(identity, op);

  return {
    'audit.read': async ({ params }) => {
      const { namespace, ...query } = params;
      const isContinued = params.after !== undefined && cursors.has(params.after);
      // When it cannot be written, what is stored can still be read.
      if (!isContinued) await audit.flush().catch(() => {});
      const page = await audit.read({
        ...query,
        namespace: namespace && namespaceText(namespace),
      });
      if (!isContinued) {
        const { execution } = params;
        await audit.done(
          execution === undefined ? note('audit.read') : target(note('audit.read'), [execution]),
        );
        give(page.end);
      }
      give(page.cursor);
      return page;
    },

    'audit.verify': async ({ params, signal }) => {
      await audit.flush();
      const verified = await audit.verify(params.heads, signal);
      const said = note('audit.verify');
      const [first] = verified.broken;
      if (first !== undefined)
        said.detail = `not intact: ${first.what} at event ${first.seq} of run ${first.writer}`;
      await audit.done(said);
      return verified;
    },

    'audit.prune': async ({ params, signal }) => {
      const said = note('audit.prune');
      const pruned = await audit.prune(params.before, said, signal);
      await audit.done(said);
      return pruned;
    },

    'audit.head': async () => {
      await audit.flush();
      const heads = await audit.heads();
      await audit.done(note('audit.head'));
      return { heads };
    },
  };
}
