/** The server process: composes everything, runs until told to stop. */
import { X509Certificate } from 'node:crypto';
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { pino } from 'pino';
import { asBridgeError, BridgeError } from '#bridge/wire/errors.js';
import { thumbprintOf } from './auth/identity.js';
import { Tokens } from './auth/tokens.js';
import { ServerConfig, type ServerReport } from './config.js';
import { Listener } from './listen/listener.js';
import { Metrics } from './metrics.js';
import { Runtime } from './runtime.js';
import { Maintenance } from './services/maintenance.js';
import { EncryptedStore } from './store/encrypted-store.js';
import { Keyring } from './store/keyring.js';
import { LargeValues, SWEEP_EVERY_MS } from './store/large-values.js';
import { LevelStore } from './store/level-store.js';
import { masterKeySource } from './store/master-key.js';

const config = ServerConfig.parse(JSON.parse(process.argv[2] ?? ''));
const log = pino({ level: config.logLevel, base: { process: 'server' } });
process.umask(0o077);

/** The supervisor takes a server for hung that says nothing for fifteen times as long. */
const ALIVE_EVERY_MS = 1_000;

/** To the supervisor; if it has just gone, nobody has to hear. */
function report(message: ServerReport): void {
  if (process.connected) process.send?.(message, undefined, undefined, () => {});
}

async function serve(): Promise<void> {
  const stopped = new Promise<void>((resolve) => {
    process.once('SIGTERM', () => resolve());
    process.once('SIGINT', () => resolve());
    // Without a supervisor nobody would start us again, and we would be in the way of whoever is started instead.
    const orphaned = () => {
      log.error('the supervisor is gone');
      resolve();
    };
    if (process.send !== undefined && !process.connected) orphaned();
    process.once('disconnect', orphaned);
  });

  const fresh = !existsSync(join(config.database, 'CURRENT'));
  // The keys of a database that is not there: it was lost, and a new one in its place would hide that.
  if (fresh && existsSync(config.keyring))
    throw new BridgeError(
      'internal',
      `the database ${config.database} is missing, but its keyring ${config.keyring} is there: put a backup back with: cronium store restore FILE; for an empty store, move the keyring away`,
    );
  const master = masterKeySource(config.masterKey);
  // Of a new store nobody but the one who has it makes keys: asked for again, they are there.
  let keyring: Keyring | undefined;
  const openKeyring = () => {
    keyring ??= Keyring.open({ keyring: config.keyring, master }, fresh);
    return keyring;
  };
  const level = await LevelStore.open(config.database, {
    integrityKey: () => openKeyring().integrityKey,
    readOnly: config.damaged,
    onError: (error) => log.error({ err: error }, 'the store'),
    progress: (records) => {
      log.info({ records }, 'checking the store after a crash');
      report({ state: 'starting' });
    },
  });
  const { problems } = level;
  for (const problem of problems) log.error({ problem }, 'the store is damaged: reading only');
  const encrypted = new EncryptedStore(level, openKeyring());
  if (problems.length === 0) await encrypted.finishShredding();
  await using store = await LargeValues.open(encrypted, {
    exclusive: true,
    readOnly: problems.length > 0,
    onError: (error) => log.error({ err: error }, 'the store'),
  });
  await using maintenance = new Maintenance({
    level,
    encrypted,
    keyring: openKeyring(),
    keyringFile: config.keyring,
  });
  const sweeper = setInterval(() => {
    store.sweep().catch((error: unknown) => log.error({ err: error }, 'chunks of nobody stay'));
  }, SWEEP_EVERY_MS).unref();
  const metrics = new Metrics(() => ({
    connections: runtime.connections,
    channels: runtime.channels,
    storeVersion: store.version,
  }));
  const tokens = Tokens.open(config.tokenKey, () => store.now());
  const tls = () => ({
    ca: readFileSync(config.tls.ca, 'utf8'),
    cert: readFileSync(config.tls.cert, 'utf8'),
    key: readFileSync(config.tls.key, 'utf8'),
  });
  await using runtime = await Runtime.open(store, {
    tokens,
    log,
    software: config.software,
    problems,
    maintenance,
    restarts: config.restarts,
    ...(config.rates && { rates: config.rates }),
    observe: (op, outcome, seconds) => metrics.observe(op, outcome, seconds),
    reload: async () => {
      const files = tls();
      listener.reloadCertificate(files);
      tokens.reload();
      const { validTo, raw } = new X509Certificate(files.cert);
      return {
        thumbprint: thumbprintOf(raw),
        notAfter: Date.parse(validTo),
        signingKey: tokens.keyId,
      };
    },
  });
  await using listener = await Listener.open({
    ...config.listen,
    socketPath: config.socket,
    tls: tls(),
    log,
    health: () => (problems.length === 0 ? 'ok' : 'read-only'),
    metrics: async () => await metrics.scrape(),
    admit: (identity) => runtime.admit(identity),
    refused: (reason, peer) => runtime.refused(reason, peer),
    connect: (identity, send) => runtime.connect(identity, send),
  });
  runtime.services.variables.cache.looked = (hit) => metrics.looked('variables', hit);
  runtime.disconnect = (isUnwelcome, reason) => listener.disconnect(isUnwelcome, reason);
  report({ state: 'ready', port: listener.port });
  setInterval(() => report({ state: 'alive' }), ALIVE_EVERY_MS).unref();
  log.info({ host: config.listen.host, port: listener.port }, 'listening');
  await stopped;
  clearInterval(sweeper);
  log.info('stopping');
}

serve().then(
  () => process.exit(0),
  (error: unknown) => {
    const { message } = asBridgeError(error);
    log.fatal({ reason: message }, 'cannot serve');
    if (process.send === undefined || !process.connected) process.exit(1);
    process.send({ state: 'failed', message } satisfies ServerReport, () => process.exit(1));
  },
);
