import { generateKeyPairSync, randomUUID } from 'node:crypto';
import t from 'tap';
import { ExecutionId } from '#bridge/wire/names.js';
import type { Call } from '#bridge/wire/peer.js';
import { CREDENTIAL_OPERATIONS } from '#bridge/wire/protocol/credentials.js';
import type { Params } from '#bridge/wire/protocol.js';
import { Revocations } from '#server/auth/revocations.js';
import { SigningKeys } from '#server/auth/signing-keys.js';
import { Successions } from '#server/auth/successions.js';
import { TokenRecords } from '#server/auth/token-records.js';
import { Tokens } from '#server/auth/tokens.js';
import { Executions } from '#server/services/executions.js';
import { credentialHandlers } from '#server/session/credential-handlers.js';
import { MemoryStore } from '#server/store/memory-store.js';

type Table = typeof CREDENTIAL_OPERATIONS;

const OWN = 'o'.repeat(43);
const HOST = 'h'.repeat(43);

/** The handlers of one operator's connection, called as a peer calls them: parsed before, parsed after. */
async function office() {
  const store = new MemoryStore();
  const revocations = await Revocations.open(store);
  const successions = await Successions.open(store, (id) => revocations.isRevoked(id));
  const tokens = new Tokens(new SigningKeys(generateKeyPairSync('ed25519').privateKey));
  const executions = new Executions(store);
  const handlers = credentialHandlers(
    {
      tokens,
      revocations,
      successions,
      tokenRecords: new TokenRecords(store),
      executions,
      reload: async () => ({ thumbprint: OWN, notAfter: 1, signingKey: tokens.keyId }),
    },
    { identity: { role: 'operator', name: 'eve', thumbprint: OWN } },
  );
  const call = async <O extends keyof Table>(op: O, params: Params<Table, O>) => {
    const handler = handlers[op] as unknown as (call: Call<unknown>) => Promise<unknown>;
    const parsed: unknown = CREDENTIAL_OPERATIONS[op].params.parse(params);
    const result = await handler({
      params: parsed,
      channel: 0,
      signal: new AbortController().signal,
    });
    return CREDENTIAL_OPERATIONS[op].result.parse(result) as ReturnType<
      Table[O]['result']['parse']
    >;
  };
  const create = async () =>
    await executions.create(
      {
        user: 'ada',
        org: 'acme',
        variablesOf: { org: 'acme' },
        runtime: 'bash',
        timeoutMs: 1000,
        event: {
          id: 1,
          name: '',
          description: null,
          type: '',
          runLocation: '',
          createdAt: '',
          updatedAt: '',
          userId: 1,
          server: null,
          successCount: 0,
          failureCount: 0,
          lastRunAt: null,
        },
      },
      { name: 'host', thumbprints: ['none'] },
    );
  return { call, create, tokens, revocations, successions, executions };
}

const HOUR_MS = 3_600_000;

void t.test(
  'a minted token is for its execution, its host and what was asked, and is listed',
  async (t) => {
    const { call, create, tokens } = await office();
    const executionId = await create();
    const base = { executionId, thumbprint: HOST, lifetimeMs: HOUR_MS } as const;
    const remote = await call('token.mint', { ...base, profile: 'remote', mode: 'rw' });
    const scopes = [{ area: 'variables', access: 'r', keys: ['app_*'] }] as const;
    const narrow = await call('token.mint', {
      ...base,
      profile: 'local',
      mode: 'ro',
      scopes: [...scopes],
    });
    t.match(await tokens.verify(remote.token, HOST), {
      executionId,
      namespace: { org: 'acme' },
      profile: 'remote',
      mode: 'rw',
      jti: remote.jti,
    });
    t.match(await tokens.verify(narrow.token, HOST), { mode: 'ro', cap: [...scopes] });
    const { tokens: listed } = await call('token.list', {});
    t.match(
      listed.find(({ jti }) => jti === narrow.jti),
      { executionId, by: 'operator:eve', thumbprint: HOST, cap: [...scopes], isRevoked: false },
    );
    t.equal(listed.length, 2);
    t.notMatch(JSON.stringify(listed), /eyJ/, 'the list holds no token');

    t.match(await call('token.revoke', { id: remote.jti, reason: 'lost' }), { isKnown: true });
    const after = (await call('token.list', {})).tokens.map(({ jti, isRevoked }) => [
      jti,
      isRevoked,
    ]);
    t.strictSame(
      new Map(after as [string, boolean][]),
      new Map([
        [remote.jti, true],
        [narrow.jti, false],
      ]),
    );
    t.match(await call('token.revoke', { id: executionId, reason: '' }), { isKnown: true });
    t.ok((await call('token.list', {})).tokens.every(({ isRevoked }) => isRevoked));
    t.match(await call('token.revoke', { id: randomUUID(), reason: '' }), { isKnown: false });
    t.equal((await call('cert.revoked', {})).revocations.length, 3);
  },
);

void t.test('a token nobody could use is not minted', async (t) => {
  const { call, create, executions, revocations } = await office();
  const executionId = await create();
  const base = {
    executionId,
    thumbprint: HOST,
    profile: 'local',
    mode: 'rw',
    lifetimeMs: HOUR_MS,
  } as const;
  await t.rejects(call('token.mint', { ...base, executionId: ExecutionId.parse(randomUUID()) }), {
    code: 'not_found',
  });
  await t.rejects(
    call('token.mint', {
      ...base,
      profile: 'remote',
      scopes: [{ area: 'variables', access: 'rw' }],
    }),
    { code: 'invalid', message: 'the profile "remote" does not open variables for writing' },
  );
  await t.rejects(
    call('token.mint', { ...base, profile: 'remote', scopes: [{ area: 'locks', access: 'r' }] }),
    { code: 'invalid', message: /does not open locks for reading/ },
  );
  for (const bad of [
    { ...base, lifetimeMs: 24 * HOUR_MS + 1 },
    { ...base, lifetimeMs: 0 },
    { ...base, thumbprint: 'short' },
    { ...base, scopes: [] },
    { ...base, scopes: [{ area: 'everything', access: 'r' }] as never },
  ])
    await t.rejects(call('token.mint', bad), { name: /Zod/ }, JSON.stringify(bad));
  await revocations.revokeCertificate(HOST, '', 'test');
  await t.rejects(call('token.mint', base), { code: 'invalid', message: /was revoked/ });
  const other = { ...base, thumbprint: 'x'.repeat(43) };
  await revocations.revokeToken(executionId, '', 'test');
  await t.rejects(call('token.mint', other), { code: 'denied', message: /were revoked/ });
  const ended = await create();
  await executions.finish(await executions.place(ended), {
    status: 'succeeded',
    exitCode: 0,
    signal: null,
    warnings: [],
    startedAt: 0,
    finishedAt: 0,
  });
  await t.rejects(call('token.mint', { ...other, executionId: ended }), { code: 'denied' });
  t.strictSame((await call('token.list', {})).tokens, []);
});

void t.test(
  'an operator cannot revoke the certificate it calls with: nobody would be left to call',
  async (t) => {
    const { call, revocations } = await office();
    await t.rejects(call('cert.revoke', { thumbprint: OWN, reason: '' }), {
      code: 'invalid',
      message: /cronium cert rotate operator/,
    });
    t.notOk(revocations.isRevoked(OWN));
    const revocation = await call('cert.revoke', { thumbprint: HOST, reason: 'lost' });
    t.match(revocation, { kind: 'certificate', id: HOST, reason: 'lost', by: 'operator:eve' });
  },
);

void t.test('a certificate takes over from another, not from itself', async (t) => {
  const { call, successions } = await office();
  await t.rejects(call('cert.succeed', { thumbprint: HOST, successor: HOST }), { code: 'invalid' });
  await call('cert.succeed', { thumbprint: HOST, successor: OWN });
  t.strictSame(successions.lineOf(OWN), [OWN, HOST]);
});

void t.test('a reload answers with what the server uses now', async (t) => {
  const { call, tokens } = await office();
  t.match(await call('server.reload', {}), { thumbprint: OWN, signingKey: tokens.keyId });
});
