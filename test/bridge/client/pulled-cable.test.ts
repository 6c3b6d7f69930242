import { randomUUID } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import t from 'tap';
import { Connection } from '#bridge/client/connection.js';
import { Link } from '#bridge/client/link.js';
import { LinkProxy } from '#test/chaos/link-proxy.js';
import { InProcessServer } from '#test/support/in-process-server.js';

/** An answer takes as long as this. */
let answerMs = 0;

async function throughProxy() {
  const server = await InProcessServer.start({
    serve: async () => {
      await sleep(answerMs);
      return { executionId: randomUUID(), record: {}, output: null, condition: null };
    },
  });
  const proxy = await LinkProxy.open(server.address.port);
  const options = {
    address: { host: server.address.host, port: proxy.port },
    tls: server.tls('operator'),
    software: 'test',
  };
  return {
    options,
    proxy,
    async [Symbol.asyncDispose]() {
      await proxy[Symbol.asyncDispose]();
      await server[Symbol.asyncDispose]();
    },
  };
}

const question = (): { executionId: never } => ({ executionId: randomUUID() as never });

// It took 45 s, longer than a call may wait, so that every call failed.
void t.test(
  'a call over a cable that was pulled hears of it in time for another try',
  async (t) => {
    answerMs = 0;
    await using there = await throughProxy();
    await using link = new Link(there.options);
    const connection = await link.connection();
    await connection.call('execution.get', question());
    void there.proxy.pull(1_000);
    const started = performance.now();
    await t.rejects(connection.call('execution.get', question()), { code: 'unavailable' });
    const noticed = performance.now() - started;
    t.ok(noticed < 20_000, `noticed after ${noticed} ms`);
    const next = await link.connection();
    t.not(next, connection);
    t.ok(await next.call('execution.get', question()));
  },
);

void t.test('a call that takes long over a link that is well is waited for', async (t) => {
  await using there = await throughProxy();
  using connection = await Connection.open(there.options);
  answerMs = 12_000;
  t.ok(await connection.call('execution.get', question(), { deadlineMs: 20_000 }));
});
