import t from 'tap';
import { egressFinding } from '#server/admin/doctor-egress.js';

void t.test('whether scripts can be given connections is to know, and never bad', async (t) => {
  t.match(egressFinding(undefined), { level: 'ok', found: /cronium run --egress HOST:PORT/ });
  t.match(egressFinding('ENOENT'), {
    level: 'ok',
    found: /^there is no iptables: cronium run --egress is refused/,
    next: /^apt-get install iptables/,
  });
  t.match(egressFinding('iptables: No chain/target/match by that name.'), {
    level: 'ok',
    found: /^there is no chain DOCKER-USER \(iptables: No chain/,
    next: /^start dockerd without --iptables=false/,
  });
});
