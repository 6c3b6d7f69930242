import { chmodSync, mkdirSync, rmSync } from 'node:fs';
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import { connect } from 'node:net';
import { dirname } from 'node:path';
import { text } from 'node:stream/consumers';
import { z } from 'zod';
import { asBridgeError, BridgeError } from '#bridge/wire/errors.js';

/** Docker's plugin protocol, https://docs.docker.com/engine/extend/plugins_volume/: a POST for every call, JSON both ways. */

const CONTENT_TYPE = 'application/vnd.docker.plugins.v1.1+json';

/** A call is a name, an id and options; Docker sends a few hundred bytes. */
const BODY_BYTES_MAX = 64 * 1024;

const PLUGIN_HEADERS_MS = 10_000;

/** What there is to be mounted. */
export interface Volumes {
  readonly names: readonly string[];
  /** The directory on the host; undefined: there is no such volume. */
  pathOf(name: string): string | undefined;
  /** Resolves when a container may use it. Called again with the same id, it is the same mount. @throws BridgeError */
  mount(name: string, mountId: string): Promise<void>;
  /** Once for every `mount`, and perhaps again; also when a container could not be started. */
  unmount(name: string, mountId: string): void;
}

const Named = z.object({ Name: z.string() });
const Created = Named.extend({ Opts: z.record(z.string(), z.string()).nullish() });
const Mounted = Named.extend({ ID: z.string() });

type Method = (volumes: Volumes, body: unknown) => object | Promise<object>;

const METHODS: Readonly<Record<string, Method>> = {
  '/Plugin.Activate': () => ({ Implements: ['VolumeDriver'] }),
  '/VolumeDriver.Capabilities': () => ({ Capabilities: { Scope: 'local' } }),
  /** Docker's word for getting to know one: executions are made by command. */
  '/VolumeDriver.Create': (volumes, body) => {
    const { Name, Opts } = Created.parse(body);
    existing(volumes, Name);
    const [option] = Object.keys(Opts ?? {});
    if (option !== undefined)
      throw new BridgeError(
        'invalid',
        `there is no volume option ${option}: an execution's options are those of cronium exec create`,
      );
    return {};
  },
  /** Docker forgets it; the execution goes on. */
  '/VolumeDriver.Remove': () => ({}),
  '/VolumeDriver.Get': (volumes, body) => {
    const { Name } = Named.parse(body);
    return { Volume: { Name, Mountpoint: existing(volumes, Name), Status: {} } };
  },
  '/VolumeDriver.List': (volumes) => ({
    Volumes: volumes.names.map((Name) => ({ Name, Mountpoint: volumes.pathOf(Name) ?? '' })),
  }),
  '/VolumeDriver.Path': (volumes, body) => ({
    Mountpoint: existing(volumes, Named.parse(body).Name),
  }),
  '/VolumeDriver.Mount': async (volumes, body) => {
    const { Name, ID } = Mounted.parse(body);
    const Mountpoint = existing(volumes, Name);
    await volumes.mount(Name, ID);
    return { Mountpoint };
  },
  '/VolumeDriver.Unmount': (volumes, body) => {
    const { Name, ID } = Mounted.parse(body);
    volumes.unmount(Name, ID); // also of one that has ended: Docker would try again and again
    return {};
  },
};

/** @throws BridgeError `not_found` */
function existing(volumes: Volumes, name: string): string {
  const path = volumes.pathOf(name);
  if (path !== undefined) return path;
  throw new BridgeError(
    'not_found',
    `no execution ${name} is prepared here, or it has ended: the name of a volume is the id that cronium exec create prints`,
  );
}

/** The unix socket that Docker finds by its name. Mode 0600: whoever may connect may claim that a container has gone. */
export class VolumePlugin implements AsyncDisposable {
  readonly #http: Server;

  private constructor(volumes: Volumes) {
    this.#http = createServer({ headersTimeout: PLUGIN_HEADERS_MS }, (request, response) => {
      void answer(volumes, request, response);
    });
  }

  /** `path`: what nobody listens on any more is replaced. @throws BridgeError `busy` when somebody does, `unavailable` */
  static async open(path: string, name: string, volumes: Volumes): Promise<VolumePlugin> {
    if (await isAnswered(path))
      throw new BridgeError(
        'busy',
        `another installation, or another program, serves Docker's volume driver ${name}: choose another name with cronium up --volume-plugin NAME, or none with --no-volume-plugin`,
      );
    const plugin = new VolumePlugin(volumes);
    try {
      mkdirSync(dirname(path), { recursive: true, mode: 0o755 });
      rmSync(path, { force: true });
      await new Promise<void>((resolve, reject) => {
        plugin.#http.once('error', reject);
        plugin.#http.listen(path, resolve);
      });
      chmodSync(path, 0o600);
    } catch (cause) {
      const reason = cause instanceof Error ? cause.message : String(cause);
      throw new BridgeError('unavailable', `Docker's volume driver ${name}: ${reason}`, { cause });
    }
    return plugin;
  }

  /** Node removes the socket. */
  async [Symbol.asyncDispose](): Promise<void> {
    const closed = new Promise<void>((resolve) => this.#http.close(() => resolve()));
    this.#http.closeAllConnections();
    await closed;
  }
}

async function answer(
  volumes: Volumes,
  request: IncomingMessage,
  response: ServerResponse,
): Promise<void> {
  const [status, body] = await called(volumes, request);
  const data = JSON.stringify(body);
  response.writeHead(status, {
    'content-type': CONTENT_TYPE,
    'content-length': Buffer.byteLength(data),
  });
  response.end(data);
}

async function called(volumes: Volumes, request: IncomingMessage): Promise<[number, object]> {
  const method = request.method === 'POST' ? METHODS[request.url ?? ''] : undefined;
  if (method === undefined) return [404, { Err: `there is no method ${request.url}` }];
  try {
    if (Number(request.headers['content-length'] ?? 0) > BODY_BYTES_MAX)
      throw new BridgeError('too_large', `a call has at most ${BODY_BYTES_MAX} bytes`);
    const body = await text(request);
    return [200, await method(volumes, body === '' ? {} : JSON.parse(body))];
  } catch (error) {
    const isMalformed = error instanceof z.ZodError || error instanceof SyntaxError;
    const Err = isMalformed
      ? 'this is no call of the plugin protocol'
      : asBridgeError(error).message;
    return [500, { Err }];
  }
}

/** Whether somebody listens on a unix socket. */
async function isAnswered(path: string): Promise<boolean> {
  return await new Promise((resolve) => {
    const socket = connect(path, () => {
      socket.destroy();
      resolve(true);
    });
    socket.once('error', () => resolve(false));
  });
}
