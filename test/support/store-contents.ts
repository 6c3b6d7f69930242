import type { Key, Store } from '#server/store/store.js';

/** Every record but those of the audit log, by its key as text: what a refused call must leave as it is. */
export async function contentsOf(store: Store): Promise<Map<string, string>> {
  const contents = new Map<string, string>();
  // No key is an empty one, but every key begins with it.
  for await (const { key, value, version } of store.range([] as unknown as Key))
    if (!key[0].startsWith('audit'))
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
