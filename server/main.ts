/** The server process: composes everything, runs until told to stop. */
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { pino } from 'pino';
import { asBridgeError } from '#bridge/wire/errors.js';
import { Tokens } from './auth/tokens.js';
import { ServerConfig } from './config.js';
import { Listener } from './listen/listener.js';
import { Runtime } from './runtime.js';
import { EncryptedStore } from './store/encrypted-store.js';
import { Keyring } from './store/keyring.js';
import { LevelStore } from './store/level-store.js';
import { masterKeyFile } from './store/master-key.js';

const config = ServerConfig.parse(JSON.parse(process.argv[2] ?? ''));
const log = pino({ level: config.logLevel, base: { process: 'server' } });
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
    keyring = Keyring.open(
      { keyring: config.keyring, master: masterKeyFile(config.masterKey) },
      fresh,
    );
  } catch (error) {
    await level[Symbol.asyncDispose]();
    throw error;
  }
  await using store = new EncryptedStore(level, keyring);
  const tokens = Tokens.open(config.tokenKey, () => store.now());
  await using runtime = await Runtime.open(store, { tokens, log, software: config.software });
  await using listener = await Listener.open({
    ...config.listen,
    tls: {
      ca: readFileSync(config.tls.ca, 'utf8'),
      cert: readFileSync(config.tls.cert, 'utf8'),
      key: readFileSync(config.tls.key, 'utf8'),
    },
    log,
    isRevoked: (thumbprint) => runtime.services.revocations.isRevoked(thumbprint),
    connect: (identity, send) => runtime.connect(identity, send),
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
