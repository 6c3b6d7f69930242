/**
 * How much one execution may have answered in one turn while others want something too. A turn ends when no request is left
 * to read: whoever has used up its share must wait for that, so it always comes. Small enough that nobody waits behind more
 * than this, large enough that turns cost nothing beside the requests.
 */
const SHARE_PER_TURN = 16;

/** A request costs one unit and one more for every so many bytes that it moves. */
const BYTES_PER_UNIT = 16 * 1024;

/** Others "want something" this long after their last request: longer than the pause of a busy script between two calls. */
const CONTENTION_MS = 100;

/**
 * A flood of large requests keeps the queue from ever being empty; a turn ends all the same after this. Well below what somebody
 * would notice, and long enough that the loop can read what waits.
 */
const TURN_MS_MAX = 5;

/** Replies that are kept back take memory; beyond this nothing more is kept back. */
const PARKED_BYTES_MAX = 16 * 1024 * 1024;

interface Share {
  /** The turn that `spent` is about. */
  turn: number;
  spent: number;
  readonly parked: { readonly reply: Uint8Array; readonly cost: number }[];
}

/**
 * Fair turns for executions on one loop. Every process has one request at a time, so keeping an answer back keeps its next
 * request out of the queue that all share: an execution with a hundred busy processes fills it no more than one with
 * sixteen. An execution that is alone is never kept waiting, and no time passes unused.
 */
export class FairShare {
  readonly #send: (reply: Uint8Array) => void;
  readonly #shares = new WeakMap<object, Share>();
  /** Those with something parked, in the order of their first. */
  readonly #behind = new Set<Share>();
  #turn = 0;
  /** Whether a request came since the loop last looked. */
  #isBusy = false;
  #turnStartedAt = 0;
  #last: object | undefined;
  #contendedUntil = 0;
  #parkedBytes = 0;

  /** `send` delivers a reply that was kept back. */
  constructor(send: (reply: Uint8Array) => void) {
    this.#send = send;
  }

  /** Whether `owner` has to let others go first: then the reply is taken over, as a copy, and delivered in a later turn. */
  parks(owner: object, requestBytes: number, reply: Uint8Array, replyBytes: number): boolean {
    this.#isBusy = true;
    if (owner !== this.#last) {
      if (this.#last !== undefined) this.#contendedUntil = performance.now() + CONTENTION_MS;
      this.#last = owner;
    }
    if (this.#contendedUntil === 0) return false;
    if (this.#behind.size === 0 && performance.now() > this.#contendedUntil) {
      this.#contendedUntil = 0;
      return false;
    }
    const share = this.#shareOf(owner);
    const cost = 1 + (requestBytes + replyBytes) / BYTES_PER_UNIT;
    const isOver = share.parked.length > 0 || share.spent >= SHARE_PER_TURN;
    // Full: the turn ends here, for everybody whose answer was kept back, and this one is answered along with it.
    if (isOver && this.#parkedBytes + replyBytes > PARKED_BYTES_MAX) this.#nextTurn();
    else if (isOver) {
      share.parked.push({ reply: Uint8Array.from(reply.subarray(0, replyBytes)), cost });
      this.#parkedBytes += replyBytes;
      if (this.#behind.size === 0) {
        this.#turnStartedAt = performance.now();
        this.#look();
      }
      this.#behind.add(share);
      return true;
    }
    share.spent += cost;
    return false;
  }

  /** A request that is answered later counts when it is taken on: what it asks for is done now. */
  charge(owner: object, requestBytes: number): void {
    if (this.#contendedUntil !== 0) this.#shareOf(owner).spent += 1 + requestBytes / BYTES_PER_UNIT;
  }

  #shareOf(owner: object): Share {
    let share = this.#shares.get(owner);
    if (share === undefined) {
      share = { turn: this.#turn, spent: 0, parked: [] };
      this.#shares.set(owner, share);
    } else if (share.turn !== this.#turn) {
      share.turn = this.#turn;
      share.spent = 0;
    }
    return share;
  }

  /** After the next poll: libuv reads one request a poll, so a poll without one means that none is left. */
  #look(): void {
    this.#isBusy = false;
    setImmediate(() => {
      if (!this.#isBusy || performance.now() - this.#turnStartedAt > TURN_MS_MAX) this.#nextTurn();
      if (this.#behind.size > 0) this.#look();
    });
  }

  #nextTurn(): void {
    this.#turn++;
    this.#turnStartedAt = performance.now();
    for (const share of this.#behind) {
      share.turn = this.#turn;
      share.spent = 0;
      while (share.spent < SHARE_PER_TURN) {
        const next = share.parked.shift();
        if (next === undefined) {
          this.#behind.delete(share);
          break;
        }
        this.#parkedBytes -= next.reply.byteLength;
        share.spent += next.cost; // what its process asks next is likely to cost the same
        this.#send(next.reply);
      }
    }
  }
}
