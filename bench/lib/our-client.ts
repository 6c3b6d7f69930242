// How the benches speak to our server. What they measure follows the protocol here, and nowhere else.
import { randomUUID } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { Connection, type ServerAddress, type TlsFiles } from '#bridge/client/connection.js';
import type { Namespace } from '#bridge/wire/names.js';
import { SERVER_OPERATIONS } from '#bridge/wire/protocol.js';

/** Whether an execution's channel has `variable.get {key}` and `variable.set {key, text, commitId}`. */
const CHANNEL_OPERATIONS = Object.hasOwn(SERVER_OPERATIONS, 'variable.set');

/** Whether ServerAddress takes a `socketPath`, and ServerConfig a `socket`: then our-server.ts names it, whatever this says. */
export const UNIX_SOCKET: boolean = false;

const SOFTWARE = 'cronium-bench';
/** Under a minute of work never waits for renewal. */
const TIMEOUT_MS = 60 * 60_000;

/** Files of PEM texts. */
export interface CertificatePaths {
  readonly ca: string;
  readonly cert: string;
  readonly key: string;
}

export interface OurTarget {
  readonly host: string;
  readonly port: number;
  /** Used instead of host and port. */
  readonly socketPath?: string;
  readonly hostCertificate: CertificatePaths;
  readonly operatorCertificate: CertificatePaths;
}

/** One host's connection, and while an execution cannot read by its channel, one of an operator beside it. */
export class OurConnection implements Disposable {
  readonly #connection: Connection;
  readonly #operator: Connection | undefined;

  private constructor(connection: Connection, operator: Connection | undefined) {
    this.#connection = connection;
    this.#operator = operator;
  }

  static async open(target: OurTarget): Promise<OurConnection> {
    const { host, port, socketPath } = target;
    const address = (
      socketPath === undefined ? { host, port } : { host, port, socketPath }
    ) as ServerAddress;
    const open = async (paths: CertificatePaths) =>
      await Connection.open({ address, tls: tlsFiles(paths), software: SOFTWARE });
    const connection = await open(target.hostCertificate);
    return new OurConnection(
      connection,
      CHANNEL_OPERATIONS ? undefined : await open(target.operatorCertificate),
    );
  }

  /** A new execution of this user, open. */
  async execution(user: string): Promise<OurExecution> {
    const { token } = await this.#connection.call('execution.create', {
      user,
      variablesOf: { user },
      runtime: 'bash',
      event: event(user),
      timeoutMs: TIMEOUT_MS,
    });
    const { channel } = await this.#connection.call('execution.open', { token });
    return new OurExecution(this.#connection, this.#operator, channel, { user });
  }

  [Symbol.dispose](): void {
    this.#connection[Symbol.dispose]();
    this.#operator?.[Symbol.dispose]();
  }
}

/** For operations that this version's table may not have, or not so. */
type Untyped = (
  op: string,
  params: object,
  options?: { channel: number },
) => Promise<{ text: string }>;

export class OurExecution {
  readonly #operator: Untyped | undefined;
  readonly #call: Untyped;
  readonly #channel: number;
  readonly #namespace: Namespace;

  constructor(
    connection: Connection,
    operator: Connection | undefined,
    channel: number,
    namespace: Namespace,
  ) {
    this.#call = connection.call.bind(connection) as unknown as Untyped;
    this.#operator = operator?.call.bind(operator) as unknown as Untyped | undefined;
    this.#channel = channel;
    this.#namespace = namespace;
  }

  async get(key: string): Promise<string> {
    const answer =
      this.#operator === undefined
        ? await this.#call('variable.get', { key }, { channel: this.#channel })
        : await this.#operator('variable.get', { namespace: this.#namespace, key });
    return answer.text;
  }

  /** Resolves once durable. */
  async set(key: string, text: string): Promise<void> {
    const commitId = randomUUID();
    const options = { channel: this.#channel };
    if (CHANNEL_OPERATIONS) await this.#call('variable.set', { key, text, commitId }, options);
    else {
      const edit = { set: [[key, text]], delete: [], bases: [], commitId };
      await this.#call('variables.commit', edit, options);
    }
  }
}

export function tlsFiles({ ca, cert, key }: CertificatePaths): TlsFiles {
  const read = (path: string) => readFileSync(path, 'utf8');
  return { ca: read(ca), cert: read(cert), key: read(key), certPath: cert };
}

const event = (user: string) => ({
  id: 1,
  name: 'bench',
  description: null,
  type: 'SCRIPT',
  runLocation: 'LOCAL',
  createdAt: '2026-01-01T00:00:00.000Z',
  updatedAt: '2026-01-01T00:00:00.000Z',
  userId: user,
  server: null,
  successCount: 0,
  failureCount: 0,
  lastRunAt: null,
});
