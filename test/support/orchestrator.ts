import { spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import { type Finished, finished, type RunJson, TestInstallation } from './installation.js';

/**
 * A name for a volume driver. Docker remembers every one it has met until it is restarted: one for each test file of each clone of this
 * repository, and not for each run.
 */
const driverFor = (test: string): string =>
  `cronium-test-${createHash('sha256').update(`${process.cwd()} ${test}`).digest('hex').slice(0, 8)}`;

export interface PreparedJson {
  executionId: string;
  volume: { driver: string; source: string; target: string };
  user: string;
  workdir: string;
  env: Record<string, string>;
  dockerArgs: string[];
}

export type ResultJson = Omit<RunJson, 'stdout' | 'stderr'>;

/** Somebody who knows the commands `cronium` and `docker`, and nothing of ours. */
export class Orchestrator implements AsyncDisposable {
  readonly cronium: TestInstallation;
  /** Docker's name for the installation's plugin. */
  readonly driver: string;

  private constructor(cronium: TestInstallation, driver: string) {
    this.cronium = cronium;
    this.driver = driver;
  }

  /** `test`: tells this one from others that run at the same time. */
  static async up(test: string): Promise<Orchestrator> {
    const driver = driverFor(test);
    return new Orchestrator(
      await TestInstallation.up(undefined, '--volume-plugin', driver),
      driver,
    );
  }

  async create(...args: string[]): Promise<PreparedJson> {
    const { stdout, stderr } = await this.cronium.cronium(['exec', 'create', '--json', ...args]);
    if (stdout === '') throw new Error(`exec create: ${stderr}`);
    return JSON.parse(stdout) as PreparedJson;
  }

  /** `docker run` to its end, or with `-d` to its start. */
  async docker(
    { dockerArgs }: Pick<PreparedJson, 'dockerArgs'>,
    more: readonly string[],
    ...command: string[]
  ): Promise<Finished> {
    return await docker('run', ...more, ...dockerArgs, ...command);
  }

  async finish(
    { executionId }: Pick<PreparedJson, 'executionId'>,
    exitCode: number | 'none' | null,
    ...args: string[]
  ): Promise<ResultJson> {
    const finish = ['exec', 'finish', executionId, '--exit-code', String(exitCode), '--json'];
    const { stdout, stderr } = await this.cronium.cronium([...finish, ...args]);
    if (stdout === '') throw new Error(`exec finish: ${stderr}`);
    return JSON.parse(stdout) as ResultJson;
  }

  /** What Docker lists. */
  async volumes(): Promise<string> {
    return (await docker('volume', 'ls', '-q', '--filter', `driver=${this.driver}`)).stdout;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.cronium[Symbol.asyncDispose]();
  }
}

export const docker = async (...args: string[]): Promise<Finished> =>
  await finished(spawn('docker', args, { stdio: ['ignore', 'pipe', 'pipe'] }));

/** The name of the container that runs on a volume; empty when there is none. */
export async function containerOn(volume: string): Promise<string> {
  const filters = ['--filter', `volume=${volume}`, '--format', '{{.Names}}'];
  return (await docker('ps', ...filters)).stdout.trim();
}
