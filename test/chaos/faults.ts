import { setTimeout as sleep } from 'node:timers/promises';
import type { Random } from '#test/support/chance.js';
import { eventually, type TestInstallation } from '#test/support/installation.js';
import { isRunning, killProcess } from '#test/support/processes.js';
import type { LinkProxy } from './link-proxy.js';

/** What is done to the server of an installation under load. The numbers are weights. */
export const SERVER_FAULTS = {
  /** kill -9 of the server. */
  kill: 10,
  /** Twice: the second time while it starts. */
  'kill twice': 2,
  /** SIGTERM of the server: it answers what is under way, and its supervisor starts it again. */
  end: 2,
  /** SIGSTOP, and SIGCONT within three seconds. */
  stop: 3,
  /** SIGSTOP for good: its supervisor has to find out. */
  hang: 0.5,
  /** kill -9 of the supervisor, and `cronium up`. */
  'kill the supervisor': 1,
} as const;

/** And to mountd: its serving process, if no other is named. */
export const MOUNTD_FAULTS = {
  /** kill -9: the one that stands by takes over. */
  'kill mountd': 10,
  /** Twice: the second time while the next one takes over. */
  'kill mountd twice': 2,
  /** SIGSTOP, and SIGCONT within three seconds. */
  'stop mountd': 3,
  /** SIGSTOP for good: its supervisor finds out after ten seconds. */
  'hang mountd': 0.5,
  /** kill -9 of its supervisor: the serving process starts another one, and ends. */
  "kill mountd's supervisor": 2,
} as const;

/** And to the link between the two. */
export const LINK_FAULTS = {
  /** It is reset, and stays away up to five seconds. */
  cut: 3,
  /** Nearly as long as a call may wait. */
  'cut for 30 s': 0.1,
  /** Calls are made, and their answers lost. */
  'lose answers': 4,
  /** Nothing passes for up to five seconds. */
  stall: 2,
  /** What is sent for up to ten seconds is lost, and no reset tells of it. */
  'pull the cable': 0.5,
} as const;

export const FAULTS = { ...SERVER_FAULTS, ...MOUNTD_FAULTS, ...LINK_FAULTS };
export type Fault = keyof typeof FAULTS;

/** Less than the 30 s that a call may wait: it has to be made again, too. */
const LONG_CUT_MS = 29_000;
/** While the next one loads its programs, takes over, or has just done so. */
const SECOND_KILL_MS_MAX = 600;

/** A process that hangs is killed by whoever watches it: mountd's, before its first beat, after 30 s. */
const GONE_MS = 40_000;

export type Weights = { readonly [F in Fault]?: number };

export function pickFault(random: Random, weights: Weights): Fault {
  const all = Object.entries(weights) as [Fault, number][];
  const [last = 'kill'] = all.at(-1) ?? [];
  let at = random.next() * all.reduce((sum, [, weight]) => sum + weight, 0);
  for (const [fault, weight] of all) {
    at -= weight;
    if (at < 0) return fault;
  }
  return last; // of rounding
}

/** Returns when it is done, which is before all is well again. */
export async function inflict(
  fault: Fault,
  cronium: TestInstallation,
  proxy: LinkProxy,
  random: Random,
): Promise<void> {
  const pid = cronium.serverPid;
  switch (fault) {
    case 'kill':
      await kill(pid, 'SIGKILL');
      return;
    case 'kill twice': {
      await kill(pid, 'SIGKILL');
      await eventually('it is started again', () => cronium.serverPid !== 0);
      await sleep(random.int(600));
      await kill(cronium.serverPid, 'SIGKILL');
      return;
    }
    case 'end':
      await kill(pid, 'SIGTERM');
      return;
    case 'stop':
      killProcess(pid, 'SIGSTOP');
      await sleep(random.int(3_000));
      killProcess(pid, 'SIGCONT');
      return;
    case 'hang':
      await kill(pid, 'SIGSTOP');
      return;
    case 'kill the supervisor': {
      await kill(cronium.installation.server.pid ?? 0, 'SIGKILL');
      const { code, stderr } = await cronium.cronium(['up', '--log-level', 'info']);
      if (code !== 0) throw new Error(`cronium up: ${stderr}`);
      return;
    }
    case 'kill mountd':
      await kill(cronium.mountdPids.serving, 'SIGKILL');
      return;
    case 'kill mountd twice': {
      const { serving } = cronium.mountdPids;
      await kill(serving, 'SIGKILL');
      await eventually('another one serves', () => cronium.mountdPids.serving !== serving);
      await sleep(random.int(SECOND_KILL_MS_MAX));
      await kill(cronium.mountdPids.serving, 'SIGKILL');
      return;
    }
    case 'stop mountd': {
      const { serving } = cronium.mountdPids;
      killProcess(serving, 'SIGSTOP');
      await sleep(random.int(3_000));
      killProcess(serving, 'SIGCONT');
      return;
    }
    case 'hang mountd':
      await kill(cronium.mountdPids.serving, 'SIGSTOP');
      return;
    case "kill mountd's supervisor": {
      const { supervisor } = cronium.mountdPids;
      await kill(supervisor, 'SIGKILL');
      await eventually(
        'another supervisor watches',
        () => cronium.mountdPids.supervisor !== supervisor,
      );
      return;
    }
    case 'cut':
      await proxy.cut(random.int(5_000));
      return;
    case 'cut for 30 s':
      await proxy.cut(LONG_CUT_MS);
      return;
    case 'lose answers':
      await proxy.loseAnswers(random.int(500));
      return;
    case 'stall':
      await proxy.stall(random.int(5_000));
      return;
    case 'pull the cable':
      await proxy.pull(random.int(10_000));
      return;
    default:
      fault satisfies never;
  }
}

/** And waits until it is gone, whoever ends it. */
async function kill(pid: number, signal: NodeJS.Signals): Promise<void> {
  if (pid === 0) throw new Error('there is no such process');
  killProcess(pid, signal);
  await eventually('the process is gone', () => !isRunning(pid), GONE_MS);
}
