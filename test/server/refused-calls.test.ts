import t from 'tap';
import { Connection } from '#bridge/client/connection.js';
import { InProcessServer } from '#test/support/in-process-server.js';

void t.test(
  'calls that are no calls of ours are on record too, and a flood of them as a number',
  async (t) => {
    await using server = await InProcessServer.start();
    const { address } = server;
    using host = await Connection.open({ address, tls: server.tls('host'), software: 'test' });
    const bad = async () =>
      await host.call('execution.open', { token: 5 } as never).then(
        () => 'answered',
        () => 'refused',
      );
    t.equal(await bad(), 'refused');
    await server.audit.flush();
    const query = { limit: 1000, reverse: false, op: 'execution.open' };
    const { events } = await server.audit.read(query);
    t.match(events, [{ who: 'host:test-host', op: 'execution.open', outcome: 'invalid' }]);
    await Promise.all(Array.from({ length: 2000 }, bad));
    await server.audit.flush();
    t.ok((await server.audit.read(query)).events.length < 20, 'the record does not become a flood');
    const metrics = await server.metrics.scrape();
    t.match(
      metrics.text,
      /cronium_call_seconds_count\{op="execution.open",outcome="invalid"\} 2001/,
    );
  },
);
