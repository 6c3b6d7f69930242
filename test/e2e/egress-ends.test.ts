import { readFileSync, writeFileSync } from 'node:fs';
import t from 'tap';
import { eventually, finished, TestInstallation } from '#test/support/installation.js';
import { needsMachine } from '#test/support/machine.js';
import { networkTraces } from '#test/support/network-traces.js';
import { OutsideHost } from '#test/support/outside-host.js';
import { killProcess } from '#test/support/processes.js';

const options = await needsMachine();

const ALLOWED = 8080;
const OTHER_PORT = 8081;

/** Prints what one port, and another, of a host answers. */
const asking = (host: string): string => `
import socket
for port in (${ALLOWED}, ${OTHER_PORT}):
    try:
        with socket.create_connection(('${host}', port), 2) as s:
            print(s.recv(100).decode())
    except OSError:
        print('none')`;
const ANSWERS = `port ${ALLOWED}\nnone\n`;

void t.test(
  'a run with --egress that is refused, or interrupted, leaves nothing',
  options,
  async (t) => {
    await using cronium = await TestInstallation.up();
    const { instance } = cronium.installation.state;
    await using outside = await OutsideHost.up({ tcp: [ALLOWED, OTHER_PORT] });
    const allowed = `${outside.address}:${ALLOWED}`;
    const executionIds: string[] = [];
    const isClean = async () =>
      await eventually(
        'no network, rule or interface is left',
        async () => (await networkTraces(instance, executionIds)).length === 0,
      );

    await t.test('what can never be allowed is a sentence, and nothing runs', async (t) => {
      const refused: readonly (readonly [string, number, RegExp])[] = [
        [`${outside.gateway}:80`, 2, /^--egress: [\d.]+ is this machine itself, which no script/],
        ['127.0.0.1:80', 2, /^--egress: 127.0.0.1 is this machine itself/],
        ['127.8.8.8:80', 2, /^--egress: 127.8.8.8 can never be allowed/],
        ['localhost:80', 2, /^--egress: localhost \(127.0.0.1\) is this machine itself/],
        ['0.0.0.0:80', 2, /^--egress: 0.0.0.0 can never be allowed/],
        ['169.254.169.254:80', 2, /^--egress: 169.254.169.254 can never be allowed/],
        ['224.0.0.1:80', 2, /^--egress: 224.0.0.1 can never be allowed/],
        ['no-such-host.invalid:80', 1, /^--egress: (no-such-host.invalid has no|nobody has said)/],
        ['[::1]:80', 2, /^--egress "\[::1\]:80": IPv6 cannot be allowed/],
        ['example.org', 2, /^--egress "example.org": write HOST:PORT/],
      ];
      const before = await executions(cronium);
      for (const [list, code, says] of refused) {
        const script = cronium.script('sh', 'echo ran');
        const result = await cronium.cronium(['run', '--egress', list, script]);
        t.match(result, { code, stdout: '', stderr: says }, list);
      }
      t.same(await executions(cronium), before, 'the server has heard of none');
      await isClean();
    });

    await t.test('a run goes on, and its network ends, when mountd is killed', async (t) => {
      const waiting = `
import time
print('started')
while cronium.getVariable('go') != 'now':
    time.sleep(0.1)
${asking(outside.address)}`;
      const ended = cronium.run('py', waiting, '--timeout', '5m', '--egress', allowed);
      const { Labels } = await cronium.runningContainer();
      executionIds.push(Labels['cronium.execution'] ?? '');
      const { serving } = cronium.mountdPids;
      killProcess(serving, 'SIGKILL');
      await eventually('another process serves', async () => {
        const { stdout } = await cronium.cronium(['status', '--json']);
        const { well, mountd } = JSON.parse(stdout) as { well: boolean; mountd: { pid?: number } };
        return well && mountd.pid !== serving;
      });
      t.equal((await cronium.cronium(['var', 'set', 'go', 'now'])).code, 0);
      const result = await ended;
      t.match(result, { status: 'succeeded', stdout: `started\n${ANSWERS}`, warnings: [] });
      await isClean();
    });

    await t.test('when all of mountd was killed, the next `up` leaves nothing of it', async (t) => {
      const script = cronium.script('py', 'import time\ntime.sleep(600)');
      const command = cronium.spawn(['run', '--egress', allowed, script]);
      const ended = finished(command);
      const { Labels } = await cronium.runningContainer();
      executionIds.push(Labels['cronium.execution'] ?? '');
      const { supervisor, serving } = cronium.mountdPids;
      const { server } = cronium.installation;
      const pids = [serving, supervisor, server.pid, cronium.serverPid, command.pid];
      for (const signal of ['SIGSTOP', 'SIGKILL'] as const)
        for (const pid of pids) killProcess(pid, signal);
      await ended;
      t.not((await networkTraces(instance, executionIds)).length, 0, 'its network is still there');
      // As after a restart of the machine: nobody goes on with it.
      const life = `${cronium.state}/mountd/life.json`;
      const noted = JSON.parse(readFileSync(life, 'utf8')) as object;
      writeFileSync(life, JSON.stringify({ ...noted, bootId: 'of an earlier boot' }));
      t.equal((await cronium.cronium(['up'])).code, 0);
      await isClean();
      const result = await cronium.run(
        'py',
        asking(outside.address),
        '--timeout',
        '5m',
        '--egress',
        allowed,
      );
      t.equal(result.stdout, ANSWERS);
      executionIds.push(result.executionId);
      await isClean();
    });
  },
);

async function executions(cronium: TestInstallation): Promise<unknown[]> {
  const { stdout } = await cronium.cronium(['exec', 'list', '--json']);
  return (JSON.parse(stdout) as { executions: unknown[] }).executions;
}
