import { randomUUID } from 'node:crypto';
import { appendFileSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import t from 'tap';
import type { Connection } from '#bridge/client/connection.js';
import { asBridgeError } from '#bridge/wire/errors.js';
import { JsonText, type Namespace, VariableKey } from '#bridge/wire/names.js';
import { type Random, randomTest } from '#test/support/random.js';
import { ServerProcess } from '#test/support/server-process.js';

/** Hundreds of them by hand: `CRASH_ROUNDS=300 node scripts/run-tests.mjs server/crash`. */
const ROUNDS = Number(process.env['CRASH_ROUNDS'] ?? 10);
t.setTimeout(60_000 + ROUNDS * 10_000);

const OWNER: Namespace = { user: 'ada' };

/** Writes the same stamp to all of its keys, in one commit each time; one commit after the other. */
interface Writer {
  readonly keys: readonly VariableKey[];
  /** Appended to the stamp, to make values and commits of every size. */
  readonly padding: string;
  acknowledged: number;
  sent: number;
}

const SIZES = [
  { keys: 3, bytes: 20 },
  { keys: 3, bytes: 20 },
  { keys: 3, bytes: 20 },
  { keys: 1, bytes: 5000 },
  { keys: 2, bytes: 200_000 }, // values in chunks
  { keys: 60, bytes: 30_000 }, // a commit that the store below cannot take at once
];

const writers = (): Writer[] =>
  SIZES.map(({ keys, bytes }, n) => ({
    keys: Array.from({ length: keys }, (_, i) => VariableKey.parse(`writer-${n}-key-${i}`)),
    padding: 'x'.repeat(bytes),
    acknowledged: 0,
    sent: 0,
  }));

/** Until the connection is lost. */
async function write(connection: Connection, channel: number, writer: Writer): Promise<void> {
  for (;;) {
    const stamp = ++writer.sent;
    const text = JsonText.parse(JSON.stringify(`${stamp} ${writer.padding}`));
    const set = writer.keys.map((key): [VariableKey, string] => [key, text]);
    const params = { set, delete: [], bases: [], commitId: randomUUID() };
    await connection.call('variables.commit', params, { channel });
    writer.acknowledged = stamp;
  }
}

async function opened(connection: Connection): Promise<number> {
  const { token } = await connection.call('execution.create', {
    user: 'ada',
    variablesOf: OWNER,
    runtime: 'bash',
    event: {
      id: 1,
      name: 'crash',
      description: null,
      type: 'BASH',
      runLocation: 'LOCAL',
      createdAt: '',
      updatedAt: '',
      userId: 'ada',
      server: null,
      successCount: 0,
      failureCount: 0,
      lastRunAt: null,
    },
    timeoutMs: 60_000,
  });
  return (await connection.call('execution.open', { token })).channel;
}

/** What a disk may hold behind the last record of a log after a crash: nothing, zeros, or anything. */
function tearLog(database: string, random: Random): void {
  const log = readdirSync(database)
    .filter((name) => name.endsWith('.log'))
    .sort()
    .at(-1);
  if (log === undefined || random.chance(0.4)) return;
  const tail = random.chance(0.5)
    ? Buffer.alloc(1 + random.int(5000))
    : random.bytes(1 + random.int(5000));
  appendFileSync(join(database, log), tail);
}

/** Sentences about what is wrong with the variables, empty when nothing is. */
async function losses(operator: Connection, all: readonly Writer[]): Promise<string[]> {
  const { variables } = await operator.call('variable.list', { namespace: OWNER });
  const stamps = new Map(
    variables.map(({ key, text }) => [key, Number.parseInt(text?.slice(1) ?? '', 10)]),
  );
  return all.flatMap(({ keys, acknowledged, sent }, n) => {
    const found = new Set(keys.map((key) => stamps.get(key) ?? 0));
    if (found.size > 1) return [`writer ${n}: half a commit, ${[...found].join(' and ')}`];
    const [stamp = 0] = found;
    if (stamp < acknowledged)
      return [`writer ${n}: ${acknowledged} was acknowledged, ${stamp} is there`];
    return stamp > sent ? [`writer ${n}: ${stamp} was never sent`] : [];
  });
}

randomTest(
  `killed ${ROUNDS} times in the middle of its work, the server has all it acknowledged and nothing by halves`,
  async (t, random) => {
    await using server = await ServerProcess.make();
    const all = writers();
    let acknowledged = 0;
    for (let round = 1; round <= ROUNDS; round++) {
      await server.start();
      const connection = await server.connect('host');
      const channel = await opened(connection);
      const before = all.map((writer) => writer.acknowledged);
      const writing = all.map(async (writer) => await write(connection, channel, writer));
      await Promise.race([sleep(random.int(400)), ...writing]);
      await server.end('SIGKILL');
      for (const outcome of await Promise.allSettled(writing)) {
        const code = outcome.status === 'rejected' ? asBridgeError(outcome.reason).code : 'ended';
        if (code !== 'unavailable') t.fail(`round ${round}: ${code}`);
      }
      connection[Symbol.dispose]();
      acknowledged += all.reduce(
        (sum, writer, n) => sum + writer.acknowledged - (before[n] ?? 0),
        0,
      );
      tearLog(server.database, random);

      await server.start();
      const operator = await server.connect('operator');
      const wrong = await losses(operator, all);
      // What was sent last may be there: the next stamp must be a new one all the same.
      t.strictSame(wrong, [], `round ${round}`);
      const audit = await operator.call('audit.verify', { heads: [] });
      t.strictSame(audit.broken, [], `round ${round}: the audit log is whole`);
      if (round === ROUNDS) {
        const report = await operator.call('store.verify', {});
        t.strictSame(report.problems, [], 'the store is whole');
        t.equal(audit.chains.length, 2 * ROUNDS, 'every run of the server is on record');
      }
      operator[Symbol.dispose]();
      await server.end(random.chance(0.5) ? 'SIGTERM' : 'SIGKILL');
    }
    t.comment(`${acknowledged} commits were acknowledged`);
    t.ok(acknowledged > ROUNDS, `${acknowledged} commits were acknowledged`);
  },
);
