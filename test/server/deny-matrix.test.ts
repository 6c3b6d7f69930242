/**
 * Every operation, called by everybody who may not: refused with the stated code, nothing changed, and on record. Beside each
 * refusal stands the same call by whom it is allowed, so that a server that refuses everything does not pass.
 */
import 'reflect-metadata'; // asked for by a dependency of @peculiar/x509
import {
  createHmac,
  createPublicKey,
  generateKeyPairSync,
  randomUUID,
  sign,
  webcrypto,
} from 'node:crypto';
import { readFileSync } from 'node:fs';
import * as x509 from '@peculiar/x509';
import t from 'tap';
import type { TlsFiles } from '#bridge/client/connection.js';
import { BridgeError } from '#bridge/wire/errors.js';
import { encodeFrame } from '#bridge/wire/frames.js';
import { ExecutionId, namespaceText, VariableKey } from '#bridge/wire/names.js';
import type { Capability } from '#bridge/wire/protocol/credentials.js';
import { ROLES } from '#bridge/wire/protocol.js';
import { accessOf } from '#server/auth/access.js';
import { keyIdOf } from '#server/auth/signing-keys.js';
import { callerOf, EXAMPLES, NEEDS, OPS, type Op } from '#test/support/example-calls.js';
import type { InProcessServer } from '#test/support/in-process-server.js';
import {
  Bench,
  type Cell,
  createExecution,
  greeted,
  NAMESPACE,
  NOBODY,
  STRANGER,
  thumbprintOfTls,
} from '#test/support/matrix.js';
import { type ClientTls, RawClient, tlsTo } from '#test/support/raw-client.js';
import { changedKeys, contentsOf } from '#test/support/store-contents.js';

// Hundreds of calls for each of a hundred situations, on machines with other work to do.
t.setTimeout(180_000);

const DAY_MS = 24 * 60 * 60 * 1000;
const HOST = 'host:test-host';

/** Said again here, and not taken from the server: whose certificates may make which calls. */
const MAY: Readonly<Record<ReturnType<typeof callerOf>, readonly string[]>> = {
  any: ['host', 'operator', 'auditor'],
  host: ['host'],
  operator: ['operator'],
  auditor: ['operator', 'auditor'],
  channel: ['host'],
  user: ['host', 'operator'],
  reader: ['host', 'operator', 'auditor'],
};
const mayHost = (op: Op) => MAY[callerOf(op)].includes('host');
/** Those that a host makes for an execution. */
const isOnChannel = (op: Op) => ['channel', 'user', 'reader'].includes(callerOf(op));
const ON_CHANNEL = OPS.filter(isOnChannel);

void t.test('each role may make its calls and no others', async (t) => {
  const bench = await Bench.open(t, true);
  for (const role of ROLES) {
    const cells: Cell[] = [];
    for (const op of OPS) {
      const cell = { op, client: bench[role], who: `${role}:test-${role}` };
      if (!MAY[callerOf(op)].includes(role)) cells.push({ ...cell, refused: 'denied' });
      else if (role === 'host' && isOnChannel(op))
        cells.push({ ...cell, channel: await bench.open(await bench.token()) });
      else cells.push(cell);
    }
    await bench.judge(t, role, cells);
  }
});

void t.test('nothing is answered before hello', async (t) => {
  const bench = await Bench.open(t);
  for (const role of ROLES) {
    const cells: Cell[] = [];
    for (const op of OPS) {
      const client = await RawClient.open(bench.server, bench.server.tls(role));
      t.teardown(() => client[Symbol.dispose]());
      const refused = op === 'hello' ? undefined : 'denied';
      cells.push({ op, client, who: `${role}:test-${role}`, refused });
    }
    await bench.judge(t, role, cells);
  }
  const client = await RawClient.open(bench.server, bench.server.tls('host'));
  t.teardown(() => client[Symbol.dispose]());
  t.match(await client.outcome('hello', { protocol: 99, software: 'future' }), { code: 'invalid' });
  t.match(await client.outcome('server.status', {}), { code: 'denied' }, 'nor after a wrong one');
});

void t.test(
  'a call for an execution needs its open channel, on the connection it was opened on',
  async (t) => {
    const bench = await Bench.open(t);
    const { server, host } = bench;
    const other = await greeted(server, server.tls('host'));
    const empty = await greeted(server, server.tls('host'));
    t.teardown(() => other[Symbol.dispose]());
    t.teardown(() => empty[Symbol.dispose]());
    /** Number of a channel that is not, or not any more, what a call may be made on. */
    const channels: Readonly<Record<string, () => Promise<number>>> = {
      'the connection itself': async () => 0,
      'a channel of nobody': async () => 4_000_000,
      'a channel of another connection': async () => await bench.open(await bench.token()),
      'a channel that is closed': async () => {
        const channel = await bench.open(await bench.token());
        await host.peer.call('execution.finish', EXAMPLES['execution.finish'](), { channel });
        return channel;
      },
      'a channel whose execution was ended elsewhere': async () => {
        const token = await bench.token();
        const [channel, there] = [await bench.open(token), await bench.open(token, other)];
        await other.peer.call('execution.finish', EXAMPLES['execution.finish'](), {
          channel: there,
        });
        return channel;
      },
      'a channel whose token was revoked': async () => {
        const executionId = await createExecution(server);
        const channel = await bench.open(await bench.token({ executionId }));
        await server.revocations.revokeToken(executionId, 'test', 'operator:test');
        return channel;
      },
      'a channel whose token has expired': async () =>
        // Clocks may differ by seconds, so it can be opened still.
        await bench.open(await bench.token({ lifetimeMs: -1000 })),
    };
    for (const [what, channelOf] of Object.entries(channels)) {
      const isExpired = what.includes('expired');
      // One that has no channel itself.
      const client = what.includes('another connection') ? empty : host;
      const cells: Cell[] = [];
      for (const op of OPS) {
        const needs = isOnChannel(op);
        const refused = !mayHost(op)
          ? 'denied'
          : !needs
            ? undefined
            : isExpired
              ? 'token_expired'
              : 'denied';
        const channel = needs ? await channelOf() : 0;
        cells.push({ op, client, who: HOST, channel, refused });
      }
      await bench.judge(t, what, cells);
    }
  },
);

void t.test(
  'read-only mode, the remote profile and narrow scopes each take away what they say',
  async (t) => {
    const bench = await Bench.open(t);
    const keys = (...patterns: string[]): readonly Capability[] => [
      { area: 'variables', access: 'rw', keys: patterns },
    ];
    const all = accessOf('local');
    const accesses = {
      'read-only mode': accessOf('local', 'ro'),
      'read-only mode, remote': accessOf('remote', 'ro'),
      'the remote profile': accessOf('remote'),
      'the remote profile with scopes that say more': { ...accessOf('remote'), cap: all.cap },
      'scopes without the keys': { ...all, cap: keys('other*', 'c?ty', 'CITY') },
      'no scopes': { ...all, cap: [] },
      'scopes that name the keys': { ...all, cap: keys('ci*', 'count', '*') },
      everything: all,
    } as const;
    const isWrite = (op: Op) => NEEDS[op]?.want === 'w';
    const hasArea = (op: Op, area: string) => NEEDS[op]?.area === area;
    const refusalOf = (what: keyof typeof accesses, op: Op): string | undefined => {
      const needs = NEEDS[op];
      // A list holds what may be read, which may be nothing.
      if (needs === undefined || op === 'variable.list') return undefined;
      if (what.startsWith('read-only')) return isWrite(op) ? 'read_only' : undefined;
      if (what.startsWith('the remote'))
        return isWrite(op) && hasArea(op, 'variables') ? 'denied' : undefined;
      if (what === 'everything') return undefined;
      if (what === 'scopes that name the keys')
        return hasArea(op, 'variables') ? undefined : 'denied';
      return 'denied';
    };
    for (const [what, access] of Object.entries(accesses)) {
      const cells: Cell[] = [];
      for (const op of ON_CHANNEL)
        cells.push({
          op,
          client: bench.host,
          who: HOST,
          channel: await bench.open(await bench.token(access)),
          refused: refusalOf(what as keyof typeof accesses, op),
        });
      await bench.judge(t, what, cells);
    }

    const listed = async (access: (typeof accesses)[keyof typeof accesses]) => {
      const channel = await bench.open(await bench.token(access));
      const { variables } = await bench.host.peer.call('variable.list', {}, { channel });
      return variables.map(({ key }) => key as string).filter((key) => key === 'city');
    };
    t.strictSame(await listed(accesses['no scopes']), []);
    t.strictSame(await listed(accesses['scopes without the keys']), []);
    t.strictSame(await listed(accesses['scopes that name the keys']), ['city']);
  },
);

void t.test('one refused key among allowed ones refuses a commit as a whole', async (t) => {
  const bench = await Bench.open(t);
  const cap = [{ area: 'variables', access: 'rw', keys: ['city'] }] as const;
  const channel = await bench.open(await bench.token({ ...accessOf('local'), cap }));
  const commit = (set: [string, string][], gone: string[]) => ({
    op: 'variables.commit' as const,
    client: bench.host,
    who: HOST,
    channel,
    params: { set, delete: gone, bases: [], commitId: randomUUID() },
  });
  await bench.judge(t, 'a commit', [
    {
      ...commit(
        [
          ['city', '1'],
          ['count', '2'],
        ],
        [],
      ),
      refused: 'denied',
    },
    { ...commit([['city', '1']], ['count']), refused: 'denied' },
    { ...commit([], ['count']), refused: 'denied' },
    { ...commit([], []), refused: 'denied' },
    commit([['city', '1']], []),
    commit([], ['city']),
  ]);
});

const IN_NAMESPACE = ON_CHANNEL.filter((op) => callerOf(op) !== 'channel');

void t.test(
  'another’s variables are refused alike, whether they exist or not, in whatever way it is tried',
  async (t) => {
    const bench = await Bench.open(t);
    const { server, host } = bench;
    const channel = await bench.open(await bench.token());
    const ask = (op: Op, namespace: object, change: object = {}): Cell => ({
      op,
      client: host,
      who: HOST,
      channel,
      refused: 'denied',
      params: { ...EXAMPLES[op]({ ...bench.subjects, token: '' }), namespace, ...change },
    });
    const said = new Map<string, Set<string>>();
    const judge = async (what: string, cells: readonly Cell[]) => {
      const outcomes = await bench.judge(t, what, cells);
      for (const [i, { message }] of outcomes.entries()) {
        const { op = '', params } = cells[i] ?? {};
        const name = namespaceText((params as { namespace: { user: string } }).namespace);
        const sentences = said.get(op) ?? new Set();
        said.set(op, sentences.add(message.replaceAll(name, 'NAMESPACE')));
      }
    };
    await judge(
      'one that exists',
      IN_NAMESPACE.map((op) => ask(op, STRANGER)),
    );
    await judge(
      'one that does not',
      IN_NAMESPACE.map((op) => ask(op, NOBODY)),
    );
    await judge(
      'an organisation',
      IN_NAMESPACE.map((op) => ask(op, { org: 'ada' })),
    );
    const single = IN_NAMESPACE.filter((op) => op !== 'variable.list');
    await judge(
      'a key that does not exist',
      single.map((op) => ask(op, STRANGER, { key: 'no' })),
    );
    const set = single.filter((op) => op === 'variable.set' || op === 'variable.delete');
    await judge(
      'at a version',
      set.map((op) => ask(op, STRANGER, { ifVersion: 1 })),
    );

    await server.services.sharing.set(STRANGER, { with: NAMESPACE, prefix: 'pub.', access: 'rw' });
    await server.services.sharing.set(STRANGER, {
      with: { user: 'carl' },
      prefix: '',
      access: 'rw',
    });
    await server.services.sharing.set(STRANGER, { with: NAMESPACE, prefix: 'ro.', access: 'r' });
    await judge(
      'other keys are shared',
      single.map((op) => ask(op, STRANGER)),
    );
    const writes = single.filter((op) => NEEDS[op]?.want === 'w');
    await judge(
      'shared for reading',
      writes.map((op) => ask(op, STRANGER, { key: 'ro.city' })),
    );
    for (const [op, sentences] of said)
      t.strictSame([...sentences], ['NAMESPACE does not share that with this execution'], op);

    const put = async (key: string, text: string) =>
      await server.variables.set(
        STRANGER,
        VariableKey.parse(key),
        { text },
        { by: 'operator:test' },
      );
    await put('pub.city', '"Rome"');
    await put('pub.count', '1');
    await put('pub.list', '[]');
    const keyOf = (op: Op) =>
      op === 'variable.add' ? 'pub.count' : op === 'variable.append' ? 'pub.list' : 'pub.city';
    await bench.judge(
      t,
      'what is shared',
      IN_NAMESPACE.map((op) => ({
        ...ask(op, STRANGER, op === 'variable.list' ? {} : { key: keyOf(op) }),
        refused: undefined,
      })),
    );
    const { variables } = await host.peer.call(
      'variable.list',
      { namespace: STRANGER },
      { channel },
    );
    t.ok(
      variables.every(({ key }) => /^(pub|ro)\./.test(key)),
      'the list has nothing else',
    );

    // A scope holds for others' variables as well.
    const cap = [{ area: 'variables', access: 'rw', keys: ['city'] }] as const;
    const narrow = await bench.open(await bench.token({ ...accessOf('local'), cap }));
    await bench.judge(
      t,
      'shared, but not in scope',
      single.map((op) => ({ ...ask(op, STRANGER, { key: keyOf(op) }), channel: narrow })),
    );
  },
);

void t.test(
  'out of scope, a variable that exists is refused with the same words as one that does not',
  async (t) => {
    const bench = await Bench.open(t);
    const cap = [{ area: 'variables', access: 'rw', keys: ['mine.*'] }] as const;
    const channel = await bench.open(await bench.token({ ...accessOf('local'), cap }));
    for (const op of IN_NAMESPACE.filter((one) => one !== 'variable.list')) {
      const said: string[] = [];
      for (const key of ['city', 'count', 'list', 'missing']) {
        const params = { ...EXAMPLES[op]({ ...bench.subjects, token: '' }), key };
        const { code, message } = await bench.host.outcome(op, params, channel);
        said.push(`${code}: ${message}`);
      }
      t.equal(new Set(said).size, 1, `${op}: ${said[0]}`);
    }
  },
);

void t.test('a host learns nothing of executions that are not its own', async (t) => {
  const bench = await Bench.open(t);
  const { server, host } = bench;
  const other = await server.issue({ name: 'other-host', role: 'host', file: 'other' });
  using stranger = await greeted(server, other);
  const theirs = await createExecution(server, NAMESPACE, 'other-host');
  const theirToken = await bench.token({ executionId: theirs, thumbprint: thumbprintOfTls(other) });
  const notThere = ExecutionId.parse(randomUUID());
  const said = async (op: Op, params: unknown) => {
    const { code, message } = await host.outcome(op, params);
    return `${code}: ${message}`;
  };
  for (const op of ['execution.get', 'execution.cancel'] as const) {
    const of = (executionId: string) =>
      said(op, EXAMPLES[op]({ ...bench.subjects, executionId, token: '' }));
    t.equal(await of(theirs), await of(notThere), op);
  }
  const lose = (id: string) => host.outcome('execution.lose', { executionIds: [id], reason: '' });
  t.same(await lose(theirs), await lose(notThere), 'execution.lose');
  t.notOk((await server.executions.get(theirs)).record['status'], 'which did not end it');
  // A stolen token says as little as one that is made up.
  const open = (token: string) => said('execution.open', { token });
  const made = `${theirToken.slice(0, -8)}AAAAAAAA`;
  t.equal(await open(theirToken), await open(made), 'a token of another host');
  t.match(
    await stranger.outcome('execution.open', { token: theirToken }),
    { code: 'ok' },
    'which it opens',
  );

  // Its id is taken, in whosever namespace it is asked for, and stays where it is.
  const create = {
    ...EXAMPLES['execution.create']({ ...bench.subjects, token: '' }),
    executionId: theirs,
  };
  await bench.judge(t, 'creating what another host has created', [
    { op: 'execution.create', client: host, who: HOST, params: create, refused: 'denied' },
    {
      op: 'execution.create',
      client: host,
      who: HOST,
      refused: 'denied',
      params: { ...create, user: 'bob', variablesOf: STRANGER },
    },
  ]);
  t.match(await server.executions.place(theirs), { namespace: NAMESPACE });
});

void t.test('an execution is reopened by the host that created it, and by no other', async (t) => {
  const bench = await Bench.open(t);
  const { server, host, hostThumbprint } = bench;
  const issue = async (name: string, file: string) =>
    await server.issue({ name, role: 'host', file });
  const stranger = await greeted(server, await issue('other-host', 'other'));
  const namesake = await greeted(server, await issue('test-host', 'namesake'));
  const successorTls = await issue('test-host', 'successor');
  const successor = await greeted(server, successorTls);
  t.teardown(() => {
    for (const client of [stranger, namesake, successor]) client[Symbol.dispose]();
  });
  await server.successions.succeed(hostThumbprint, thumbprintOfTls(successorTls), 'operator:test');
  const create = async (change: object = {}) => {
    const params = { ...EXAMPLES['execution.create']({ ...bench.subjects, token: '' }), ...change };
    return await host.peer.call('execution.create', params);
  };
  const jtiOf = (token: string) =>
    (JSON.parse(Buffer.from(token.split('.')[1] ?? '', 'base64url').toString()) as { jti: string })
      .jti;
  const reopen = (executionId: string) => ({
    op: 'execution.reopen' as const,
    client: host,
    who: HOST,
    params: { executionId },
  });

  const { executionId: running } = await create();
  const { executionId: ended, token } = await create();
  const channel = await bench.open(token);
  await host.peer.call('execution.finish', EXAMPLES['execution.finish'](), { channel });
  const { executionId: revoked } = await create();
  await server.revocations.revokeToken(revoked, 'test', 'operator:test');
  const { executionId: lessToken, token: revokedToken } = await create();
  await server.revocations.revokeToken(jtiOf(revokedToken), 'test', 'operator:test');
  const { executionId: lessLater } = await create();
  const later = await host.peer.call('execution.reopen', { executionId: lessLater });
  await server.revocations.revokeToken(jtiOf(later.token), 'test', 'operator:test');
  const said = await bench.judge(t, 'reopening', [
    { ...reopen(running), client: stranger, who: 'host:other-host', refused: 'denied' },
    { ...reopen(running), client: namesake, refused: 'denied' },
    { ...reopen(running.replace(/^./, (c) => (c === '0' ? '1' : '0'))), refused: 'denied' },
    { ...reopen(ended), refused: 'denied' },
    { ...reopen(revoked), refused: 'denied' },
    { ...reopen(lessToken), refused: 'denied' },
    { ...reopen(lessLater), refused: 'denied' },
    reopen(running),
    { ...reopen(running), client: successor },
  ]);
  const [others = '', , notThere = ''] = said.map(({ message }) =>
    message.replace(/ \S+-\S+ /, ' '),
  );
  t.equal(others, notThere, 'it is not said whether there is one');

  // No more than it was created with.
  const { executionId: narrow } = await create({ profile: 'remote', readOnly: true });
  const again = await host.peer.call('execution.reopen', { executionId: narrow });
  t.match(await server.tokens.verify(again.token, hostThumbprint), {
    ...accessOf('remote', 'ro'),
    executionId: narrow,
    namespace: NAMESPACE,
  });
  const listed = (await server.tokenRecords.list()).map(({ jti }) => jti);
  t.ok(listed.includes(jtiOf(again.token)), 'it is listed, so it can be revoked');
});

const encode = (value: unknown) => Buffer.from(JSON.stringify(value)).toString('base64url');

/** Tokens that must not open anything, by what is wrong with them; the code where it is not `denied`. */
async function badTokens(bench: Bench): Promise<Map<string, { token: string; code?: string }>> {
  const { server, hostThumbprint } = bench;
  const key = server.signingKey;
  const publicKey = createPublicKey(key);
  const stranger = generateKeyPairSync('ed25519').privateKey;
  const kid = keyIdOf(publicKey);
  const jti = randomUUID();
  const now = Math.floor(Date.now() / 1000);
  const header = { alg: 'EdDSA', typ: 'at+jwt', kid };
  const claims = {
    iss: 'cronium-server',
    aud: 'cronium-runtime',
    sub: `exec:${bench.subjects.executionId}`,
    jti,
    fam: jti,
    iat: now,
    nbf: now,
    exp: now + 300,
    ns: NAMESPACE,
    profile: 'local',
    mode: 'rw',
    cap: [{ area: 'variables', access: 'rw' }],
    cnf: { 'x5t#S256': hostThumbprint },
  };
  type Change = Readonly<Record<string, unknown>>;
  const signedWith = (signer: typeof key, headers: Change, claimed: Change) => {
    const signed = `${encode({ ...header, ...headers })}.${encode({ ...claims, ...claimed })}`;
    return `${signed}.${sign(null, Buffer.from(signed), signer).toString('base64url')}`;
  };
  const forged = (headers: Change, claimed: Change = {}) => signedWith(key, headers, claimed);
  const claiming = (claimed: Change) => forged({}, claimed);
  const hmac = (secret: string | Buffer, headers: Change = {}) => {
    const signed = `${encode({ ...header, alg: 'HS256', ...headers })}.${encode(claims)}`;
    return `${signed}.${createHmac('sha256', secret).update(signed).digest('base64url')}`;
  };
  const jwk = createPublicKey(stranger).export({ format: 'jwk' });
  const unsigned = (alg: string) => `${encode({ ...header, alg })}.${encode(claims)}.`;
  const good = forged({});
  const [head = '', body = '', signature = ''] = good.split('.');
  const ended = await createExecution(server);
  const place = { executionId: ended, namespace: NAMESPACE };
  await server.executions.finish(place, EXAMPLES['execution.finish']());
  const revoked = await createExecution(server);
  await server.revocations.revokeToken(revoked, 'test', 'operator:test');
  const revokedJti = jti.replace(/^./, (first) => (first === '0' ? '1' : '0'));
  await server.revocations.revokeToken(revokedJti, 'test', 'operator:test');
  const der = publicKey.export({ format: 'der', type: 'spki' });
  const pem = publicKey.export({ format: 'pem', type: 'spki' }).toString();
  const x = Buffer.from(publicKey.export({ format: 'jwk' }).x ?? '', 'base64url');

  // The mould itself is good: with nothing wrong, the same token opens.
  await bench.open(good);
  return new Map<string, { token: string; code?: string }>(
    Object.entries({
      expired: {
        token: claiming({ iat: now - 900, nbf: now - 900, exp: now - 600 }),
        code: 'token_expired',
      },
      'not valid yet': { token: claiming({ nbf: now + 600 }) },
      'without expiry': { token: claiming({ exp: undefined }) },
      'another audience': { token: claiming({ aud: 'cronium-mountd' }) },
      'no audience': { token: claiming({ aud: undefined }) },
      'another issuer': { token: claiming({ iss: 'https://example.org' }) },
      'no issuer': { token: claiming({ iss: undefined }) },
      'another audience, and expired': { token: claiming({ aud: 'x', exp: now - 600 }) },
      'another type': { token: forged({ typ: 'JWT' }) },
      'no type': { token: forged({ typ: undefined }) },
      'a subject that is no execution': { token: claiming({ sub: 'user:ada' }) },
      'an unknown profile': { token: claiming({ profile: 'root' }) },
      'an unknown mode': { token: claiming({ mode: 'rwx' }) },
      'an unknown area': { token: claiming({ cap: [{ area: 'everything', access: 'rw' }] }) },
      'two namespaces': { token: claiming({ ns: { user: 'ada', org: 'acme' } }) },
      'bound to another host certificate': {
        token: claiming({ cnf: { 'x5t#S256': 'A'.repeat(43) } }),
      },
      'bound to another host certificate, and expired': {
        token: claiming({ cnf: { 'x5t#S256': 'A'.repeat(43) }, exp: now - 600 }),
      },
      'bound to no certificate': { token: claiming({ cnf: undefined }) },
      'of an execution that has ended': { token: claiming({ sub: `exec:${ended}` }) },
      'of an execution that never was': { token: claiming({ sub: `exec:${randomUUID()}` }) },
      'of an execution, for another namespace': { token: claiming({ ns: STRANGER }) },
      'of an execution whose tokens were revoked': { token: claiming({ sub: `exec:${revoked}` }) },
      'revoked by its id': { token: claiming({ jti: revokedJti }) },
      'renewed from a revoked one': { token: claiming({ fam: revokedJti }) },
      'alg none': { token: unsigned('none') },
      'alg None': { token: unsigned('None') },
      'alg none, with a signature': { token: `${unsigned('none')}${signature}` },
      'EdDSA without a signature': { token: `${head}.${body}.` },
      'HS256, public key in PEM': { token: hmac(pem) },
      'HS256, public key in DER': { token: hmac(der) },
      'HS256, public key bare': { token: hmac(x) },
      'HS256, empty secret': { token: hmac('') },
      'HS256 under the name of EdDSA': { token: hmac(pem, { alg: 'EdDSA' }) },
      'another algorithm': { token: forged({ alg: 'ES256' }) },
      'an unknown kid': { token: forged({ kid: 'AAAAAAAAAAAAAAAA' }) },
      'no kid': { token: forged({ kid: undefined }) },
      'a kid of somebody else': {
        token: signedWith(stranger, { kid: keyIdOf(createPublicKey(stranger)) }, {}),
      },
      'somebody else’s key under our kid': { token: signedWith(stranger, {}, {}) },
      'a kid that is a path': { token: signedWith(stranger, { kid: '../../../dev/null' }, {}) },
      'its own key': { token: signedWith(stranger, { jwk }, {}) },
      'its own key, no kid': { token: signedWith(stranger, { jwk, kid: undefined }, {}) },
      'a place to get a key': {
        token: signedWith(stranger, { jku: 'https://127.0.0.1:1/keys.json' }, {}),
      },
      'its own certificate': { token: signedWith(stranger, { x5c: ['MIIB'] }, {}) },
      'a place to get a certificate': {
        token: signedWith(stranger, { x5u: 'https://127.0.0.1:1/c.pem' }, {}),
      },
      'its own key, signed by ours': { token: forged({ jwk }) },
      'a critical extension': { token: forged({ crit: ['b64'], b64: false }) },
      'an unknown critical extension': { token: forged({ crit: ['x'], x: 1 }) },
      'an empty list of critical extensions': { token: forged({ crit: [] }) },
      compressed: { token: forged({ zip: 'DEF' }) },
      nested: { token: forged({ cty: 'JWT' }) },
      'another body': { token: `${head}.${encode({ ...claims, mode: 'ro' })}.${signature}` },
      'another signature': { token: `${head}.${body}.${'A'.repeat(86)}` },
      'white space in it': {
        token: `${head}.${body}.${signature.slice(0, 40)}\n${signature.slice(40)}`,
      },
      padding: { token: `${good}==` },
      'a fourth part': { token: `${good}.AAAA` },
      'five parts': { token: `${head}.AAAA.AAAA.AAAA.AAAA` },
      'a general serialization': {
        token: JSON.stringify({ payload: body, signatures: [{ protected: head, signature }] }),
      },
      nothing: { token: '' },
      'no token': { token: 'x'.repeat(8192) },
    }),
  );
}

void t.test(
  'a token with anything wrong opens nothing, and no call can be made in its name',
  async (t) => {
    const bench = await Bench.open(t);
    const { host } = bench;
    const sentences = new Map<string, string[]>();
    for (const [what, { token, code = 'denied' }] of await badTokens(bench)) {
      const next = 1 + (await bench.open(await bench.token()));
      const open: Cell = {
        op: 'execution.open',
        client: host,
        who: HOST,
        params: { token },
        refused: code,
      };
      const calls = ON_CHANNEL.map(
        (op): Cell => ({ op, client: host, who: HOST, channel: next, refused: 'denied' }),
      );
      const [outcome] = await bench.judge(t, what, [open, ...calls]);
      const sentence = outcome?.message ?? '';
      sentences.set(sentence, [...(sentences.get(sentence) ?? []), what]);
    }
    // Of a token that is genuine and his own a bearer is told more.
    const own = [
      'expired',
      'of an execution that has ended',
      'of an execution that never was',
      'of an execution, for another namespace',
      'of an execution whose tokens were revoked',
      'revoked by its id',
      'renewed from a revoked one',
    ];
    const rest = [...sentences].filter(([, whats]) => !whats.every((what) => own.includes(what)));
    t.strictSame(
      rest.map(([sentence]) => sentence),
      ['the token is not valid here'],
      'all else is one sentence',
    );
    t.notOk(rest[0]?.[1].some((what) => own.includes(what)));
  },
);

void t.test(
  'whoever comes without a certificate that counts is not heard at all, and is on record',
  async (t) => {
    const bench = await Bench.open(t);
    const { server } = bench;
    const base = { name: 'h', role: 'host' } as const;
    const foreign = async (more: object = {}) => ({
      ...(await server.issue(
        { ...base, name: 'operator-of-mine', role: 'operator', ...more },
        true,
      )),
      ca: server.tls('host').ca,
    });
    const revoked = await server.issue(base);
    await server.revocations.revokeCertificate(thumbprintOfTls(revoked), 'lost', 'operator:test');
    const past = new Date(Date.now() - 60_000);
    const future = new Date(Date.now() + DAY_MS);
    const situations: readonly (readonly [string, ClientTls, RegExp, string])[] = [
      ['no certificate', { ca: server.tls('host').ca }, /is needed/, 'nobody:unknown'],
      ['a foreign CA', await foreign(), /another CA/, 'nobody:unknown'],
      ['a foreign CA, expired', await foreign({ notAfter: past }), /./, 'nobody:unknown'],
      ['a foreign CA, not yet valid', await foreign({ notBefore: future }), /./, 'nobody:unknown'],
      ['expired', await server.issue({ ...base, notAfter: past }), /has expired/, 'host:h'],
      [
        'not yet valid',
        await server.issue({ ...base, notBefore: future }),
        /not valid yet/,
        'host:h',
      ],
      ['revoked', revoked, /was revoked/, 'host:h'],
      ['two roles', await certificateOf(server, ['host', 'operator']), /names no/, 'nobody:h'],
      [
        'the same role twice',
        await certificateOf(server, ['host', 'host']),
        /names no/,
        'nobody:h',
      ],
      ['no role', await certificateOf(server, []), /names no/, 'nobody:h'],
      ['an unknown role', await certificateOf(server, ['root']), /names no/, 'root:h'],
      ['a role in capitals', await certificateOf(server, ['HOST']), /names no/, 'HOST:h'],
      ['the server’s own', server.tls('server'), /./, 'server:server'],
    ];
    await bench.fromNow();
    const frames = await Promise.all(
      OPS.map(async (op, i) => encodeFrame([0, i + 1, op, 1, 5000, await bench.example(op)])),
    );
    await bench.fromNow();
    for (const [what, tls, reason, who] of situations) {
      const before = await contentsOf(server.store);
      const answer = await pipelined(server, tls, frames);
      t.match(answer, /^HTTP\/1\.1 401 /, what);
      const [, body = ''] = answer.split('\r\n\r\n');
      t.match(body, reason, what);
      t.match(body, /^[^\n]+\n$/, `${what}: one sentence and nothing behind it`);
      t.strictSame(changedKeys(before, await contentsOf(server.store)), [], what);
      const events = await bench.recorded();
      t.match(
        events.map((event) => `${event.who} ${event.op} ${event.outcome} ${event.detail}`),
        [`${who} connect denied ${body.trim()}`],
        `${what}: on record, and nothing else is`,
      );
      const thumbprint = tls.cert === undefined ? '' : thumbprintOfTls({ cert: tls.cert });
      t.equal(events[0]?.peer, thumbprint.slice(0, 16), `${what}: by whose certificate`);
    }
    const fine = await pipelined(server, await server.issue(base), frames);
    t.match(fine, /^HTTP\/1\.1 101 /, 'with a good one the same bytes are heard');
    const heard = await bench.recorded();
    t.strictSame(
      new Set(heard.map(({ op }) => op)),
      new Set<string>(OPS),
      'and every one of them is on record',
    );
  },
);

void t.test(
  'connections that are refused in a flood are counted, not written one by one',
  async (t) => {
    const bench = await Bench.open(t);
    const { server } = bench;
    await bench.fromNow();
    const runtime = server.runtime;
    for (let i = 0; i < 5000; i++)
      runtime.refused(new BridgeError('denied', 'a client certificate is needed'), {});
    const events = await bench.recorded();
    t.ok(events.length >= 100 && events.length < 500, `${events.length} events`);
  },
);

/** Upgrade request and frames in one go: whoever is refused has sent them already. Returns what came back. */
async function pipelined(
  server: InProcessServer,
  tls: ClientTls,
  frames: readonly Uint8Array[],
): Promise<string> {
  const socket = await tlsTo(server, tls);
  const request = [
    'GET / HTTP/1.1',
    'Host: localhost',
    'Connection: Upgrade',
    'Upgrade: websocket',
    'Sec-WebSocket-Version: 13',
    'Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==',
    '\r\n',
  ].join('\r\n');
  socket.write(Buffer.concat([Buffer.from(request), ...frames.map(webSocketMessage)]));
  const pieces: Buffer[] = [];
  socket.on('data', (piece: Buffer) => pieces.push(piece));
  socket.on('error', () => {});
  // Refused: the server ends it. Accepted: it is silent once all is answered.
  await new Promise<void>((resolve) => {
    socket.setTimeout(500, resolve);
    socket.once('close', resolve);
  });
  socket.destroy();
  return Buffer.concat(pieces).toString('latin1');
}

/** RFC 6455, 5.2: one final binary frame, masked with zeros, which changes nothing. */
function webSocketMessage(bytes: Uint8Array): Buffer {
  const head = Buffer.from([0x82, 0x80 | 126, 0, 0, 0, 0, 0, 0]);
  head.writeUInt16BE(bytes.byteLength, 2);
  return Buffer.concat([head, bytes]);
}

/** A certificate of the server's authority with any roles. */
async function certificateOf(server: InProcessServer, roles: readonly string[]): Promise<TlsFiles> {
  const algorithm = { name: 'ECDSA', namedCurve: 'P-256', hash: 'SHA-256' };
  const files = server.authorityFiles;
  const authority = new x509.X509Certificate(readFileSync(files.cert, 'utf8'));
  const signer = await webcrypto.subtle.importKey(
    'pkcs8',
    x509.PemConverter.decodeFirst(readFileSync(files.key, 'utf8')),
    algorithm,
    false,
    ['sign'],
  );
  const keys = await webcrypto.subtle.generateKey(algorithm, true, ['sign', 'verify']);
  const certificate = await x509.X509CertificateGenerator.create({
    subject: [{ CN: ['h'] }, ...roles.map((role) => ({ OU: [role] }))],
    issuer: authority.subject,
    serialNumber: randomUUID().replaceAll('-', '').replace(/^./, '1'),
    notBefore: new Date(Date.now() - 60_000),
    notAfter: new Date(Date.now() + DAY_MS),
    publicKey: keys.publicKey,
    signingKey: signer,
    signingAlgorithm: algorithm,
    extensions: [new x509.ExtendedKeyUsageExtension([x509.ExtendedKeyUsage.clientAuth])],
  });
  const der = await webcrypto.subtle.exportKey('pkcs8', keys.privateKey);
  return {
    ca: server.tls('host').ca,
    cert: certificate.toString('pem'),
    key: x509.PemConverter.encode(der, 'PRIVATE KEY'),
    certPath: '',
  };
}
