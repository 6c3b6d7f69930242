// How the benches speak to our server. What they measure follows the protocol here, and nowhere else.
import { randomUUID } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { Connection, type TlsFiles } from '#bridge/client/connection.js';
import type { VariableKey } from '#bridge/wire/names.js';

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
  readonly certificate: CertificatePaths;
}

/** One host's connection. */
export class OurConnection implements Disposable {
  readonly #connection: Connection;

  private constructor(connection: Connection) {
    this.#connection = connection;
  }

  static async open({ host, port, socketPath, certificate }: OurTarget): Promise<OurConnection> {
    const address = { host, port, ...(socketPath !== undefined && { socketPath }) };
    const tls = tlsFiles(certificate);
    return new OurConnection(await Connection.open({ address, tls, software: SOFTWARE }));
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
    return new OurExecution(this.#connection, channel);
  }

  [Symbol.dispose](): void {
    this.#connection[Symbol.dispose]();
  }
}

export class OurExecution {
  readonly #connection: Connection;
  readonly #options: { readonly channel: number };

  constructor(connection: Connection, channel: number) {
    this.#connection = connection;
    this.#options = { channel };
  }

  async get(key: string): Promise<string> {
    const { text } = await this.#connection.call(
      'variable.get',
      { key: key as VariableKey },
      this.#options,
    );
    return text ?? '';
  }

  /** Resolves once durable. */
  async set(key: string, text: string): Promise<void> {
    const commitId = randomUUID();
    const params = { key: key as VariableKey, text, commitId };
    await this.#connection.call('variable.set', params, this.#options);
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
