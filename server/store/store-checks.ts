import type { AbstractSnapshot } from 'abstract-level';
import { BridgeError } from '#bridge/wire/errors.js';
import type { StoreReport } from './check-process.js';
import { decodeLink, GENESIS, KeptLinks, type Link } from './commit-chain.js';
import { HeadFile } from './head-file.js';
import { CHAIN, FORMAT, FORMAT_KEY, sequenceOf } from './internal-keys.js';
import { complaintsOf, corruptionText, type Db, isCorruption, openDb } from './level-db.js';
import { scanRecords } from './record-scan.js';
import { RecordTags, TagSum } from './record-tags.js';

/** The links a store holds. */
export interface Chain {
  /** The newest; sequence 0 in a store nobody has written to. */
  readonly last: Link;
  readonly kept: KeptLinks;
  /** By sequence, for the few that are asked for. */
  readonly macOf: (sequence: number) => Buffer | undefined;
  readonly problems: string[];
}

const NO_LINK: Link = {
  sequence: 0,
  version: 0,
  at: 0,
  sum: new TagSum(),
  bytes: 0,
  made: [],
  previous: GENESIS,
  mac: GENESIS,
};

/** Named in a message at most. */
const PROBLEMS_SHOWN = 3;

export function damaged(directory: string, problems: readonly string[]): BridgeError {
  const more =
    problems.length > PROBLEMS_SHOWN ? `; and ${problems.length - PROBLEMS_SHOWN} more` : '';
  return new BridgeError(
    'internal',
    `the store in ${directory} is damaged (${problems.slice(0, PROBLEMS_SHOWN).join('; ')}${more}): put a backup back with: cronium store restore FILE; or read what is left with: cronium up --damaged`,
  );
}

/**
 * Marks a new store; tells why the mark of another cannot be read. @throws BridgeError `invalid` for one that another version
 * made
 */
export async function formatProblems(db: Db, directory: string): Promise<string[]> {
  let format: Buffer | undefined;
  let any: Buffer | undefined;
  try {
    format = await db.get(FORMAT_KEY);
    if (format?.equals(FORMAT) === true) return [];
    [any] = await db.keys({ limit: 1 }).all();
  } catch (error) {
    if (!isCorruption(error)) throw error;
    return [`its first records cannot be read: ${corruptionText(error)}`];
  }
  if (format === undefined && any === undefined) {
    await db.put(FORMAT_KEY, FORMAT, { sync: true });
    return [];
  }
  throw new BridgeError(
    'invalid',
    `the store in ${directory} has another format (${format?.toString() ?? 'version 0.1'}): export its variables with the cronium that made it (cronium var export), and import them into a new state directory`,
  );
}

/** Every link that is kept, checked one by one and each with the one before. */
export async function readChain(db: Db, key: Buffer, snapshot?: AbstractSnapshot): Promise<Chain> {
  const kept = new KeptLinks();
  const macs = new Map<number, Buffer>();
  const problems: string[] = [];
  let last = NO_LINK;
  const read = (stored: Buffer, value: Buffer) => {
    const sequence = sequenceOf(stored);
    const link = decodeLink(key, sequence, value);
    if (link === undefined) {
      problems.push(`the record of commit group ${sequence} is not authentic`);
      return;
    }
    if (last.sequence > 0 && sequence !== last.sequence + 1)
      problems.push(`commit groups ${last.sequence + 1} to ${sequence - 1} are missing`);
    else if (last.sequence > 0 && !link.previous.equals(last.mac))
      problems.push(`commit group ${sequence} does not follow on the one before`);
    macs.set(sequence, link.mac);
    kept.add(link);
    last = link;
  };
  try {
    for await (const link of db.iterator({ ...CHAIN, ...(snapshot && { snapshot }) }))
      read(...link);
  } catch (error) {
    if (!isCorruption(error)) throw error;
    problems.push(
      `the commit groups after ${last.sequence} cannot be read: ${corruptionText(error)}`,
    );
  }
  return { last, kept, macOf: (sequence) => macs.get(sequence), problems };
}

/** The newest link of one moment. @throws BridgeError `internal` when it is not authentic */
export async function lastLink(db: Db, key: Buffer, snapshot: AbstractSnapshot): Promise<Link> {
  const [newest] = await db.iterator({ ...CHAIN, reverse: true, limit: 1, snapshot }).all();
  if (newest === undefined) return NO_LINK;
  const link = decodeLink(key, sequenceOf(newest[0]), newest[1]);
  if (link === undefined)
    throw new BridgeError('internal', 'the newest commit group is not authentic');
  return link;
}

/** Whether the store reaches as far as the head file says. */
export function headProblems(head: HeadFile, { last, macOf }: Chain): string[] {
  const witness = head.read();
  if (witness === undefined)
    return last.sequence === 0 ? [] : ['the head file beside the database is missing or damaged'];
  if (witness.sequence > last.sequence)
    return [
      `it ends at commit ${last.version}, but commits up to ${witness.version} were acknowledged`,
    ];
  const mac = macOf(witness.sequence);
  if (mac === undefined)
    return ['the head file is older than the database: one of them was put back'];
  return mac.equals(witness.mac) ? [] : ['the head file belongs to another database'];
}

/** Whether every record is authentic and none is missing, old or too many. */
export async function recordProblems(
  db: Db,
  tags: RecordTags,
  expected: TagSum,
  options: Parameters<typeof scanRecords>[2],
): Promise<string[]> {
  const { sum, damaged: bad, stopped } = await scanRecords(db, tags, options);
  const problems = [...bad].map(
    ([family, count]) =>
      `${count} ${count === 1 ? 'record' : 'records'} of family ${family} not authentic`,
  );
  if (stopped !== undefined)
    return [
      ...problems,
      `it cannot be read on after ${sum.count} of ${expected.count} records: ${stopped}`,
    ];
  if (sum.equals(expected)) return problems;
  const lost = expected.count - sum.count;
  if (lost > 0) problems.push(`${lost} of ${expected.count} records missing`);
  else if (lost < 0) problems.push(`${-lost} records too many`);
  else if (bad.size === 0) problems.push('some records are older than they should be');
  return problems;
}

/** Everything there is to check, on a database that nobody has open. For a process of its own: see check-main.ts. */
export async function checkDatabase(
  directory: string,
  key: Buffer,
  hasHead: boolean,
  progress: (records: number) => void,
): Promise<StoreReport> {
  const db = await openDb(directory, false);
  try {
    const problems = await formatProblems(db, directory);
    const chain = await readChain(db, key);
    problems.push(...chain.problems);
    if (hasHead) {
      using head = HeadFile.open(`${directory}.head`, key);
      problems.push(...headProblems(head, chain));
    }
    problems.push(...(await recordProblems(db, new RecordTags(key), chain.last.sum, { progress })));
    const { version, sum } = chain.last;
    return { version, records: sum.count, problems, complaints: complaintsOf(directory) };
  } finally {
    await db.close();
  }
}
