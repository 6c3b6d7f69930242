import { setTimeout as sleep } from 'node:timers/promises';
import type { Random } from '#test/support/chance.js';
import { eventually, type TestInstallation } from '#test/support/installation.js';
import { isRunning } from '#test/support/processes.js';
import type { LinkProxy } from './link-proxy.js';

/** What is done to an installation under load. */
export const FAULTS = {
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
  /** The link is reset, and stays away up to five seconds. */
  cut: 3,
  /** Calls are made, and their answers lost. */
  'lose answers': 4,
  /** Nothing passes the link for up to five seconds. */
  stall: 2,
} as const;
export type Fault = keyof typeof FAULTS;

export type Weights = { readonly [F in Fault]?: number };

export function pickFault(random: Random, weights: Weights): Fault {
  const all = Object.entries(weights) as [Fault, number][];
  let at = random.next() * all.reduce((sum, [, weight]) => sum + weight, 0);
  for (const [fault, weight] of all) {
    at -= weight;
    if (at < 0) return fault;
  }
  return 'kill';
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
      process.kill(pid, 'SIGSTOP');
      await sleep(random.int(3_000));
      process.kill(pid, 'SIGCONT');
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
    case 'cut':
      await proxy.cut(random.int(5_000));
      return;
    case 'lose answers':
      await proxy.loseAnswers(random.int(500));
      return;
    case 'stall':
      await proxy.stall(random.int(5_000));
      return;
    default:
      fault satisfies never;
  }
}

/** And waits until it is gone, whoever ends it. */
async function kill(pid: number, signal: NodeJS.Signals): Promise<void> {
  if (pid === 0) throw new Error('there is no such process');
  process.kill(pid, signal);
  await eventually('the process is gone', () => !isRunning(pid), 30_000);
}
