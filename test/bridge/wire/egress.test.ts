import t from 'tap';
import { EGRESS_TARGETS_MAX, EgressTarget, EgressTargets } from '#bridge/wire/egress.js';

const problemOf = (host: unknown, port: unknown = 443): string | undefined =>
  EgressTarget.safeParse({ host, port }).error?.issues[0]?.message;

void t.test('a host is a name or an IPv4 address', async (t) => {
  const good = ['example.org', 'a', 'A-1.b_c.example', '_dns.example', '192.0.2.1', '1a.2b'];
  for (const host of [...good, `${'a'.repeat(63)}.org`, '3com.4a'])
    t.equal(problemOf(host), undefined, host);
  for (const host of ['', '.', 'a..b', 'example.org.', '-a.b', 'a-.b', 'a b', 'a\n1.2.3.4 b'])
    t.match(problemOf(host), /^a host is a name or an IPv4 address$/, host);
  t.match(problemOf('a'.repeat(64)), /^a host is/);
  t.match(problemOf(`${'a.'.repeat(126)}ab`), /^a host is/, 'more than 253 characters');
});

void t.test('what cannot be allowed is refused with the reason', async (t) => {
  for (const host of ['::1', '[::1]', 'fe80::1%eth0', '::ffff:192.0.2.1'])
    t.match(problemOf(host), /^IPv6 cannot be allowed/, host);
  for (const host of ['*', '*.example.org']) t.match(problemOf(host), /^a wildcard/, host);
  for (const host of ['10.0.0.0/8', '0.0.0.0/0']) t.match(problemOf(host), /^a range/, host);
  // getaddrinfo(3) would take every one of them for an address.
  for (const host of ['127.1', '2130706433', '0177.0.0.1', '0x7f.1', '0x7f000001', '1.2.3.256'])
    t.match(problemOf(host), /^an IPv4 address has four numbers/, host);
});

void t.test('a port is a whole number from 1 to 65535', async (t) => {
  t.equal(problemOf('a', 1), undefined);
  t.equal(problemOf('a', 65_535), undefined);
  for (const port of [0, -1, 65_536, 1.5, Number.NaN, '80', null])
    t.ok(problemOf('a', port), String(port));
  t.equal(problemOf('a', 0), 'a port is a whole number from 1 to 65535');
});

void t.test('a list has between one entry and its limit', async (t) => {
  const list = (length: number) =>
    EgressTargets.safeParse(Array.from({ length }, (_, i) => ({ host: 'a', port: i + 1 })));
  t.equal(list(EGRESS_TARGETS_MAX).success, true);
  t.match(list(EGRESS_TARGETS_MAX + 1).error?.issues[0]?.message, /^at most 64 hosts and ports/);
  t.match(list(0).error?.issues[0]?.message, /at least one/);
});
