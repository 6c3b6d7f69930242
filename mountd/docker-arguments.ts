import type { Prepared, PrepareRequest } from '#bridge/wire/control.js';
import type { ExecutionId } from '#bridge/wire/names.js';
import { OOM_SCORE_ADJ, OPEN_FILES_MAX, PIDS_MAX, SHM_BYTES, tmpOptions } from './containers.js';
import { injectionOf, SCRIPT_ENV, WORK } from './launch-files.js';

/** Where the tree stands in a container. */
const TARGET = '/cronium';

export interface Host {
  /** Docker's name for the plugin. */
  readonly driver: string;
  readonly uid: number;
  readonly gid: number;
  readonly helpers: string;
  readonly seccompFile: string;
}

/** What whoever starts the container must say, and should. */
export function preparedOf(
  executionId: ExecutionId,
  { runtime, memoryBytes, cpus }: Pick<PrepareRequest, 'runtime' | 'memoryBytes' | 'cpus'>,
  { driver, uid, gid, helpers, seccompFile }: Host,
): Prepared {
  const volume = { driver, source: executionId, target: TARGET };
  const user = `${uid}:${gid}`;
  const env = {
    ...SCRIPT_ENV,
    ...(runtime !== undefined && injectionOf(runtime, helpers).env),
  };
  return {
    executionId,
    volume,
    user,
    workdir: WORK,
    env,
    dockerArgs: [
      `--mount=${mountOf(volume)}`,
      `--user=${user}`,
      `--workdir=${WORK}`,
      ...Object.entries(env).map(([name, value]) => `--env=${name}=${value}`),
    ],
    hardeningArgs: [
      '--network=none',
      '--cap-drop=ALL',
      '--security-opt=no-new-privileges',
      `--security-opt=seccomp=${seccompFile}`,
      '--read-only',
      `--tmpfs=/tmp:${tmpOptions(memoryBytes)}`,
      '--init',
      '--ipc=private',
      '--cgroupns=private',
      `--shm-size=${SHM_BYTES}`,
      `--memory=${memoryBytes}`,
      `--memory-swap=${memoryBytes}`,
      `--cpus=${cpus}`,
      `--pids-limit=${PIDS_MAX}`,
      `--oom-score-adj=${OOM_SCORE_ADJ}`,
      `--ulimit=nofile=${OPEN_FILES_MAX}:${OPEN_FILES_MAX}`,
      '--ulimit=core=0:0',
    ],
  };
}

/** `volume-nocopy`: what the image has there stays out. */
const mountOf = ({ driver, source, target }: Prepared['volume']): string =>
  `type=volume,volume-driver=${driver},source=${source},target=${target},volume-nocopy`;
