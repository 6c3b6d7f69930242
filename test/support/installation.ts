import { type ChildProcess, spawn } from 'node:child_process';
import { chmodSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import Docker from 'dockerode';
import type { MountdStatus } from '#bridge/wire/control.js';
import { Installation } from '#server/admin/installation.js';
import { State } from '#server/admin/state.js';
import { childrenOf } from './processes.js';

const CRONIUM = fileURLToPath(new URL('../../../bin/cronium', import.meta.url));

export interface Finished {
  readonly code: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

/** What `cronium run --json` prints. */
export interface RunJson {
  executionId: string;
  status: string;
  exitCode: number | null;
  signal: string | null;
  stdout: string;
  stderr: string;
  output: unknown;
  condition: boolean | null;
  variables: { set: Record<string, unknown>; secrets?: string[]; deleted: string[] };
  warnings: string[];
  durationMs: number;
}

/** A real installation in a temporary directory: server, mountd, mount, containers. Disposing leaves nothing. */
export class TestInstallation implements AsyncDisposable {
  /** Holds the state directory and the scripts. */
  readonly directory: string;
  readonly state: string;
  readonly #files: string;
  #scripts = 0;

  /** `stateAt`: a directory for the state that the test made itself. */
  constructor(stateAt?: string) {
    this.directory = mkdtempSync(join(tmpdir(), 'cronium-test-'));
    chmodSync(this.directory, 0o700);
    this.state = stateAt ?? join(this.directory, 'state');
    this.#files = this.directory;
  }

  /** `options`: more of `cronium up`. Unless they say so no container waits: who looks for one finds the one that serves. */
  static async up(stateAt?: string, ...options: string[]): Promise<TestInstallation> {
    const installation = new TestInstallation(stateAt);
    const { code, stderr } = await installation.cronium([
      'up',
      '--log-level',
      'debug',
      '--warm',
      '0',
      ...options,
    ]);
    if (code !== 0) {
      await installation[Symbol.asyncDispose]();
      throw new Error(`cronium up: ${stderr}`);
    }
    return installation;
  }

  get installation(): Installation {
    return new Installation(new State(this.state));
  }

  /** The process that serves, which the supervisor watches; 0 while there is none. */
  get serverPid(): number {
    return childrenOf(this.installation.server.pid ?? 0)[0] ?? 0;
  }

  /** Of mountd, as its supervisor has named them last. */
  get mountdPids(): { supervisor: number; serving: number } {
    const text = readFileSync(join(this.state, 'run/mountd-serving.json'), 'utf8');
    const { supervisor, serving } = JSON.parse(text) as {
      [P in 'supervisor' | 'serving']: { pid: number };
    };
    return { supervisor: supervisor.pid, serving: serving.pid };
  }

  get mountPoint(): string {
    return join(this.state, 'mountd/mnt');
  }

  /** Runs the command to its end. */
  async cronium(args: readonly string[], stdin = ''): Promise<Finished> {
    return await finished(this.spawn(args, stdin));
  }

  spawn(args: readonly string[], stdin = ''): ChildProcess {
    const child = spawn(process.execPath, [CRONIUM, ...args], {
      env: { ...process.env, CRONIUM_STATE: this.state },
      stdio: ['pipe', 'pipe', 'pipe'],
    });
    child.stdin?.on('error', () => {}); // it may not read
    child.stdin?.end(stdin);
    return child;
  }

  /** A script file with this text; the extension decides the runtime. */
  script(extension: string, text: string): string {
    const path = join(this.#files, `script-${this.#scripts++}.${extension}`);
    writeFileSync(path, text);
    return path;
  }

  /** `cronium run --json` of a script with this text. Throws when it printed no result. */
  async run(extension: string, text: string, ...args: string[]): Promise<RunJson> {
    const { stdout, stderr, code } = await this.cronium([
      'run',
      '--json',
      ...args,
      this.script(extension, text),
    ]);
    try {
      return JSON.parse(stdout) as RunJson;
    } catch {
      throw new Error(`cronium run exited with ${code} and printed no JSON: ${stdout}${stderr}`);
    }
  }

  /** What the daemons have logged. */
  log(name: 'server' | 'mountd'): string {
    return readFileSync(join(this.state, 'log', `${name}.log`), 'utf8');
  }

  /** Containers of this installation, running or not. */
  async containers(): Promise<Docker.ContainerInfo[]> {
    const label = `cronium.instance=${new State(this.state).instance}`;
    return await new Docker({ socketPath: '/var/run/docker.sock' }).listContainers({
      all: true,
      filters: { label: [label] },
    });
  }

  /** The one container of this installation, once it runs and whatever ran before is gone from Docker's list. */
  async runningContainer(): Promise<Docker.ContainerInfo> {
    let found: Docker.ContainerInfo | undefined;
    await eventually('one container runs', async () => {
      const [first, ...more] = await this.containers();
      found = first;
      return first?.State === 'running' && more.length === 0;
    });
    if (found === undefined) throw new Error('no container');
    return found;
  }

  /** What mountd says of itself. */
  async mountdStatus(): Promise<MountdStatus> {
    using mountd = await this.installation.control();
    return await mountd.call('status', {});
  }

  /** Returns when so many containers wait for a script. */
  async waiting(count: number): Promise<void> {
    await eventually(
      `${count} wait`,
      async () => (await this.mountdStatus()).waiting === count,
      60_000,
    );
  }

  /** Mount points below the installation's directory. */
  mounts(): string[] {
    return readFileSync('/proc/self/mountinfo', 'utf8')
      .split('\n')
      .map((line) => line.split(' ')[4] ?? '')
      .filter((path) => path.startsWith(`${this.state}/`));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const { code, stderr } = await this.cronium(['down']);
    if (code !== 0) throw new Error(`cronium down: ${stderr}`);
    const [mounts, containers] = [this.mounts(), await this.containers()];
    if (mounts.length > 0 || containers.length > 0)
      throw new Error(
        `left behind: ${mounts.join(' ')} ${containers.map(({ Names }) => Names).join(' ')}`,
      );
    rmSync(this.directory, { recursive: true, force: true });
  }
}

export async function finished(child: ChildProcess): Promise<Finished> {
  let stdout = '';
  let stderr = '';
  child.stdout?.setEncoding('utf8').on('data', (chunk: string) => {
    stdout += chunk;
  });
  child.stderr?.setEncoding('utf8').on('data', (chunk: string) => {
    stderr += chunk;
  });
  return await new Promise((resolve, reject) => {
    child.on('error', reject);
    child.on('close', (code) => resolve({ code, stdout, stderr }));
  });
}

/** Asks until `done` says so. @throws after `timeoutMs` */
export async function eventually(
  what: string,
  done: () => boolean | Promise<boolean>,
  timeoutMs = 15_000,
): Promise<void> {
  for (const deadline = Date.now() + timeoutMs; !(await done()); ) {
    if (Date.now() > deadline) throw new Error(`after ${timeoutMs} ms still not: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 25));
  }
}
