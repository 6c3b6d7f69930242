import { readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { ExecutionId } from '#bridge/wire/names.js';
import { DockerProxy } from '#test/support/docker-proxy.js';
import {
  eventually,
  finished,
  type RunJson,
  TestInstallation,
} from '#test/support/installation.js';
import { needsMachine } from '#test/support/machine.js';
import { killProcess } from '#test/support/processes.js';

const options = await needsMachine();

/** Commits, and then uses the mount until something ends it. */
const BUSY = `cronium_setVariable kept '"yes"' > /dev/null
while :; do dd if=/dev/zero of=a bs=64k count=4 2> /dev/null; cat a > /dev/null; cat variables.json > /dev/null; done`;

class Machine {
  readonly cronium: TestInstallation;

  constructor(cronium: TestInstallation) {
    this.cronium = cronium;
  }

  async json<T>(...args: string[]): Promise<T> {
    const { code, stdout, stderr } = await this.cronium.cronium([...args, '--json']);
    if (stdout === '') throw new Error(`cronium ${args.join(' ')}: ${code} ${stderr}`);
    return JSON.parse(stdout) as T;
  }

  /** The serving process, once it serves and is connected. */
  async servingPid(): Promise<number> {
    let pid = 0;
    await eventually('mountd serves', async () => {
      const { stdout } = await this.cronium.cronium(['status', '--json']);
      const { well, mountd } = JSON.parse(stdout) as { well: boolean; mountd: { pid?: number } };
      pid = mountd.pid ?? 0;
      return well;
    });
    return pid;
  }

  /** A run under way: its id, and what its command ends with. */
  async started(script: string, ...args: string[]) {
    const { cronium } = this;
    const child = cronium.spawn(['run', ...args, cronium.script('sh', script)]);
    const ended = finished(child);
    const { Labels } = await cronium.runningContainer();
    const executionId = ExecutionId.parse(Labels['cronium.place']);
    await eventually(
      'the script has committed',
      async () =>
        (await cronium.cronium(['var', 'get', 'kept'])).stdout.includes('yes') ||
        !script.includes('kept'),
    );
    return { executionId, ended, child };
  }

  async record(executionId: ExecutionId) {
    return (await this.json<{ record: Record<string, unknown> }>('exec', 'show', executionId))
      .record;
  }

  async lost(executionId: ExecutionId): Promise<Record<string, unknown>> {
    let record: Record<string, unknown> = {};
    await eventually('it has ended', async () => {
      record = await this.record(executionId);
      return record['status'] !== undefined;
    });
    return record;
  }

  async isClean(): Promise<void> {
    const { cronium } = this;
    await eventually('no container is left', async () => (await cronium.containers()).length === 0);
    await eventually('no scratch is left', () => scratch(cronium).length === 0);
    const [mount, ...more] = cronium.mounts();
    if (mount !== cronium.mountPoint || more.length > 0)
      throw new Error(`mounted are ${[mount, ...more].join(' ')}`);
  }
}

const scratch = ({ state }: TestInstallation) =>
  readdirSync(join(state, 'mountd/scratch')).filter((name) => name.length === 36);

void t.test('whatever dies under an execution, it ends and leaves nothing', options, async (t) => {
  const made = new TestInstallation();
  await using docker = new DockerProxy(join(made.directory, 'docker.sock'));
  await docker.listen();
  await using cronium = await upWith(made, docker);
  const machine = new Machine(cronium);
  await cronium.run('sh', 'true'); // everything is warm

  await t.test('`cronium run` is interrupted while the server creates it', async (t) => {
    const server = cronium.serverPid;
    await machine.servingPid();
    killProcess(server, 'SIGSTOP');
    const child = cronium.spawn(['run', cronium.script('sh', 'true')]);
    const ended = finished(child);
    await new Promise((resolve) => setTimeout(resolve, 1500));
    child.kill('SIGINT');
    t.equal((await ended).code, 1);
    killProcess(server, 'SIGCONT');
    await eventually('nothing counts as running', async () => {
      const running = await machine.json<unknown[]>('exec', 'list', '--running');
      return running.length === 0;
    });
    const [last] = await machine.json<{ status: string }[]>('exec', 'list', '-n', '1');
    t.equal(last?.status, 'lost');
  });

  await t.test('Docker goes away: the run is lost, its container goes later', async (t) => {
    const { executionId, ended } = await machine.started(BUSY, '--json');
    const since = Date.now();
    await docker.cut();
    const { code, stdout } = await ended;
    t.comment(`the command ended after ${Date.now() - since} ms`);
    t.equal(code, 1);
    const result = JSON.parse(stdout) as RunJson;
    t.match(result, { executionId, status: 'lost', exitCode: null, variables: { set: {} } });
    t.match(result.warnings, [/^Warning: lost: no Docker engine answers on .*committed is kept/]);
    t.match(await machine.record(executionId), { status: 'lost', warnings: result.warnings });
    t.same(scratch(cronium), [], 'the tree is gone');
    t.equal((await cronium.containers()).length, 1, 'the container is not');
    t.match(await cronium.cronium(['run', cronium.script('sh', 'true')]), {
      code: 1,
      stderr: /no Docker engine answers/,
    });
    const pid = await machine.servingPid();
    await docker.listen();
    await machine.isClean();
    t.equal(await machine.servingPid(), pid, 'without a restart');
    t.match(await cronium.run('sh', 'echo again'), { stdout: 'again\n' });
  });

  await t.test('a hung mountd whose supervisor died does not keep `up` from working', async (t) => {
    const { executionId, ended } = await machine.started(BUSY);
    const pid = await machine.servingPid();
    killProcess(pid, 'SIGSTOP');
    killProcess(cronium.installation.mountd.pid, 'SIGKILL');
    await eventually('it is gone', () => cronium.installation.mountd.pid === undefined);
    t.match(await cronium.cronium(['up']), { code: 0, stderr: /started mountd/ });
    t.equal((await ended).code, 1);
    await machine.isClean();
    t.match(await machine.lost(executionId), { status: 'lost' });
  });

  await t.test('the machine restarts: all is cleaned, what was committed is there', async (t) => {
    await cronium.cronium(['var', 'delete', 'kept']);
    const { executionId, ended } = await machine.started(BUSY);
    const { installation } = cronium;
    const { serverPid } = cronium;
    const pids = [
      await machine.servingPid(),
      installation.mountd.pid,
      installation.server.pid,
      serverPid,
    ];
    // At once: whoever saw another one die would replace it, as happened once on a busy machine.
    for (const signal of ['SIGSTOP', 'SIGKILL'] as const)
      for (const pid of pids) killProcess(pid, signal);
    t.equal((await ended).code, 1);
    const life = join(cronium.state, 'mountd/life.json');
    const { instance } = JSON.parse(readFileSync(life, 'utf8')) as { instance: string };
    writeFileSync(life, JSON.stringify({ instance, bootId: 'of an earlier boot' }));
    t.not((await cronium.containers()).length, 0, 'the container is still there');
    t.equal((await cronium.cronium(['up'])).code, 0);
    await machine.isClean();
    t.match(await machine.lost(executionId), {
      status: 'lost',
      warnings: ['Warning: lost: the machine was restarted'],
    });
    t.equal((await cronium.cronium(['var', 'get', 'kept'])).stdout, '"yes"\n');
    t.match(await cronium.run('sh', 'echo again'), { stdout: 'again\n' });
    await eventually('it is a matter of the past', () =>
      readFileSync(life, 'utf8').includes(
        readFileSync('/proc/sys/kernel/random/boot_id', 'utf8').trim(),
      ),
    );
  });

  await t.test('`cronium down` without a server leaves no container and no mount', async (t) => {
    // In a close when it is stopped: mountd used to wait for the server until it was killed itself.
    const { ended } = await machine.started(
      `cronium_setVariable kept '"yes"' > /dev/null; while :; do cronium_setVariable more $RANDOM > /dev/null; done`,
      '--timeout=100s',
    );
    const { serverPid } = cronium; // it ends with its supervisor, by itself
    killProcess(cronium.installation.server.pid, 'SIGKILL');
    killProcess(serverPid, 'SIGKILL');
    t.equal((await cronium.cronium(['down'])).code, 0);
    await ended;
    t.same(await cronium.containers(), []);
    t.same(cronium.mounts(), []);
    t.equal((await cronium.cronium(['up'])).code, 0);
  });

  await t.test('`cronium down` tells whoever waits for a run how it ended', async (t) => {
    const { ended } = await machine.started('echo 1 > output.json; sleep 100', '--json');
    t.equal((await cronium.cronium(['down'])).code, 0);
    const { code, stdout } = await ended;
    t.equal(code, 1);
    t.match(JSON.parse(stdout), { status: 'killed' });
  });
});

async function upWith(made: TestInstallation, docker: DockerProxy): Promise<TestInstallation> {
  made.installation.state.prepareDirectories();
  made.installation.state.writeSettings({
    listen: { host: '127.0.0.1', port: 0 },
    dockerSocket: docker.path,
  });
  const { code, stderr } = await made.cronium(['up', '--log-level', 'debug', '--warm', '0']);
  if (code === 0) return made;
  await made[Symbol.asyncDispose]();
  throw new Error(`cronium up: ${stderr}`);
}
