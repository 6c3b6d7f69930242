import { z } from 'zod';
import { BridgeError } from '#bridge/wire/errors.js';
import type { ServerOperations } from '#bridge/wire/protocol.js';

/** What an operation asks of the server: an answer, a durable change, or work of the server's own (keys, tokens, rules). */
export const OPERATION_CLASSES = ['read', 'write', 'admin'] as const;
export type OperationClass = (typeof OPERATION_CLASSES)[number];

/** A row of the protocol without a class does not compile. */
export const CLASS_OF: Readonly<Record<keyof ServerOperations, OperationClass>> = {
  hello: 'read',
  'server.status': 'read',
  'execution.create': 'admin',
  'execution.open': 'admin',
  'execution.reopen': 'admin',
  'execution.finish': 'write',
  'execution.mine': 'read',
  'execution.lose': 'admin',
  'execution.get': 'read',
  'execution.list': 'read',
  'execution.cancel': 'admin',
  'token.renew': 'write',
  'token.mint': 'admin',
  'token.list': 'read',
  'token.revoke': 'admin',
  'cert.revoke': 'admin',
  'cert.revoked': 'read',
  'cert.succeed': 'admin',
  'server.reload': 'admin',
  'variables.commit': 'write',
  'output.set': 'write',
  'condition.set': 'write',
  'variable.get': 'read',
  'variable.list': 'read',
  'variable.set': 'write',
  'variable.delete': 'write',
  'variable.add': 'write',
  'variable.append': 'write',
  'variable.history': 'read',
  'variable.restore': 'write',
  'variable.edit': 'write',
  'policy.set': 'admin',
  'policy.list': 'read',
  'share.set': 'admin',
  'share.remove': 'admin',
  'share.list': 'read',
  'quota.get': 'read',
  'quota.set': 'admin',
  'quota.list': 'read',
  'audit.read': 'read',
  'audit.verify': 'read',
  'audit.prune': 'admin',
  'audit.head': 'read',
  'store.verify': 'admin',
  'store.compact': 'admin',
  'store.backup': 'read',
  'keys.status': 'read',
  'keys.rotate': 'admin',
  'keys.rotate-master': 'admin',
  'namespace.erase': 'admin',
};

/** Whose calls are counted. A peer is the certificate at the other end: it brings many executions, or is an operator. */
export const LIMITED = ['execution', 'namespace', 'peer'] as const;
export type Limited = (typeof LIMITED)[number];

/** Of one call: every one that is given is charged. */
export type Who = { readonly [L in Limited]?: string | undefined };

/** Units, of which a small call costs one: so many at once, and so many a second in the long run. */
const Rate = z.strictObject({
  burst: z.int().min(1).max(1_000_000_000),
  perSecond: z.number().min(0.001).max(1_000_000_000),
});
export type Rate = z.infer<typeof Rate>;

export type Rates = { readonly [L in Limited]: { readonly [C in OperationClass]: Rate } };

/**
 * Far above what a working script does, far below what would keep others waiting. Reads come from the cache and need no
 * fsync: four times the writes.
 */
export const RATES: Rates = {
  // A script that writes 2,000 values at once, or 200 a second all day, is legitimate; five times the latter is a loop.
  // Of the admin class an execution only has the opening of its channel, after every lost connection.
  execution: {
    read: { burst: 20_000, perSecond: 4_000 },
    write: { burst: 5_000, perSecond: 1_000 },
    admin: { burst: 100, perSecond: 10 },
  },
  // Four or five of the busiest executions together. Admin: all channels that a namespace may have, opened again at once.
  namespace: {
    read: { burst: 80_000, perSecond: 20_000 },
    write: { burst: 20_000, perSecond: 5_000 },
    admin: { burst: 5_000, perSecond: 500 },
  },
  // Four such namespaces on one host. Admin: all channels that a connection may have, opened again at once.
  peer: {
    read: { burst: 320_000, perSecond: 80_000 },
    write: { burst: 80_000, perSecond: 20_000 },
    admin: { burst: 10_000, perSecond: 1_000 },
  },
};

/** Calls that were taken on and have no answer yet, those in the fair queue included. */
export type InFlight = { readonly [L in Limited]: number };

export const IN_FLIGHT: InFlight = {
  // As many processes of one script as could all be in a call at once.
  execution: 256,
  // Eight of those. More would only wait: the fair queue runs a few hundred at once.
  namespace: 2_048,
  // Two more namespaces at their limit still leave room for the others of the host; below PENDING_CALLS_MAX of its link.
  peer: 8_192,
};

/** One unit for the call itself, and one for every so many bytes that it moves: what a value in the store may have. */
export const BYTES_PER_UNIT = 64 * 1024;

export const costOf = (bytes: number): number => 1 + bytes / BYTES_PER_UNIT;

/** Most calls are answered within this: then there is room again. */
const IN_FLIGHT_RETRY_MS = 50;

/**
 * Owners whose state is kept, of each kind. Only those that called within the last seconds matter, and no installation has so
 * many of them; at some 200 bytes each they take 20 MB.
 */
export const OWNERS_MAX = 100_000;

/** Owners that are looked at for every new one: two let the map shrink while it is used. */
const LOOKED_AT = 2;
/** A full map is searched this far for one that can go, before a stranger is refused. */
const LOOKED_AT_WHEN_FULL = 64;

/** Members that are left out stay as they are by default. */
export const RateSettings = z.strictObject({
  rates: z
    .partialRecord(z.enum(LIMITED), z.partialRecord(z.enum(OPERATION_CLASSES), Rate))
    .optional(),
  inFlight: z.partialRecord(z.enum(LIMITED), z.int().min(1).max(1_000_000)).optional(),
});
export type RateSettings = z.infer<typeof RateSettings>;

/**
 * A token bucket is one number: the moment at which it will be full. An owner whose buckets are all full and that has no call
 * in flight is the same as one that was never seen, so nothing is lost when it is forgotten.
 */
interface Owner {
  readonly fullAt: { [C in OperationClass]: number };
  inFlight: number;
}

export interface RateStats {
  readonly owners: number;
  readonly refused: { readonly [L in Limited]: number };
}

/**
 * Rate and concurrency limits of one server process. `now` is in milliseconds of any clock that does not go back
 * (performance.now()); one that does costs nobody more than a full bucket.
 */
export class RateLimits {
  readonly #rates: Rates;
  readonly #inFlight: InFlight;
  readonly #ownersMax: number;
  readonly #owners: { readonly [L in Limited]: Map<string, Owner> } = {
    execution: new Map(),
    namespace: new Map(),
    peer: new Map(),
  };
  /** Where the search for idle owners goes on. An iterator of a Map sees what was added and removed meanwhile. */
  readonly #hands: { [L in Limited]: Iterator<[string, Owner]> };
  readonly #refused = { execution: 0, namespace: 0, peer: 0 };

  constructor(settings: RateSettings = {}, ownersMax = OWNERS_MAX) {
    const rates = (limited: Limited) => ({ ...RATES[limited], ...settings.rates?.[limited] });
    this.#rates = {
      execution: rates('execution'),
      namespace: rates('namespace'),
      peer: rates('peer'),
    };
    this.#inFlight = { ...IN_FLIGHT, ...settings.inFlight };
    this.#ownersMax = ownersMax;
    this.#hands = {
      execution: this.#owners.execution.entries(),
      namespace: this.#owners.namespace.entries(),
      peer: this.#owners.peer.entries(),
    };
  }

  /** Takes `cost` units from every owner's bucket, or from none. @throws BridgeError `rate_limited` with a hint */
  take(who: Who, kind: OperationClass, cost: number, now: number): void {
    this.#check(who, kind, cost, now, false);
    this.#charge(who, kind, cost, now, 0);
  }

  /**
   * `take`, and one more call in flight for every owner, until `leave` is called with the same `who`: exactly once, unless
   * this has thrown. @throws BridgeError `rate_limited` with a hint
   */
  enter(who: Who, kind: OperationClass, cost: number, now: number): void {
    this.#check(who, kind, cost, now, true);
    this.#charge(who, kind, cost, now, 1);
  }

  leave(who: Who): void {
    for (const limited of LIMITED) {
      const id = who[limited];
      const owner = id === undefined ? undefined : this.#owners[limited].get(id);
      if (owner !== undefined && owner.inFlight > 0) owner.inFlight--;
    }
  }

  /** Calls in flight. */
  inFlight(limited: Limited, id: string): number {
    return this.#owners[limited].get(id)?.inFlight ?? 0;
  }

  /** For the metrics. */
  get stats(): RateStats {
    let owners = 0;
    for (const limited of LIMITED) owners += this.#owners[limited].size;
    return { owners, refused: { ...this.#refused } };
  }

  #check(who: Who, kind: OperationClass, cost: number, now: number, isEntering: boolean): void {
    for (const limited of LIMITED) {
      const id = who[limited];
      if (id === undefined) continue;
      const owner = this.#owners[limited].get(id);
      if (owner === undefined) {
        if (this.#owners[limited].size >= this.#ownersMax && !this.#makeRoom(limited, now))
          throw this.#refusal(
            limited,
            `the server keeps count of ${this.#ownersMax} ${PLURAL[limited]} at once, and all are busy`,
            IN_FLIGHT_RETRY_MS,
          );
        continue;
      }
      if (isEntering && owner.inFlight >= this.#inFlight[limited])
        throw this.#refusal(
          limited,
          `${nameOf(limited, id)} has ${owner.inFlight} calls without an answer; that is the limit`,
          IN_FLIGHT_RETRY_MS,
        );
      const rate = this.#rates[limited][kind];
      // A moment beyond an empty bucket comes from a clock that went back.
      const emptyUntil = now + burstMs(rate);
      if (owner.fullAt[kind] > emptyUntil) owner.fullAt[kind] = emptyUntil;
      const waitMs = fullAfter(owner.fullAt[kind], rate, cost, now) - emptyUntil;
      if (waitMs > SLACK_MS)
        throw this.#refusal(
          limited,
          `${nameOf(limited, id)} may make ${rate.perSecond} ${kind} calls per second, ${rate.burst} at once`,
          Math.ceil(waitMs),
        );
    }
  }

  #charge(who: Who, kind: OperationClass, cost: number, now: number, entering: 0 | 1): void {
    for (const limited of LIMITED) {
      const id = who[limited];
      if (id === undefined) continue;
      const owner = this.#owners[limited].get(id) ?? this.#add(limited, id, now);
      owner.fullAt[kind] = fullAfter(owner.fullAt[kind], this.#rates[limited][kind], cost, now);
      owner.inFlight += entering;
    }
  }

  #add(limited: Limited, id: string, now: number): Owner {
    for (let i = 0; i < LOOKED_AT; i++) this.#look(limited, now);
    const owner: Owner = { fullAt: { read: now, write: now, admin: now }, inFlight: 0 };
    this.#owners[limited].set(id, owner);
    return owner;
  }

  #makeRoom(limited: Limited, now: number): boolean {
    for (let i = 0; i < LOOKED_AT_WHEN_FULL; i++) if (this.#look(limited, now)) return true;
    return false;
  }

  /** Forgets the next owner if it is idle. */
  #look(limited: Limited, now: number): boolean {
    const { value, done } = this.#hands[limited].next();
    if (done === true) {
      this.#hands[limited] = this.#owners[limited].entries();
      return false;
    }
    const [id, { fullAt, inFlight }] = value;
    if (inFlight > 0 || fullAt.read > now || fullAt.write > now || fullAt.admin > now) return false;
    return this.#owners[limited].delete(id);
  }

  #refusal(limited: Limited, sentence: string, retryAfterMs: number): BridgeError {
    this.#refused[limited]++;
    return new BridgeError('rate_limited', `${sentence}; try again in ${retryAfterMs} ms`, {
      retryAfterMs,
    });
  }
}

/** Rounding of sums of milliseconds: nobody waits for less. */
const SLACK_MS = 1e-3;

const burstMs = ({ burst, perSecond }: Rate): number => (burst * 1000) / perSecond;

/**
 * When the bucket is full again after `cost` more. What costs more than a whole bucket takes a full one: it could never pass
 * otherwise.
 */
function fullAfter(fullAt: number, rate: Rate, cost: number, now: number): number {
  return Math.max(now, fullAt) + (Math.min(cost, rate.burst) * 1000) / rate.perSecond;
}

const PLURAL: { readonly [L in Limited]: string } = {
  execution: 'executions',
  namespace: 'users and organisations',
  peer: 'peers',
};

/** A namespace's text says itself what it is. */
const nameOf = (limited: Limited, id: string): string =>
  limited === 'namespace' ? id : `${limited} ${id}`;
