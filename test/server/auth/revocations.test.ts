import { randomUUID } from 'node:crypto';
import t from 'tap';
import { ExecutionId } from '#bridge/wire/names.js';
import type { Revocation, TokenRecord } from '#bridge/wire/protocol/credentials.js';
import { accessOf } from '#server/auth/access.js';
import { Revocations } from '#server/auth/revocations.js';
import { Successions } from '#server/auth/successions.js';
import { TokenRecords } from '#server/auth/token-records.js';
import { StoreClock } from '#server/store/clock.js';
import { MemoryStore } from '#server/store/memory-store.js';
import { type Noted, SYSTEM } from '#server/store/store.js';

const thumbprint = (letter: string) => letter.repeat(43);
const [A, B, C] = [thumbprint('a'), thumbprint('b'), thumbprint('c')];
const BY = 'operator:eve';

const grantOf = (executionId = ExecutionId.parse(randomUUID())) => {
  const jti = randomUUID();
  return { jti, family: jti, executionId };
};

void t.test(
  'a revoked certificate is refused when revoke resolves, and the others are not',
  async (t) => {
    using revocations = await Revocations.open(new MemoryStore());
    t.notOk(revocations.isRevoked(A));
    const revocation = await revocations.revokeCertificate(A, 'laptop stolen', BY);
    t.match(revocation, { kind: 'certificate', id: A, reason: 'laptop stolen', by: BY });
    t.ok(revocations.isRevoked(A));
    t.notOk(revocations.isRevoked(B));
    t.notOk(revocations.isTokenRevoked({ ...grantOf(), jti: A }), 'it is no token’s id');
    t.strictSame(revocations.list(), [revocation]);
  },
);

void t.test('listeners hear of a revocation once, before it resolves', async (t) => {
  using revocations = await Revocations.open(new MemoryStore());
  const heard: Revocation[] = [];
  const stop = revocations.onRevoked((revocation) => heard.push(revocation));
  const pending = revocations.revokeCertificate(A, '', BY);
  const revocation = await pending.then((done) => {
    t.strictSame(heard, [done]);
    return done;
  });
  t.strictSame(await revocations.revokeCertificate(A, 'again', 'operator:ada'), revocation);
  t.equal(heard.length, 1, 'a second time changes nothing and tells nobody');
  stop();
  await revocations.revokeCertificate(B, '', BY);
  t.equal(heard.length, 1);
});

void t.test(
  'a token is refused by its id, by the token it came from, and by its execution',
  async (t) => {
    using revocations = await Revocations.open(new MemoryStore());
    const first = grantOf();
    const renewed = { ...first, jti: randomUUID() };
    const other = grantOf(first.executionId);
    await revocations.revokeToken(renewed.jti, '', BY);
    t.ok(revocations.isTokenRevoked(renewed), 'the renewed one alone');
    t.notOk(revocations.isTokenRevoked(first));
    await revocations.revokeToken(first.jti, '', BY);
    t.ok(revocations.isTokenRevoked(first));
    t.ok(revocations.isTokenRevoked({ ...first, jti: randomUUID() }), 'and all that comes of it');
    t.notOk(revocations.isTokenRevoked(other), 'another token of that execution');
    await revocations.revokeToken(first.executionId, '', BY);
    t.ok(revocations.isTokenRevoked(other), 'until the execution is named');
    t.notOk(revocations.isTokenRevoked(grantOf()));
    t.equal(revocations.list().length, 3);
  },
);

void t.test('a restart and another server process know what was revoked', async (t) => {
  const store = new MemoryStore();
  using one = await Revocations.open(store);
  using two = await Revocations.open(store);
  const heard: string[] = [];
  two.onRevoked(({ id }) => heard.push(id));
  await one.revokeCertificate(A, 'gone', BY);
  t.ok(two.isRevoked(A), 'the other process, at once');
  t.strictSame(heard, [A]);
  const grant = grantOf();
  await two.revokeToken(grant.jti, '', BY);
  t.ok(one.isTokenRevoked(grant));
  using restarted = await Revocations.open(store);
  t.ok(restarted.isRevoked(A) && restarted.isTokenRevoked(grant));
  t.strictSame(restarted.list(), one.list());
});

void t.test('of two operators who revoke at once both hear the same', async (t) => {
  using revocations = await Revocations.open(new MemoryStore());
  const both = await Promise.all([
    revocations.revokeCertificate(A, 'one', 'operator:a'),
    revocations.revokeCertificate(A, 'two', 'operator:b'),
  ]);
  t.strictSame(both[0], both[1]);
});

void t.test('the note of a revocation reaches the recorder with its commit', async (t) => {
  const store = new MemoryStore();
  const notes: unknown[] = [];
  store.recordWith({
    record: (group: readonly Noted[]) => {
      notes.push(...group.map(({ note }) => note));
      return [];
    },
    reset: async () => {},
  });
  using revocations = await Revocations.open(store);
  await revocations.revokeCertificate(A, '', BY, { op: 'cert.revoke' });
  await revocations.revokeToken(randomUUID(), '', BY);
  t.strictSame(notes, [{ op: 'cert.revoke' }]);
});

void t.test('revocations that cannot be read let nobody in: opening fails', async (t) => {
  const store = new MemoryStore();
  await store[Symbol.asyncDispose]();
  await t.rejects(Revocations.open(store), { code: 'unavailable' });
});

void t.test(
  'a certificate uses the tokens of those it took over from, up to a revoked one',
  async (t) => {
    const store = new MemoryStore();
    using revocations = await Revocations.open(store);
    const isRevoked = (id: string) => revocations.isRevoked(id);
    using successions = await Successions.open(store, isRevoked);
    t.strictSame(successions.lineOf(A), [A]);
    await successions.succeed(A, B, BY);
    await successions.succeed(B, C, BY);
    await successions.succeed(B, C, BY);
    t.strictSame(successions.lineOf(C), [C, B, A]);
    t.strictSame(successions.lineOf(A), [A], 'the old one does not get the new one’s');
    await t.rejects(successions.succeed(A, C, BY), { code: 'conflict' });
    using restarted = await Successions.open(store, isRevoked);
    t.strictSame(restarted.lineOf(C), [C, B, A]);
    await revocations.revokeCertificate(B, '', BY);
    t.strictSame(successions.lineOf(C), [C], 'what came before a stolen one is not trusted either');
  },
);

void t.test(
  'successions that run in a circle or without end are followed for a while only',
  async (t) => {
    using successions = await Successions.open(new MemoryStore(), () => false);
    await successions.succeed(A, B, BY);
    await successions.succeed(B, A, BY);
    t.strictSame(successions.lineOf(A), [A, B]);
    for (let i = 0; i < 30; i++) await successions.succeed(`old-${i}`, `old-${i + 1}`, BY);
    t.equal(successions.lineOf('old-30').length, 9);
  },
);

void t.test('tokens on record are listed until they expire, and then removed', async (t) => {
  let now = Date.UTC(2026, 0, 1);
  const monotonic = () => now;
  const store = new MemoryStore(new StoreClock(0, undefined, () => now, monotonic));
  const records = new TokenRecords(store);
  const record = (expiresInMs: number): TokenRecord => ({
    jti: randomUUID(),
    executionId: ExecutionId.parse(randomUUID()),
    ...accessOf('remote', 'ro'),
    thumbprint: A,
    by: BY,
    expiresAt: now + expiresInMs,
  });
  const [late, soon] = [record(60_000), record(1000)];
  await records.add(late);
  await records.add(soon);
  t.strictSame(await records.list(), [soon, late]);
  now += 5000;
  t.strictSame(await records.list(), [late]);
  t.strictSame([await records.has(soon.jti), await records.has(late.jti)], [false, true]);
});

void t.test('nobody has to list tokens for expired ones to go', async (t) => {
  let now = Date.UTC(2026, 0, 1);
  const store = new MemoryStore(
    new StoreClock(
      0,
      undefined,
      () => now,
      () => now,
    ),
  );
  const records = new TokenRecords(store);
  for (let i = 0; i < 2500; i++) {
    now += 1000;
    await records.add({
      jti: randomUUID(),
      executionId: ExecutionId.parse(randomUUID()),
      ...accessOf('local'),
      thumbprint: A,
      by: BY,
      expiresAt: now + 10_000,
    });
  }
  let kept = 0;
  for await (const _ of store.range(['token', SYSTEM])) kept++;
  t.ok(kept <= 1010, `${kept} of 2500 are kept`);
});
