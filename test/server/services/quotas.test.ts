import t from 'tap';
import { BridgeError } from '#bridge/wire/errors.js';
import { NAMESPACE_BYTES_MAX } from '#bridge/wire/limits.js';
import type { Namespace } from '#bridge/wire/names.js';
import { QUOTA_DEFAULTS, Quotas } from '#server/services/quotas.js';
import { MemoryStore } from '#server/store/memory-store.js';
import { randomTest } from '#test/support/random.js';

const ADA: Namespace = { user: 'ada' };
const ACME: Namespace = { org: 'acme' };

function refusedBy(act: () => void): BridgeError | undefined {
  try {
    act();
    return undefined;
  } catch (error) {
    if (error instanceof BridgeError) return error;
    throw error;
  }
}

void t.test('everybody has the defaults until an operator says otherwise', async (t) => {
  using quotas = await Quotas.open(new MemoryStore());
  t.same(quotas.limitsOf(ADA), QUOTA_DEFAULTS);
  t.same(await quotas.set(ADA, { variables: 5 }), { ...QUOTA_DEFAULTS, variables: 5 });
  t.same(await quotas.set(ADA, { executions: 2 }), {
    ...QUOTA_DEFAULTS,
    variables: 5,
    executions: 2,
  });
  t.same(
    quotas.limitsOf({ org: 'ada' }),
    QUOTA_DEFAULTS,
    'an organisation of that name is another',
  );
  t.same(quotas.list(), [{ namespace: ADA, overrides: { variables: 5, executions: 2 } }]);
  t.same(await quotas.reset(ADA), QUOTA_DEFAULTS);
  t.same(quotas.list(), []);
});

void t.test('limits hold after a restart, and a reset is still a reset', async (t) => {
  const store = new MemoryStore();
  {
    using quotas = await Quotas.open(store);
    await quotas.set(ADA, { bytes: 1000 });
    await quotas.set(ACME, { bytes: 2000 });
    await quotas.reset(ACME);
  }
  using again = await Quotas.open(store);
  t.equal(again.limitsOf(ADA).bytes, 1000);
  t.equal(again.limitsOf(ACME).bytes, QUOTA_DEFAULTS.bytes);
});

void t.test('what one server sets counts in another at once', async (t) => {
  const store = new MemoryStore();
  using first = await Quotas.open(store);
  using second = await Quotas.open(store);
  await first.set(ADA, { variables: 1 });
  t.equal(second.limitsOf(ADA).variables, 1);
  await second.reset(ADA);
  t.equal(first.limitsOf(ADA).variables, QUOTA_DEFAULTS.variables);
});

void t.test(
  'a refusal says what is used, what is allowed and which command allows more',
  async (t) => {
    using quotas = await Quotas.open(new MemoryStore());
    await quotas.set(ADA, { variables: 3, executions: 0 });
    quotas.assertRoom(ADA, 'variables', 2);
    const refusal = refusedBy(() => quotas.assertRoom(ADA, 'variables', 3));
    t.equal(refusal?.code, 'quota');
    t.equal(
      refusal?.message,
      'user:ada has 3 of 3 variables, and one more was asked for: delete some, or allow more with: cronium quota set --user ada --variables N',
    );
    t.match(
      refusedBy(() => quotas.assertRoom(ADA, 'executions', 0)),
      { code: 'quota' },
      '0 lets nothing run',
    );
    t.match(
      refusedBy(() => quotas.assertRoom(ACME, 'bytes', NAMESPACE_BYTES_MAX - 9, 10)),
      {
        message:
          /and 10 more were asked for: delete some variables; more than \d+ cannot be allowed$/,
      },
      'no command is named that would be refused',
    );
  },
);

void t.test('whoever is over a lowered limit keeps what there is, and may take less', async (t) => {
  using quotas = await Quotas.open(new MemoryStore());
  await quotas.set(ADA, { bytes: 100 });
  t.ok(refusedBy(() => quotas.assertRoom(ADA, 'bytes', 500, 1)));
  quotas.assertRoom(ADA, 'bytes', 500, 0);
  quotas.assertRoom(ADA, 'bytes', 500, -20);
});

randomTest('two servers that set at once lose nothing', async (t, random) => {
  const store = new MemoryStore();
  using first = await Quotas.open(store);
  using second = await Quotas.open(store);
  const kinds = ['variables', 'bytes', 'executions', 'connections'] as const;
  for (let round = 0; round < 50; round++) {
    const wanted = kinds.map((kind) => [kind, random.int(1000)] as const);
    await Promise.all(
      wanted.map(async ([kind, value]) => {
        await (random.chance(0.5) ? first : second).set(ADA, { [kind]: value });
      }),
    );
    t.same(first.limitsOf(ADA), Object.fromEntries(wanted));
    t.same(second.limitsOf(ADA), first.limitsOf(ADA));
  }
});
