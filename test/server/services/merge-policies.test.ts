import { randomUUID } from 'node:crypto';
import t from 'tap';
import { type Namespace, VariableKey } from '#bridge/wire/names.js';
import { MergePolicies } from '#server/services/merge-policies.js';
import { Variables } from '#server/services/variables.js';
import { MemoryStore } from '#server/store/memory-store.js';

const ADA: Namespace = { user: 'ada' };
const key = (name: string) => VariableKey.parse(name);
const HITS = key('hits');

/** Two servers over one store, as a cluster would have. */
class Servers {
  readonly store = new MemoryStore();
  readonly policies = new MergePolicies(this.store);
  readonly first = new Variables(this.store, this.policies);
  readonly second = new Variables(this.store, new MergePolicies(this.store));

  async text(name = HITS): Promise<string> {
    return (await this.first.get(ADA, name)).text ?? 'null';
  }
}

const write = (text: string, base: string | undefined, commitId: string = randomUUID()) => ({
  set: [[HITS, text] as const],
  delete: [],
  commitId,
  bases: [[HITS, base ?? null] as const],
});

void t.test(
  'a hundred writers over two servers that all read 0 and write 1 count to 100',
  async (t) => {
    const servers = new Servers();
    await servers.policies.set(ADA, HITS, 'add');
    await servers.first.edit(ADA, { set: [[HITS, '0']], delete: [] }, { by: 'operator:test' });
    const seen = new Set<number>();
    await Promise.all(
      Array.from({ length: 100 }, async (_, n) => {
        const server = n % 2 === 0 ? servers.first : servers.second;
        const { changes } = await server.edit(ADA, write('1', '0'), { by: `run-${n}` });
        seen.add(Number(changes[0]?.text));
      }),
    );
    t.equal(await servers.text(), '100');
    t.equal(seen.size, 100, 'and each was told the value that it made');
  },
);

void t.test(
  'an edit made again after a lost answer is merged once, and answered the same',
  async (t) => {
    const servers = new Servers();
    await servers.policies.set(ADA, HITS, 'add');
    const commitId = randomUUID();
    const first = await servers.first.edit(ADA, write('5', undefined, commitId), { by: 'run-1' });
    await servers.first.edit(ADA, write('1', undefined), { by: 'run-2' });
    t.strictSame(
      await servers.second.edit(ADA, write('5', undefined, commitId), { by: 'run-1' }),
      first,
    );
    t.equal(await servers.text(), '6');
  },
);

void t.test('an operator sets, and a deletion deletes, whatever the policy', async (t) => {
  const servers = new Servers();
  await servers.policies.set(ADA, HITS, 'add');
  await servers.first.edit(ADA, write('5', undefined), { by: 'run-1' });
  await servers.first.edit(ADA, { set: [[HITS, '2']], delete: [] }, { by: 'operator:test' });
  t.equal(await servers.text(), '2');
  const id = { commitId: randomUUID() };
  await servers.first.edit(ADA, { set: [], delete: [HITS], ...id }, { by: 'run-1' });
  await t.rejects(servers.text(), { code: 'not_found' });
  await servers.first.edit(ADA, write('1', undefined), { by: 'run-3' });
  t.equal(await servers.text(), '1', 'the policy outlives the variable');
});

void t.test('a policy that does not fit refuses the whole edit', async (t) => {
  const servers = new Servers();
  await servers.policies.set(ADA, HITS, 'max');
  const edit = {
    ...write('"high"', undefined),
    set: [[key('other'), '1'] as const, [HITS, '"high"'] as const],
  };
  await t.rejects(servers.first.edit(ADA, edit, { by: 'run-1' }), { code: 'invalid' });
  t.same(await servers.first.list(ADA), []);
});

void t.test('policies are set, changed, listed and taken back, by namespace', async (t) => {
  const { policies } = new Servers();
  await Promise.all([policies.set(ADA, HITS, 'add'), policies.set(ADA, key('__proto__'), 'union')]);
  await policies.set(ADA, HITS, 'max');
  t.same(
    [...(await policies.of(ADA))].sort(([a], [b]) => (a < b ? -1 : 1)),
    [
      ['__proto__', 'union'],
      ['hits', 'max'],
    ],
  );
  t.equal((await policies.of({ org: 'ada' })).size, 0);
  await policies.set(ADA, HITS, 'last');
  t.same([...(await policies.of(ADA))], [['__proto__', 'union']]);
});
