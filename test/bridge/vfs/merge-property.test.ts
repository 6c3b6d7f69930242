import { constants } from 'node:fs';
import { setImmediate as turn } from 'node:timers/promises';
import t from 'tap';
import type { RunHost, VariablesEdit } from '#bridge/client/runtime.js';
import { ExecutionTree } from '#bridge/vfs/execution-tree.js';
import { type Directory, isRegular } from '#bridge/vfs/inode.js';
import type { OpenFile } from '#bridge/vfs/regular-file.js';
import { isRewriteOf, type Members, renderMembers, scanMembers } from '#bridge/wire/json-source.js';
import { type Namespace, VariableKey } from '#bridge/wire/names.js';
import type { VariableChange } from '#bridge/wire/protocol.js';
import { MergePolicies } from '#server/services/merge-policies.js';
import { Variables } from '#server/services/variables.js';
import { MemoryStore } from '#server/store/memory-store.js';
import { BareVolume } from '#test/fixtures/volume-check.js';
import { Random, seedOf } from '#test/support/random.js';

/**
 * Several executions of one namespace, each a script that reads variables.json, changes members and writes it back, their system
 * calls, commits and pushes interleaved by chance. A model knows what each script meant: exactly that must be committed, and
 * nothing else may change. SEED=n repeats a run; ROUNDS=n makes it longer.
 */
const ROUNDS = Number(process.env['ROUNDS'] ?? 100);
const EXECUTIONS = 4;
const STEPS = 12;
const ADA: Namespace = { user: 'ada' };
const { O_RDONLY, O_WRONLY, O_TRUNC, O_CREAT } = constants;
const CALLER = { uid: 0, gid: 0, pid: process.pid };

/** Values whose text a double or a JSON library would change, and such as it would not. */
const TEXTS = [
  '1',
  '1.0',
  '9007199254740993',
  '1e2',
  '"text"',
  '"\\u00e9\\n"',
  '[1, 2]',
  '{"a":  1}',
  'null',
  '-0.0',
];
/** Merged by "add": every script adds to it what it likes, and the sum must come out. */
const COUNTER = 'counter';
const KEYS = ['a', 'b', 'c', 'd', 'key with spaces', '__proto__', 'ключ'];

interface Meant {
  readonly set: Map<string, string>;
  readonly deleted: Set<string>;
}

/** One script and its tree. */
class Script {
  readonly #random: Random;
  readonly #bare: BareVolume;
  readonly #work: Directory;
  readonly tree: ExecutionTree;
  /** What it read or wrote last: what it builds on. */
  #memory: Members = new Map();
  readonly #onSuccess: boolean;
  /** What the edits of this script must be, in order; on-success: one, at the end. */
  readonly meant: Meant[] = [];
  readonly problems: string[] = [];
  /** What it added to the counter in all. */
  added = 0;

  constructor(
    bare: BareVolume,
    id: string,
    random: Random,
    host: RunHost,
    variables: VariableChange[],
    onSuccess: boolean,
  ) {
    this.#bare = bare;
    this.#random = random;
    this.#onSuccess = onSuccess;
    this.tree = ExecutionTree.create(
      bare.volume,
      bare.backing,
      {
        id,
        uid: 0,
        gid: 0,
        quota: { bytesMax: 64 * 1024 * 1024, inodesMax: 1000 },
        input: '{}',
        event: '{}',
        variables: variables.map((variable) => ({ ...variable, text: variable.text ?? '' })),
        merged: [COUNTER],
        policy: { commit: onSuccess ? 'on-success' : 'live', exact: false, strict: false },
        files: [],
      },
      host,
    );
    this.#work = bare.work(id);
  }

  async run(): Promise<void> {
    for (let step = 0; step < STEPS; step++) {
      await this.#pause();
      if (step === 0 || this.#random.chance(0.4)) await this.#read();
      else await this.#write();
    }
    const outcome = await this.tree.documents.finish(true);
    if (outcome.warnings.length > 0) this.problems.push(`warnings: ${outcome.warnings.join()}`);
  }

  /** Others get a turn between any two system calls. */
  async #pause(): Promise<void> {
    for (let i = this.#random.int(4); i > 0; i--) await turn();
  }

  #open(name: string, flags: number): OpenFile {
    const existing = this.#work.get(name);
    if (existing !== undefined && isRegular(existing.mode))
      return this.#bare.volume.open(existing, flags, CALLER);
    return this.#bare.volume.create(this.#work, name, 0o644, flags, CALLER)[1];
  }

  async #close(handle: OpenFile): Promise<void> {
    await this.#bare.volume.flush(handle.file, handle, CALLER);
    this.#bare.volume.release(handle.id);
  }

  async #read(): Promise<void> {
    const handle = this.#open('variables.json', O_RDONLY);
    await this.#pause();
    const text = Buffer.from(handle.file.readAll()).toString();
    await this.#pause();
    await this.#close(handle);
    try {
      this.#memory = scanMembers(text) ?? new Map();
    } catch (error) {
      this.problems.push(`read what is no document: ${JSON.stringify(text)}: ${String(error)}`);
    }
  }

  async #write(): Promise<void> {
    const random = this.#random;
    const next: Members = new Map(this.#memory);
    for (let i = random.int(3); i > 0; i--) {
      const key = random.pick(KEYS);
      if (random.chance(0.3)) next.delete(key);
      else next.set(key, random.pick(TEXTS));
    }
    if (random.chance(0.3)) {
      const more = 1 + random.int(5);
      next.set(COUNTER, String(Number(next.get(COUNTER) ?? 0) + more));
      this.added += more;
    }
    const text = random.chance(0.5) ? renderMembers(next) : rewritten(next);
    const written = scanMembers(text) ?? new Map<string, string>();
    this.#mean(written);
    this.#memory = written;
    const isInPlace = random.chance(0.6);
    const name = isInPlace ? 'variables.json' : 'new.json';
    const handle = this.#open(name, O_WRONLY | O_TRUNC | O_CREAT);
    const bytes = Buffer.from(text);
    for (let at = 0; at < bytes.length; ) {
      await this.#pause();
      const end = random.chance(0.5) ? bytes.length : at + 1 + random.int(bytes.length - at);
      this.#bare.volume.write(handle.file, handle, bytes.subarray(at, end), at);
      at = end;
    }
    await this.#pause();
    await this.#close(handle);
    if (isInPlace) return;
    await this.#pause();
    await this.#bare.volume.rename(this.#work, name, this.#work, 'variables.json', 0, CALLER);
  }

  /** What changed since what it built on; a member that was merely written again did not. */
  #mean(written: Members): void {
    const meant: Meant = (this.#onSuccess ? this.meant[0] : undefined) ?? {
      set: new Map(),
      deleted: new Set(),
    };
    for (const [key, text] of written) {
      if (key === COUNTER) continue;
      const before = this.#memory.get(key);
      if (before !== undefined && isRewriteOf(before, text)) continue;
      meant.set.set(key, text);
      meant.deleted.delete(key);
    }
    for (const key of this.#memory.keys()) {
      if (written.has(key)) continue;
      meant.deleted.add(key);
      meant.set.delete(key);
    }
    const isNothing = meant.set.size === 0 && meant.deleted.size === 0;
    if (this.meant[0] !== meant && !isNothing) this.meant.push(meant);
  }
}

/** As JavaScript writes what it has read: numbers through doubles, other white space. */
function rewritten(members: Members): string {
  const parts = [...members].map(
    ([key, text]) => `${JSON.stringify(key)}:${JSON.stringify(JSON.parse(text))}`,
  );
  return `{${parts.join(',')}}`;
}

const shown = (set: Iterable<readonly [string, string]>, deleted: Iterable<string>) =>
  JSON.stringify([[...set].sort(([a], [b]) => (a < b ? -1 : 1)), [...deleted].sort()]);

async function round(seed: number): Promise<string[]> {
  const random = new Random(seed);
  using bare = new BareVolume();
  const store = new MemoryStore();
  const policies = new MergePolicies(store);
  await policies.set(ADA, VariableKey.parse(COUNTER), 'add');
  const variables = new Variables(store, policies);
  const key = (name: string) => VariableKey.parse(name);
  const start = KEYS.slice(0, 4).map((name, i) => [key(name), TEXTS[i] ?? '1'] as const);
  const set = [...start, [key(COUNTER), '0'] as const];
  await variables.edit(ADA, { set, delete: [] }, { by: 'operator:test' });
  const model = new Map<string, string>(start);
  const problems: string[] = [];

  const later = async () => {
    for (let i = random.int(6); i > 0; i--) await turn();
  };
  const initial = await variables.list(ADA);
  const scripts = Array.from({ length: EXECUTIONS }, (_, n) => {
    const id = `run-${n}`;
    const committed: string[] = [];
    const host: RunHost = {
      commitVariables: async (edit: VariablesEdit) => {
        const others = edit.set.filter(([name]) => name !== COUNTER);
        if (others.length + edit.delete.length > 0) committed.push(shown(others, edit.delete));
        await later();
        const { changes } = await variables.edit(ADA, { ...edit, commitId: edit.id }, { by: id });
        for (const { key: name, text } of changes)
          if (name === COUNTER) continue;
          else if (text === null) model.delete(name);
          else model.set(name, text);
        await later();
        return changes;
      },
      setOutput: async () => {},
      setCondition: async () => {},
      warned: async () => {},
    };
    const script = new Script(bare, id, new Random(random.int(2 ** 31)), host, initial, n === 3);
    variables.watch(ADA, (changes, by) => {
      if (by !== id) void later().then(() => script.tree.documents.changed(changes));
    });
    return { script, committed };
  });
  await Promise.all(scripts.map(async ({ script }) => await script.run()));

  for (const [n, { script, committed }] of scripts.entries()) {
    problems.push(...script.problems);
    const meant = script.meant.map(({ set, deleted }) => shown(set, deleted));
    if (JSON.stringify(meant) !== JSON.stringify(committed))
      problems.push(`run-${n} meant ${meant.join(' ')} and committed ${committed.join(' ')}`);
  }
  const all = (await variables.list(ADA)).map(({ key: name, text }) => [name, text] as const);
  const stored = all.filter(([name]) => name !== COUNTER);
  const sum = scripts.reduce((total, { script }) => total + script.added, 0);
  const counted = all.find(([name]) => name === COUNTER)?.[1];
  if (counted !== String(sum)) problems.push(`added ${sum} in all, counted ${counted}`);
  if (shown(stored, []) !== shown(model, []))
    problems.push(`stored ${shown(stored, [])}, by the commits ${shown(model, [])}`);
  problems.push(...bare.errors.map(String));
  for (const { script } of scripts) await script.tree[Symbol.asyncDispose]();
  return problems;
}

void t.test('exactly what each script meant is committed, whatever comes in between', async (t) => {
  t.setTimeout(120_000);
  const seed = seedOf(process.env);
  t.comment(`SEED=${seed}`);
  for (let i = 0; i < ROUNDS; i++) {
    const problems = await round(seed + i);
    if (problems.length === 0) continue;
    t.same(problems, [], `SEED=${seed + i} ROUNDS=1`);
    return;
  }
  t.pass(`${ROUNDS} rounds of ${EXECUTIONS} executions with ${STEPS} steps each`);
});
