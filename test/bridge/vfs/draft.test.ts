import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { DocumentDraft, type OwnBytes } from '#bridge/vfs/draft.js';
import { DOCUMENT_BYTES_MAX, type Document, RegularFile } from '#bridge/vfs/regular-file.js';
import { InodeTable, Tree } from '#bridge/vfs/tree.js';
import { type Random, randomTest } from '#test/support/random.js';
import { FakeRun } from './fake-run.js';

/** A draft asks nothing of its document; the journal does. */
const NO_DOCUMENT = {} as Document;

const OWNER = { uid: 0, gid: 0 };
const MIB = 1024 * 1024;

function newFile(t: Test): RegularFile {
  const directory = mkdtempSync(join(tmpdir(), 'cronium-draft-'));
  t.teardown(() => rmSync(directory, { recursive: true }));
  const tree = new Tree(new InodeTable(), directory, { bytesMax: 64 * MIB, inodesMax: 10 });
  const file = new RegularFile(tree, 0o644, OWNER);
  t.teardown(() => tree.delete(file));
  return file;
}

/** What volume.ts does with a handle on a document. */
class Handle {
  readonly file: RegularFile;
  readonly draft: DocumentDraft;

  /** `memory` is shared by the drafts of one document. */
  constructor(
    file: RegularFile,
    how: 'read' | 'write' | 'truncate' = 'truncate',
    memory: OwnBytes = { used: 0 },
  ) {
    if (how === 'truncate' && file.size > 0) file.truncate(0);
    this.file = file;
    this.draft = new DocumentDraft(NO_DOCUMENT, file, how !== 'read', memory);
  }

  write(text: string | Uint8Array, offset: number): this {
    const data = typeof text === 'string' ? Buffer.from(text) : text;
    this.draft.wrote(data.subarray(0, this.file.write(data, offset)), offset);
    return this;
  }

  truncate(size: number): this {
    this.file.truncate(size);
    this.draft.truncated(size);
    return this;
  }

  /** The handle's own document as text; undefined when it cannot be told from the shared content. */
  get own(): string | undefined {
    const { own } = this.draft;
    return own && Buffer.from(own).toString('latin1');
  }
}

const contentOf = (file: RegularFile) => Buffer.from(file.readAll()).toString('latin1');

void t.test('who writes alone owns what the file holds', async (t) => {
  const file = newFile(t);
  const handle = new Handle(file);
  t.equal(handle.own, '', 'an empty document to begin with');
  t.equal(handle.draft.dirty, false, 'opening alone writes nothing');
  handle.write('{"a":', 0).write('1}', 5);
  t.equal(handle.own, '{"a":1}');
  t.equal(contentOf(file), '{"a":1}');
  t.equal(handle.draft.dirty, true);
  t.equal(handle.draft.isAlone, true);
});

void t.test('two who rewrite the file at once each keep their own document', async (t) => {
  const file = newFile(t);
  const one = new Handle(file);
  one.write('{"one": 1, "more": 2}', 0);
  const two = new Handle(file); // truncates what the first one wrote
  two.write('{"two":', 0);
  one.write(' ', 21);
  two.write('2}', 7);
  t.equal(one.own, '{"one": 1, "more": 2} ');
  t.equal(two.own, '{"two":2}');
  t.equal(contentOf(file), `{"two":2}${'\0'.repeat(12)} `, 'the shared bytes are mixed');
  t.equal(one.draft.isAlone, false);
  t.equal(two.draft.isAlone, false);
});

void t.test(
  'a writer is alone until somebody else writes or truncates, not when they only open',
  async (t) => {
    const file = newFile(t);
    const handle = new Handle(file).write('{}', 0);
    new Handle(file, 'read');
    new Handle(file, 'write');
    t.equal(handle.draft.isAlone, true);
    const other = new Handle(file, 'write').write('[', 0);
    t.equal(handle.draft.isAlone, false);
    t.equal(other.draft.isAlone, true, 'who came later has seen no change but its own');

    const second = newFile(t);
    const first = new Handle(second).write('{}', 0);
    second.truncate(0); // truncate(2) by name
    t.equal(first.draft.isAlone, false);
    t.equal(first.own, '{}');
  },
);

void t.test('a handle on a file with content owns nothing until it empties it', async (t) => {
  const file = newFile(t);
  file.fill(Buffer.from('{"old": true}'));
  const handle = new Handle(file, 'write');
  t.equal(handle.own, undefined);
  handle.write('x', 2);
  t.equal(handle.own, undefined, 'its own part alone is no document');
  t.equal(handle.draft.dirty, true);
  handle.truncate(0).write('{}', 0);
  t.equal(handle.own, '{}', 'python r+ with truncate(0)');

  file.fill(Buffer.from('{"old": true}'));
  const cutting = new Handle(file, 'write').truncate(3);
  t.equal(cutting.own, undefined, 'a file cut to three bytes is not its own');
});

void t.test('a reader owns nothing and is never dirty', async (t) => {
  const file = newFile(t);
  const reader = new Handle(file, 'read');
  new Handle(file).write('{}', 0);
  t.equal(reader.own, undefined);
  t.equal(reader.draft.dirty, false);
  t.equal(reader.draft.isAlone, false);
});

void t.test(
  'writes out of order, over each other and beyond the end make the document a file would have',
  async (t) => {
    const file = newFile(t);
    const handle = new Handle(file);
    handle
      .write('}', 9)
      .write('{"a"', 0)
      .write(':', 4)
      .write('12345', 5)
      .write('67', 7)
      .truncate(9)
      .truncate(10)
      .write('}', 9);
    t.equal(handle.own, contentOf(file));
    t.equal(handle.own, '{"a":1267}');
    handle.truncate(5).truncate(8);
    t.equal(handle.own, '{"a":\0\0\0', 'what was cut off does not come back');
    handle.truncate(0).truncate(3);
    t.equal(handle.own, '\0\0\0', 'nor when everything was cut off');
  },
);

void t.test('writing nothing is no change', async (t) => {
  const handle = new Handle(newFile(t));
  handle.write('', 0);
  t.equal(handle.draft.dirty, false);
  t.equal(handle.draft.isAlone, true);
});

void t.test('what was committed is clean, what was written since is not', async (t) => {
  const handle = new Handle(newFile(t)).write('{}', 0);
  handle.draft.committing();
  t.equal(handle.draft.dirty, false);
  handle.write(' ', 2);
  t.equal(handle.draft.dirty, true);
  handle.draft.committing();
  t.equal(handle.draft.dirty, false);
  handle.truncate(1);
  t.equal(handle.draft.dirty, true, 'truncating is writing');
});

void t.test(
  'a failed commit makes its writes dirty again, whatever else was committed meanwhile',
  async (t) => {
    const handle = new Handle(newFile(t)).write('{}', 0);
    const first = handle.draft.committing();
    first.takeBack();
    t.equal(handle.draft.dirty, true);

    const again = handle.draft.committing();
    handle.write(' ', 2);
    const later = handle.draft.committing();
    again.takeBack();
    t.equal(handle.draft.dirty, true, 'the first failed while the second is under way');
    later.takeBack();
    t.equal(handle.draft.dirty, true, 'both failed');
    const [retry, twice] = [handle.draft.committing(), handle.draft.committing()];
    t.equal(handle.draft.dirty, false, 'a retry stores everything');
    retry.takeBack();
    twice.takeBack();
    t.equal(handle.draft.dirty, true, 'two closes of the same writes, both failed');
  },
);

/** What the drafts of one document may hold together. */
const OWN_BYTES_MAX = 2 * DOCUMENT_BYTES_MAX;

void t.test(
  'a handle beyond the memory for drafts is not followed any more, and its file is whole',
  async (t) => {
    const file = newFile(t);
    const handle = new Handle(file).write(Buffer.alloc(OWN_BYTES_MAX, ' '), 0);
    t.equal(handle.own?.length, OWN_BYTES_MAX, 'up to the limit it is');
    handle.write('x', OWN_BYTES_MAX);
    t.equal(handle.own, undefined);
    handle.write('y', 0);
    t.equal(handle.own, undefined, 'and stays so');
    t.equal(file.size, OWN_BYTES_MAX + 1);
    t.equal(handle.draft.dirty, true);
    const hole = new Handle(newFile(t)).truncate(OWN_BYTES_MAX + 1);
    t.equal(hole.own, undefined, 'a hole counts as well');
  },
);

void t.test(
  'a handle that once went beyond the memory for drafts can empty the file and start again',
  async (t) => {
    const written = new Handle(newFile(t)).write('{"a": 1}', 0).write('x', OWN_BYTES_MAX);
    t.doesNotThrow(() => written.truncate(0), 'after a write far out');
    t.equal(written.write('{}', 0).own, '{}');
    const cut = new Handle(newFile(t)).write('{"a": 1}', 0).truncate(OWN_BYTES_MAX + 1);
    t.doesNotThrow(() => cut.truncate(0), 'after ftruncate far out');
    t.equal(cut.write('{}', 0).own, '{}');
  },
);

void t.test(
  'the drafts of one document share their memory, and a closed handle gives its part back',
  async (t) => {
    const memory: OwnBytes = { used: 0 };
    const file = newFile(t);
    const part = Buffer.alloc(OWN_BYTES_MAX / 2, ' ');
    const [one, two, three] = [1, 2, 3].map(() => new Handle(file, 'truncate', memory));
    one?.write(part, 0);
    two?.write(part, 0);
    t.equal(memory.used, OWN_BYTES_MAX);
    three?.write('{}', 0);
    t.strictSame(
      [one?.own?.length, two?.own?.length, three?.own],
      [part.length, part.length, undefined],
    );
    one?.draft.closed();
    t.equal(memory.used, OWN_BYTES_MAX / 2);
    t.equal(three?.truncate(0).write('{}', 0).own, '{}', 'there is room again');
    for (const handle of [two, three]) handle?.draft.closed();
    t.equal(memory.used, 0);
  },
);

randomTest('a lone writer’s document is the file, whatever it does', async (t, random) => {
  for (let round = 0; round < 20; round++) {
    const file = newFile(t);
    const handle = new Handle(file);
    for (let step = 0; step < 40; step++) {
      randomStep(handle, random);
      if (handle.own !== contentOf(file)) throw new Error(`round ${round}, step ${step} differs`);
    }
    t.equal(handle.draft.isAlone, true);
  }
});

randomTest('of several writers each owns what a file of its own would hold', async (t, random) => {
  for (let round = 0; round < 10; round++) {
    const shared = newFile(t);
    const writers = Array.from({ length: 2 + random.int(3) }, () => ({
      handle: new Handle(shared, 'truncate'),
      model: Buffer.alloc(0) as Buffer,
    }));
    const touched = new Set<number>();
    for (let step = 0; step < 60; step++) {
      const who = random.int(writers.length);
      const writer = writers[who];
      if (writer === undefined) continue;
      writer.model = randomStep(writer.handle, random, writer.model);
      touched.add(who);
      for (const [i, { handle, model }] of writers.entries())
        if (handle.own !== model.toString('latin1'))
          throw new Error(`round ${round}, step ${step}: writer ${i} differs`);
    }
    for (const [i, { handle }] of writers.entries())
      t.equal(handle.draft.isAlone, touched.size === 0 || (touched.size === 1 && touched.has(i)));
  }
});

/** One write or truncation; returns what it makes of `model`. */
function randomStep(handle: Handle, random: Random, model: Buffer = Buffer.alloc(0)): Buffer {
  if (random.chance(0.25)) {
    const size = random.chance(0.4) ? 0 : random.int(300);
    handle.truncate(size);
    return Buffer.concat([model.subarray(0, size), Buffer.alloc(Math.max(0, size - model.length))]);
  }
  const data = random.bytes(1 + random.int(random.chance(0.05) ? 10_000 : 60));
  const offset = random.int(300);
  handle.write(data, offset);
  const after = Buffer.alloc(Math.max(model.length, offset + data.length));
  model.copy(after);
  data.copy(after, offset);
  return after;
}

void t.test(
  'of two scripts that rewrite variables.json at once, both changes are stored',
  async (t) => {
    await using run = new FakeRun(t, { a: '1', b: '2' });
    run.read();
    const one = run.openToRewrite();
    run.write(one, '{"a": 1, "b": 2, "one": 1');
    const two = run.openToRewrite();
    run.write(two, '{"a": 1, "b": 2, "two": 2');
    run.write(one, '}', 25);
    run.write(two, '}', 25);
    await run.close(one);
    await run.close(two);
    t.strictSame(Object.fromEntries(run.server.variables), { a: '1', b: '2', one: '1', two: '2' });
    t.strictSame(JSON.parse(run.read()), { a: 1, b: 2, one: 1, two: 2 });
  },
);
