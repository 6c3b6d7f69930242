import * as crypto from 'node:crypto';

/**
 * The audit log is one chain of events per run of a server process (a "writer", numbered from 1 in each store):
 *
 *     hash(n) = SHA-256(hash(n-1) as hex, then the line of event n), as hex; before event 0 stand 64 zeros
 *
 * The line of an event is its JSON with sorted keys and no spaces, so `printf %s%s "$prev" "$line" | sha256sum` says the
 * same. Event 0 of a chain is `audit.start`: its links name the heads of earlier chains, so that a whole missing run is
 * noticed.
 */

/** A place in a chain, with the hash it has there. */
export interface AuditLink {
  readonly writer: number;
  readonly seq: number;
  readonly hash: string;
  readonly at: number;
}

/** What happened: who did what, when, to what, and how that ended. Never values. */
export interface AuditEvent {
  /** Store clock, milliseconds since the epoch; never goes back along a chain. */
  readonly at: number;
  readonly writer: number;
  /** Counts the events of a chain without a gap. */
  readonly seq: number;
  /** Role and name of the certificate: `operator:ada`. */
  readonly who: string;
  /** First characters of the certificate's thumbprint; '' for the server itself. */
  readonly peer: string;
  readonly op: string;
  /** `ok`, `repeated` (done before under the same commit id), or an error's code. */
  readonly outcome: string;
  readonly execution?: string | undefined;
  /** `user:…` or `org:…`. */
  readonly namespace?: string | undefined;
  /** Variable keys or ids, the first few. */
  readonly target?: readonly string[] | undefined;
  /** How many there were, when `target` does not hold all. */
  readonly targets?: number | undefined;
  /** A sentence, for refusals. */
  readonly detail?: string | undefined;
  /** Of the commit. */
  readonly version?: number | undefined;
  /** Of `audit.start`: heads of earlier chains. Of `audit.prune`: up to where chains were taken away. */
  readonly links?: readonly AuditLink[] | undefined;
}

/** An event with its place in the chain. */
export interface AuditRow extends AuditEvent {
  readonly prev: string;
  readonly hash: string;
}

export const AUDIT_START = 'audit.start';
export const AUDIT_PRUNE = 'audit.prune';

/** What stands before event 0. */
export const NO_HASH = '0'.repeat(64);

/** An event before it has its place. */
export type Unplaced = Omit<AuditEvent, 'at' | 'writer' | 'seq'>;

/**
 * What is hashed. The members stand in the order of their names; absent ones are left out. Put together by hand, which
 * takes a third of the time of JSON.stringify: every operation of the server passes here.
 */
export function lineAt(e: Unplaced, at: number, writer: number, seq: number): string {
  let line = `{"at":${at}`;
  if (e.detail !== undefined) line += `,"detail":${quoted(e.detail)}`;
  if (e.execution !== undefined) line += `,"execution":${quoted(e.execution)}`;
  if (e.links !== undefined) line += `,"links":${JSON.stringify(e.links.map(sortedLink))}`;
  if (e.namespace !== undefined) line += `,"namespace":${quoted(e.namespace)}`;
  line += `,"op":${quoted(e.op)},"outcome":${quoted(e.outcome)},"peer":${quoted(e.peer)},"seq":${seq}`;
  if (e.target !== undefined) line += `,"target":[${e.target.map(quoted).join(',')}]`;
  if (e.targets !== undefined) line += `,"targets":${e.targets}`;
  if (e.version !== undefined) line += `,"version":${e.version}`;
  return `${line},"who":${quoted(e.who)},"writer":${writer}}`;
}

export const lineOf = (e: AuditEvent): string => lineAt(e, e.at, e.writer, e.seq);

const quoted = (text: string): string => (ESCAPED.test(text) ? JSON.stringify(text) : `"${text}"`);

/** What JSON.stringify may escape: control characters, quotes, backslashes, and surrogates that stand alone. */
// oxlint-disable-next-line no-control-regex
const ESCAPED = /[\u0000-\u001f"\\\ud800-\udfff]/;

/** The line of an exported event: the same with the two hashes, each at its place in the order. */
export const rowLineOf = (e: AuditRow): string =>
  JSON.stringify({
    at: e.at,
    detail: e.detail,
    execution: e.execution,
    hash: e.hash,
    links: e.links?.map(sortedLink),
    namespace: e.namespace,
    op: e.op,
    outcome: e.outcome,
    peer: e.peer,
    prev: e.prev,
    seq: e.seq,
    target: e.target,
    targets: e.targets,
    version: e.version,
    who: e.who,
    writer: e.writer,
  });

const sortedLink = ({ at, hash, seq, writer }: AuditLink): AuditLink => ({ at, hash, seq, writer });

/** Node 20.12 has a one-shot hash, which takes half the time of a hash object. */
const oneShot = (crypto as { hash?: (algorithm: string, data: string, encoding: 'hex') => string })
  .hash;

export const nextHash = (prev: string, line: string): string =>
  oneShot === undefined
    ? crypto
        .createHash('sha256')
        .update(prev + line)
        .digest('hex')
    : oneShot('sha256', prev + line, 'hex');
