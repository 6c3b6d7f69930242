import type { Store } from '#server/store/store.js';

/** All families but those of the audit log: what a refused call must leave as it is. */
const FAMILIES = [
  'exec',
  'exec-host',
  'exec-open',
  'exec-place',
  'exec-time',
  'expiry',
  'hist',
  'merged',
  'policy',
  'quota',
  'revoked',
  'share',
  'succeeded',
  'token',
  'var',
];

/** Every record but those of the audit log, by its key as text. */
export async function contentsOf(store: Store): Promise<Map<string, string>> {
  const contents = new Map<string, string>();
  for (const family of FAMILIES)
    for await (const { key, value, version } of store.range([family]))
      contents.set(JSON.stringify(key), `${version} ${Buffer.from(value).toString('base64')}`);
  return contents;
}

/** Keys whose records differ. */
export function changedKeys(
  before: ReadonlyMap<string, string>,
  after: ReadonlyMap<string, string>,
): string[] {
  const keys = new Set([...before.keys(), ...after.keys()]);
  return [...keys].filter((key) => before.get(key) !== after.get(key));
}
