import type { Call } from '#bridge/wire/peer.js';
import type { Identity } from '#server/auth/identity.js';
import type { Grant } from '#server/auth/tokens.js';
import type { Origin } from '#server/services/origin.js';
import type { Channels } from './channels.js';

/** What the handlers of one connection share. */
export interface Context {
  readonly identity: Identity;
  readonly channels: Channels;
  readonly push: (channel: number, topic: string, value: unknown) => void;
  /** @throws BridgeError `unavailable`: a connection can be lost in the middle of a call, and nothing may be opened on it then */
  readonly assertOpen: () => void;
  /** Store clock. */
  readonly now: () => number;
}

/** The grant of the execution that calls; undefined = an operator or auditor does. @throws BridgeError `denied`, `token_expired` */
export function grantOf(
  { channels, identity, now }: Context,
  { channel }: Call<unknown>,
): Grant | undefined {
  return identity.role === 'host' ? channels.get(channel, now()).grant : undefined;
}

/** On whose behalf a call changes something. */
export const originOf = (context: Context, call: Call<unknown>): Origin => {
  const grant = grantOf(context, call);
  const { role, name } = context.identity;
  return { by: grant?.executionId ?? `${role}:${name}`, note: call.note };
};
