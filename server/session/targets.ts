import { Namespace, namespaceText } from '#bridge/wire/names.js';
import { type AuditNote, TARGETS_MAX, target } from '#server/services/audit/note.js';

/** Puts on record what a call is about: whose variables, which keys, executions or credentials. Never a value. */
export function targetsOf(note: AuditNote, params: Readonly<Record<string, unknown>>): AuditNote {
  const { key, set, executionId, executionIds, thumbprint, id } = params;
  const namespace = params['namespace'] ?? params['variablesOf'];
  if (namespace !== undefined) {
    const of = Namespace.safeParse(namespace);
    if (of.success) note.namespace = namespaceText(of.data);
  }
  if (typeof key === 'string') return target(note, [key]);
  if (Array.isArray(set)) return edited(note, set, params['delete']);
  if (Array.isArray(executionIds)) return target(note, executionIds.map(String));
  const one = executionId ?? thumbprint ?? id;
  return typeof one === 'string' ? target(note, [one]) : note;
}

/** Named are the first few of both. A document may have 100,000 members: no list of all is made. */
function edited(note: AuditNote, set: readonly unknown[], deleted: unknown): AuditNote {
  const gone: readonly unknown[] = Array.isArray(deleted) ? deleted : [];
  const names = [
    ...set.slice(0, TARGETS_MAX).map((member) => (Array.isArray(member) ? String(member[0]) : '')),
    ...gone.slice(0, TARGETS_MAX).map(String),
  ].slice(0, TARGETS_MAX);
  note.target = names;
  const count = set.length + gone.length;
  if (count > TARGETS_MAX) note.targets = count;
  return note;
}
