import t from 'tap';
import { Connection } from '#bridge/client/connection.js';
import { asBridgeError } from '#bridge/wire/errors.js';
import type { Namespace } from '#bridge/wire/names.js';
import { VariableKey } from '#bridge/wire/names.js';
import type { EventDocument, Params, ServerOperations } from '#bridge/wire/protocol.js';
import { InProcessServer } from '#test/support/in-process-server.js';

const key = (name: string) => VariableKey.parse(name);
const ACME = { org: 'acme' } satisfies Namespace;

const event: EventDocument = {
  id: 1,
  name: 'test',
  description: null,
  type: 'BASH',
  runLocation: 'LOCAL',
  createdAt: '',
  updatedAt: '',
  userId: 1,
  server: null,
  successCount: 0,
  failureCount: 0,
  lastRunAt: null,
};

/** Calls of an execution of one user, by which its script's helpers would ask. */
async function executionOf(
  host: Connection,
  user: string,
  more: Partial<Params<ServerOperations, 'execution.create'>> = {},
) {
  const params = { user, variablesOf: { user }, runtime: 'bash', event, timeoutMs: 1000, ...more };
  const { token } = await host.call('execution.create', params);
  const { channel } = await host.call('execution.open', { token });
  type Op = 'variable.get' | 'variable.set' | 'variable.list' | 'variable.add' | 'variable.delete';
  return async <O extends Op>(op: O, asked: Params<ServerOperations, O>) =>
    await host.call(op, asked, { channel }).then(
      (answer) => JSON.stringify(answer),
      (error: unknown) => asBridgeError(error).code,
    );
}

void t.test(
  'what an organisation shares, and no more, is open to whom it shares it with',
  async (t) => {
    await using server = await InProcessServer.start();
    const address = server.address;
    using host = await Connection.open({ address, tls: server.tls('host'), software: 'test' });
    using desk = await Connection.open({ address, tls: server.tls('operator'), software: 'test' });
    const texts = { db_host: '"db.acme"', db_port: '5432', payroll: '1' };
    for (const [name, text] of Object.entries(texts))
      await desk.call('variable.set', { namespace: ACME, key: key(name), text });
    const ada = await executionOf(host, 'ada');
    const bob = await executionOf(host, 'bob');
    const asked = (name: string) => ({ namespace: ACME, key: key(name) });

    t.equal(await ada('variable.get', asked('db_host')), 'denied', 'nothing is shared by itself');
    t.equal(await ada('variable.list', { namespace: ACME }), 'denied');

    const share = { with: { user: 'ada' }, prefix: 'db_' } as const;
    await desk.call('share.set', { namespace: ACME, share: { ...share, access: 'r' } });
    t.match(await ada('variable.get', asked('db_host')), /db\.acme/);
    t.equal(await ada('variable.get', asked('payroll')), 'denied', 'another key');
    t.equal(await ada('variable.get', asked('db_none')), 'not_found');
    t.equal(
      await ada('variable.set', { ...asked('db_host'), text: '1' }),
      'denied',
      'only to read',
    );
    t.equal(await bob('variable.get', asked('db_host')), 'denied', 'another user');
    const { variables } = JSON.parse(await ada('variable.list', { namespace: ACME })) as {
      variables: { key: string }[];
    };
    t.same(
      variables.map((one) => one.key),
      ['db_host', 'db_port'],
    );
    t.equal(await ada('variable.get', { key: key('db_host') }), 'not_found', 'her own are apart');
    t.equal(
      await ada('variable.get', { namespace: { org: 'nobody' }, key: key('db_host') }),
      'denied',
      'whether there is such a namespace cannot be told',
    );

    await desk.call('share.set', { namespace: ACME, share: { ...share, access: 'rw' } });
    t.match(await ada('variable.add', { ...asked('db_port'), by: '1' }), /5433/);
    t.equal(await ada('variable.set', { ...asked('payroll'), text: '2' }), 'denied');
    const remote = await executionOf(host, 'ada', { profile: 'remote' });
    t.match(await remote('variable.get', asked('db_port')), /5433/);
    t.equal(await remote('variable.add', { ...asked('db_port'), by: '1' }), 'denied', 'by profile');
    const readOnly = await executionOf(host, 'ada', { readOnly: true });
    t.equal(await readOnly('variable.delete', asked('db_port')), 'read_only');

    const { by } = await desk.call('variable.get', asked('db_port'));
    t.match(by, /^[0-9a-f-]{36}$/, 'the execution is on record as who wrote it');

    await desk.call('share.remove', { namespace: ACME, ...share });
    t.equal(await ada('variable.get', asked('db_host')), 'denied', 'at once');
  },
);

void t.test('a user shares with the executions of an organisation', async (t) => {
  await using server = await InProcessServer.start();
  const address = server.address;
  using host = await Connection.open({ address, tls: server.tls('host'), software: 'test' });
  using desk = await Connection.open({ address, tls: server.tls('operator'), software: 'test' });
  const namespace = { user: 'ada' };
  await desk.call('variable.set', { namespace, key: key('city'), text: '"Oslo"', secret: true });
  const share = { with: ACME, prefix: '', access: 'r' } as const;
  await desk.call('share.set', { namespace, share });
  const ofAcme = await executionOf(host, 'eve', { org: 'acme', variablesOf: ACME });
  t.match(await ofAcme('variable.get', { namespace, key: key('city') }), /Oslo/);
  const ofEve = await executionOf(host, 'eve', { org: 'acme', variablesOf: { user: 'eve' } });
  t.equal(
    await ofEve('variable.get', { namespace, key: key('city') }),
    'denied',
    'an execution with a user’s own variables is not the organisation’s',
  );
});
