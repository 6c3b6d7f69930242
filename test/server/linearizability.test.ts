/**
 * Clients on connections of their own read and change the same few variables at once, while their connections are cut and the
 * server is stopped and started. A call whose answer was lost is made again under its commit id. Whatever they were answered
 * must be what variables that do one call at a time could have answered: test/support/linearizability.ts.
 *
 * LINEARIZABILITY_ROUNDS=n makes it longer.
 */
import { randomUUID } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import t from 'tap';
import { Connection } from '#bridge/client/connection.js';
import { asBridgeError, type Code } from '#bridge/wire/errors.js';
import { VariableKey } from '#bridge/wire/names.js';
import { accessOf } from '#server/auth/access.js';
import { InProcessServer } from '#test/support/in-process-server.js';
import { type Action, type Answer, check, type Event } from '#test/support/linearizability.js';
import { createExecution, NAMESPACE, thumbprintOfTls } from '#test/support/matrix.js';
import { Random, randomTest } from '#test/support/random.js';

t.setTimeout(3_600_000);

const ROUNDS = Number(process.env['LINEARIZABILITY_ROUNDS'] ?? 4);
const EXECUTIONS = 4;
/** Calls a client has under way at once. */
const WORKERS = 2;
const CALLS = 40;
const KEYS = 3;
/** A call is answered in milliseconds; one that is not by then has lost its connection without noticing. */
const DEADLINE_MS = 10_000;

/** Nothing is known of a call that ended so. */
const LOST: ReadonlySet<Code> = new Set<Code>(['unavailable', 'timeout', 'interrupted']);

/** Counts what happened, so that a test in which nothing did is noticed. */
class Tally {
  #counts: Record<string, number> = {};

  add(what: string): void {
    this.#counts[what] = (this.#counts[what] ?? 0) + 1;
  }

  of(what: string): number {
    return this.#counts[what] ?? 0;
  }

  toString(): string {
    return JSON.stringify(this.#counts);
  }
}

/** One execution, or an operator: on one connection after the other. */
class Client implements Disposable {
  readonly name: string;
  readonly #server: InProcessServer;
  /** Of an execution. */
  readonly #token: string | undefined;
  #open: Promise<{ connection: Connection; channel: number }> | undefined;
  #current: Connection | undefined;

  constructor(name: string, server: InProcessServer, token?: string) {
    this.name = name;
    this.#server = server;
    this.#token = token;
  }

  get isExecution(): boolean {
    return this.#token !== undefined;
  }

  /** On the present connection, or on the next one. @throws BridgeError what the server says, or one of LOST */
  async call(op: 'variable.get', params: object): Promise<object> {
    this.#open ??= this.#connect();
    const { connection, channel } = await this.#open;
    const namespace = this.isExecution ? {} : { namespace: NAMESPACE };
    return await connection.call(op, { ...namespace, ...params } as never, {
      channel,
      deadlineMs: DEADLINE_MS,
    });
  }

  /** In the middle of whatever is under way. */
  cut(): void {
    const connection = this.#current;
    this.#current = undefined;
    this.#open = undefined;
    connection?.[Symbol.dispose]();
  }

  [Symbol.dispose](): void {
    this.cut();
  }

  async #connect(): Promise<{ connection: Connection; channel: number }> {
    for (;;) {
      try {
        const tls = this.#server.tls(this.isExecution ? 'host' : 'operator');
        const { address } = this.#server;
        const connection = await Connection.open({ address, tls, software: 'test' });
        this.#current = connection;
        void connection.closed.then(() => {
          if (this.#current !== connection) return;
          this.#current = undefined;
          this.#open = undefined;
        });
        if (this.#token === undefined) return { connection, channel: 0 };
        const { channel } = await connection.call('execution.open', { token: this.#token });
        return { connection, channel };
      } catch (error) {
        if (!LOST.has(asBridgeError(error).code)) throw error;
        await sleep(5); // the server is away, or the connection was cut again
      }
    }
  }
}

/** Calls, as they began and ended. */
class History {
  readonly byKey = new Map<VariableKey, Event[]>();
  #clock = 0;

  readonly now = () => ++this.#clock;

  add(key: VariableKey, event: Event): void {
    const events = this.byKey.get(key) ?? [];
    this.byKey.set(key, events);
    events.push(event);
  }
}

function requestOf(
  action: Action,
  key: VariableKey,
  isCommit: boolean,
): { op: string; params: object } {
  const commitId = randomUUID();
  switch (action.do) {
    case 'get':
      return { op: 'variable.get', params: { key } };
    case 'set': {
      const { text, ifVersion } = action;
      if (isCommit && ifVersion === undefined)
        return {
          op: 'variables.commit',
          params: { set: [[key, text]], delete: [], bases: [], commitId },
        };
      return { op: 'variable.set', params: { key, text, commitId, ...given({ ifVersion }) } };
    }
    case 'add':
      return { op: 'variable.add', params: { key, by: String(action.by), commitId } };
    case 'delete':
      return { op: 'variable.delete', params: { key, commitId, ...given(action) } };
  }
}

const given = ({ ifVersion }: { ifVersion?: number | undefined }) =>
  ifVersion === undefined ? {} : { ifVersion };

/** One worker of a client: call after call, each recorded with how it ended. */
async function work(
  client: Client,
  keys: readonly VariableKey[],
  history: History,
  random: Random,
  texts: () => string,
  tally: Tally,
): Promise<void> {
  /** As this worker has last seen them; 0 = not there. */
  const versions = new Map<VariableKey, number>();
  for (let i = 0; i < CALLS; i++) {
    const key = random.pick(keys);
    const version = versions.get(key) ?? 0;
    const action = random.pick<Action>([
      { do: 'get' },
      { do: 'get' },
      { do: 'set', text: texts() },
      { do: 'set', text: texts(), ifVersion: version },
      { do: 'set', text: texts(), ifVersion: version },
      { do: 'add', by: 1 + random.int(9) },
      { do: 'add', by: 1 + random.int(9) },
      random.chance(0.5) ? { do: 'delete' } : { do: 'delete', ifVersion: version },
    ]);
    const request = requestOf(action, key, client.isExecution && random.chance(0.5));
    const began = history.now();
    if (random.chance(0.15)) setTimeout(() => client.cut(), random.int(4));
    const { answer, tries } = await answered(client, request, random, tally);
    const ended = answer === undefined ? Number.POSITIVE_INFINITY : history.now();
    const by = `${client.name}, ${request.op}, ${tries} tries`;
    history.add(key, { action, began, ended, ...(answer && { answer }), by });
    if (answer !== undefined)
      versions.set(key, 'version' in answer && action.do !== 'delete' ? answer.version : 0);
    tally.add(answer === undefined ? 'unknown' : answer.is);
    if (answer?.is === 'done' && 'ifVersion' in action) tally.add('compared');
  }
}

/** Makes a call until it is answered, or patience has an end. */
async function answered(
  client: Client,
  { op, params }: { op: string; params: object },
  random: Random,
  tally: Tally,
): Promise<{ answer: Answer | undefined; tries: number }> {
  for (let tries = 1; ; tries++) {
    try {
      return { answer: answerOf(await client.call(op as 'variable.get', params)), tries };
    } catch (error) {
      const { code } = asBridgeError(error);
      if (code === 'not_found') return { answer: { is: 'absent' }, tries };
      if (code === 'conflict') return { answer: { is: 'conflict' }, tries };
      if (!LOST.has(code)) throw error;
      if (random.chance(0.05)) return { answer: undefined, tries };
      tally.add('made again');
      await sleep(1);
    }
  }
}

function answerOf(result: object): Answer {
  const { version, text } = result as { version: number; text?: string };
  return text === undefined ? { is: 'done', version } : { is: 'value', version, text };
}

/** Cuts connections and stops the server, until told to end. */
async function chaos(
  server: InProcessServer,
  clients: readonly Client[],
  random: Random,
  signal: AbortSignal,
): Promise<void> {
  while (!signal.aborted) {
    await sleep(random.int(60));
    if (random.chance(0.95)) random.pick(clients).cut();
    else {
      await server.pause();
      await sleep(random.int(20));
      await server.resume();
    }
  }
}

for (const store of ['memory', 'level'] as const)
  randomTest(
    `what clients at once are told is one history of the variables (${store})`,
    async (t, random) => {
      const server = await InProcessServer.start({ store });
      t.teardown(async () => await server[Symbol.asyncDispose]());
      const tally = new Tally();
      const thumbprint = thumbprintOfTls(server.tls('host'));
      let lastText = 0;
      const texts = () => String(1000 * ++lastText);
      for (let round = 0; round < ROUNDS; round++) {
        const clients = [new Client('operator', server)];
        for (let i = 0; i < EXECUTIONS; i++) {
          const executionId = await createExecution(server);
          const grant = { ...accessOf('local'), executionId, namespace: NAMESPACE };
          const { token } = await server.tokens.mint(grant, thumbprint);
          clients.push(new Client(`execution ${i}`, server, token));
        }
        const keys = Array.from({ length: KEYS }, (_, i) => VariableKey.parse(`key-${round}-${i}`));
        const history = new History();
        const workers = clients.flatMap((client) =>
          Array.from({ length: WORKERS }, async () => {
            const own = new Random(random.int(2 ** 31));
            await work(client, keys, history, own, texts, tally);
          }),
        );
        const over = new AbortController();
        const disturbing = chaos(server, clients, new Random(random.int(2 ** 31)), over.signal);
        await Promise.all(workers);
        over.abort();
        await disturbing;
        for (const key of keys) {
          const began = history.now();
          const [operator] = clients;
          if (operator === undefined) throw new Error('no operator');
          const request = requestOf({ do: 'get' }, key, false);
          const { answer } = await answered(operator, request, new Random(1), tally);
          history.add(key, {
            action: { do: 'get' },
            began,
            ended: history.now(),
            ...(answer && { answer }),
          });
        }
        for (const client of clients) client[Symbol.dispose]();
        for (const [key, events] of history.byKey) {
          const verdict = check(events);
          if (!verdict.ok) {
            t.comment(`${key}: ${events.length} calls`);
            for (const event of verdict.order.slice(-8))
              t.comment(`  then ${JSON.stringify(event)}`);
            for (const event of verdict.stuck) t.comment(`  stuck ${JSON.stringify(event)}`);
          }
          t.ok(verdict.ok, `round ${round}, ${key}: ${events.length} calls`);
          if (!verdict.ok) return;
        }
      }
      t.comment(tally.toString());
      for (const what of ['made again', 'unknown', 'conflict', 'compared', 'value', 'absent'])
        t.ok(tally.of(what) > 0, `${what}: ${tally.of(what)}`);
    },
  );
