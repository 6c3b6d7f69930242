import { execFile } from 'node:child_process';
import { once } from 'node:events';
import { appendFileSync, readFileSync, writeFileSync } from 'node:fs';
import { type AddressInfo, connect, createServer } from 'node:net';
import { promisify } from 'node:util';
import Docker from 'dockerode';
import t from 'tap';
import {
  eventually,
  finished,
  type RunJson,
  TestInstallation,
} from '#test/support/installation.js';
import { needsMachine } from '#test/support/machine.js';
import { networkTraces } from '#test/support/network-traces.js';
import { OutsideHost } from '#test/support/outside-host.js';
import { killProcess } from '#test/support/processes.js';

const options = await needsMachine();
const execute = promisify(execFile);
const docker = new Docker({ socketPath: '/var/run/docker.sock' });

/** Of scripts: on a busy machine Docker takes half a minute to start one. */
const PATIENCE = '5m';
/** Milliseconds, of all together: some twenty containers, and networks for most. */
const TIMEOUT_MS = 600_000;
t.setTimeout(TIMEOUT_MS);

const ALLOWED = 8080;
const OTHER_PORT = 8081;
const DNS = 53;
const UDP = 5300;

type Probe = readonly [kind: 'tcp' | 'udp' | 'icmp' | 'resolve', host: string, port: number];

/** Prints, after `answers`, what each probe was answered with, or `none`. `gateway` is the machine as the container sees it. */
const probing = (probes: Readonly<Record<string, Probe>>): string => `
import json, socket, struct, threading
def gateway():
    for line in open('/proc/net/route'):
        fields = line.split()
        if fields[1] == '00000000':
            return socket.inet_ntoa(struct.pack('<I', int(fields[2], 16)))
    return '198.51.100.1'
WAIT_S = 2
def tcp(host, port):
    with socket.create_connection((host, port), WAIT_S) as s:
        return s.recv(100).decode()
def datagram(protocol, host, port, data):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM, protocol) as s:
        s.settimeout(WAIT_S)
        s.sendto(data, (host, port))
        return s.recv(100)
def udp(host, port):
    return datagram(0, host, port, b'by udp').decode()
def icmp(host, port):
    return 'echo' if datagram(socket.IPPROTO_ICMP, host, port, bytes([8, 0, 0, 0, 0, 1, 0, 1])) else ''
def resolve(host, port):
    labels = b''.join(bytes([len(label)]) + label.encode() for label in ('secret', 'test'))
    question = b'\\x12\\x34\\x01\\x00\\x00\\x01\\x00\\x00\\x00\\x00\\x00\\x00' + labels + b'\\x00\\x00\\x01\\x00\\x01'
    return 'answered' if datagram(0, host, port, question) else ''
answers = {}
def probe(name, kind, host, port):
    try:
        answers[name] = globals()[kind](gateway() if host == 'gateway' else host, port)
    except OSError:
        answers[name] = 'none'
threads = [threading.Thread(target=probe, args=(name, *rest)) for name, rest in json.loads('''${JSON.stringify(probes)}''').items()]
for thread in threads: thread.start()
for thread in threads: thread.join()
print('answers', json.dumps(answers))
`;

const answersIn = (text: string) =>
  JSON.parse(/answers (\{.*\})/.exec(text)?.[1] ?? '{}') as Record<string, string>;

void t.test(
  'a script reaches what --egress names, and nothing else',
  { ...options, timeout: TIMEOUT_MS },
  async (t) => {
    await using cronium = await TestInstallation.up();
    const { instance } = cronium.installation.state;
    await using outside = await OutsideHost.up({ tcp: [ALLOWED, OTHER_PORT], udp: [UDP, DNS] });
    await using another = await OutsideHost.up({ tcp: [ALLOWED] });
    using here = await Here.listen();
    using name = new KnownName(outside.address);
    const allowed = `${outside.address}:${ALLOWED}`;
    const executionIds: string[] = [];
    const run = async (text: string, ...args: string[]): Promise<RunJson> => {
      const result = await cronium.run('py', text, '--timeout', PATIENCE, ...args);
      executionIds.push(result.executionId);
      return result;
    };
    const isClean = async () =>
      await eventually(
        'no network, rule or interface is left',
        async () => (await networkTraces(instance, executionIds)).length === 0,
      );

    const probes = {
      allowed: ['tcp', outside.address, ALLOWED],
      'another port': ['tcp', outside.address, OTHER_PORT],
      'another host': ['tcp', another.address, ALLOWED],
      udp: ['udp', outside.address, UDP],
      'udp on the same port': ['udp', outside.address, ALLOWED],
      icmp: ['icmp', outside.address, 0],
      dns: ['resolve', outside.address, DNS],
      'this machine as the gateway': ['tcp', 'gateway', here.port],
      'this machine, on the way': ['tcp', outside.gateway, here.port],
      'this machine pinged': ['icmp', 'gateway', 0],
      'its loopback': ['tcp', '127.0.0.1', here.port],
      ipv6: ['tcp', outside.address6, ALLOWED],
      'ipv6 loopback': ['tcp', '::1', here.port],
    } as const satisfies Record<string, Probe>;
    const none = Object.fromEntries(Object.keys(probes).map((probe) => [probe, 'none']));

    await t.test('one port of one host, by address and by name', async (t) => {
      const byName = { 'by name': ['tcp', name.text, ALLOWED] } as const;
      const result = await run(
        probing({ ...probes, ...byName }),
        '--egress',
        `${name.text}:${ALLOWED}`,
      );
      const answer = `port ${ALLOWED}`;
      t.same(
        answersIn(result.stdout),
        { ...none, allowed: answer, 'by name': answer },
        result.stderr,
      );
      t.same(
        outside.heard.splice(0),
        [`tcp ${ALLOWED}`, `tcp ${ALLOWED}`],
        'nothing else came there',
      );
      t.same(another.heard, []);
      t.equal(here.connections, 0);
      await isClean();
    });

    await t.test('several, with commas and repeated', async (t) => {
      const result = await run(
        probing(probes),
        '--egress',
        `${allowed},${outside.address}:${OTHER_PORT}`,
        '--egress',
        `${another.address}:${ALLOWED}`,
      );
      t.same(answersIn(result.stdout), {
        ...none,
        allowed: `port ${ALLOWED}`,
        'another port': `port ${OTHER_PORT}`,
        'another host': `port ${ALLOWED}`,
      });
    });

    await t.test('rules of others that accept everything do not matter', async (t) => {
      const rules = [
        ['INPUT', '-p', 'tcp', '--dport', `${here.port}`, '-j', 'ACCEPT'],
        ['DOCKER-USER', '-d', outside.address, '-j', 'ACCEPT'],
      ];
      const change = async (how: '-I' | '-D') => {
        for (const rule of rules) await execute('iptables', ['-w', '10', how, ...rule]);
      };
      await change('-I');
      try {
        const result = await run(probing(probes), '--egress', allowed);
        t.same(answersIn(result.stdout), { ...none, allowed: `port ${ALLOWED}` });
      } finally {
        await change('-D');
      }
    });

    await t.test('without it there is no network at all', async (t) => {
      const result = await run(probing(probes));
      t.same(answersIn(result.stdout), none);
    });

    await t.test('what is denied would answer a container of Docker’s own', async (t) => {
      outside.heard.length = 0;
      const answers = answersIn(await unfiltered(probing(probes), 'bridge'));
      for (const probe of [
        'allowed',
        'another port',
        'another host',
        'udp',
        'icmp',
        'this machine as the gateway',
        'this machine, on the way',
        'this machine pinged',
      ])
        t.not(answers[probe], 'none', probe);
      t.ok(here.connections > 0);
      t.ok(outside.heard.some((one) => one.startsWith(`udp ${DNS}`) && one.includes('secret')));
    });

    await t.test('Docker’s resolver asks nobody but the container itself', async (t) => {
      // The same question, where Docker knows of a server outside: it is passed on.
      const network = await docker.createNetwork({ Name: `cronium-test-${process.pid}` });
      try {
        outside.heard.length = 0;
        const ask = probing({ resolver: ['resolve', '127.0.0.11', DNS] });
        await unfiltered(ask, network.id, [outside.address]);
        t.ok(
          outside.heard.some((one) => one.includes('secret')),
          'a tunnel, where it is not closed',
        );
      } finally {
        await network.remove();
      }

      outside.heard.length = 0;
      const listening = `
import socket, threading
own = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
own.bind(('127.0.0.1', 53))
own.settimeout(30)
def hear():
    print('heard', b'secret' in own.recvfrom(512)[0])
hearing = threading.Thread(target=hear)
hearing.start()
${probing({ resolver: ['resolve', '127.0.0.11', DNS] })}
hearing.join()`;
      const result = await run(listening, '--egress', allowed);
      t.match(
        result.stdout,
        /^heard True$/m,
        `it came to the script's own server: ${result.stderr}`,
      );
      t.same(outside.heard, [], 'and to no other');
    });

    await t.test('two at the same time do not reach each other', async (t) => {
      const port = 9000;
      const serving = `
import socket
server = socket.create_server(('0.0.0.0', ${port}))
print('listening')
while True:
    server.accept()[0].sendall(b'from inside')`;
      const server = cronium.spawn([
        'run',
        '--timeout',
        PATIENCE,
        '--egress',
        allowed,
        cronium.script('py', serving),
      ]);
      const ended = finished(server);
      await once(server.stdout ?? server, 'data');
      const { Id, Labels } = await cronium.runningContainer();
      executionIds.push(Labels['cronium.execution'] ?? '');
      const { Networks } = (await docker.getContainer(Id).inspect()).NetworkSettings;
      const [address = ''] = Object.values(Networks).map(({ IPAddress }) => IPAddress);
      t.match(address, /^\d+\.\d+\.\d+\.\d+$/);
      t.equal(await connects(address, port), false, 'nor does this machine');
      const peer = { allowed: probes.allowed, peer: ['tcp', address, port] } as const;
      for (const list of [allowed, `${allowed},${address}:${port}`]) {
        const result = await run(probing(peer), '--egress', list);
        t.same(answersIn(result.stdout), { allowed: `port ${ALLOWED}`, peer: 'none' }, list);
      }
      killProcess(server.pid, 'SIGTERM');
      await ended;
      await isClean();
    });

    await t.test('the container is otherwise as hard as one without a network', async (t) => {
      const inspected = async (...args: string[]) => {
        const ended = run('import time; time.sleep(2)', ...args);
        const { Id } = await cronium.runningContainer();
        const { HostConfig, Config, Mounts } = await docker.getContainer(Id).inspect();
        await ended;
        const mounts = Mounts.map(({ Destination, RW }) => `${Destination} ${RW}`).sort();
        return { HostConfig, Config, mounts };
      };
      const without = await inspected();
      const withIt = await inspected('--egress', `${name.text}:${ALLOWED}`);
      const differs = <T extends object>(one: T, other: T) =>
        (Object.keys({ ...one, ...other }) as (keyof T)[]).filter(
          (key) => JSON.stringify(one[key]) !== JSON.stringify(other[key]),
        );
      t.same(differs(without.HostConfig, withIt.HostConfig).sort(), [
        'Dns',
        'DnsOptions',
        'DnsSearch',
        'ExtraHosts',
        'Mounts',
        'NetworkMode',
      ]);
      t.match(withIt.HostConfig, {
        Dns: ['127.0.0.1'],
        ExtraHosts: [`${name.text}:${outside.address}`],
      });
      t.same(differs(without.Config, withIt.Config).sort(), [
        'Cmd', // the script's number
        'Hostname',
        'Labels',
        'NetworkDisabled',
      ]);
      t.same(without.mounts, ['/cronium true', '/etc/hosts false']);
      t.same(withIt.mounts, ['/cronium true']);
    });

    await isClean();
  },
);

/** Whether a connection is made, to what takes no time to make one. */
async function connects(host: string, port: number): Promise<boolean> {
  const socket = connect({ host, port, timeout: 2_000 });
  const [event] = await Promise.race([
    once(socket, 'connect').then(() => ['connect']),
    once(socket, 'timeout').then(() => ['timeout']),
  ]).catch(() => ['error']);
  socket.destroy();
  return event === 'connect';
}

/** The output of a script in a container that is not ours: nothing is filtered. */
async function unfiltered(text: string, network: string, dns: string[] = []): Promise<string> {
  const container = await docker.createContainer({
    Image: 'cronium-python:latest',
    Cmd: ['python', '-c', text],
    User: '1000:1000',
    Tty: true,
    HostConfig: { NetworkMode: network, Dns: dns },
  });
  try {
    await container.start();
    await container.wait();
    return (await container.logs({ stdout: true, stderr: true })).toString('utf8');
  } finally {
    await container.remove({ force: true });
  }
}

/** A service of this machine, on all its addresses. */
class Here implements Disposable {
  connections = 0;
  readonly #server = createServer((socket) => {
    this.connections++;
    socket.on('error', () => {}).end('this machine');
  });

  static async listen(): Promise<Here> {
    const here = new Here();
    here.#server.listen(0, '::');
    await once(here.#server, 'listening');
    return here;
  }

  get port(): number {
    return (this.#server.address() as AddressInfo).port;
  }

  [Symbol.dispose](): void {
    this.#server.close();
  }
}

/** A name that this machine, where mountd resolves, knows by a line of its own in /etc/hosts. */
class KnownName implements Disposable {
  readonly text = `outside-${process.pid}.cronium.test`;
  readonly #line: string;

  constructor(address: string) {
    this.#line = `${address} ${this.text}\n`;
    appendFileSync('/etc/hosts', this.#line);
  }

  [Symbol.dispose](): void {
    writeFileSync('/etc/hosts', readFileSync('/etc/hosts', 'utf8').replace(this.#line, ''));
  }
}
