import { createReadStream, existsSync, renameSync, rmSync } from 'node:fs';
import { open } from 'node:fs/promises';
import { setTimeout as sleep } from 'node:timers/promises';
import { BridgeError, errnoCode } from '#bridge/wire/errors.js';
import { Installation } from '#server/admin/installation.js';
import { State } from '#server/admin/state.js';
import { atMost, COMMON, command, type Io, Misuse } from './command.js';
import { namespaceOf } from './values.js';

const MIB = 1024 * 1024;
/** How often a rotation is asked how far it is. */
const POLL_MS = 300;

/** The database's programs take longer to load than most commands to run. */
const offline = async () => await import('#server/admin/offline-store.js');

const installation = (state: string | undefined, { env }: Io) =>
  new Installation(State.of(state, env));

const storeVerify = command({
  name: 'store verify',
  summary: 'Read and check every stored record',
  usage: 'cronium store verify [--json]',
  help: [
    'With the server running a copy is checked, so nobody waits; else the database itself.',
    'Exit code 1 when something is damaged or missing.',
    '',
    'example: cronium store verify',
  ].join('\n'),
  options: COMMON,
  async run({ positionals, values }, io) {
    atMost(positionals, 0);
    const target = installation(values.state, io);
    io.err('reading every record ...');
    const report =
      target.server.pid === undefined
        ? await (await offline()).verifyStore(target.state, (records) =>
            io.err(`  ${records} records`),
          )
        : await verifyRunning(target);
    if (values.json) io.out(`${JSON.stringify(report)}\n`);
    else if (report.problems.length === 0)
      io.out(`intact: ${report.records} records as of commit ${report.version}\n`);
    else for (const problem of report.problems) io.out(`${problem}\n`);
    if (report.problems.length > 0)
      io.err('damaged: put a backup back with: cronium store restore FILE');
    return report.problems.length === 0 ? 0 : 1;
  },
});

async function verifyRunning(target: Installation) {
  using server = await target.operator();
  // It takes as long as the database is large.
  return await server.call('store.verify', {}, { deadlineMs: 24 * 60 * 60 * 1000 });
}

const storeCompact = command({
  name: 'store compact',
  summary: 'Give the space of deleted data back to the disk',
  usage: 'cronium store compact [--json]',
  help: 'The server goes on meanwhile, somewhat slower.\n\nexample: cronium store compact',
  options: COMMON,
  async run({ positionals, values }, io) {
    atMost(positionals, 0);
    using server = await installation(values.state, io).operator();
    await server.call('store.compact', {}, { deadlineMs: 24 * 60 * 60 * 1000 });
    if (values.json) io.out('{}\n');
    return 0;
  },
});

const storeBackup = command({
  name: 'store backup',
  summary: 'Write a backup of everything stored to a file, while the server runs',
  usage: 'cronium store backup FILE [--json]',
  help: [
    'The file holds one moment: every record, encrypted as it is stored, and the keyring, wrapped by the master key.',
    'Without the master key it is of no use to anybody: keep a copy of that elsewhere.',
    '',
    'example: cronium store backup /backup/cronium-$(date +%F).bak',
  ].join('\n'),
  options: COMMON,
  async run({ positionals, values }, io) {
    atMost(positionals, 1);
    const [file] = positionals;
    if (file === undefined) throw new Misuse('back up to which file?');
    if (existsSync(file)) throw new Misuse(`${file} is there already; choose another name`);
    using server = await installation(values.state, io).operator();
    // Under another name until it is whole: a file that looks like a backup must be one.
    const partial = `${file}.partial`;
    let bytes = 0;
    let told = 0;
    const out = await open(partial, 'wx', 0o600).catch((cause: unknown) => {
      throw new BridgeError(
        'denied',
        `cannot write ${partial}: ${errnoCode(cause) ?? String(cause)}; choose another place`,
        { cause },
      );
    });
    try {
      for (let id: number | undefined; ; ) {
        io.signal.throwIfAborted();
        const request = id === undefined ? {} : { id };
        const { piece, done, ...next } = await server.call('store.backup', request);
        id = next.id;
        await out.writeFile(piece);
        bytes += piece.byteLength;
        if (bytes - told >= 64 * MIB) {
          told = bytes;
          io.err(`  ${Math.round(bytes / MIB)} MiB`);
        }
        if (done) break;
      }
      await out.sync();
      await out.close();
      renameSync(partial, file);
    } catch (error) {
      await out.close().catch(() => {}); // it may be closed already
      rmSync(partial, { force: true });
      throw error;
    }
    if (values.json) io.out(`${JSON.stringify({ file, bytes })}\n`);
    else io.err(`wrote ${file}, ${bytes} bytes; it needs the master key to be restored`);
    return 0;
  },
});

const storeRestore = command({
  name: 'store restore',
  summary: 'Replace the database by a backup; the server must be down',
  usage: 'cronium store restore FILE [--json]',
  help: [
    'The backup is checked from beginning to end before anything is replaced. The database and keyring that were there',
    'are kept beside it, as db.before-TIME and keyring.json.before-TIME.',
    '',
    'example: cronium down && cronium store restore /backup/monday.bak && cronium up',
  ].join('\n'),
  options: COMMON,
  async run({ positionals, values }, io) {
    atMost(positionals, 1);
    const [file] = positionals;
    if (file === undefined) throw new Misuse('restore which file?');
    if (!existsSync(file)) throw new Misuse(`there is no file ${file}`);
    const target = installation(values.state, io);
    if (target.server.pid !== undefined)
      throw new BridgeError('busy', 'the server runs; stop it first with: cronium down');
    const { restoreStore } = await offline();
    const restored = await restoreStore(target.state, createReadStream(file), (records) =>
      io.err(`  ${records} records`),
    );
    if (values.json) io.out(`${JSON.stringify(restored)}\n`);
    else
      io.err(
        `restored ${restored.records} records as of commit ${restored.version}; what was there before is in ${restored.before ?? 'nothing'}`,
      );
    return 0;
  },
});

const keysStatus = command({
  name: 'keys status',
  summary: 'Show how many keys encrypt the store, how old they are, and how a rotation goes',
  usage: 'cronium keys status [--json]',
  help: 'example: cronium keys status --json | jq .rotation',
  options: COMMON,
  async run({ positionals, values }, io) {
    atMost(positionals, 0);
    using server = await installation(values.state, io).operator();
    const status = await server.call('keys.status', {});
    if (values.json) io.out(`${JSON.stringify(status)}\n`);
    else
      for (const [name, value] of Object.entries(status))
        io.out(`${name.padEnd(16)} ${typeof value === 'object' ? JSON.stringify(value) : value}\n`);
    return 0;
  },
});

const keysRotate = command({
  name: 'keys rotate',
  summary: 'Replace the data keys and encrypt everything anew, or replace the master key',
  usage: 'cronium keys rotate [--master | --user ID | --org ID] [--no-wait] [--json]',
  help: [
    '  --user ID, --org ID  only the data key of one namespace',
    '  --master             the key that wraps all others instead. One in a file is made anew; one that a command prints must',
    '                       have been changed where the command takes it from',
    '  --no-wait            do not wait until everything is encrypted anew',
    '',
    'The server goes on serving. Old data keys are dropped once nothing needs them.',
    '',
    'example: cronium keys rotate --org acme',
  ].join('\n'),
  options: {
    ...COMMON,
    user: { type: 'string' },
    org: { type: 'string' },
    master: { type: 'boolean', default: false },
    'no-wait': { type: 'boolean', default: false },
  },
  async run({ positionals, values }, io) {
    atMost(positionals, 0);
    const isOne = values.user !== undefined || values.org !== undefined;
    if (values.master && isOne)
      throw new Misuse('--master is for all namespaces: leave out --user and --org');
    using server = await installation(values.state, io).operator();
    if (values.master) {
      await server.call('keys.rotate-master', {});
      if (values.json) io.out('{}\n');
      else io.err('the keyring is wrapped by a new master key: keep a copy of it');
      return 0;
    }
    await server.call('keys.rotate', isOne ? { namespace: namespaceOf(values) } : {});
    for (;;) {
      const { rotation } = await server.call('keys.status', {});
      if (rotation?.state === 'running' && !values['no-wait']) {
        io.signal.throwIfAborted();
        await sleep(POLL_MS);
        continue;
      }
      if (values.json) io.out(`${JSON.stringify(rotation)}\n`);
      else if (rotation?.state === 'failed')
        io.err(`not finished: ${rotation.problem}; run it again`);
      else if (rotation?.state === 'done')
        io.err(
          `${rotation.sealed} records encrypted anew, ${rotation.droppedKeys} old keys dropped`,
        );
      return rotation?.state === 'failed' ? 1 : 0;
    }
  },
});

const namespaceErase = command({
  name: 'namespace erase',
  summary: 'Erase everything of a user or organisation, in backups too',
  usage: 'cronium namespace erase (--user ID | --org ID) --yes [--json]',
  help: [
    'Destroys the keys of the namespace first: from then on nobody can read its variables and results, wherever copies of',
    'them are, unless somebody also kept an older keyring. Then the records are deleted. It cannot be undone.',
    '',
    'example: cronium namespace erase --user ada --yes',
  ].join('\n'),
  options: {
    ...COMMON,
    user: { type: 'string' },
    org: { type: 'string' },
    yes: { type: 'boolean', default: false },
  },
  async run({ positionals, values }, io) {
    atMost(positionals, 0);
    if (values.user === undefined && values.org === undefined)
      throw new Misuse('erase whose data? give --user ID or --org ID');
    if (!values.yes) throw new Misuse('this cannot be undone; say so with --yes');
    using server = await installation(values.state, io).operator();
    await server.call(
      'namespace.erase',
      { namespace: namespaceOf(values) },
      { deadlineMs: 60 * 60 * 1000 },
    );
    if (values.json) io.out('{}\n');
    else io.err('erased');
    return 0;
  },
});

export const STORE_COMMANDS = [
  storeVerify,
  storeBackup,
  storeRestore,
  storeCompact,
  keysStatus,
  keysRotate,
  namespaceErase,
];
