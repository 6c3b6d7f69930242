import t from 'tap';
import { assertAllowed, ownAddresses, Resolver } from '#mountd/egress-addresses.js';

const names: Readonly<Record<string, readonly string[]>> = {
  'one.test': ['203.0.113.1'],
  'two.test': ['203.0.113.2', '203.0.113.3', '203.0.113.2'],
  'rebound.test': ['203.0.113.1', '127.0.0.1'],
};

const lookup = async (name: string): Promise<readonly string[]> => {
  const found = names[name];
  if (found === undefined) throw Object.assign(new Error('no'), { code: 'ENOTFOUND' });
  return await Promise.resolve(found);
};

void t.test('names become addresses for the filter, and lines of /etc/hosts', async (t) => {
  const resolved = await new Resolver(lookup).resolve([
    { host: 'one.test', port: 80 },
    { host: 'two.test', port: 443 },
    { host: 'two.test', port: 80 },
    { host: '203.0.113.1', port: 80 },
  ]);
  t.same(
    resolved.destinations.map(({ address, port }) => `${address}:${port}`),
    ['203.0.113.1:80', '203.0.113.2:443', '203.0.113.3:443', '203.0.113.2:80', '203.0.113.3:80'],
  );
  t.same(resolved.hosts, ['one.test:203.0.113.1', 'two.test:203.0.113.2', 'two.test:203.0.113.3']);
});

void t.test('a name that nobody knows, and one that leads to this machine', async (t) => {
  const resolver = new Resolver(lookup);
  await t.rejects(resolver.resolve([{ host: 'none.test', port: 80 }]), {
    code: 'not_found',
    message: /^--egress: none.test has no IPv4 address \(ENOTFOUND\): check the name/,
  });
  await t.rejects(resolver.resolve([{ host: 'rebound.test', port: 80 }]), {
    code: 'invalid',
    message: /^--egress: rebound.test \(127.0.0.1\) is this machine itself/,
  });
});

void t.test(
  'a resolver that does not answer is not waited for, nor asked twice at once',
  async (t) => {
    let asked = 0;
    const silent = async () => {
      asked++;
      return await new Promise<never>(() => {});
    };
    const resolver = new Resolver(silent, 20);
    const alive = setInterval(() => {}, 1_000); // AbortSignal.timeout keeps no process
    for (const host of ['a.test', 'b.test'])
      await t.rejects(resolver.resolve([{ host, port: 80 }]), {
        code: 'unavailable',
        message: new RegExp(`^--egress: nobody has said within 20 ms which address ${host} has`),
      });
    clearInterval(alive);
    t.equal(asked, 1);
  },
);

void t.test('addresses that no script may reach', async (t) => {
  const own = new Set(['203.0.113.9']);
  for (const address of ['203.0.113.1', '10.0.0.1', '169.253.0.1', '223.255.255.255', '128.0.0.1'])
    t.doesNotThrow(() => assertAllowed(address, address, own), address);
  for (const address of [
    '0.0.0.0',
    '0.1.2.3',
    '127.0.0.1',
    '127.255.255.254',
    '169.254.169.254',
    '224.0.0.1',
    '239.255.255.255',
    '240.0.0.1',
    '255.255.255.255',
  ])
    t.throws(() => assertAllowed(address, address, own), {
      code: 'invalid',
      message: `--egress: ${address} can never be allowed (loopback, link-local, multicast or reserved): name another host`,
    });
  t.throws(() => assertAllowed('me.test', '203.0.113.9', own), {
    message: /^--egress: me.test \(203.0.113.9\) is this machine itself/,
  });
  t.ok(ownAddresses().has('127.0.0.1'), 'as the kernel has them');
});

void t.test('names with very many addresses are refused', async (t) => {
  const many = async () =>
    await Promise.resolve(Array.from({ length: 513 }, (_, i) => `192.0.${i >> 8}.${i & 255}`));
  await t.rejects(new Resolver(many).resolve([{ host: 'many.test', port: 80 }]), {
    code: 'invalid',
    message: /have 513 addresses and ports together, and at most 512 can be allowed/,
  });
});
