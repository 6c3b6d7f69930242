import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import type { TreeFile } from '#bridge/vfs/waiting-tree.js';
import type { RuntimeName } from '#bridge/wire/control.js';

interface LaunchRow {
  readonly extension: string;
  readonly image: string;
  /** Interpreter as legacy called it; the script's name follows. */
  readonly command: string;
  /** What the legacy executor put before the script (`--compat exact`). */
  readonly prelude: string;
  /** How the helper gets into an unchanged script: a file run first, and the environment variable that makes it so. */
  readonly injection: {
    readonly file: string;
    readonly text: string;
    readonly env: readonly [string, string];
  };
}

/**
 * How each runtime is launched. The injected file takes its variable out of the environment again, so that the script
 * and its children see only what they should; line numbers stay the author's.
 */
export const LAUNCH: { readonly [R in RuntimeName]: LaunchRow } = {
  bash: {
    extension: 'sh',
    image: 'cronium-bash:latest',
    command: 'bash',
    prelude: '#!/bin/bash\nsource ./cronium.sh\n\n',
    injection: {
      file: '.launch/bash-env.sh',
      // HOSTNAME comes from Docker; bash has a variable of that name anyway, scripts' children never had.
      text: 'unset BASH_ENV\nexport -n HOSTNAME\nsource ./cronium.sh\n',
      env: ['BASH_ENV', '/cronium/.launch/bash-env.sh'],
    },
  },
  python: {
    extension: 'py',
    image: 'cronium-python:latest',
    command: 'python',
    prelude: 'import cronium\n\n',
    injection: {
      file: '.launch/python/sitecustomize.py',
      text: [
        'import builtins, os, sys',
        "os.environ.pop('PYTHONPATH', None)",
        "os.environ.pop('HOSTNAME', None)",
        'sys.path.remove(os.path.dirname(__file__))',
        'sys.path.insert(0, os.getcwd())',
        'try:',
        '    import cronium',
        '    builtins.cronium = cronium',
        'finally:',
        '    sys.path.pop(0)',
        '# A pipe is block-buffered; whoever follows the log wants lines.',
        'sys.stdout.reconfigure(line_buffering=True)',
        '',
      ].join('\n'),
      env: ['PYTHONPATH', '/cronium/.launch/python'],
    },
  },
  node: {
    extension: 'js',
    image: 'cronium-node:latest',
    command: 'node',
    prelude: "const cronium = require('./cronium.js');\n\n",
    injection: {
      file: '.launch/preload.cjs',
      text: "delete process.env.NODE_OPTIONS;\ndelete process.env.HOSTNAME;\nrequire('/cronium/work/cronium.js');\n",
      env: ['NODE_OPTIONS', '--require=/cronium/.launch/preload.cjs'],
    },
  },
};

/**
 * Runs the script and then waits for whoever still holds its output: legacy waited for background children too. PID 1
 * (docker-init) passes signals to the whole process group, so the script gets its SIGTERM while this waits for it. What a
 * shell remarks on a script that a signal ended ("Terminated") is not the script's stderr and goes nowhere.
 *
 * Without arguments it waits at the gate first: the container was started before it was known what it would run. The interpreter is the
 * first word that is not for env(1).
 */
const LAUNCHER = '.launch/run';
const GATE = '.launch/gate';
const START = '.launch/start';
const LAUNCHER_TEXT = `unset TINI_KILL_PROCESS_GROUP PWD OLDPWD
trap : TERM
if [ $# = 0 ]; then
  true 2>/dev/null </cronium/${GATE} || exit 1
  . /cronium/${START}
fi
for word; do case $word in env | *=*) ;; *) break ;; esac; done
if ! command -v "$word" >/dev/null; then
  echo "cronium: there is no $word in this image: use another one (--image), or ours" >&2
  exit 127
fi
exec 3>&2 2>/dev/null
(exec "$@" 2>&3 3>&-)
code=$?
held() {
  for fd in /proc/[0-9]*/fd/*; do
    case $fd in /proc/1/* | /proc/$$/*) continue ;; esac
    if [ "$fd" -ef /proc/1/fd/1 ] || [ "$fd" -ef /proc/1/fd/2 ]; then return 0; fi
  done 2>/dev/null
  return 1
}
while held; do sleep 0.05; done
exit $code
`;

const LAUNCHER_FILE: TreeFile = { path: LAUNCHER, mode: 0o444, data: Buffer.from(LAUNCHER_TEXT) };
const LAUNCHER_COMMAND: readonly string[] = ['/bin/sh', `/cronium/${LAUNCHER}`];

type Env = Readonly<Record<string, string>>;

/** The script's directory, in the container. */
export const WORK = '/cronium/work';

/** What every script of legacy found in its environment, beside PATH. */
export const SCRIPT_ENV: Env = {
  HOME: '/tmp',
  LANG: 'C.UTF-8',
  TZ: 'UTC',
  TMPDIR: `${WORK}/.tmp`,
};

const ENV: Env = {
  PATH: '/usr/local/bin:/usr/bin:/bin',
  ...SCRIPT_ENV,
  TINI_KILL_PROCESS_GROUP: '1', // for docker-init; the launcher takes it away
};

/** A container that waits for its execution. */
export const WAITING = {
  gate: GATE,
  files: [LAUNCHER_FILE],
  command: LAUNCHER_COMMAND,
  env: ENV,
} as const;

/** What a script needs, however its container comes about. */
export interface Launch {
  readonly files: readonly TreeFile[];
  /** Interpreter and script. */
  readonly command: readonly string[];
  /** Beside what every container has. */
  readonly env: Env;
}

/** What gets the helper into an unchanged script: files, and an environment variable that the first of them takes out again. */
export function injectionOf(
  runtime: RuntimeName,
  helpers: string,
): { readonly files: readonly TreeFile[]; readonly env: Readonly<Record<string, string>> } {
  const { injection } = LAUNCH[runtime];
  const [name, value] = injection.env;
  const file = { path: injection.file, mode: 0o444, data: Buffer.from(injection.text) };
  return { files: [file, helperOf(runtime, helpers)], env: { [name]: value } };
}

function helperOf(runtime: RuntimeName, helpers: string): TreeFile {
  const { extension } = LAUNCH[runtime];
  const helper = `cronium.${extension}`;
  return {
    path: `work/${helper}`,
    mode: extension === 'sh' ? 0o755 : 0o644,
    data: readFileSync(join(helpers, helper)),
  };
}

/** The files, command and environment that run `script` as the legacy executor did. */
export function launchOf(
  runtime: RuntimeName,
  script: Uint8Array,
  { helpers, exact, nonce, env }: { helpers: string; exact: boolean; nonce: number; env: Env },
): Launch {
  const { extension, command, prelude } = LAUNCH[runtime];
  const scriptName = `script_${nonce}.${extension}`;
  const injection = injectionOf(runtime, helpers);
  const files: TreeFile[] = [
    {
      path: `work/${scriptName}`,
      mode: 0o644,
      data: exact ? Buffer.concat([Buffer.from(prelude), script]) : script,
    },
    ...(exact ? [helperOf(runtime, helpers)] : injection.files),
  ];
  return {
    files,
    command: [command, scriptName],
    env: { ...env, ...(!exact && injection.env) },
  };
}

/** In a container of its own. */
export const coldLaunch = ({ files, command, env }: Launch): Launch => ({
  files: [...files, LAUNCHER_FILE],
  command: [...LAUNCHER_COMMAND, ...command],
  env: { ...env, ...ENV },
});

/** The files that one which waits finds when its gate is opened. */
export function warmFiles({ files, command, env }: Launch): readonly TreeFile[] {
  const settings = Object.entries(env).map(([name, value]) => `${name}=${value}`);
  // By env(1): a shell has a mind of its own about some names.
  const words = settings.length === 0 ? command : ['env', ...settings, ...command];
  const text = `set -- ${words.map(quoted).join(' ')}\n`;
  return [...files, { path: START, mode: 0o444, data: Buffer.from(text) }];
}

/** One word for sh(1). */
const quoted = (text: string): string => `'${text.replaceAll("'", `'\\''`)}'`;
