import { BridgeError } from '#bridge/wire/errors.js';
import type { Grant } from '#server/auth/tokens.js';

/** Executions one connection may have open: far above what one host can run, far below what would hurt. */
const CHANNELS_MAX = 10_000;

/** One verified token on a connection: later calls name its number, so no call verifies anything again. */
export interface Channel {
  readonly id: number;
  grant: Grant;
}

interface Open extends Channel {
  readonly stop: () => void;
}

/** The open executions of one connection. */
export class Channels {
  readonly #open = new Map<number, Open>();
  readonly #changed: (by: 1 | -1, grant: Grant) => void;
  /** As many as operators revoke on one connection. */
  readonly #revoked = new Set<number>();
  #nextId = 1;

  /** `changed` hears of each that is opened and each that is closed. */
  constructor(changed: (by: 1 | -1, grant: Grant) => void = () => {}) {
    this.#changed = changed;
  }

  get size(): number {
    return this.#open.size;
  }

  /** `start` gets the number, begins what goes with the channel, and returns its stop. @throws BridgeError `rate_limited` */
  add(grant: Grant, start: (id: number) => () => void): Channel {
    if (this.#open.size >= CHANNELS_MAX)
      throw new BridgeError(
        'rate_limited',
        `${CHANNELS_MAX} executions are open on this connection`,
      );
    const id = this.#nextId++;
    const channel: Open = { id, grant, stop: start(id) };
    this.#open.set(id, channel);
    this.#changed(1, grant);
    return channel;
  }

  /** Whose number it is, if anybody's. */
  grantOf(id: number): Grant | undefined {
    return this.#open.get(id)?.grant;
  }

  /** @throws BridgeError `denied` for a channel of nobody, `token_expired` when it was not renewed in time. */
  get(id: number, now: number): Channel {
    const channel = this.#open.get(id);
    if (channel === undefined)
      throw new BridgeError(
        'denied',
        this.#revoked.has(id) ? 'the token was revoked' : `channel ${id} is not open here`,
      );
    const { grant } = channel;
    if (now > grant.expiresAt)
      throw new BridgeError(
        'token_expired',
        `the token of execution ${grant.executionId} has expired`,
      );
    return channel;
  }

  close(id: number): void {
    const channel = this.#open.get(id);
    if (channel === undefined) return;
    this.#open.delete(id);
    channel.stop();
    this.#changed(-1, channel.grant);
  }

  /** Closes those whose token was revoked; whoever calls on them hears so. Returns how many there were. */
  closeRevoked(isRevoked: (grant: Grant) => boolean): number {
    for (const { id, grant } of this.#open.values()) if (isRevoked(grant)) this.#revoked.add(id);
    return this.closeAll(isRevoked);
  }

  /** Those whose grant `isOver`; all of them without it. Returns how many there were. */
  closeAll(isOver: (grant: Grant) => boolean = () => true): number {
    const over = [...this.#open.values()].filter(({ grant }) => isOver(grant));
    for (const { id } of over) this.close(id);
    return over.length;
  }
}
