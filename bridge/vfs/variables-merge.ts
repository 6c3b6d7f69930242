import { isRewriteOf, type Members } from '#bridge/wire/json-source.js';
import { UPDATED } from '#bridge/wire/names.js';

/** Top-level members to set, with their source text, and keys to delete. */
export interface MemberEdit {
  readonly set: Map<string, string>;
  readonly delete: Set<string>;
}

/**
 * What a script changed between what it read (`base`) and what it wrote (`written`). A member that a JSON library merely
 * read and wrote again counts as untouched, so its stored text survives. Omission is deletion, relative to the base only.
 */
export function diffMembers(base: Members, written: Members, guard: boolean): MemberEdit {
  const difference = new MemberDiff(base, written, guard);
  difference.step(Number.POSITIVE_INFINITY);
  return difference.edit;
}

/** diffMembers in steps: comparing the members of a large document that was written anew takes its time. */
export class MemberDiff {
  /** Whole when `step` has returned true. */
  readonly edit: MemberEdit = { set: new Map(), delete: new Set() };
  readonly #base: Members;
  readonly #written: Members;
  readonly #guard: boolean;
  readonly #mayDelete: boolean;
  readonly #left: Iterator<[string, string]>;

  /** `mayDelete` false: it is not certain that the writer had read `base`, so nothing it leaves out is deleted. */
  constructor(base: Members, written: Members, guard: boolean, mayDelete = true) {
    this.#mayDelete = mayDelete;
    this.#base = base;
    this.#written = written;
    this.#guard = guard;
    this.#left = written.entries();
  }

  /** Compares members of about `budget` characters; one member is not cut. Returns whether all are done. */
  step(budget: number): boolean {
    for (let compared = 0; compared < budget; ) {
      const next = this.#left.next();
      if (next.done === true) {
        this.#delete();
        return true;
      }
      const [key, text] = next.value;
      if (key === UPDATED) continue;
      const before = this.#base.get(key);
      if (before === undefined || !isRewriteOf(before, text)) this.edit.set.set(key, text);
      compared += key.length + text.length;
    }
    return false;
  }

  #delete(): void {
    if (!this.#mayDelete || (this.#guard && isUpsertOfOneKey(this.#written))) return;
    for (const key of this.#base.keys())
      if (key !== UPDATED && !this.#written.has(key)) this.edit.delete.add(key);
  }
}

/** `date -Iseconds`, which only the bash helper writes: JavaScript has milliseconds and Z, Python no zone. */
const BASH_STAMP = /^"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d[-+]\d\d:\d\d"$/;

/**
 * The bash helper without jq rewrites the whole document with the one key it sets (a string, always) and a new time
 * stamp. Read literally that deletes everything else; meant is one key.
 */
function isUpsertOfOneKey(written: Members): boolean {
  const stamp = written.get(UPDATED);
  if (written.size !== 2 || stamp === undefined) return false;
  const value = [...written].find(([key]) => key !== UPDATED)?.[1];
  return value?.startsWith('"') === true && BASH_STAMP.test(stamp);
}

/** Whether two documents show the same members, time stamps aside. */
export function showSame(a: Members, b: Members): boolean {
  let count = 0;
  for (const [key, text] of a) {
    if (key === UPDATED) continue;
    const other = b.get(key);
    if (other === undefined || !isRewriteOf(other, text)) return false;
    count++;
  }
  return count === b.size - (b.has(UPDATED) ? 1 : 0);
}
