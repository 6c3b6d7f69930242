import t from 'tap';
import { BridgeError } from '#bridge/wire/errors.js';
import { type Namespace, VariableKey } from '#bridge/wire/names.js';
import { MergePolicies } from '#server/services/merge-policies.js';
import { Sharing } from '#server/services/sharing.js';
import { Variables } from '#server/services/variables.js';
import { EncryptedStore } from '#server/store/encrypted-store.js';
import { Keyring } from '#server/store/keyring.js';
import { LARGE_LIMITS } from '#server/store/large-values.js';
import { MemoryStore } from '#server/store/memory-store.js';

const ADA: Namespace = { user: 'ada' };
const key = (text: string): VariableKey => VariableKey.parse(text);
const BY = { by: 'run-1' };
const KEY = key('k');

const open = (store = new MemoryStore(undefined, LARGE_LIMITS)) =>
  new Variables(store, new MergePolicies(store));

const codeOf = async (body: Promise<unknown>) =>
  await body.then(
    () => 'no error',
    (error: unknown) => (error instanceof BridgeError ? error.code : String(error)),
  );

void t.test(
  'of two that set a variable at once, each is told the version of its own value',
  async (t) => {
    const variables = open();
    const [a, b] = await Promise.all([
      variables.set(ADA, KEY, { text: '1' }, BY),
      variables.set(ADA, KEY, { text: '2' }, BY),
    ]);
    t.not(a.version, b.version);
    // The version that the first was told does not let it overwrite the other's value unseen.
    t.equal(
      await codeOf(variables.set(ADA, KEY, { text: '3', ifVersion: a.version }, BY)),
      'conflict',
    );
  },
);

void t.test('a set that is followed by a deletion at once has happened all the same', async (t) => {
  const variables = open();
  await variables.set(ADA, KEY, { text: '1' }, BY);
  const [set] = await Promise.allSettled([
    variables.set(ADA, KEY, { text: '2' }, BY),
    variables.delete(ADA, KEY, {}, BY),
  ]);
  t.equal(set.status, 'fulfilled');
});

void t.test(
  'compare-and-set that is asked for again after a lost answer is not refused',
  async (t) => {
    const variables = open();
    const commitId = 'c0ffee00-0000-4000-8000-000000000001';
    const setting = { text: '1', ifVersion: 0, commitId };
    const first = await variables.set(ADA, KEY, setting, BY);
    const again = await variables.set(ADA, KEY, setting, BY);
    t.equal(again.version, first.version);
    const deletion = { ifVersion: first.version, commitId: `${commitId.slice(0, -1)}2` };
    const gone = await variables.delete(ADA, KEY, deletion, BY);
    t.same(await variables.delete(ADA, KEY, deletion, BY), gone);
  },
);

void t.test('a variable made secret while a script sets it stays secret', async (t) => {
  const variables = open();
  await variables.set(ADA, KEY, { text: '"old"' }, BY);
  await Promise.all([
    variables.set(ADA, KEY, { text: '"s3cret"', attributes: { secret: true } }, { by: 'op' }),
    variables.set(ADA, KEY, { text: '"new"' }, BY),
    variables.edit(ADA, { set: [[KEY, '"newer"']], delete: [] }, BY),
  ]);
  t.equal((await variables.get(ADA, KEY)).secret, true);
});

void t.test('a deleted secret that is restored is a secret again', async (t) => {
  let now = Date.UTC(2026, 10, 23);
  const store = new MemoryStore(undefined, LARGE_LIMITS);
  const variables = new Variables(store, new MergePolicies(store), () => now);
  const { version } = await variables.set(
    ADA,
    KEY,
    { text: '"s3cret"', attributes: { secret: true } },
    BY,
  );
  now += 10_000;
  await variables.delete(ADA, KEY, {}, BY);
  await variables.restore(ADA, KEY, version, undefined, BY);
  t.equal((await variables.get(ADA, KEY)).secret, true);
});

void t.test('a schema that takes forever is refused, and nobody else waits', async (t) => {
  const variables = open();
  const schema = '{"type":"string","pattern":"^(a+)+$"}';
  await variables.set(ADA, KEY, { text: '"a"', attributes: { schema } }, BY);
  const started = performance.now();
  const text = JSON.stringify(`${'a'.repeat(30)}!`);
  t.equal(await codeOf(variables.set(ADA, KEY, { text }, BY)), 'invalid');
  t.ok(performance.now() - started < 5_000);
});

void t.test('an erased namespace that is used again is shared with nobody', async (t) => {
  await using store = new EncryptedStore(
    new MemoryStore(undefined, LARGE_LIMITS),
    Keyring.ephemeral(),
  );
  const sharing = new Sharing(store);
  const policies = new MergePolicies(store);
  const bob: Namespace = { user: 'bob' };
  await sharing.set(ADA, { with: bob, prefix: '', access: 'rw' });
  await policies.set(ADA, KEY, 'add');
  t.same(await sharing.prefixes(ADA, bob, 'r'), ['']);
  t.equal((await policies.of(ADA)).size, 1);
  await store.shred('user:ada');
  sharing.drop(ADA);
  policies.drop(ADA);
  t.same(await sharing.prefixes(ADA, bob, 'r'), []);
  t.equal((await policies.of(ADA)).size, 0);
});
