import { X509Certificate } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Test } from 'tap';
import type { TlsFiles } from '#bridge/client/connection.js';
import { type ExecutionId, type Namespace, VariableKey } from '#bridge/wire/names.js';
import { accessOf } from '#server/auth/access.js';
import { thumbprintOf } from '#server/auth/identity.js';
import type { GrantRequest } from '#server/auth/tokens.js';
import { EXAMPLES, type Op, type Subjects } from './example-calls.js';
import { InProcessServer } from './in-process-server.js';
import { type Outcome, RawClient } from './raw-client.js';
import { changedKeys, contentsOf } from './store-contents.js';

export const NAMESPACE = { user: 'ada' } as const;
/** Shares nothing with anybody; has the same variables. */
export const STRANGER = { user: 'bob' } as const;
/** Never heard of. */
export const NOBODY = { user: 'eve' } as const;

const BY = 'operator:test';
/** A value that stood this long is kept in the history. */
const KEPT_MS = 1100;

/** One call, and what it must end with. */
export interface Cell {
  readonly op: Op;
  readonly client: RawClient;
  /** As the audit log writes it. */
  readonly who: string;
  readonly params?: unknown;
  readonly channel?: number;
  /** Absent: it must succeed. */
  readonly refused?: string | undefined;
}

/** A server with one of everything that calls are about, and clients of every role. */
export class Bench implements AsyncDisposable {
  readonly server: InProcessServer;
  readonly host: RawClient;
  readonly operator: RawClient;
  readonly auditor: RawClient;
  readonly subjects: Omit<Subjects, 'token'>;
  readonly hostThumbprint: string;
  #cursor: string | undefined;

  private constructor(
    server: InProcessServer,
    [host, operator, auditor]: readonly [RawClient, RawClient, RawClient],
    subjects: Omit<Subjects, 'token'>,
  ) {
    this.server = server;
    this.host = host;
    this.operator = operator;
    this.auditor = auditor;
    this.subjects = subjects;
    this.hostThumbprint = thumbprintOfTls(server.tls('host'));
  }

  /** With history, which takes a second, `variable.restore` finds what it asks for. */
  static async open(t: Test, hasHistory = false): Promise<Bench> {
    const server = await InProcessServer.start({ store: 'level' });
    const auditor = await server.issue({ name: 'test-auditor', role: 'auditor', file: 'auditor' });
    const keys = { text: 'city', number: 'count', array: 'list', kept: 'kept' };
    const values = { text: '"Oslo"', number: '1', array: '[]', kept: '"old"' };
    const put = async (namespace: Namespace, key: string, text: string) =>
      await server.variables.set(namespace, VariableKey.parse(key), { text }, { by: BY });
    for (const namespace of [NAMESPACE, STRANGER])
      for (const name of ['text', 'number', 'array', 'kept'] as const)
        await put(namespace, keys[name], values[name]);
    if (hasHistory) await sleep(KEPT_MS);
    await put(NAMESPACE, keys.kept, '"new"');
    const [earlier] = await server.variables.history(NAMESPACE, VariableKey.parse(keys.kept));
    const clients = [
      await greeted(server, server.tls('host')),
      await greeted(server, server.tls('operator')),
      await greeted(server, auditor),
    ] as const;
    const executionId = await createExecution(server);
    const version = earlier?.version ?? 0;
    const subjects = { namespace: NAMESPACE, keys, version, executionId };
    const bench = new Bench(server, clients, subjects);
    t.teardown(async () => await bench[Symbol.asyncDispose]());
    return bench;
  }

  /** A token for an execution that runs, of this host unless said otherwise. */
  async token(
    change: Partial<GrantRequest> & {
      readonly lifetimeMs?: number;
      readonly thumbprint?: string;
    } = {},
  ): Promise<string> {
    const { lifetimeMs, thumbprint = this.hostThumbprint, ...grant } = change;
    const executionId = grant.executionId ?? (await createExecution(this.server));
    const namespace = grant.namespace ?? NAMESPACE;
    const request = { ...accessOf('local'), ...grant, executionId, namespace };
    return (await this.server.tokens.mint(request, thumbprint, lifetimeMs)).token;
  }

  /** Opens a token's execution. */
  async open(token: string, client = this.host): Promise<number> {
    const { channel } = await client.peer.call('execution.open', { token });
    return channel;
  }

  async example(op: Op): Promise<unknown> {
    const token = op === 'execution.open' ? await this.token() : '';
    return EXAMPLES[op]({ ...this.subjects, token });
  }

  /**
   * Makes every call. Those that must be refused change nothing, and are on record in their order; so are those that must
   * succeed, after them. Returns what the refused ones said.
   */
  async judge(t: Test, what: string, cells: readonly Cell[]): Promise<Outcome[]> {
    const isRefused = (cell: Cell) => cell.refused !== undefined;
    const refused = cells.filter(isRefused);
    const allowed = cells.filter((cell) => !isRefused(cell));
    const [denied, allowedToo] = [await this.#prepared(refused), await this.#prepared(allowed)];
    const before = await contentsOf(this.server.store);
    const outcomes = await this.#made(denied);
    const after = await contentsOf(this.server.store);
    const judged = (some: readonly Cell[], all: readonly Outcome[]) =>
      some.map(({ op }, i) => `${op}: ${all[i]?.code}`);
    t.strictSame(
      judged(refused, outcomes),
      refused.map(({ op, refused: code }) => `${op}: ${code}`),
      `${what}: refused`,
    );
    t.strictSame(changedKeys(before, after), [], `${what}: nothing has changed`);
    for (const { message } of outcomes) if (!isSentence(message)) t.fail(`${what}: ${message}`);
    const done = await this.#made(allowedToo);
    t.strictSame(
      allowed.map(({ op }, i) => `${op}: ${done[i]?.code} ${done[i]?.message}`),
      allowed.map(({ op }) => `${op}: ok `),
      `${what}: allowed`,
    );
    // A commit that met a conflict is on record as well as what the call then ended with.
    const recorded = (await this.recorded()).filter(({ outcome }) => outcome !== 'conflict');
    const events = recorded.filter(({ outcome }) => outcome !== 'ok');
    t.strictSame(
      events.map(({ who, op, outcome }) => `${who} ${op} ${outcome}`),
      refused.map(({ who, op, refused: code }) => `${who} ${op} ${code}`),
      `${what}: refusals are on record`,
    );
    t.strictSame(
      recorded.filter(({ outcome }) => outcome === 'ok').map(({ who, op }) => `${who} ${op}`),
      allowed.map(({ who, op }) => `${who} ${op}`),
      `${what}: and so is what was allowed`,
    );
    return outcomes;
  }

  /** What came on record since this was asked last. */
  async recorded() {
    const { audit } = this.server;
    await audit.flush();
    const after = this.#cursor === undefined ? {} : { after: this.#cursor };
    const page = await audit.read({ ...after, limit: 10_000, reverse: false });
    this.#cursor = page.cursor;
    return page.events.filter(({ who }) => who !== 'server');
  }

  /** Forgets what is on record so far. */
  async fromNow(): Promise<void> {
    await this.recorded();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const client of [this.host, this.operator, this.auditor]) client[Symbol.dispose]();
    await this.server[Symbol.asyncDispose]();
  }

  async #prepared(cells: readonly Cell[]): Promise<(Cell & { readonly params: unknown })[]> {
    const prepared: (Cell & { readonly params: unknown })[] = [];
    for (const cell of cells)
      prepared.push({ ...cell, params: cell.params ?? (await this.example(cell.op)) });
    await this.fromNow();
    return prepared;
  }

  async #made(cells: readonly (Cell & { readonly params: unknown })[]): Promise<Outcome[]> {
    const outcomes: Outcome[] = [];
    for (const { op, client, params, channel } of cells)
      outcomes.push(await client.outcome(op, params, channel));
    return outcomes;
  }
}

/** No stack, no path, no word of a library. */
const isSentence = (text: string): boolean =>
  text.length > 0 && !/\n|\bat .*:\d+|node_modules|\/server\/|undefined|\[object|Zod/.test(text);

/** One more execution that runs, made without the host knowing. */
export async function createExecution(
  server: InProcessServer,
  namespace: Namespace = NAMESPACE,
  host = 'test-host',
): Promise<ExecutionId> {
  const subjects = { namespace, keys: { text: '', number: '', array: '', kept: '' } };
  const params = EXAMPLES['execution.create']({
    ...subjects,
    version: 0,
    executionId: '',
    token: '',
  });
  const owner = { name: host, thumbprints: [thumbprintOfTls(server.tls('host'))] as const };
  return await server.executions.create({ ...params, variablesOf: namespace }, owner);
}

export async function greeted(server: InProcessServer, tls: TlsFiles): Promise<RawClient> {
  const client = await RawClient.open(server, tls);
  await client.peer.call('hello', EXAMPLES.hello());
  return client;
}

export const thumbprintOfTls = ({ cert }: { cert: string }): string =>
  thumbprintOf(new X509Certificate(cert).raw);
