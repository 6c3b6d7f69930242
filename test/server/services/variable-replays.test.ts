import { randomUUID } from 'node:crypto';
import t from 'tap';
import { BridgeError } from '#bridge/wire/errors.js';
import { VariableKey } from '#bridge/wire/names.js';
import { MergePolicies } from '#server/services/merge-policies.js';
import { Variables } from '#server/services/variables.js';
import { MemoryStore } from '#server/store/memory-store.js';

const ADA = { user: 'ada' } as const;
const ORIGIN = { by: 'an execution' };
const OTHER = { by: 'another execution' };
const KEY = VariableKey.parse('x');

const openVariables = () => {
  const store = new MemoryStore();
  return new Variables(store, new MergePolicies(store));
};

/** A call whose answer was lost is made again under its id; meanwhile others have gone on. */
void t.test(
  'a set made again is told its own version, not that of whoever came after',
  async (t) => {
    const variables = openVariables();
    const setting = { text: '"mine"', commitId: randomUUID() };
    const first = await variables.set(ADA, KEY, setting, ORIGIN);
    const { version } = await variables.set(ADA, KEY, { text: '"theirs"' }, OTHER);
    const again = await variables.set(ADA, KEY, setting, ORIGIN);
    t.equal(again.version, first.version);
    t.equal((await variables.get(ADA, KEY)).text, '"theirs"');
    const compared = variables.set(ADA, KEY, { text: '1', ifVersion: again.version }, ORIGIN);
    await t.rejects(compared, { code: 'conflict' }, 'so it cannot overwrite theirs unseen');
    await variables.delete(ADA, KEY, { ifVersion: version }, OTHER);
    t.equal(
      (await variables.set(ADA, KEY, setting, ORIGIN)).version,
      first.version,
      'or deleted it',
    );
  },
);

void t.test('a compare-and-set that succeeded succeeds when it is made again', async (t) => {
  const variables = openVariables();
  const { version } = await variables.set(ADA, KEY, { text: '1' }, ORIGIN);
  const setting = { text: '2', ifVersion: version, commitId: randomUUID() };
  const first = await variables.set(ADA, KEY, setting, ORIGIN);
  t.equal((await variables.set(ADA, KEY, setting, ORIGIN)).version, first.version);
  const late = { ...setting, commitId: randomUUID() };
  await t.rejects(variables.set(ADA, KEY, late, ORIGIN), {
    code: 'conflict',
    message: /is at version 2, not 1/,
  });
  const removal = { ifVersion: first.version, commitId: randomUUID() };
  const gone = await variables.delete(ADA, KEY, removal, ORIGIN);
  t.strictSame(await variables.delete(ADA, KEY, removal, ORIGIN), gone);
  const creation = { text: '3', ifVersion: 0, commitId: randomUUID() };
  const made = await variables.set(ADA, KEY, creation, ORIGIN);
  t.equal((await variables.set(ADA, KEY, creation, ORIGIN)).version, made.version);
  t.equal((await variables.get(ADA, KEY)).text, '3');
  // The version of what was deleted is nobody's.
  await variables.delete(ADA, KEY, {}, ORIGIN);
  const dead = { text: '4', ifVersion: 5, commitId: randomUUID() };
  await t.rejects(variables.set(ADA, KEY, dead, ORIGIN), { code: 'conflict' });
});

void t.test(
  'numbers drawn from a counter are never the same, whatever is lost or deleted',
  async (t) => {
    const variables = openVariables();
    const commitId = randomUUID();
    const mine = await variables.add(ADA, KEY, '1', commitId, ORIGIN);
    const theirs = await variables.add(ADA, KEY, '1', randomUUID(), OTHER);
    t.strictSame(await variables.add(ADA, KEY, '1', commitId, ORIGIN), mine);
    t.not(mine.text, theirs.text);
    await variables.set(ADA, KEY, { text: '"no number"' }, OTHER);
    t.strictSame(await variables.add(ADA, KEY, '1', commitId, ORIGIN), mine, 'it was one then');
    await variables.delete(ADA, KEY, {}, OTHER);
    t.strictSame(await variables.add(ADA, KEY, '1', commitId, ORIGIN), mine);
    t.equal((await variables.get(ADA, KEY).catch((e: unknown) => e)) instanceof BridgeError, true);

    const ids = Array.from({ length: 40 }, () => randomUUID());
    for (const id of ids) await variables.add(ADA, KEY, '1', id, ORIGIN);
    for (const id of ids) await variables.add(ADA, KEY, '1', id, ORIGIN);
    t.equal((await variables.get(ADA, KEY)).text, '40', 'however long ago, none is added twice');
  },
);

void t.test('deleting nothing, made again, deletes nothing that came later', async (t) => {
  const variables = openVariables();
  const removal = { commitId: randomUUID() };
  await variables.delete(ADA, KEY, removal, ORIGIN);
  await variables.set(ADA, KEY, { text: '1' }, OTHER);
  await variables.delete(ADA, KEY, removal, ORIGIN);
  t.equal((await variables.get(ADA, KEY)).text, '1');
});

void t.test('what changes at once is told each its own version and text', async (t) => {
  const variables = openVariables();
  const answers = await Promise.all(
    Array.from({ length: 50 }, async (_, i) =>
      i % 2 === 0
        ? await variables.set(ADA, KEY, { text: String(i * 100) }, ORIGIN)
        : await variables.add(ADA, KEY, '1', undefined, ORIGIN),
    ),
  );
  t.equal(new Set(answers.map(({ version }) => version)).size, 50);
  t.equal(new Set(answers.map(({ text }) => text)).size, 50);
});
