import { constants, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Test } from 'tap';
import type { RunHost, VariablesEdit } from '#bridge/client/runtime.js';
import type { Policy } from '#bridge/vfs/documents.js';
import { ExecutionTree } from '#bridge/vfs/execution-tree.js';
import { type OpenFile, RegularFile } from '#bridge/vfs/regular-file.js';
import { Volume } from '#bridge/vfs/volume.js';
import { VariableKey } from '#bridge/wire/names.js';
import type { VariableChange } from '#bridge/wire/protocol.js';

const { O_RDONLY, O_TRUNC, O_WRONLY } = constants;

/** The variables of one namespace as a server keeps them, without a network. */
export class FakeServer implements RunHost {
  readonly variables = new Map<string, string>();
  #version = 0;

  constructor(variables: Readonly<Record<string, string>>) {
    for (const [key, text] of Object.entries(variables)) this.variables.set(key, text);
  }

  async commitVariables({
    set,
    delete: deleted,
  }: VariablesEdit): Promise<readonly VariableChange[]> {
    const changes: VariableChange[] = [];
    this.#version++;
    for (const [key, text] of [...set, ...deleted.map((key) => [key, null] as const)]) {
      if (text === null) this.variables.delete(key);
      else this.variables.set(key, text);
      changes.push(this.#change(key, text));
    }
    return changes;
  }

  async setOutput(): Promise<void> {}
  async setCondition(): Promise<void> {}
  async warned(): Promise<void> {}

  list(): (VariableChange & { text: string })[] {
    this.#version++;
    return [...this.variables].map(([key, text]) => ({
      ...this.#change(VariableKey.parse(key), text),
      text,
    }));
  }

  #change(key: VariableKey, text: string | null): VariableChange {
    const order = [...this.variables.keys()].indexOf(key);
    return { key, text, version: this.#version, order, updatedAt: 0 };
  }
}

/** An execution's directory with variables.json in it, and a script that opens, writes and closes it. */
export class FakeRun implements AsyncDisposable {
  readonly server: FakeServer;
  readonly volume: Volume;
  readonly #tree: ExecutionTree;

  constructor(t: Test, variables: Readonly<Record<string, string>>, policy: Partial<Policy> = {}) {
    const backing = mkdtempSync(join(tmpdir(), 'cronium-run-'));
    t.teardown(() => rmSync(backing, { recursive: true }));
    this.server = new FakeServer(variables);
    this.volume = new Volume(backing);
    this.#tree = ExecutionTree.create(
      this.volume,
      backing,
      {
        id: 'run',
        uid: 0,
        gid: 0,
        quota: { bytesMax: 64 * 1024 * 1024, inodesMax: 100 },
        input: '{}',
        event: '{}',
        variables: this.server.list(),
        merged: [],
        policy: { commit: 'live', exact: false, strict: false, ...policy },
        files: [],
      },
      this.server,
    );
  }

  get file(): RegularFile {
    const directory = this.volume.directory(this.volume.root.id);
    const root = this.volume.directory(directory.get('run')?.id ?? 0);
    const file = root.get('variables.json');
    if (!(file instanceof RegularFile)) throw new TypeError('no variables.json');
    return file;
  }

  /** open(2) with O_TRUNC, as `>` does. */
  openToRewrite = (): OpenFile => this.volume.open(this.file, O_WRONLY | O_TRUNC, CALLER);

  write(handle: OpenFile, text: string, offset = 0): void {
    this.volume.write(handle.file, handle, Buffer.from(text), offset);
  }

  async close(handle: OpenFile): Promise<void> {
    await this.volume.flush(handle.file, handle, CALLER);
    this.volume.release(handle.id);
  }

  read(): string {
    const handle = this.volume.open(this.file, O_RDONLY, CALLER);
    const text = Buffer.from(handle.file.readAll()).toString();
    this.volume.release(handle.id);
    return text;
  }

  async rewrite(text: string): Promise<void> {
    const handle = this.openToRewrite();
    this.write(handle, text);
    await this.close(handle);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#tree.documents.finish(true);
    await this.#tree[Symbol.asyncDispose]();
  }
}

/** This process is the script. */
const CALLER = { uid: 0, gid: 0, pid: process.pid };
