import {
  chmodSync,
  chownSync,
  copyFileSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { PassThrough } from 'node:stream';
import { text } from 'node:stream/consumers';
import { finished } from 'node:stream/promises';
import { fileURLToPath } from 'node:url';
import type Docker from 'dockerode';
import type { EventDocument } from '#bridge/wire/protocol.js';
import { sourceMembers } from './source-members.js';

/** What a run amounts to, whoever ran it. */
export interface Result {
  readonly succeeded: boolean;
  readonly exitCode: number;
  readonly stdout: string;
  readonly stderr: string;
  /** JSON source text; null when there is none. */
  readonly output: string | null;
  readonly condition: boolean | null;
  /** What is stored afterwards, in document order: key and JSON source text. */
  readonly variables: readonly (readonly [string, string])[];
  readonly warnings: readonly string[];
}

/** The file a warning is about. */
export type WarningKind = 'variables' | 'output' | 'condition';

export type Extension = 'sh' | 'py' | 'js';

export interface Job {
  readonly extension: Extension;
  readonly script: Buffer;
  readonly input: string;
  readonly event: EventDocument;
  /** The environment of the event. */
  readonly env: Readonly<Record<string, string>>;
  /** Stored variables: key and JSON source text. */
  readonly given: Readonly<Record<string, string>>;
  readonly exact: boolean;
  readonly commit: 'live' | 'on-success';
}

/** How the legacy executor started each language. */
const LAUNCH = {
  sh: {
    image: 'cronium-bash:latest',
    command: 'bash',
    helper: 'cronium.sh',
    prelude: '#!/bin/bash\nsource ./cronium.sh\n\n',
  },
  py: {
    image: 'cronium-python:latest',
    command: 'python',
    helper: 'cronium.py',
    prelude: 'import cronium\n\n',
  },
  js: {
    image: 'cronium-node:latest',
    command: 'node',
    helper: 'cronium.js',
    prelude: "const cronium = require('./cronium.js');\n\n",
  },
} as const satisfies Record<Extension, object>;

const HELPERS = fileURLToPath(new URL('../../../helpers-legacy/', import.meta.url));

/** A script that takes longer hangs: most end within a second, also on a loaded machine. */
const RUN_MS_MAX = 60_000;

/** User and group of the job containers. */
const OWNER = 1000;
const MIB = 1024 * 1024;

/**
 * Runs its arguments and ends with their exit code once nobody holds their stdout or stderr: each is a pipe that a `cat`
 * reads to its end, as Node's child_process did. The shell's own remarks ("Terminated") go nowhere.
 */
const RUN_AND_DRAIN = `
exec 3>&1 4>&2
{ { (exec "$@" 2>&6 3>&- 4>&- 5>&- 6>&-) 6>&1 >&5; echo $? >/tmp/.code; } 2>/dev/null | cat >&4; } 5>&1 | cat >&3
exit "$(cat /tmp/.code)"
`;

/**
 * The legacy rules, without any of our own machinery: the script with its prelude and helper in a plain directory that
 * holds the JSON files, run in a container of the same image under the same limits; what it left there is read afterwards.
 * A run that fails keeps its variables if they are committed live, as the event says, although nobody commits here.
 */
export async function runByLegacyRules(docker: Docker, job: Job): Promise<Result> {
  const directory = mkdtempSync(join(tmpdir(), 'cronium-corpus-'));
  try {
    const command = prepare(directory, job);
    const ended = await runContained(docker, LAUNCH[job.extension].image, directory, command);
    const succeeded = ended.exitCode === 0 && !(job.exact && ended.stderr !== '');
    return { succeeded, ...ended, ...readBack(directory, job, succeeded) };
  } finally {
    rmSync(directory, { recursive: true, force: true });
  }
}

/** Fills the run directory. Returns the command that runs the script there. */
function prepare(directory: string, job: Job): string[] {
  const { command, helper, prelude } = LAUNCH[job.extension];
  const script = `script_${Date.now()}.${job.extension}`;
  const file = (name: string, content: string | Buffer, mode = 0o644) => {
    writeFileSync(join(directory, name), content, { mode });
    chmodSync(join(directory, name), mode);
  };
  copyFileSync(join(HELPERS, helper), join(directory, helper));
  chmodSync(join(directory, helper), job.extension === 'sh' ? 0o755 : 0o644);
  file(script, Buffer.concat([Buffer.from(prelude), job.script]));
  file('input.json', job.input);
  file('event.json', JSON.stringify(job.event, null, 2));
  const members = Object.entries(job.given).map(
    ([key, text]) => `  ${JSON.stringify(key)}: ${text}`,
  );
  file('variables.json', members.length === 0 ? '{}' : `{\n${members.join(',\n')}\n}`);
  mkdirSync(join(directory, '.tmp'));
  for (const name of ['.', ...readdirSync(directory)])
    chownSync(join(directory, name), OWNER, OWNER);
  const environment = {
    ...job.env,
    PATH: '/usr/local/bin:/usr/bin:/bin',
    HOME: '/tmp',
    LANG: 'C.UTF-8',
    TZ: 'UTC',
    TMPDIR: '/cronium/work/.tmp',
  };
  const variables = Object.entries(environment).map(([name, value]) => `${name}=${value}`);
  return ['env', '-i', ...variables, command, script];
}

type Ended = Pick<Result, 'exitCode' | 'stdout' | 'stderr'>;

async function runContained(
  docker: Docker,
  image: string,
  directory: string,
  command: readonly string[],
): Promise<Ended> {
  const container = await docker.createContainer({
    Image: image,
    Cmd: ['sh', '-c', RUN_AND_DRAIN, 'sh', ...command],
    User: `${OWNER}:${OWNER}`,
    WorkingDir: '/cronium/work',
    Labels: { 'cronium.corpus': '1' },
    NetworkDisabled: true,
    AttachStdout: true,
    AttachStderr: true,
    HostConfig: {
      NetworkMode: 'none',
      CapDrop: ['ALL'],
      SecurityOpt: ['no-new-privileges:true'],
      ReadonlyRootfs: true,
      Init: true,
      Memory: 256 * MIB,
      MemorySwap: 256 * MIB,
      NanoCpus: 1e9,
      PidsLimit: 128,
      ShmSize: 16 * MIB,
      Ulimits: [
        { Name: 'nofile', Soft: 1024, Hard: 1024 },
        { Name: 'core', Soft: 0, Hard: 0 },
      ],
      Tmpfs: { '/tmp': `rw,noexec,nosuid,nodev,mode=1777,size=${64 * MIB}` },
      Binds: [`${directory}:/cronium/work`],
      LogConfig: { Type: 'none', Config: {} },
    },
  });
  try {
    const logs = await container.attach({ stream: true, stdout: true, stderr: true });
    const [out, err] = [new PassThrough(), new PassThrough()];
    docker.modem.demuxStream(logs, out, err);
    const written = Promise.all([text(out), text(err)]);
    const exited = container.wait({ condition: 'next-exit' }) as Promise<{ StatusCode: number }>;
    await container.start();
    const timer = setTimeout(() => void container.kill().catch(() => {}), RUN_MS_MAX);
    const { StatusCode: exitCode } = await exited;
    clearTimeout(timer);
    await finished(logs, { writable: false });
    out.end();
    err.end();
    const [stdout, stderr] = await written;
    return { exitCode, stdout, stderr };
  } finally {
    await container.remove({ force: true, v: true });
  }
}

/** Reads the results out of the directory, as the legacy executor did after the run. */
function readBack(
  directory: string,
  job: Job,
  succeeded: boolean,
): Pick<Result, 'output' | 'condition' | 'variables' | 'warnings'> {
  const warnings: WarningKind[] = [];
  /** What `read` makes of the file; undefined when there is none, or when `read` refuses it and a warning says so. */
  const result = <T>(kind: WarningKind, read: (text: string) => T | undefined): T | undefined => {
    const content = contentOf(join(directory, `${kind}.json`));
    if (content === undefined) return undefined;
    let value: T | undefined;
    try {
      value = read(content);
    } catch (error) {
      if (!(error instanceof SyntaxError)) throw error;
    }
    if (value === undefined) warnings.push(kind);
    return value;
  };
  const isKept = succeeded || job.commit === 'live';
  const variables = result('variables', (content) => variablesIn(content, job.exact));
  const output = result('output', (content) => {
    JSON.parse(content);
    return content.replace(/^[ \t\r\n]+|[ \t\r\n]+$/g, '');
  });
  const condition = result('condition', (content) => {
    const member = sourceMembers(content)?.get('condition');
    return member === undefined ? undefined : Boolean(JSON.parse(member));
  });
  return {
    output: output ?? null,
    condition: isKept ? (condition ?? null) : null,
    variables: [...((isKept && variables) || new Map(Object.entries(job.given)))],
    warnings,
  };
}

/** Undefined: this is no document of variables, and none of it is stored. */
function variablesIn(content: string, exact: boolean): Map<string, string> | undefined {
  const members = sourceMembers(content);
  members?.delete('__updated__');
  if (!exact) return members;
  if (members === undefined) return /^\s*\[\s*\]\s*$/.test(content) ? new Map() : undefined;
  return [...members.values()].every((value) => value.startsWith('"')) ? members : undefined;
}

/** As Node read it: invalid UTF-8 becomes U+FFFD, a byte-order mark stays. Undefined when the name leads nowhere. */
function contentOf(path: string): string | undefined {
  try {
    return readFileSync(path, 'utf8');
  } catch (error) {
    if (error instanceof Error && 'code' in error && error.code === 'ENOENT') return undefined;
    throw error;
  }
}
