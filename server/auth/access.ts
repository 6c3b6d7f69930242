import { BridgeError } from '#bridge/wire/errors.js';
import {
  AREAS,
  type Area,
  type Capability,
  type Mode,
  type Profile,
} from '#bridge/wire/protocol/credentials.js';

/** The part of a grant that says what its bearer may do: all three must agree. */
export interface Access {
  readonly mode: Mode;
  readonly profile: Profile;
  readonly cap: readonly Capability[];
}

/** What a profile opens: `local` everything; `remote` reads variables and makes the core calls. */
export const PROFILE_CAPABILITIES: { readonly [P in Profile]: readonly Capability[] } = {
  local: AREAS.map((area) => ({ area, access: 'rw' })),
  remote: [
    { area: 'variables', access: 'r' },
    { area: 'output', access: 'rw' },
    { area: 'condition', access: 'rw' },
  ],
};

/** All that a profile opens: what a script gets where nobody says otherwise. */
export const accessOf = (profile: Profile, mode: Mode = 'rw'): Access => ({
  mode,
  profile,
  cap: PROFILE_CAPABILITIES[profile],
});

/** Without a key the whole area is asked for, which a capability with patterns does not open. */
export const allows = (access: Access, area: Area, want: 'r' | 'w', key?: string): boolean =>
  refusalOf(access, area, want, key) === undefined;

/** @throws BridgeError `read_only` for a write in read-only mode, else `denied` */
export function assertAllowed(access: Access, area: Area, want: 'r' | 'w', key?: string): void {
  const code = refusalOf(access, area, want, key);
  if (code === undefined) return;
  const deed = want === 'r' ? 'read' : 'write';
  throw new BridgeError(
    code,
    code === 'read_only'
      ? 'this execution runs in read-only mode'
      : `this execution may not ${deed} ${key === undefined ? area : `this key of ${area}`}`,
  );
}

/** In read-only mode every write is refused as such: it would be refused whatever the token opens. */
function refusalOf(
  { mode, profile, cap }: Access,
  area: Area,
  want: 'r' | 'w',
  key?: string,
): 'read_only' | 'denied' | undefined {
  if (want === 'w' && mode === 'ro') return 'read_only';
  const isOpen =
    opens(PROFILE_CAPABILITIES[profile], area, want, key) && opens(cap, area, want, key);
  return isOpen ? undefined : 'denied';
}

const opens = (cap: readonly Capability[], area: Area, want: 'r' | 'w', key?: string): boolean =>
  cap.some(
    (one) =>
      one.area === area &&
      (want === 'r' || one.access === 'rw') &&
      (one.keys === undefined ||
        (key !== undefined && one.keys.some((pattern) => matches(pattern, key)))),
  );

/** Linear in the key: a pattern has two `*` at most. */
export function matches(pattern: string, key: string): boolean {
  const [head = '', ...rest] = pattern.split('*');
  const tail = rest.pop();
  if (tail === undefined) return pattern === key;
  if (key.length < head.length + tail.length) return false;
  if (!key.startsWith(head) || !key.endsWith(tail)) return false;
  const [middle = ''] = rest;
  const at = key.indexOf(middle, head.length);
  return at !== -1 && at + middle.length <= key.length - tail.length;
}
