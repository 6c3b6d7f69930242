import { setTimeout as sleep } from 'node:timers/promises';
import { pino } from 'pino';
import t from 'tap';
import { Link } from '#bridge/client/link.js';
import { ExecutionId } from '#bridge/wire/names.js';
import { LostExecutions } from '#mountd/lost-executions.js';
import { EXAMPLES } from '#test/support/example-calls.js';
import { InProcessServer } from '#test/support/in-process-server.js';
import { eventually } from '#test/support/installation.js';
import { NAMESPACE } from '#test/support/matrix.js';

const log = pino({ level: 'silent' });
const INSTANCE = 'this-machine';
const NEVER = 60_000;

/** A server, and what one mountd knows. */
class Bench implements AsyncDisposable {
  readonly server: InProcessServer;
  readonly link: Link;
  readonly ours = new Set<ExecutionId>();
  settled = 0;

  constructor(server: InProcessServer) {
    this.server = server;
    const { address } = server;
    this.link = new Link({ address, tls: server.tls('host'), software: 'test' });
  }

  /** Made here, though the server may be stopped. */
  async created(instance = INSTANCE): Promise<ExecutionId> {
    const subjects = { keys: { text: '', number: '', array: '', kept: '' }, executionId: '' };
    const params = EXAMPLES['execution.create']({
      ...subjects,
      token: '',
      version: 0,
      namespace: NAMESPACE,
    });
    return await this.server.executions.create(
      { ...params, instance },
      { name: 'test-host', thumbprints: ['t'] },
    );
  }

  lost(everyMs = NEVER): LostExecutions {
    const life = {
      instance: INSTANCE,
      reason: 'mountd was restarted',
      settled: () => {
        this.settled++;
      },
    };
    const isOurs = (id: ExecutionId) => this.ours.has(id);
    return new LostExecutions({ link: this.link, life, isOurs, log, everyMs, retryMs: 20 });
  }

  async record(id: ExecutionId) {
    return (await this.server.executions.get(id)).record;
  }

  async ended(id: ExecutionId) {
    await eventually('it has ended', async () => 'status' in (await this.record(id)));
    return await this.record(id);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.link[Symbol.asyncDispose]();
    await this.server[Symbol.asyncDispose]();
  }
}

void t.test(
  'what was running before ends as lost; what runs, or is another’s, does not',
  async (t) => {
    await using bench = new Bench(await InProcessServer.start());
    const [before, runs] = [await bench.created(), await bench.created()];
    const other = await bench.created('another-machine');
    bench.ours.add(runs);
    await using lost = bench.lost();
    t.match(await bench.ended(before), {
      status: 'lost',
      warnings: ['Warning: lost: mountd was restarted'],
    });
    await eventually('that is over', () => bench.settled > 0);
    t.notOk((await bench.record(runs))['status']);
    t.notOk((await bench.record(other))['status']);

    bench.ours.delete(runs);
    lost.add(runs, 'the server could not be told how it ended: succeeded, exit code 0');
    t.match(await bench.ended(runs), {
      warnings: [
        'Warning: lost: the server could not be told how it ended: succeeded, exit code 0',
      ],
    });
  },
);

void t.test('a server that is away is told when it is back', async (t) => {
  const server = await InProcessServer.start();
  await using bench = new Bench(server);
  const before = await bench.created();
  await server.pause();
  await using _lost = bench.lost();
  await sleep(100);
  t.equal(bench.settled, 0);
  await server.resume();
  t.match(await bench.ended(before), { status: 'lost' });
});

void t.test('one that comes about after its caller has gone is found all the same', async (t) => {
  await using bench = new Bench(await InProcessServer.start());
  await using lost = bench.lost();
  await eventually('the first look is over', () => bench.settled === 1);
  lost.add(ExecutionId.parse('5f0c1d2e-0000-4000-8000-000000000000'), 'it was interrupted');
  await eventually('it was looked for', () => bench.settled > 2);
  const late = await bench.created();
  t.match(await bench.ended(late), { warnings: ['Warning: lost: mountd does not run it'] });
});

void t.test('thousands are lost in a few calls', async (t) => {
  await using bench = new Bench(await InProcessServer.start());
  const all: ExecutionId[] = [];
  for (let i = 0; i < 1500; i++) all.push(await bench.created());
  await using _lost = bench.lost();
  await eventually(
    'none is open',
    async () => (await bench.server.executions.running(NAMESPACE)) === 0,
  );
  t.match(await bench.record(all[0] as ExecutionId), { status: 'lost' });
});
