import { cpSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setImmediate as turn } from 'node:timers/promises';
import { crc32 } from 'node:zlib';
import t, { type Test } from 'tap';
import { ExecutionTree, type TreeSpec } from '#bridge/vfs/execution-tree.js';
import { fallocate } from '#bridge/vfs/file-ranges.js';
import { FsError } from '#bridge/vfs/fs-error.js';
import { Directory, type Inode } from '#bridge/vfs/inode.js';
import { readJournal } from '#bridge/vfs/journal-file.js';
import { type OpenFile, RegularFile } from '#bridge/vfs/regular-file.js';
import { Volume } from '#bridge/vfs/volume.js';
import { setxattr } from '#bridge/vfs/xattrs.js';
import { faultsOf } from '#test/fixtures/volume-check.js';
import { FakeRuntime } from '#test/support/mounted.js';
import { type Random, randomTest } from '#test/support/random.js';

const CALLER = { uid: 1000, gid: 1000, pid: 0 };
const [O_WRONLY, O_RDWR, O_TRUNC] = [1, 2, 0o1000];
const PAGE = 4096;

const specOf = (runtime: FakeRuntime): TreeSpec => ({
  id: 'tree',
  uid: 1000,
  gid: 1000,
  quota: { bytesMax: 64 * 1024 * 1024, inodesMax: 10_000 },
  input: '{"a": 1}',
  event: '{}',
  variables: runtime.variables,
  merged: [],
  policy: { commit: 'live', exact: false, strict: false },
  files: [{ path: '.launch/run', mode: 0o444, data: Buffer.from('run') }],
});

/** One life of the process that serves a tree: a volume, and what a client of it has open. */
class Life implements Disposable {
  readonly directory: string;
  readonly volume: Volume;
  readonly runtime: FakeRuntime;
  readonly tree: ExecutionTree;
  readonly handles: OpenFile[] = [];
  readonly errors: unknown[] = [];

  readonly answers: ReadonlyMap<bigint, Uint8Array | undefined> = new Map();

  constructor(before?: Life, tail = '', spec?: TreeSpec, runtime?: FakeRuntime) {
    this.directory = mkdtempSync(join(tmpdir(), 'cronium-journal-'));
    this.volume = new Volume(this.directory);
    this.volume.onError = (error) => this.errors.push(error);
    this.runtime =
      runtime ?? before?.runtime ?? new FakeRuntime({ first: '"1"', second: '{"x": 1.0}' });
    if (before === undefined) {
      const wanted = spec ?? specOf(this.runtime);
      this.tree = ExecutionTree.create(this.volume, this.directory, wanted, this.runtime, true);
      return;
    }
    // The backing files at this very moment: as when the process is killed.
    cpSync(before.directory, this.directory, { recursive: true });
    const [journal = ''] = readdirSync(join(this.directory, 'tree'))
      .filter((name) => name.startsWith('journal.'))
      .slice(-1);
    const path = join(this.directory, 'tree', journal);
    writeFileSync(path, tail, { flag: 'a' });
    this.volume.generation = before.generation + 1;
    this.generation = before.generation + 1;
    const restored = ExecutionTree.restore(this.volume, this.directory, 'tree', this.runtime);
    if (restored === undefined) throw new Error('there is no journal');
    this.tree = restored.tree;
    this.answers = restored.answers;
    // Handles of documents keep their number; the kernel sends the others' numbers too, and nobody knows them.
    for (const handle of before.handles) {
      const file = this.volume.inodes.get(handle.file.id);
      if (!(file instanceof RegularFile)) throw new Error(`file ${handle.file.id} is gone`);
      this.handles.push(this.volume.handle(handle.id) ?? { ...handle, file, draft: undefined });
    }
  }

  readonly generation: number = 0;

  get work(): Directory {
    const root = this.volume.root.get('tree');
    const work = root instanceof Directory ? root.get('work') : undefined;
    if (!(work instanceof Directory)) throw new Error('work/ is gone');
    return work;
  }

  [Symbol.dispose](): void {
    rmSync(this.directory, { recursive: true, force: true });
  }
}

/** Everything about a tree that a script could see. */
function describe(life: Life): Record<string, unknown> {
  const held = new Set(life.handles.map(({ file }) => file.id));
  const seen: Record<string, unknown> = {};
  for (const inode of life.work.tree.members) {
    if (inode.nlink === 0 && !held.has(inode.id)) continue;
    seen[inode.id] = {
      mode: inode.mode,
      owner: [inode.uid, inode.gid],
      links: inode.nlink,
      size: inode.size,
      blocks: inode.blocks,
      xattrs: [...(inode.xattrs ?? [])].map(([name, value]) => [
        name,
        Buffer.from(value).toString('hex'),
      ]),
      ...(inode instanceof RegularFile && {
        text: textOf(inode),
        holes: holesOf(inode),
        document: inode.document?.name,
        version: inode.document && inode.contentVersion,
      }),
      ...(inode instanceof Directory && {
        names: [...inode.ownEntries()].map(({ name, inode: { id }, cookie }) => [name, id, cookie]),
        parent: inode.parent.id,
      }),
    };
  }
  const records = [...life.tree.documents.records()].filter(([kind]) => !/[GP]/.test(kind));
  return {
    seen,
    bytes: life.work.tree.bytes,
    documents: records.map((record) => JSON.stringify(record)).sort(),
  };
}

function textOf(file: RegularFile): string {
  const bytes = Buffer.alloc(Math.min(file.size, 3 * PAGE));
  const end = Buffer.alloc(Math.min(file.size, 100));
  file.read(bytes, 0, bytes.length, 0);
  file.read(end, 0, end.length, file.size - end.length);
  return `${bytes.toString('base64')} ${end.toString('base64')}`;
}

function holesOf(file: RegularFile): number[] {
  const bounds: number[] = [];
  try {
    for (let at = 0; bounds.length < 50; ) {
      at = file.seek(at, 3);
      bounds.push(at);
      at = file.seek(at, 4);
      bounds.push(at);
    }
  } catch (error) {
    if (!(error instanceof FsError)) throw error;
  }
  return bounds;
}

const NAMES = ['a', 'b', 'c', 'caf\u00e9', 'd\u0001', 'output.json', 'condition.json'];

function directoriesOf(work: Directory): Directory[] {
  const found = [work];
  for (const { inode } of work.entries())
    if (inode instanceof Directory) found.push(...directoriesOf(inode));
  return found;
}

/** One call as the kernel makes it; what it refuses it refuses in every life. */
async function step(life: Life, random: Random): Promise<void> {
  const { volume, work, handles } = life;
  const directories = directoriesOf(work);
  const parent = random.pick(directories);
  const name = random.pick(NAMES);
  const inode: Inode | undefined = parent.get(name);
  const other = random.pick(directories);
  const otherName = random.pick(NAMES);
  const handle = handles.length > 0 ? random.pick(handles) : undefined;
  const calls: (() => unknown)[] = [
    () => {
      const [, opened] = volume.create(parent, name, 0o644, O_RDWR, CALLER);
      handles.push(opened);
    },
    () => volume.mkdir(parent, name, 0o755, CALLER),
    () => volume.symlink(parent, name, Buffer.from('to\xffwhere', 'latin1'), CALLER),
    () => volume.mknod(parent, name, 0o010644, 0, CALLER),
    () => inode && volume.link(inode, other, otherName, CALLER),
    () => volume.rename(parent, name, other, otherName, random.int(3), CALLER),
    () => volume.unlink(parent, name),
    () => volume.rmdir(parent, name),
    () => inode && volume.setattr(inode, { mode: random.int(0o7777), uid: random.int(3) }),
    () => inode instanceof RegularFile && volume.setattr(inode, { size: random.int(20 * PAGE) }),
    () => inode && setxattr(inode, `user.${random.int(3)}`, random.bytes(random.int(50)), 0),
    () =>
      inode instanceof RegularFile &&
      handles.push(volume.open(inode, random.pick([O_WRONLY, O_RDWR, O_WRONLY | O_TRUNC]), CALLER)),
    () => handles.push(volume.tmpfile(parent, 0o600, O_RDWR, CALLER)[1]),
    ...Array.from({ length: 6 }, () => () => {
      if (handle === undefined) return;
      const offset = random.chance(0.5) ? handle.file.size : random.int(30 * PAGE);
      volume.write(handle.file, handle, random.bytes(random.int(3 * PAGE)), offset);
    }),
    () =>
      handle &&
      fallocate({ file: handle.file, handle }, 0, random.int(20 * PAGE), random.int(9 * PAGE)),
    () =>
      handle &&
      fallocate({ file: handle.file, handle }, 3, random.int(20 * PAGE), random.int(9 * PAGE)),
    () => handle && volume.flush(handle.file, handle, CALLER),
    () => {
      if (handle === undefined) return;
      handles.splice(handles.indexOf(handle), 1);
      volume.release(handle.id);
    },
    async () => {
      const file = work.get('variables.json');
      if (!(file instanceof RegularFile)) return;
      const reader = volume.open(file, 0, CALLER);
      volume.release(reader.id);
      const writer = volume.open(file, O_WRONLY | O_TRUNC, CALLER);
      const members = Array.from(
        { length: random.int(5) },
        () => `"k${random.int(9)}":"${'v'.repeat(random.int(4000))}"`,
      );
      volume.write(file, writer, Buffer.from(`{${[...new Set(members)].join(',')}}`), 0);
      if (random.chance(0.3))
        handles.push(writer); // in the middle of it
      else {
        await volume.flush(file, writer, CALLER);
        volume.release(writer.id);
      }
    },
    async () => {
      const opened = work.get('output.json');
      if (!(opened instanceof RegularFile)) return;
      const writer = volume.open(opened, O_WRONLY | O_TRUNC, CALLER);
      volume.write(opened, writer, Buffer.from(`[${random.int(100)}]`), 0);
      await volume.flush(opened, writer, CALLER);
      volume.release(writer.id);
    },
    () =>
      life.tree.documents.changed(
        life.runtime.change(
          `other${random.int(4)}`,
          random.chance(0.2) ? null : `"${random.int(9)}"`,
        ),
      ),
  ];
  try {
    await random.pick(calls)();
  } catch (error) {
    if (!(error instanceof FsError)) throw error;
  }
  await turn();
  life.work.tree.journal?.flush(); // what is gone, too, which may wait
}

randomTest(
  'whatever was done to a tree, another process has it again, as often as needed',
  async (t, random) => {
    let life = new Life();
    let rewritten = 0;
    for (let lives = 0; lives < 25; lives++) {
      for (let steps = random.int(80); steps > 0; steps--) await step(life, random);
      const before = describe(life);
      const numbers = readdirSync(join(life.directory, 'tree')).flatMap(
        (name) => /^journal\.(\d+)/.exec(name)?.[1] ?? [],
      );
      rewritten = Math.max(rewritten, ...numbers.map(Number));
      const next = new Life(life, random.pick(['', 'x', 'abc ["torn', '1f2e [["Z",1]]'])); // the end of a group that never was
      t.strictSame(describe(next), before, `life ${lives}`);
      t.strictSame(faultsOf(next.volume), []);
      t.strictSame([...life.errors, ...next.errors], []);
      life[Symbol.dispose]();
      life = next;
    }
    t.ok(rewritten > 5, `journal number ${rewritten}`);
    life[Symbol.dispose]();
  },
);

void t.test('a journal stays bounded, however long a tree is worked on', async (t) => {
  using life = new Life();
  const { volume, work, directory } = life;
  for (let i = 0; i < 40_000; i++) {
    volume.mkdir(work, `d${i}`, 0o755, CALLER);
    volume.rmdir(work, `d${i}`);
    volume.flushJournals();
    if (i % 500 === 0) await turn();
  }
  await turn();
  const files = readdirSync(join(directory, 'tree')).filter((name) => name.startsWith('journal.'));
  const bytes = files.reduce(
    (sum, name) => sum + readFileSync(join(directory, 'tree', name)).length,
    0,
  );
  t.ok(bytes < 4 * 1024 * 1024, `${bytes} bytes in ${files.join(' ')}`);
  using next = new Life(life);
  t.strictSame(describe(next), describe(life));
});

void t.test(
  'a commit that nobody heard of is made again under its id, and what was written before it counts',
  async (t) => {
    using life = new Life();
    const { volume, runtime } = life;
    const open = (from: Life, flags: number): [RegularFile, OpenFile] => {
      const found = from.work.get('variables.json');
      if (!(found instanceof RegularFile)) throw new Error('no variables.json');
      return [found, from.volume.open(found, flags, CALLER)];
    };
    const [, reader] = open(life, 0);
    volume.release(reader.id);
    const [file, writer] = open(life, O_WRONLY | O_TRUNC);
    volume.write(file, writer, Buffer.from('{"first":"2","second":{"x": 1.0},"third":"3"}'), 0);
    const release = runtime.hold(); // the server has it, and its answer does not come
    void volume.flush(file, writer, CALLER)?.catch(() => {});
    await turn();
    volume.flushJournals();
    life.handles.push(writer);
    using next = new Life(life);
    t.equal(runtime.edits.length, 1);
    // Somebody else changes meanwhile what was not written here.
    next.tree.documents.changed(runtime.change('second', '"theirs"'));
    release();
    const [again] = next.handles;
    if (again?.draft === undefined) throw new Error('its draft is gone');
    await next.volume.flush(again.file, again, CALLER);
    const ids = runtime.edits.slice(0, 1).map(({ id }) => id);
    t.strictSame(
      runtime.edits
        .slice(1)
        .map(({ id }) => id)
        .slice(0, 1),
      ids,
      'the same commit',
    );
    t.strictSame(new Set(runtime.edits.map(({ id }) => id)).size, 1, 'and no other');
    t.equal(runtime.values.get('second'), '"theirs"');
  },
);

void t.test(
  'a rename onto variables.json is as if it had not begun, until its commit is known',
  async (t) => {
    using life = new Life();
    const { volume, work, runtime } = life;
    const [file, handle] = volume.create(work, 'v.tmp', 0o644, O_RDWR, CALLER);
    if (!(file instanceof RegularFile)) throw new Error('no file');
    volume.write(file, handle, Buffer.from('{"first":"9"}'), 0);
    volume.release(handle.id);
    volume.flushJournals();
    const release = runtime.hold();
    const renamed = volume.rename(work, 'v.tmp', work, 'variables.json', 0, CALLER);
    const letGo = work.tree.journal?.hold();
    volume.flushJournals();
    using next = new Life(life);
    t.equal(next.work.get('v.tmp')?.id, file.id, 'the name of before');
    t.not(next.work.get('variables.json')?.id, file.id);
    release();
    await renamed;
    letGo?.();
    // The kernel sends it again.
    await next.volume.rename(next.work, 'v.tmp', next.work, 'variables.json', 0, CALLER);
    t.equal(next.work.get('v.tmp'), undefined);
    t.equal(
      new Set(runtime.edits.map(({ id }) => id)).size,
      1,
      'one commit, however often it is made',
    );
  },
);

void t.test('on-success: the one commit has the same id in every life', async (t) => {
  const runtime = new FakeRuntime();
  using life = new Life(
    undefined,
    '',
    { ...specOf(runtime), policy: { commit: 'on-success', exact: false, strict: false } },
    runtime,
  );
  const { volume, work } = life;
  const file = work.get('variables.json');
  if (!(file instanceof RegularFile)) throw new Error('no file');
  const writer = volume.open(file, O_WRONLY | O_TRUNC, CALLER);
  volume.write(file, writer, Buffer.from('{"counted":1}'), 0);
  await volume.flush(file, writer, CALLER);
  volume.release(writer.id);
  volume.flushJournals();
  using next = new Life(life);
  await life.tree.documents.finish(true);
  await next.tree.documents.finish(true);
  t.equal(runtime.edits.length, 2);
  t.equal(runtime.edits[0]?.id, runtime.edits[1]?.id);
});

void t.test('an answer is known in the life after next, too', async (t) => {
  using life = new Life();
  const { volume, work } = life;
  volume.mkdir(work, 'made', 0o755, CALLER);
  const bytes = Buffer.alloc(20, 7);
  volume.flushJournals(work.id, { low: 42, high: 0, bytes, length: 20 });
  using next = new Life(life);
  using last = new Life(next);
  t.same(last.answers.get(42n), bytes);
});

for (const [what, [spoil, message]] of Object.entries<[(text: string) => string, RegExp]>({
  'a flipped bit': [
    (text) => text.replace('"work"', '"worc"'),
    /^group \d+ of its journal is damaged$/,
  ],
  'a missing line': [
    (text) => text.slice(text.indexOf('\n') + 1),
    /^its journal has no beginning$/,
  ],
  'another format': [
    () => `${line('[["V",99]]')}${line('[["C"]]')}`,
    /^its journal has format 99, and this program reads 2$/,
  ],
  'another tree': [
    (text) =>
      text
        .split('\n')
        .filter(Boolean)
        .map((one) =>
          line(one.slice(one.indexOf(' ') + 1).replaceAll('"id":"tree"', '"id":"three"')),
        )
        .join(''),
    /^its journal is of another execution$/,
  ],
  rubbish: [() => 'GIF89a\n\n\n', /^group 1 of its journal is damaged$/],
}))
  void t.test(`a journal with ${what} is refused with a sentence`, async (t: Test) => {
    using life = new Life();
    const directory = join(life.directory, 'tree');
    const [name = ''] = readdirSync(directory).filter((one) => one.startsWith('journal.'));
    const path = join(directory, name);
    writeFileSync(path, spoil(readFileSync(path, 'utf8')));
    t.throws(
      () => ExecutionTree.restore(new Volume(life.directory), life.directory, 'tree', life.runtime),
      { message },
    );
  });

function line(json: string): string {
  return `${crc32(json).toString(36)} ${json}\n`;
}

void t.test('a tree whose backing file is missing is refused', async (t) => {
  using life = new Life();
  const { volume, work, directory } = life;
  const [file, handle] = volume.create(work, 'kept', 0o644, O_RDWR, CALLER);
  if (!(file instanceof RegularFile)) throw new Error('no file');
  volume.write(file, handle, Buffer.from('text'), 0);
  volume.setattr(file, { mode: 0o600 });
  volume.flushJournals();
  rmSync(join(directory, 'tree', String(file.id)));
  t.throws(() => ExecutionTree.restore(new Volume(directory), directory, 'tree', life.runtime), {
    code: 'ENOENT',
  });
});

void t.test('a directory that has no journal is no tree', async (t) => {
  t.equal(readJournal('/nowhere'), undefined);
});
