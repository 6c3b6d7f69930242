// What the server bench measures: our server and what it is compared with, each started here.
import { mkdirSync } from 'node:fs';
import { connect } from 'node:net';
import { join } from 'node:path';
import { debianProgram } from './debian.js';
import { type HttpServerConfig, httpToken } from './http-peer.js';
import type { Target } from './key-value-client.js';
import { OurState } from './our-server.js';
import { CannotRun, ROOT, run } from './running.js';
import { freePort, Started } from './started.js';

/** Connections of clients that do not send the next request before the last was answered. */
const HTTP_CONNECTIONS = 64;
const POSTGRES_CONNECTIONS = 16;

export const PEER_NAMES = [
  'ours',
  'ours-unix',
  'http',
  'redis',
  'redis-pipe',
  'postgres',
  'etcd',
  'echo',
  'echo-unix',
] as const;
export type PeerName = (typeof PEER_NAMES)[number];

export interface Peer {
  readonly name: PeerName;
  readonly target: Target;
  readonly server: Started;
}

/** One server process, and the ways it is called. */
interface Served {
  readonly server: Started;
  readonly targets: Partial<Record<PeerName, Target>>;
}

type Starter = (directory: string, state: OurState) => Promise<Served>;

/** The servers of those peers that were asked for, in one directory; all are stopped with this. */
export class ServerPeers implements AsyncDisposable {
  readonly peers: Peer[] = [];
  /** Why there is no such peer. */
  readonly missing: Partial<Record<PeerName, string>> = {};
  readonly #servers: Started[] = [];

  /** One that cannot be started is missing; nothing is thrown for it. */
  static async start(directory: string, wanted: readonly PeerName[]): Promise<ServerPeers> {
    const made = new ServerPeers();
    const state = await OurState.make(join(directory, 'ours'));
    for (const [names, starter] of STARTERS) {
      const asked = names.filter((name) => wanted.includes(name));
      if (asked.length === 0) continue;
      try {
        const { server, targets } = await starter(directory, state);
        made.#servers.push(server);
        for (const name of asked) {
          const target = targets[name];
          if (target === undefined) made.missing[name] = 'not built yet';
          else made.peers.push({ name, target, server });
        }
      } catch (error) {
        const why = error instanceof CannotRun ? error.message : String(error);
        for (const name of asked) made.missing[name] = why;
      }
    }
    return made;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const server of this.#servers.splice(0).reverse()) await server[Symbol.asyncDispose]();
  }
}

const ours: Starter = async (_directory, state) => {
  const { started, target } = await state.startServer('no limits');
  return {
    server: started,
    targets: {
      ours: { kind: 'ours', ...target.tcp },
      ...(target.unix && { 'ours-unix': { kind: 'ours', ...target.unix } }),
    },
  };
};

const http: Starter = async (directory) => {
  const { publicKey, token } = await httpToken();
  const config: HttpServerConfig = { directory: join(directory, 'http'), publicKey };
  const server = await Started.start(process.execPath, [
    '--enable-source-maps',
    join(ROOT, 'dist/bench/peers/http-server.js'),
    JSON.stringify(config),
  ]);
  const { port } = server.message as { port: number };
  const url = `http://127.0.0.1:${port}`;
  return {
    server,
    targets: { http: { kind: 'http', url, token, connections: HTTP_CONNECTIONS } },
  };
};

const redis: Starter = async (directory) => {
  const program = await needed('redis-server', 'redis-server');
  const port = await freePort();
  const data = join(directory, 'redis');
  mkdirSync(data);
  // biome-ignore format: option and value
  const args = [
    '--port', `${port}`, '--bind', '127.0.0.1', '--dir', data,
    '--save', '', '--appendonly', 'yes', '--appendfsync', 'always',
  ];
  const server = await Started.start(program, args, { ready: async () => await answers(port) });
  return {
    server,
    targets: {
      redis: { kind: 'redis', port, autoPipelining: false },
      'redis-pipe': { kind: 'redis', port, autoPipelining: true },
    },
  };
};

/** It refuses to run as root: as the user that its package has made. */
const POSTGRES_USER = 'postgres';

const postgres: Starter = async (directory) => {
  const initdb = await needed('initdb', 'postgresql');
  const program = await needed('postgres', 'postgresql');
  const port = await freePort();
  const data = join(directory, 'postgres');
  mkdirSync(data);
  const owned = await run('chown', [POSTGRES_USER, data]);
  if (owned.code !== 0) throw new CannotRun(owned.stderr);
  // biome-ignore format: option and value
  const args = ['-u', POSTGRES_USER, '--', initdb, '-D', data, '--auth=trust', '--encoding=UTF8', '--locale=C'];
  const made = await run('runuser', args);
  if (made.code !== 0) throw new CannotRun(`initdb: ${made.stderr}`);
  const settings = [
    `port=${port}`,
    'listen_addresses=127.0.0.1',
    `unix_socket_directories=${data}`,
    'fsync=on',
    'synchronous_commit=on',
  ];
  const server = await Started.start(
    program,
    ['-D', data, ...settings.flatMap((setting) => ['-c', setting])],
    // SIGINT: fast shutdown, which does not wait for clients.
    { ready: async () => await answers(port), user: POSTGRES_USER, stopSignal: 'SIGINT' },
  );
  return {
    server,
    targets: { postgres: { kind: 'postgres', port, connections: POSTGRES_CONNECTIONS } },
  };
};

const etcd: Starter = async (directory) => {
  const program = await needed('etcd', 'etcd-server');
  const [port, peerPort] = [await freePort(), await freePort()];
  const url = `http://127.0.0.1:${port}`;
  const peerUrl = `http://127.0.0.1:${peerPort}`;
  // biome-ignore format: option and value
  const args = [
    '--data-dir', join(directory, 'etcd'), '--log-level', 'error',
    '--listen-client-urls', url, '--advertise-client-urls', url,
    '--listen-peer-urls', peerUrl, '--initial-advertise-peer-urls', peerUrl,
    '--initial-cluster', `default=${peerUrl}`,
  ];
  const server = await Started.start(program, args, { ready: async () => await answers(port) });
  return { server, targets: { etcd: { kind: 'etcd', port } } };
};

const echo: Starter = async (directory, state) => {
  const socketPath = join(directory, 'echo.sock');
  const server = await Started.start(process.execPath, [
    join(ROOT, 'dist/bench/peers/tls-echo.js'),
    JSON.stringify({ certificate: state.certificate('server'), socketPath }),
  ]);
  const { port } = server.message as { port: number };
  const certificate = state.certificate('host');
  return {
    server,
    targets: {
      echo: { kind: 'echo', at: port, certificate },
      'echo-unix': { kind: 'echo', at: socketPath, certificate },
    },
  };
};

const STARTERS: readonly (readonly [readonly PeerName[], Starter])[] = [
  [['ours', 'ours-unix'], ours],
  [['http'], http],
  [['redis', 'redis-pipe'], redis],
  [['postgres'], postgres],
  [['etcd'], etcd],
  [['echo', 'echo-unix'], echo],
];

async function needed(program: string, packageName: string): Promise<string> {
  const path = await debianProgram(program, packageName);
  if (path === undefined)
    throw new CannotRun(`no ${program}: the Debian package ${packageName} cannot be installed`);
  return path;
}

/** Somebody listens on this port of loopback. */
async function answers(port: number): Promise<boolean> {
  return await new Promise((resolve) => {
    const socket = connect(port, '127.0.0.1');
    const settle = (answer: boolean) => {
      socket.destroy();
      resolve(answer);
    };
    socket.once('connect', () => settle(true));
    socket.once('error', () => settle(false));
  });
}
