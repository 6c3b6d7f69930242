import { execFile } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import { promisify } from 'node:util';
import { pino } from 'pino';
import t from 'tap';
import { Egress } from '#mountd/egress.js';
import { bridgeOf, EgressFilter } from '#mountd/egress-filter.js';
import { needsMachine } from '#test/support/machine.js';
import { networkTraces } from '#test/support/network-traces.js';

const options = await needsMachine();
const run = promisify(execFile);

const dockerSocket = '/var/run/docker.sock';
const log = pino({ level: 'silent' });
const RESOLVED = {
  destinations: [
    { address: '203.0.113.77', port: 80 },
    { address: '203.0.113.78', port: 443 },
  ],
  hosts: [],
};

/** Nobody else's rules are ours. */
const someone = () => ({ instance: `test-${randomUUID().slice(0, 8)}`, executionId: randomUUID() });

void t.test(
  'rules are put, seen to be whole, and removed, as often as one likes',
  options,
  async (t) => {
    const { instance, executionId } = someone();
    const { destinations } = RESOLVED;
    const filter = new EgressFilter(instance);
    const other = new EgressFilter(`${instance}-other`);
    const bridge = bridgeOf(executionId);
    t.ok(bridge.length <= 15, 'Linux has no longer names of interfaces');
    t.teardown(async () => await filter.remove(executionId));

    await filter.put(executionId, destinations);
    await filter.put(executionId, destinations);
    t.equal(await filter.isWhole(executionId, destinations), true);
    t.same(await filter.executions(), [executionId]);
    t.same(await other.executions(), [], "another installation's are not its own");

    const takenAway: readonly (readonly [string, ...string[]])[] = [
      ['iptables', '-w', '10', '-t', 'raw', '-D', bridge, '4'],
      ['iptables', '-w', '10', '-t', 'raw', '-F', bridge],
      ['iptables', '-w', '10', '-t', 'mangle', '-D', 'INPUT', '-i', bridge],
      ['ip6tables', '-w', '10', '-t', 'raw', '-D', 'PREROUTING', '-i', bridge],
    ];
    for (const [program, ...args] of takenAway) {
      const jump = [
        '-m',
        'comment',
        '--comment',
        `cronium:${instance}:${executionId}`,
        '-j',
        'DROP',
      ];
      await run(program, args.includes('-i') ? [...args, ...jump] : args);
      t.equal(await filter.isWhole(executionId, destinations), false, args.join(' '));
      await filter.put(executionId, destinations);
      t.equal(await filter.isWhole(executionId, destinations), true);
    }
    await filter.remove(executionId);
    await filter.remove(executionId);
    t.same(await networkTraces(instance, [executionId]), []);
  },
);

void t.test(
  'a network whose rules were flushed gets them back; one that is over goes',
  options,
  async (t) => {
    const { instance, executionId } = someone();
    const egress = new Egress({ dockerSocket, instance, log });
    t.teardown(async () => await egress.close(executionId));
    await egress.open(executionId, RESOLVED);
    const there = await networkTraces(instance, [executionId]);
    t.ok(
      there.some((line) => line === bridgeOf(executionId)),
      'there is an interface',
    );

    await new EgressFilter(instance).remove(executionId);
    // Another process knows it from Docker's labels.
    const next = new Egress({ dockerSocket, instance, log });
    t.equal(await next.reap(() => true), 0);
    t.same((await networkTraces(instance, [executionId])).length, there.length, 'all are back');
    t.equal(await next.reap(() => false), 1);
    t.same(await networkTraces(instance, [executionId]), []);
  },
);

void t.test('rules whose network was never made are found after a crash', options, async (t) => {
  const { instance, executionId } = someone();
  await new EgressFilter(instance).put(executionId, RESOLVED.destinations);
  const egress = new Egress({ dockerSocket, instance, log });
  t.equal(await egress.reap(() => false), 1);
  t.same(await networkTraces(instance, [executionId]), []);
});

void t.test(
  'a destination in the range that Docker chose is refused, and leaves nothing',
  options,
  async (t) => {
    const { instance, executionId } = someone();
    const egress = new Egress({ dockerSocket, instance, log });
    const everywhere = { destinations: ranges(), hosts: [] };
    await t.rejects(egress.open(executionId, everywhere), {
      code: 'conflict',
      message: /^--egress: [\d.]+ is in the range [\d./]+, which Docker has given/,
    });
    t.same(await networkTraces(instance, [executionId]), []);
  },
);

/** An address in each of the ranges that Docker has for networks, unless it is told others. */
const ranges = () => [
  ...Array.from({ length: 15 }, (_, i) => ({ address: `172.${17 + i}.0.9`, port: 80 })),
  ...Array.from({ length: 16 }, (_, i) => ({ address: `192.168.${i * 16}.9`, port: 80 })),
];

void t.test('where nothing can be filtered, nothing is allowed', options, async (t) => {
  const filter = new URL('../../mountd/egress-filter.js', import.meta.url).href;
  const egress = new URL('../../mountd/egress.js', import.meta.url).href;
  const { instance, executionId } = someone();
  const asked = `
const { EgressFilter } = await import('${filter}');
await new EgressFilter('${instance}').assertUsable().then(() => console.log('usable'), (e) => console.log(e.message));`;
  const node = [process.execPath, '--input-type=module', '-e'];
  const said = async (...command: string[]) => (await run('unshare', command)).stdout.trim();

  t.equal(await said('--mount', ...node, asked), 'usable');
  t.match(
    await said(
      '--mount',
      'sh',
      '-c',
      'mount -t tmpfs none /usr/sbin && exec "$@"',
      '-',
      ...node,
      asked,
    ),
    /^--egress cannot be used: there is no program iptables on this machine; install it/,
  );
  t.match(
    await said('--net', ...node, asked),
    /^--egress cannot be used: Docker does not set up this machine's packet filter/,
  );
  // A chain of that name alone does not help: the engine and its bridges are somewhere else.
  const opened = `
const { Egress } = await import('${egress}');
const egress = new Egress({ dockerSocket: '${dockerSocket}', instance: '${instance}', log: {} });
await egress.open('${executionId}', ${JSON.stringify(RESOLVED)}).then(() => console.log('open'), (e) => console.log(e.message));`;
  t.match(
    await said('--net', ...node, opened),
    /^--egress cannot be used: the Docker engine does not run in this machine's network/,
  );
  t.same(await networkTraces(instance, [executionId]), []);
});
