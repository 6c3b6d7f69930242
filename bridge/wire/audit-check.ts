import { AUDIT_PRUNE, type AuditEvent, type AuditLink, NO_HASH, nextHash } from './audit-chain.js';

/** How a log can be wrong. `head`: a chain does not end where and how its head, or a head somebody kept, says. */
export const DAMAGES = ['removed', 'changed', 'reordered', 'head'] as const;
export type Damage = (typeof DAMAGES)[number];

/** The first broken place of one chain. */
export interface BrokenChain {
  readonly what: Damage;
  readonly writer: number;
  /** The event that is missing, changed or in the wrong place; for `head` the last one. */
  readonly seq: number;
  /** Of that event, or of the last good one before it when it is gone; 0 = there is none. */
  readonly at: number;
  readonly text: string;
}

export interface CheckedChain {
  readonly writer: number;
  /** Number of its first event that was seen. */
  readonly first: number;
  readonly seq: number;
  readonly hash: string;
  readonly at: number;
}

interface Chain {
  readonly writer: number;
  first: number;
  next: number;
  hash: string;
  at: number;
  broken: BrokenChain | undefined;
  /** The event that did not come when it should: should it come later, it was moved, not removed. */
  missing: number | undefined;
}

/** Follows all chains of a log, event by event. Chains may be interleaved; the events of each come in its order. */
export class AuditCheck {
  readonly #chains = new Map<number, Chain>();
  readonly #links = new Map<string, AuditLink & { readonly by: string }>();
  readonly #vouched = new Set<string>();
  readonly #anchors: AuditLink[] = [];
  readonly #heads: Set<string>;
  #earliest = Number.POSITIVE_INFINITY;
  #events = 0;

  /** `starts`: every `audit.start` of the log. `heads`: hashes somebody kept, which must be in it. */
  constructor(starts: readonly AuditEvent[], heads: readonly string[] = []) {
    this.#heads = new Set(heads);
    for (const { writer: by, links = [] } of starts)
      for (const link of links) this.#links.set(placeOf(link), { ...link, by: `run ${by}` });
  }

  get events(): number {
    return this.#events;
  }

  /** The chain of `writer` is to begin with its event 0; else it begins where its first event says. */
  expect(writer: number): void {
    this.#chain(writer, 0, NO_HASH);
  }

  /** The next event of `writer` follows one of this hash: all up to there was pruned, which an event must vouch for. */
  begin(anchor: AuditLink): void {
    const chain = this.#chain(anchor.writer, anchor.seq + 1, anchor.hash);
    Object.assign(chain, { next: anchor.seq + 1, hash: anchor.hash, at: anchor.at });
    chain.first = chain.next;
    this.#anchors.push(anchor);
  }

  /** `prev` and `hash`: what is kept with the event, where it is kept. Returns the event's hash as it should be. */
  accept(event: AuditEvent, line: string, prev?: string, hash?: string): string {
    const { writer, seq, at } = event;
    const chain = this.#chain(writer, seq, seq === 0 ? NO_HASH : (prev ?? NO_HASH));
    this.#events++;
    this.#earliest = Math.min(this.#earliest, at);
    if (chain.broken !== undefined) {
      if (seq === chain.missing) this.#moved(chain, event);
      return '';
    }
    const before = chain.hash;
    const computed = nextHash(before, line);
    if (seq < chain.next)
      this.#break(chain, 'reordered', seq, at, `event ${seq} comes again after ${chain.next - 1}`);
    else if (seq > chain.next) {
      chain.missing = chain.next;
      const last = seq - 1;
      const which = last === chain.next ? `event ${last} is` : `events ${chain.next}-${last} are`;
      this.#break(chain, 'removed', chain.next, chain.at, `${which} missing`);
    } else if (prev !== undefined && prev !== before)
      this.#break(chain, 'changed', seq, at, `event ${seq} does not follow the one before it`);
    else if (hash !== undefined && hash !== computed)
      this.#break(chain, 'changed', seq, at, `event ${seq} is not what was recorded`);
    if (chain.broken !== undefined) return '';
    this.#compareLink(chain, event, computed);
    if (event.op === AUDIT_PRUNE)
      for (const link of event.links ?? []) this.#vouched.add(`${placeOf(link)}:${link.hash}`);
    this.#heads.delete(computed);
    Object.assign(chain, { next: seq + 1, hash: computed, at });
    return computed;
  }

  /** Something about `writer` that its events do not show. The first finding of a chain counts. */
  report(what: Damage, writer: number, seq: number, at: number, text: string): void {
    this.#break(this.#chain(writer, seq, NO_HASH), what, seq, at, text);
  }

  /** Where the chain of `writer` has come to, unless it is broken or was never seen. */
  chain(writer: number): CheckedChain | undefined {
    const chain = this.#chains.get(writer);
    return chain === undefined || chain.broken !== undefined ? undefined : checked(chain);
  }

  isBroken(writer: number): boolean {
    return this.#chains.get(writer)?.broken !== undefined;
  }

  /** After the last event. `isWhole`: it is a whole store; else what lies before the earliest event may be missing. */
  finish(isWhole: boolean): { readonly chains: CheckedChain[]; readonly broken: BrokenChain[] } {
    for (const link of this.#links.values()) {
      const chain = this.#chains.get(link.writer);
      if (chain?.broken !== undefined || (chain?.next ?? 0) > link.seq) continue;
      if (!isWhole && link.at < this.#earliest) continue;
      const from = chain?.next ?? 0;
      const text = `it ended at event ${link.seq} when ${link.by} began, and ${from === 0 ? 'is missing' : `ends at ${from - 1} now`}`;
      this.report('removed', link.writer, from, chain?.at ?? link.at, text);
    }
    for (const { writer, seq, hash, at } of this.#anchors)
      if (!this.#vouched.has(`${placeOf({ writer, seq })}:${hash}`))
        this.report('removed', writer, 1, at, `events up to ${seq} are missing; no prune says so`);
    const all = [...this.#chains.values()].sort((a, b) => a.writer - b.writer);
    const broken = all.flatMap((chain) => chain.broken ?? []);
    for (const head of this.#heads) {
      const last = all.at(-1);
      const text = `no event has the hash ${head}: what came last was cut off, pruned, or another log`;
      broken.push({
        what: 'head',
        writer: last?.writer ?? 0,
        seq: (last?.next ?? 1) - 1,
        at: last?.at ?? 0,
        text,
      });
    }
    return {
      chains: all.filter((chain) => chain.broken === undefined).map(checked),
      broken,
    };
  }

  #chain(writer: number, first: number, hash: string): Chain {
    let chain = this.#chains.get(writer);
    if (chain === undefined) {
      chain = { writer, first, next: first, hash, at: 0, broken: undefined, missing: undefined };
      this.#chains.set(writer, chain);
    }
    return chain;
  }

  #break(chain: Chain, what: Damage, seq: number, at: number, text: string): void {
    chain.broken ??= { what, writer: chain.writer, seq, at, text };
  }

  #moved(chain: Chain, { seq, at }: AuditEvent): void {
    chain.missing = undefined;
    const text = `event ${seq} is not at its place`;
    chain.broken = { what: 'reordered', writer: chain.writer, seq, at, text };
  }

  #compareLink(chain: Chain, event: AuditEvent, hash: string): void {
    const link = this.#links.get(placeOf(event));
    if (link !== undefined && link.hash !== hash)
      this.#break(
        chain,
        'changed',
        event.seq,
        event.at,
        `event ${event.seq} had another hash when ${link.by} began: the chain was written anew`,
      );
  }
}

const placeOf = ({ writer, seq }: { writer: number; seq: number }): string => `${writer}:${seq}`;

const checked = ({ writer, first, next, hash, at }: Chain): CheckedChain => ({
  writer,
  first,
  seq: next - 1,
  hash,
  at,
});
