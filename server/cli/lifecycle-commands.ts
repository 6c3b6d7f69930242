import { DRIVERS, DriverName, type MountdStatus } from '#bridge/wire/control.js';
import { asBridgeError } from '#bridge/wire/errors.js';
import { Installation } from '#server/admin/installation.js';
import { State, WARM_MAX } from '#server/admin/state.js';
import { atMost, COMMON, command, type Io, Misuse } from './command.js';

const installation = (state: string | undefined, { env }: Io) =>
  new Installation(State.of(state, env));

export const up = command({
  name: 'up',
  summary: 'Start server and mountd on this machine',
  usage:
    'cronium up [--state DIR] [--listen HOST:PORT] [--driver NAME] [--warm COUNT] [--volume-plugin [NAME] | --no-volume-plugin] [--master-key-command COMMAND] [--damaged] [--log-level LEVEL] [--json]',
  help: [
    'The first start creates a certificate authority, the certificates of server, host and operator, the',
    'encryption keys and the database, all in the state directory. Starting twice is fine.',
    '',
    '  --state DIR          where everything is kept (default /var/lib/cronium, or CRONIUM_STATE)',
    '  --listen HOST:PORT   where the server listens (default 127.0.0.1 and a free port, kept from then on)',
    '  --driver NAME        kernel (default), or fuse-native where that cannot be used: slower, no shared mappings,',
    '                       and a script that waits for the server cannot be killed; docs/drivers.md has the rest',
    '  --warm COUNT         containers that are started before a script asks for them (default 2, 0 for none; kept from',
    '                       then on): they are of the kinds that were run last, and each serves one script',
    '  --volume-plugin [NAME]  serve prepared executions to Docker as volumes of this driver (default name cronium), kept from',
    '                       then on; see: cronium exec create --help; --no-volume-plugin: not any more',
    '  --master-key-command COMMAND  prints the key that wraps all others, 32 bytes in base64url, instead of the file',
    '                       STATE/server/master.key; kept from then on',
    '  --damaged            serve a store that is damaged, for reading only: to save what is left',
    '  --log-level LEVEL    fatal, error, warn, info (default), debug or trace; logs are in STATE/log',
    '',
    'example: cronium up && cronium run hello.sh',
  ].join('\n'),
  options: {
    ...COMMON,
    listen: { type: 'string' },
    driver: { type: 'string', default: 'kernel' },
    'volume-plugin': { type: 'string' },
    'no-volume-plugin': { type: 'boolean', default: false },
    'log-level': { type: 'string', default: 'info' },
    warm: { type: 'string' },
    'master-key-command': { type: 'string' },
    damaged: { type: 'boolean', default: false },
  },
  impliedValues: { 'volume-plugin': 'cronium' },
  async run({ positionals, values }, io) {
    atMost(positionals, 0);
    const target = installation(values.state, io);
    const level = logLevel(values['log-level']);
    const driver = DriverName.safeParse(values.driver);
    if (!driver.success)
      throw new Misuse(`--driver ${values.driver}: there are ${DRIVERS.join(' and ')}`);
    const warm = values.warm === undefined ? undefined : Number(values.warm);
    if (warm !== undefined && !(Number.isInteger(warm) && warm >= 0 && warm <= WARM_MAX))
      throw new Misuse(`--warm ${values.warm}: write a number from 0 to ${WARM_MAX}`);
    const isLate = warm !== undefined && target.mountd.pid !== undefined;
    const started = await target.up({
      listen: values.listen === undefined ? undefined : address(values.listen),
      logLevel: level,
      driver: driver.data,
      warm,
      volumePlugin: volumePlugin(values['volume-plugin'], values['no-volume-plugin']),
      masterKeyCommand: values['master-key-command'],
      damaged: values.damaged,
    });
    if (isLate)
      io.err(
        'mountd runs already; --warm takes effect after: cronium down && cronium up --warm COUNT',
      );
    const { host, port } = target.state.settings().listen;
    if (values.json)
      io.out(`${JSON.stringify({ started, host, port, state: target.state.directory })}\n`);
    else if (started.length === 0) io.err(`already running: the server listens on ${host}:${port}`);
    else
      io.err(
        `started ${started.join(' and ')}: the server listens on ${host}:${port}, state in ${target.state.directory}`,
      );
    return 0;
  },
});

/** Null: none; undefined: as before. */
function volumePlugin(name: string | undefined, isOff: boolean): string | null | undefined {
  if (isOff && name !== undefined)
    throw new Misuse('--volume-plugin and --no-volume-plugin exclude each other');
  if (isOff) return null;
  if (name !== undefined && !/^[a-z0-9][a-z0-9_.-]{0,31}$/.test(name))
    throw new Misuse(
      `--volume-plugin ${name}: use 1-32 small letters, digits, "_", "." or "-" for a name`,
    );
  if (name === 'local') throw new Misuse("--volume-plugin local: that is Docker's own driver");
  return name;
}

export const down = command({
  name: 'down',
  summary: 'Stop mountd and server; running scripts are ended first',
  usage: 'cronium down [--state DIR] [--json]',
  help: 'Everything committed stays.\n\nexample: cronium down',
  options: COMMON,
  async run({ positionals, values }, io) {
    atMost(positionals, 0);
    const stopped = await installation(values.state, io).down();
    if (values.json) io.out(`${JSON.stringify({ stopped })}\n`);
    else io.err(stopped.length === 0 ? 'nothing was running' : `stopped ${stopped.join(' and ')}`);
    return 0;
  },
});

export const upgrade = command({
  name: 'upgrade',
  summary: 'Replace the mountd and server that run by this version; scripts go on',
  usage: 'cronium upgrade [--state DIR] [--log-level LEVEL] [--json]',
  help: [
    'Run it from the new version. Executions go on; scripts see a pause, as when mountd or the server dies.',
    'When this version cannot read what the running one notes, it says so and nothing is changed. With the driver',
    'fuse-native, or before Linux 6.9, nothing can be handed over: use cronium down and up.',
    '',
    '  --log-level LEVEL    fatal, error, warn, info (default), debug or trace',
    '',
    'example: npm install && cronium upgrade',
  ].join('\n'),
  options: { ...COMMON, 'log-level': { type: 'string', default: 'info' } },
  async run({ positionals, values }, io) {
    atMost(positionals, 0);
    const target = installation(values.state, io);
    const { executions, prepared = [] } = await target.upgrade(logLevel(values['log-level']));
    const count = executions.length + prepared.length;
    using mountd = await target.control();
    const { software, pid } = await mountd.call('status', {});
    if (values.json) io.out(`${JSON.stringify({ software, pid, executions: count })}\n`);
    else io.err(`${software} serves now; executions that go on: ${count}`);
    return 0;
  },
});

function logLevel(level: string): string {
  if (!/^(fatal|error|warn|info|debug|trace)$/.test(level))
    throw new Misuse(`--log-level ${level}: no such level`);
  return level;
}

export const status = command({
  name: 'status',
  summary: 'Show whether server and mountd run, and what they do',
  usage: 'cronium status [--state DIR] [--json]',
  help: 'Exit code 0 when both run and are connected, 1 otherwise.\n\nexample: cronium status --json | jq .mountd.executions',
  options: COMMON,
  async run({ positionals, values }, io) {
    atMost(positionals, 0);
    const target = installation(values.state, io);
    const { host, port } = target.state.settings().listen;
    const [server, mountd] = await Promise.all([
      problemOr(async () => {
        using connection = await target.operator();
        return await connection.call('server.status', {});
      }),
      problemOr(async () => {
        using connection = await target.control();
        return await connection.call('status', {});
      }),
    ]);
    const problems = 'problem' in server ? [] : server.problems;
    const well =
      !('problem' in server) &&
      problems.length === 0 &&
      !('problem' in mountd) &&
      mountd.link.connected;
    if (values.json) {
      io.out(
        `${JSON.stringify({ well, address: `${host}:${port}`, state: target.state.directory, server, mountd })}\n`,
      );
    } else {
      io.out(
        'problem' in server
          ? `server  down: ${server.problem}\n`
          : `server  up as process ${server.pid} on ${host}:${port} since ${new Date(server.startedAt).toISOString()}${restarted(server.restarts)}, ${server.channels} executions open, ${server.storeVersion} commits stored\n`,
      );
      for (const problem of problems) io.out(`        the store can only be read: ${problem}\n`);
      io.out(
        'problem' in mountd ? `mountd  down: ${mountd.problem}\n` : `${mountdLines(mountd)}\n`,
      );
    }
    return well ? 0 : 1;
  },
});

const restarted = (times: number): string =>
  times === 0 ? '' : `, restarted ${times === 1 ? 'once' : `${times} times`}`;

async function problemOr<T>(ask: () => Promise<T>): Promise<T | { problem: string }> {
  try {
    return await ask();
  } catch (error) {
    return { problem: asBridgeError(error).message };
  }
}

function mountdLines({
  pid,
  mount,
  driver,
  link,
  waiting = 0,
  executions,
  prepared = [],
}: MountdStatus): string {
  const connected = link.connected ? 'connected' : `not connected: ${link.problem ?? 'unknown'}`;
  return [
    `mountd  up as process ${pid}, mount ${mount} (driver ${driver}), ${connected}${waiting === 0 ? '' : `; containers that wait for a script: ${waiting}`}`,
    ...executions.map(
      ({ executionId, runtime, startedAt, script }) =>
        `        ${executionId}  ${runtime}  ${script}  since ${new Date(startedAt).toISOString()}`,
    ),
    ...prepared.map(
      ({ executionId, runtime, isMounted, expiresAt }) =>
        `        ${executionId}  ${runtime ?? 'container'}  prepared${isMounted ? ' and mounted' : ''}, to be finished before ${new Date(expiresAt).toISOString()}`,
    ),
  ].join('\n');
}

function address(text: string): { host: string; port: number } {
  const match = /^\[?([^[\]]+)\]?:(\d{1,5})$/.exec(text);
  const [, host, port] = match ?? [];
  if (host === undefined || port === undefined || Number(port) > 65_535)
    throw new Misuse(`--listen ${text}: write HOST:PORT, as in 127.0.0.1:7443`);
  return { host, port: Number(port) };
}
