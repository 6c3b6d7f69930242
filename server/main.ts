/** The server process: composes everything, runs until told to stop. */
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { pino } from 'pino';
import { asBridgeError } from '#bridge/wire/errors.js';
import { Tokens } from './auth/tokens.js';
import { ServerConfig } from './config.js';
import { Listener } from './listen/listener.js';
import { Audit } from './services/audit.js';
import { Executions } from './services/executions.js';
import { MergePolicies } from './services/merge-policies.js';
import { Variables } from './services/variables.js';
import { Session } from './session/session.js';
import { EncryptedStore } from './store/encrypted-store.js';
import { Keyring } from './store/keyring.js';
import { LevelStore } from './store/level-store.js';

const config = ServerConfig.parse(JSON.parse(process.argv[2] ?? ''));
const log = pino({ level: config.logLevel, base: { process: 'server' } });
const startedAt = Date.now();
process.umask(0o077);

async function serve(): Promise<void> {
  const stopped = new Promise<void>((resolve) => {
    process.once('SIGTERM', () => resolve());
    process.once('SIGINT', () => resolve());
  });
  // The starter has heard that we are ready and goes.
  process.once('disconnect', () => {});

  const fresh = !existsSync(join(config.database, 'CURRENT'));
  // The store first: whoever has it is the only one to make keys for it.
  const level = await LevelStore.open(config.database, {
    integrityKey: () => Buffer.alloc(32),
    onError: (error) => log.error({ err: error }, 'a watcher failed'),
  });
  let keyring: Keyring;
  try {
    keyring = Keyring.open({ keyring: config.keyring, masterKey: config.masterKey }, fresh);
  } catch (error) {
    await level[Symbol.asyncDispose]();
    throw error;
  }
  await using store = new EncryptedStore(level, keyring);
  await using audit = await Audit.open(store, (error) =>
    log.error({ reason: error.message }, 'the audit log waits'),
  );
  const sessions = new Set<Session>();
  const policies = new MergePolicies(store);
  const services = {
    tokens: Tokens.open(config.tokenKey),
    variables: new Variables(store, policies),
    policies,
    executions: new Executions(store),
    audit,
    status: () => ({
      software: config.software,
      startedAt,
      connections: sessions.size,
      channels: [...sessions].reduce((sum, session) => sum + session.channels, 0),
      storeVersion: store.version,
    }),
  };
  await using listener = await Listener.open({
    ...config.listen,
    tls: {
      ca: readFileSync(config.tls.ca, 'utf8'),
      cert: readFileSync(config.tls.cert, 'utf8'),
      key: readFileSync(config.tls.key, 'utf8'),
    },
    log,
    connect: (identity, send) => {
      const session = new Session(identity, services, log, send);
      sessions.add(session);
      return {
        receive: (bytes) => session.receive(bytes),
        close: (reason) => {
          sessions.delete(session);
          session.close(reason);
        },
      };
    },
  });
  process.send?.({ state: 'ready', port: listener.port });
  log.info({ host: config.listen.host, port: listener.port }, 'listening');
  await stopped;
  log.info('stopping');
}

serve().then(
  () => process.exit(0),
  (error: unknown) => {
    const { message } = asBridgeError(error);
    log.fatal({ reason: message }, 'cannot serve');
    if (process.send === undefined || !process.connected) process.exit(1);
    process.send({ state: 'failed', message }, () => process.exit(1));
  },
);
