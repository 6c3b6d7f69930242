import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { SOFTWARE } from '#server/admin/installation.js';
import { State } from '#server/admin/state.js';
import type { ServerConfig } from '#server/config.js';
import type { CertificatePaths, OurTarget } from './our-client.js';
import { ROOT } from './running.js';
import { Started } from './started.js';

/** tcpmux: nobody has listened there for decades. */
const NOBODY = 1;

/** For the server that is compared with peers that have no rate limits: as good as none. */
const NO_LIMIT = { burst: 1_000_000_000, perSecond: 1_000_000_000 };
const WITHOUT_LIMITS: Partial<ServerConfig> = {
  rates: {
    rates: Object.fromEntries(
      ['execution', 'namespace', 'peer'].map((limited) => [
        limited,
        { read: NO_LIMIT, write: NO_LIMIT, admin: NO_LIMIT },
      ]),
    ),
    inFlight: { execution: 1_000_000, namespace: 1_000_000, peer: 1_000_000 },
  },
};

export interface OurServer {
  readonly started: Started;
  readonly target: { readonly tcp: OurTarget; readonly unix: OurTarget };
}

/** Certificates and files of one installation in a directory of the bench. */
export class OurState {
  readonly #state: State;

  private constructor(state: State) {
    this.#state = state;
  }

  static async make(directory: string): Promise<OurState> {
    mkdirSync(directory, { mode: 0o700 });
    const state = new State(directory);
    state.prepareDirectories();
    await state.prepareCertificates();
    return new OurState(state);
  }

  certificate(of: 'server' | 'host' | 'operator'): CertificatePaths {
    return { ca: this.#state.certificate('ca').cert, ...this.#state.certificate(of) };
  }

  /** Our server as `cronium up` starts it, without mountd, on a free port of loopback. */
  async startServer(limits: 'default limits' | 'no limits'): Promise<OurServer> {
    const { path } = this.#state;
    const socketPath = path('run', 'server.sock');
    const config: ServerConfig = {
      software: SOFTWARE,
      listen: { host: '127.0.0.1', port: 0 },
      socket: socketPath,
      database: path('server', 'db'),
      keyring: path('server', 'keyring.json'),
      masterKey: { file: path('server', 'master.key') },
      damaged: false,
      tokenKey: path('server', 'token.key'),
      tls: this.certificate('server'),
      logLevel: 'info', // the default of `cronium up`
      processFile: path('run', 'server-process.json'),
      restarts: 0,
      ...(limits === 'no limits' && WITHOUT_LIMITS),
    };
    const started = await Started.start(process.execPath, [
      '--enable-source-maps',
      join(ROOT, 'dist/server/main.js'),
      JSON.stringify(config),
    ]);
    const { port } = started.message as { port: number };
    const tcp: OurTarget = {
      host: '127.0.0.1',
      port,
      certificate: this.certificate('host'),
    };
    // Should the client fall back to TCP where the socket does not answer, it finds nothing there.
    const unix = { ...tcp, port: NOBODY, socketPath };
    return { started, target: { tcp, unix } };
  }
}
