import { createServer } from 'node:net';
import t from 'tap';
import { asBridgeError } from '#bridge/wire/errors.js';
import { JsonText, VariableKey } from '#bridge/wire/names.js';
import { Daemon } from '#server/admin/daemons.js';
import { Installation } from '#server/admin/installation.js';
import { eventually } from '#test/support/installation.js';
import { childrenOf, isRunning } from '#test/support/processes.js';
import { ServerProcess } from '#test/support/server-process.js';

t.setTimeout(120_000);

const USER = { user: 'ada' } as const;
const key = VariableKey.parse('n');

/** A supervised server, as `cronium up` starts it. Disposing stops it. */
class Supervised implements AsyncDisposable {
  readonly process: ServerProcess;
  readonly daemon: Daemon;

  private constructor(process: ServerProcess) {
    this.process = process;
    this.daemon = new Daemon(process.state, 'server');
  }

  static async start(): Promise<Supervised> {
    const supervised = new Supervised(await ServerProcess.make());
    await supervised.start();
    return supervised;
  }

  async start(): Promise<void> {
    const { port } = await this.daemon.start(this.process.config());
    this.process.listens(port ?? 0);
  }

  get supervisor(): number {
    return this.daemon.pid ?? 0;
  }

  /** The server itself; 0 while there is none. */
  get server(): number {
    return childrenOf(this.supervisor)[0] ?? 0;
  }

  async kill(signal: NodeJS.Signals): Promise<void> {
    const { server } = this;
    process.kill(server, signal);
    await eventually('it is gone', () => !isRunning(server));
  }

  /** A call as operator, which waits for a server that is being started again. */
  async set(n: number): Promise<void> {
    using operator = await new Installation(this.process.state).operator();
    const text = JsonText.parse(String(n));
    await operator.call('variable.set', { namespace: USER, key, text });
  }

  async status() {
    using operator = await new Installation(this.process.state).operator();
    const { variables } = await operator.call('variable.list', { namespace: USER });
    const { pid, restarts } = await operator.call('server.status', {});
    return { pid, restarts, n: Number(variables[0]?.text) };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.daemon.stop();
    await this.process[Symbol.asyncDispose]();
  }
}

void t.test('a server that dies is started again, on its port, with all it had', async (t) => {
  await using supervised = await Supervised.start();
  const { port } = supervised.process;
  for (let n = 1; n <= 3; n++) {
    await supervised.set(n);
    const died = performance.now();
    await supervised.kill('SIGKILL');
    t.match(await supervised.status(), { pid: Number, restarts: n, n });
    t.comment(`back after ${Math.round(performance.now() - died)} ms`);
  }
  t.match(
    (await supervised.process.cronium('status')).stdout,
    /server {2}up as process \d+ on 127.0.0.1:\d+ since \S+, restarted 3 times,/,
  );
  t.equal(supervised.process.state.settings().listen.port, port);
  const pids = [supervised.supervisor, supervised.server];
  t.ok(await supervised.daemon.stop());
  t.same(pids.filter(isRunning), [], 'stopped, it leaves no process');
  t.match(supervised.process.log, /"msg":"stopping"/, 'and the server had its time to end');
});

void t.test('a server that is stopped or hangs is killed and replaced', async (t) => {
  await using supervised = await Supervised.start();
  const { server } = supervised;
  process.kill(server, 'SIGSTOP');
  const stopped = performance.now();
  await eventually('it was killed', () => !isRunning(server), 25_000);
  t.ok(performance.now() - stopped > 13_000, 'a slow disk is given its time');
  t.match(await supervised.status(), { restarts: 1 });
  t.match(supervised.process.log, /the server hangs: killed/);
});

void t.test('a server whose supervisor was killed ends too, and up starts both anew', async (t) => {
  await using supervised = await Supervised.start();
  await supervised.set(7);
  const { server, supervisor } = supervised;
  process.kill(supervisor, 'SIGKILL');
  await eventually('the supervisor is gone', () => supervised.daemon.pid === undefined);
  await supervised.start();
  t.notOk(isRunning(server), 'two never run at once');
  t.match(await supervised.status(), { restarts: 0, n: 7 });

  process.kill(supervised.server, 'SIGSTOP');
  const stuck = supervised.server;
  process.kill(supervised.supervisor, 'SIGKILL');
  await eventually('the supervisor is gone', () => supervised.daemon.pid === undefined);
  await supervised.start();
  t.notOk(isRunning(stuck), 'nor when the old one cannot end');
  t.match(await supervised.status(), { restarts: 0, n: 7 });
});

void t.test('down after the supervisor was killed leaves no server', async (t) => {
  await using supervised = await Supervised.start();
  const { server } = supervised;
  process.kill(supervised.supervisor, 'SIGKILL');
  await eventually('the supervisor is gone', () => supervised.daemon.pid === undefined);
  await supervised.daemon.stop();
  t.notOk(isRunning(server));
});

void t.test('a first start that fails says why, once', async (t) => {
  await using server = await ServerProcess.make();
  const other = createServer();
  const port = await new Promise<number>((resolve) =>
    other.listen(0, '127.0.0.1', () => resolve((other.address() as { port: number }).port)),
  );
  t.teardown(() => other.close());
  const daemon = new Daemon(server.state, 'server');
  const started = performance.now();
  const error = await daemon
    .start(server.config({ listen: { host: '127.0.0.1', port } }))
    .catch((e: unknown) => asBridgeError(e));
  t.match(error, { code: 'unavailable', message: /the port is taken; choose another/ });
  t.ok(performance.now() - started < 8_000, 'without trying for long');
  t.equal(server.log.match(/cannot serve/g)?.length, 1);
  await eventually('the supervisor has gone', () => daemon.pid === undefined);
});

void t.test(
  'a restart that fails is tried again, and the server is back when it can be',
  async (t) => {
    await using supervised = await Supervised.start();
    const { port } = supervised.process;
    const thief = createServer((socket) => socket.destroy());
    await supervised.kill('SIGKILL');
    await eventually('somebody else has the port', async () => {
      const took = new Promise<boolean>((resolve) => {
        thief.once('error', () => resolve(false));
        thief.listen(port, '127.0.0.1', () => resolve(true));
      });
      return await took;
    });
    await eventually('it has tried in vain', () =>
      /the port is taken/.test(supervised.process.log),
    );
    await new Promise((resolve) => thief.close(resolve));
    await eventually(
      'it is back',
      async () =>
        await supervised.status().then(
          () => true,
          () => false,
        ),
    );
    t.ok((await supervised.status()).restarts >= 2);
  },
);
