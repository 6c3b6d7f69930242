import { spawn } from 'node:child_process';
import { once } from 'node:events';
import Docker from 'dockerode';
import t from 'tap';
import {
  eventually,
  finished,
  type RunJson,
  TestInstallation,
} from '#test/support/installation.js';
import { needsMachine } from '#test/support/machine.js';

const options = await needsMachine();

void t.test('executions are limited, contained and apart', options, async (t) => {
  await using cronium = await TestInstallation.up();

  await t.test(
    'a script stopped by its time limit keeps what it committed and what it printed',
    async (t) => {
      const run = await cronium.run(
        'sh',
        `cronium_setVariable kept yes >/dev/null; cronium_output '{"step": 1}'; echo working; sleep 60`,
        '--timeout',
        '1500ms',
        '--user',
        'slow',
      );
      t.match(run, {
        status: 'timed-out',
        stdout: 'working\n',
        output: { step: 1 },
        variables: { set: { kept: 'yes' } },
      });
      t.ok(run.durationMs < 30_000, `ended after ${run.durationMs} ms`);
      t.equal((await cronium.cronium(['var', 'get', 'kept', '--user', 'slow'])).stdout, 'yes\n');
    },
  );

  await t.test('a script that ignores SIGTERM is killed all the same', async (t) => {
    const run = await cronium.run(
      'sh',
      "trap '' TERM; while :; do sleep 0.1; done",
      '--timeout',
      '3s', // until it ignores the signal it must have been started
    );
    t.match(run, { status: 'timed-out', signal: 'SIGKILL' });
  });

  await t.test('a script that wants too much memory ends as oom', async (t) => {
    const run = await cronium.run(
      'py',
      'x = bytearray(200 * 1024 * 1024)\nprint(len(x))',
      '--memory',
      '64m',
    );
    t.match(run, { status: 'oom', exitCode: 137, stdout: '' });
  });

  await t.test(
    'two containers at once each have their own tree, and both keep their variables',
    async (t) => {
      const script = (me: string) => `
echo ${me} > mine; cronium_setVariable ${me} here >/dev/null
for i in $(seq 100); do ls /cronium/work > /dev/null; done
sleep 1
cat mine; ls | grep -c mine; ls /cronium | sort | tr '\\n' ' '; ls -d /cronium/../cronium/work; find / -xdev -name mine 2>/dev/null | wc -l
`;
      const [a, b] = await Promise.all(
        ['a', 'b'].map(async (me) => await cronium.run('sh', script(me), '--user', 'both')),
      );
      t.match(a?.stdout, /^a\n1\n/);
      t.match(b?.stdout, /^b\n1\n/);
      t.equal(
        (await cronium.cronium(['var', 'export', '--user', 'both'])).stdout.match(/here/g)?.length,
        2,
      );
    },
  );

  await t.test(
    'what one execution commits, another one that runs sees at its next open',
    async (t) => {
      const waiting = cronium.run(
        'sh',
        'echo ready; for i in $(seq 200); do v=$(cronium_getVariable news); [ -n "$v" ] && echo "$v" && exit 0; sleep 0.05; done; exit 1',
        '--user',
        'pair',
      );
      await eventually('the reader runs', async () => (await cronium.containers()).length > 0);
      await cronium.run('py', 'cronium.setVariable("news", "arrived")', '--user', 'pair');
      t.match(await waiting, { status: 'succeeded', stdout: 'ready\narrived\n' });
    },
  );

  await t.test('eight writers in one bash script keep eight variables', async (t) => {
    const run = await cronium.run(
      'sh',
      'for i in 1 2 3 4 5 6 7 8; do cronium_setVariable "k$i" "v$i" >/dev/null & done; wait',
      '--user',
      'eight',
    );
    const exported = JSON.parse(
      (await cronium.cronium(['var', 'export', '--user', 'eight'])).stdout,
    ) as object;
    t.same(Object.keys(exported).sort(), ['k1', 'k2', 'k3', 'k4', 'k5', 'k6', 'k7', 'k8']);
    t.equal(run.status, 'succeeded');
  });

  await t.test(
    'the container has no network, no privilege, a read-only root and its own limits',
    async (t) => {
      const inspected = cronium.run('sh', 'sleep 3', '--memory', '100m', '--cpus', '0.5');
      const { Id } = await cronium.runningContainer();
      const container = new Docker({ socketPath: '/var/run/docker.sock' }).getContainer(Id);
      const { HostConfig, Config, NetworkSettings } = await container.inspect();
      t.match(HostConfig, {
        NetworkMode: 'none',
        ReadonlyRootfs: true,
        CapDrop: ['ALL'],
        SecurityOpt: ['no-new-privileges:true', /^seccomp=\{"defaultAction":"SCMP_ACT_ERRNO"/],
        Privileged: false,
        Memory: 100 * 1024 * 1024,
        MemorySwap: 100 * 1024 * 1024,
        NanoCpus: 500_000_000,
        PidsLimit: 128,
        Init: true,
      });
      t.equal(Config.User, '1000:1000');
      t.equal(Config.WorkingDir, '/cronium/work');
      t.same(
        Object.keys(NetworkSettings.Networks).filter((name) => name !== 'none'),
        [],
      );
      await inspected;
      const probe = await cronium.run(
        'sh',
        `id -u; (echo x > /usr/x) 2>&1 | sed 's/.*: //'; grep CapEff /proc/self/status; ls /sys/class/net; : > /dev/tcp/1.1.1.1/80`,
      );
      t.match(probe.stdout, /^1000\nRead-only file system\nCapEff:\s+0000000000000000\nlo\n$/);
      t.match(probe.stderr, /Network is unreachable/);
    },
  );

  await t.test('Ctrl-C at the command ends the script and leaves no container', async (t) => {
    const child = cronium.spawn(['run', cronium.script('sh', 'echo started; sleep 60')]);
    const done = finished(child);
    if (child.stdout !== null) await once(child.stdout, 'data');
    child.kill('SIGINT');
    t.not((await done).code, 0);
    await eventually(
      'the container is gone',
      async () => (await cronium.containers()).length === 0,
    );
    t.pass('the container is gone');
  });

  await t.test(
    'a container killed by someone else is a killed execution, with what it had committed',
    async (t) => {
      const running = cronium.run(
        'sh',
        'cronium_output 1; cronium_setVariable given yes; sleep 60',
        '--user=given',
      );
      const info = await cronium.runningContainer();
      const given = ['var', 'get', 'given', '--user=given'];
      await eventually(
        'it has given its output',
        async () => (await cronium.cronium(given)).code === 0,
        60_000,
      );

      await new Docker({ socketPath: '/var/run/docker.sock' }).getContainer(info.Id).kill();
      t.match(await running, { status: 'killed', signal: 'SIGKILL', output: 1 });
    },
  );

  await t.test('logs arrive while the script runs, without loss, in order', async (t) => {
    const path = cronium.script(
      'sh',
      'echo first; sleep 2; seq 1 50000; seq 1 50000 >&2; echo last',
    );
    const child = spawn(process.execPath, ['bin/cronium', 'run', path], {
      env: { ...process.env, CRONIUM_STATE: cronium.state },
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    const started = Date.now();
    let firstAfter = 0;
    child.stdout.once('data', () => {
      firstAfter = Date.now() - started;
    });
    const { stdout, stderr } = await finished(child);
    t.ok(firstAfter < Date.now() - started - 1500, 'the first line came long before the end');
    const numbers = Array.from({ length: 50_000 }, (_, i) => `${i + 1}\n`).join('');
    t.ok(stdout === `first\n${numbers}last\n`, 'every line of stdout');
    t.ok(stderr.startsWith(numbers), 'every line of stderr');
  });

  await t.test('with --org alone the variables are the organisation’s', async (t) => {
    const run: RunJson = await cronium.run(
      'sh',
      'cronium_setVariable team blue >/dev/null',
      '--org',
      'acme',
    );
    t.equal(run.status, 'succeeded');
    t.equal((await cronium.cronium(['var', 'get', 'team', '--org', 'acme'])).stdout, 'blue\n');
    t.equal((await cronium.cronium(['var', 'get', 'team'])).code, 1);
  });
});
