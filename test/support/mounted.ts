import { spawn } from 'node:child_process';
import { mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { RunHost, VariablesEdit } from '#bridge/client/runtime.js';
import { abortConnection, mountFuse, openFuseDevice, unmount } from '#bridge/fuse/mount.js';
import type { TreeSpec } from '#bridge/vfs/execution-tree.js';
import type { DriverName } from '#bridge/wire/control.js';
import { VariableKey } from '#bridge/wire/names.js';
import type { Variable, VariableChange } from '#bridge/wire/protocol.js';
import { type MountedTree, MountHost } from '#mountd/mount-host.js';
import { type Finished, finished } from './installation.js';

/** A runtime that keeps everything in memory and can be made to wait or to fail. */
export class FakeRuntime implements RunHost {
  readonly values = new Map<string, string>();
  /** Every call, as text, in order. */
  readonly calls: string[] = [];
  /** What the next calls reject with. */
  failure: Error | undefined;
  /** What every call waits for first. */
  #gate: Promise<void> = Promise.resolve();
  #version: number;

  constructor(values: Readonly<Record<string, string>> = {}) {
    for (const [key, text] of Object.entries(values)) this.values.set(key, text);
    this.#version = this.values.size;
  }

  get variables(): Variable[] {
    return [...this.values].map(([key, text], i) => ({
      key: VariableKey.parse(key),
      text,
      version: i + 1,
      order: i,
      updatedAt: 0,
    }));
  }

  /** From now on every call waits, as for a server that is silent, until the returned function is called. */
  hold(): () => void {
    let release: () => void = () => {};
    this.#gate = new Promise((resolve) => {
      release = resolve;
    });
    return release;
  }

  /** A change by somebody else, to be handed to the tree. */
  change(key: string, text: string | null): VariableChange[] {
    this.#version++;
    if (text === null) this.values.delete(key);
    else this.values.set(key, text);
    return [
      {
        key: VariableKey.parse(key),
        text,
        version: this.#version,
        order: this.#version,
        updatedAt: 0,
      },
    ];
  }

  /** Every edit that was asked for, in order. */
  readonly edits: VariablesEdit[] = [];

  async commitVariables(edit: VariablesEdit): Promise<readonly VariableChange[]> {
    this.edits.push(edit);
    const set = edit.set.map(([key, text]) => `${key}=${text}`);
    await this.#call(`variables ${[...set, ...edit.delete.map((key) => `-${key}`)].join(' ')}`);
    return [
      ...edit.set.flatMap(([key, text]) => this.change(key, text)),
      ...edit.delete.flatMap((key) => this.change(key, null)),
    ];
  }

  readonly warnings: string[] = [];

  async warned(text: string): Promise<void> {
    this.warnings.push(text);
  }

  async setOutput(text: string | null): Promise<void> {
    await this.#call(`output ${text}`);
  }

  async setCondition(condition: boolean | null): Promise<void> {
    await this.#call(`condition ${condition}`);
  }

  async #call(what: string): Promise<void> {
    // A copy: a slice would keep the whole text alive.
    this.calls.push(Buffer.from(what.slice(0, 1000)).toString());
    await this.#gate;
    if (this.failure !== undefined) throw this.failure;
  }
}

/**
 * A real FUSE mount in a temporary directory, served as mountd does: by a worker thread, or with fuse-native by this very
 * thread, which therefore never touches it.
 */
export class TestMount implements AsyncDisposable {
  readonly directory: string;
  readonly #mountPoint: string;
  readonly #host: MountHost;
  #trees = 0;

  private constructor(directory: string, mountPoint: string, host: MountHost) {
    this.directory = directory;
    this.#mountPoint = mountPoint;
    this.#host = host;
  }

  static async open({ driver = 'kernel' }: { driver?: DriverName } = {}): Promise<TestMount> {
    const directory = mkdtempSync(join(tmpdir(), 'cronium-mount-'));
    const mountPoint = join(directory, 'mnt');
    mkdirSync(mountPoint);
    const common = { backing: join(directory, 'backing'), logLevel: 'silent' };
    if (driver === 'fuse-native') {
      const host = await MountHost.open({ driver, mountPoint, ...common });
      return new TestMount(directory, mountPoint, host);
    }
    const fuseFd = openFuseDevice();
    await mountFuse(fuseFd, mountPoint);
    const host = await MountHost.open({ driver, fuseFd, takeOver: false, ...common });
    return new TestMount(directory, mountPoint, host);
  }

  async tree(
    runtime: RunHost & { variables: Variable[] },
    spec: Partial<TreeSpec> = {},
  ): Promise<TestTree> {
    const id = `tree-${this.#trees++}`;
    const tree = await this.#host.createTree(
      {
        id,
        uid: 0,
        gid: 0,
        quota: { bytesMax: 256 * 1024 * 1024, inodesMax: 10_000 },
        input: '{}',
        event: '{}',
        variables: runtime.variables,
        merged: [],
        policy: { commit: 'live', exact: false, strict: false },
        files: [],
        ...spec,
      },
      runtime,
    );
    return new TestTree(tree, join(this.#mountPoint, id));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    // Whoever answers first: a request it no longer answers must not keep anyone waiting.
    await this.#host[Symbol.asyncDispose]();
    abortConnection(this.#mountPoint);
    await unmount(this.#mountPoint);
    rmSync(this.directory, { recursive: true, force: true });
  }
}

export class TestTree implements AsyncDisposable {
  readonly mounted: MountedTree;
  /** `/cronium` of the execution, from the host. */
  readonly root: string;
  readonly work: string;

  constructor(mounted: MountedTree, root: string) {
    this.mounted = mounted;
    this.root = root;
    this.work = join(root, 'work');
  }

  async bash(script: string): Promise<Finished> {
    return await runIn(this.work, 'bash', ['-c', script]);
  }

  async python(script: string): Promise<Finished> {
    return await runIn(this.work, 'python3', ['-c', script]);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.mounted[Symbol.asyncDispose]();
  }
}

/** Runs a program in a directory; the program, not this process, touches the mount. */
export async function runIn(
  cwd: string,
  command: string,
  args: readonly string[],
): Promise<Finished> {
  // chdir happens in the child: spawn's own cwd would make this process look at the mount.
  const child = spawn('/bin/sh', ['-c', 'cd "$0" && exec "$@"', cwd, command, ...args], {
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  return await finished(child);
}
