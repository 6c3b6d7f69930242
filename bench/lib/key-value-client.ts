// The peers' clients, each as its documentation says to use it, all behind the same two calls.
import { connect as netConnect } from 'node:net';
import { type TLSSocket, connect as tlsConnect } from 'node:tls';
import { Etcd3 } from 'etcd3';
import { Redis } from 'ioredis';
import pg from 'pg';
import { Pool as HttpPool } from 'undici';
import { type CertificatePaths, OurConnection, type OurTarget, tlsFiles } from './our-client.js';

/** Of every value, key and quotes included: JSON text. */
export const VALUE_BYTES = 1024;

export type Target =
  | ({ readonly kind: 'ours' } & OurTarget)
  | {
      readonly kind: 'http';
      readonly url: string;
      readonly token: string;
      readonly connections: number;
    }
  | { readonly kind: 'redis'; readonly port: number; readonly autoPipelining: boolean }
  | { readonly kind: 'postgres'; readonly port: number; readonly connections: number }
  | { readonly kind: 'etcd'; readonly port: number }
  | {
      readonly kind: 'echo';
      /** A port of loopback, or a socket's path. */
      readonly at: number | string;
      readonly certificate: CertificatePaths;
    };

export interface KeyValueClient {
  get(key: string): Promise<string>;
  /** Resolves once the server says that it is durable. */
  set(key: string, text: string): Promise<unknown>;
  close(): unknown;
}

export async function openClient(target: Target): Promise<KeyValueClient> {
  switch (target.kind) {
    case 'ours':
      return await ours(target);
    case 'http':
      return http(target);
    case 'redis':
      return await redis(target);
    case 'postgres':
      return await postgres(target);
    case 'etcd':
      return etcd(target);
    case 'echo':
      return await echo(target);
    default:
      return target satisfies never;
  }
}

async function ours(target: OurTarget): Promise<KeyValueClient> {
  const connection = await OurConnection.open(target);
  const execution = await connection.execution('bench');
  return {
    get: async (key) => await execution.get(key),
    set: async (key, text) => await execution.set(key, text),
    close: () => connection[Symbol.dispose](),
  };
}

function http({ url, token, connections }: Target & { kind: 'http' }): KeyValueClient {
  const pool = new HttpPool(url, { connections });
  const authorization = `Bearer ${token}`;
  const request = async (method: 'GET' | 'PUT', key: string, body?: string) => {
    const answer = await pool.request({
      method,
      path: `/variables/${key}`,
      headers:
        body === undefined
          ? { authorization }
          : { authorization, 'content-type': 'application/json' },
      ...(body !== undefined && { body }),
    });
    if (answer.statusCode !== 200) throw new Error(`${method}: ${answer.statusCode}`);
    return (await answer.body.json()) as { text: string };
  };
  return {
    get: async (key) => (await request('GET', key)).text,
    set: async (key, text) => await request('PUT', key, JSON.stringify({ text })),
    close: async () => await pool.close(),
  };
}

async function redis({
  port,
  autoPipelining,
}: Target & { kind: 'redis' }): Promise<KeyValueClient> {
  const client = new Redis({
    port,
    host: '127.0.0.1',
    enableAutoPipelining: autoPipelining,
    lazyConnect: true,
  });
  await client.connect();
  const settings = [
    await client.config('GET', 'appendonly'),
    await client.config('GET', 'appendfsync'),
  ];
  assertSettings(settings.flat().join(' '), 'appendonly yes appendfsync always');
  return {
    get: async (key) => (await client.get(key)) ?? '',
    set: async (key, text) => await client.set(key, text),
    close: () => client.disconnect(),
  };
}

async function postgres({
  port,
  connections,
}: Target & { kind: 'postgres' }): Promise<KeyValueClient> {
  const pool = new pg.Pool({
    host: '127.0.0.1',
    port,
    user: 'postgres',
    database: 'postgres',
    max: connections,
    idleTimeoutMillis: 0,
  });
  const { rows } = await pool.query<object>(
    "select current_setting('fsync') as a, current_setting('synchronous_commit') as b",
  );
  assertSettings(Object.values(rows[0] ?? {}).join(' '), 'on on');
  await pool.query('create table if not exists kv (k text primary key, v text not null)');
  // A query with a name is prepared once per connection.
  const get = { name: 'get', text: 'select v from kv where k = $1' };
  const set = {
    name: 'set',
    text: 'insert into kv values ($1, $2) on conflict (k) do update set v = excluded.v',
  };
  return {
    get: async (key) =>
      (await pool.query<{ v: string }>({ ...get, values: [key] })).rows[0]?.v ?? '',
    set: async (key, text) => await pool.query({ ...set, values: [key, text] }),
    close: async () => await pool.end(),
  };
}

/** A set that is not durable must not be compared. */
function assertSettings(found: string, wanted: string): void {
  if (found !== wanted) throw new Error(`the server runs with "${found}", not "${wanted}"`);
}

function etcd({ port }: Target & { kind: 'etcd' }): KeyValueClient {
  const client = new Etcd3({ hosts: `http://127.0.0.1:${port}` });
  return {
    get: async (key) => (await client.get(key).string()) ?? '',
    set: async (key, text) => await client.put(key).value(text),
    close: () => client.close(),
  };
}

/** `get` sends as many bytes as it receives. Nothing is stored: a set is the same. */
async function echo({ at, certificate }: Target & { kind: 'echo' }): Promise<KeyValueClient> {
  const { certPath: _, ...credentials } = tlsFiles(certificate);
  const socket = await new Promise<TLSSocket>((resolve, reject) => {
    const raw = typeof at === 'number' ? netConnect(at, '127.0.0.1') : netConnect(at);
    const secured = tlsConnect(
      { ...credentials, socket: raw, servername: 'localhost', minVersion: 'TLSv1.3' },
      () => resolve(secured),
    );
    raw.setNoDelay(true);
    secured.once('error', reject);
  });
  const waiting: ((text: string) => void)[] = [];
  const frame = Buffer.alloc(VALUE_BYTES, 'x');
  const text = frame.toString('latin1');
  let received = 0;
  socket.on('data', (bytes: Buffer) => {
    received += bytes.length;
    for (; received >= VALUE_BYTES; received -= VALUE_BYTES) waiting.shift()?.(text);
  });
  const exchange = async () =>
    await new Promise<string>((resolve) => {
      waiting.push(resolve);
      socket.write(frame);
    });
  return { get: exchange, set: exchange, close: () => socket.destroy() };
}
