import { type ChildProcess, execFile, spawn } from 'node:child_process';
import { randomInt } from 'node:crypto';
import { once } from 'node:events';
import { promisify } from 'node:util';
import { eventually } from './installation.js';
import { killProcess } from './processes.js';

const run = promisify(execFile);

/** Answers every TCP connection and datagram with its own port, and prints where one came. */
const SERVERS = `
const [tcp, udp] = JSON.parse(process.argv[1]);
const heard = (what) => console.log(what);
const wait = [];
for (const port of tcp) {
  const server = require('node:net').createServer((socket) => {
    heard('tcp ' + port);
    socket.on('error', () => {}).end('port ' + port);
  });
  wait.push(new Promise((done) => server.listen(port, '::', done)));
}
for (const port of udp) {
  const socket = require('node:dgram').createSocket('udp4');
  socket.on('message', (message, from) => {
    heard('udp ' + port + ' ' + message.toString('latin1').replace(/[^a-z0-9]+/gi, ' '));
    socket.send('port ' + port, from.port, from.address);
  });
  wait.push(new Promise((done) => socket.bind(port, done)));
}
Promise.all(wait).then(() => heard('ready'));
`;

/** A machine of its own: a network namespace behind a pair of interfaces, with servers in it. Disposing leaves nothing. */
export class OutsideHost implements AsyncDisposable {
  readonly address: string;
  /** This machine's, on the way there. */
  readonly gateway: string;
  readonly address6: string;
  /** `tcp PORT` and `udp PORT TEXT`, in the order they came. */
  readonly heard: string[] = [];
  readonly #name: string;
  #servers: ChildProcess | undefined;

  private constructor(index: number) {
    // 198.18.0.0/15 is for tests of networks (RFC 2544): 2^15 ranges of four addresses.
    const octets = [198, 18 + (index >> 14), (index >> 6) & 255, (index & 63) * 4];
    const at = (host: number) => [...octets.slice(0, 3), (octets[3] ?? 0) + host].join('.');
    this.gateway = at(1);
    this.address = at(2);
    this.address6 = `fd00:c0:${index.toString(16)}::2`;
    this.#name = `out${index}`;
  }

  static async up({ tcp = [], udp = [] }: { tcp?: number[]; udp?: number[] }) {
    const host = new OutsideHost(randomInt(0x8000));
    try {
      await host.#up(tcp, udp);
      return host;
    } catch (error) {
      await host[Symbol.asyncDispose]();
      throw error;
    }
  }

  async #up(tcp: readonly number[], udp: readonly number[]): Promise<void> {
    const [name, peer] = [this.#name, `${this.#name}p`];
    const gateway6 = this.address6.replace(/2$/, '1');
    await ip('netns', 'add', name);
    await ip('link', 'add', name, 'type', 'veth', 'peer', 'name', peer, 'netns', name);
    await ip('addr', 'add', `${this.gateway}/30`, 'dev', name);
    await ip('addr', 'add', `${gateway6}/64`, 'dev', name, 'nodad');
    await ip('link', 'set', name, 'up');
    await ip('-n', name, 'link', 'set', 'lo', 'up');
    await ip('-n', name, 'addr', 'add', `${this.address}/30`, 'dev', peer);
    await ip('-n', name, 'addr', 'add', `${this.address6}/64`, 'dev', peer, 'nodad');
    await ip('-n', name, 'link', 'set', peer, 'up');
    await ip('-n', name, 'route', 'add', 'default', 'via', this.gateway);
    const lists = JSON.stringify([tcp, udp]);
    const servers = this.spawn(process.execPath, '-e', SERVERS, lists);
    this.#servers = servers;
    let text = '';
    servers.stdout?.setEncoding('utf8').on('data', (chunk: string) => {
      const lines = (text + chunk).split('\n');
      text = lines.pop() ?? '';
      this.heard.push(...lines);
    });
    await eventually('its servers listen', () => this.heard.includes('ready'));
    this.heard.length = 0;
  }

  /** A program on that host. */
  spawn(program: string, ...args: string[]): ChildProcess {
    return spawn('ip', ['netns', 'exec', this.#name, program, ...args], {
      stdio: ['ignore', 'pipe', 'inherit'],
    });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const servers = this.#servers;
    if (servers !== undefined && servers.exitCode === null) {
      const ended = once(servers, 'exit');
      killProcess(servers.pid, 'SIGKILL');
      await ended;
    }
    // Its interfaces go with it.
    await ip('netns', 'delete', this.#name).catch(() => {});
    await ip('link', 'delete', this.#name).catch(() => {});
  }
}

async function ip(...args: string[]): Promise<void> {
  await run('ip', args);
}
