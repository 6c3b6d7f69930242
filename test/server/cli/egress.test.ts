import t from 'tap';
import { egressOf } from '#server/cli/egress.js';

void t.test('--egress takes commas and repetition; each destination counts once', async (t) => {
  t.same(egressOf(['Example.org:443,192.0.2.1:80', 'example.org:443', 'example.org:80']), [
    { host: 'example.org', port: 443 },
    { host: '192.0.2.1', port: 80 },
    { host: 'example.org', port: 80 },
  ]);
});

void t.test('a mistake names what was written and what to write', async (t) => {
  const mistakes: readonly (readonly [string, RegExp])[] = [
    ['', /^--egress "": write HOST:PORT/],
    ['example.org', /^--egress "example.org": write HOST:PORT, as example.org:443$/],
    ['a:1,,b:2', /^--egress "": write HOST:PORT/],
    [':80', /^--egress ":80": write HOST:PORT/],
    ['https://example.org', /^--egress "https:\/\/example.org": leave out the scheme/],
    ['example.org:80-90', /^--egress "example.org:80-90": a port is a whole number/],
    ['example.org:', /a port is a whole number from 1 to 65535$/],
    ['example.org:0x50', /a port is a whole number/],
    ['[::1]:80', /^--egress "\[::1\]:80": IPv6 cannot be allowed/],
    ['*.example.org:443', /a wildcard cannot be allowed/],
    ['10.0.0.0/8:443', /a range of addresses cannot be allowed/],
  ];
  for (const [text, says] of mistakes)
    t.throws(() => egressOf([text]), { name: 'Misuse', message: says }, text);
  const many = Array.from({ length: 65 }, (_, i) => `a:${i + 1}`).join(',');
  t.throws(() => egressOf([many]), {
    message: '--egress: at most 64 hosts and ports can be allowed',
  });
});
