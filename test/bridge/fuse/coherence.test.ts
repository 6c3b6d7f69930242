import { closeSync, mkdtempSync, openSync, rmSync, writeFileSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import t from 'tap';
import type { VariablesEdit } from '#bridge/client/runtime.js';
import type { VariableChange } from '#bridge/wire/protocol.js';
import { ServedVolume } from '#test/fixtures/served-volume.js';
import { needsFuse } from '#test/support/machine.js';
import { FakeRuntime, runIn, TestMount, type TestTree } from '#test/support/mounted.js';
import { Random, seedOf } from '#test/support/random.js';

/**
 * Pushes by others against readers through the page cache: no torn document, no way back, and nothing stale once the kernel
 * has acknowledged. SEED=n repeats the sizes and pauses; STRESS_MS=n makes each case longer.
 */
const STRESS_MS = Number(process.env['STRESS_MS'] ?? 1500);
const MEMBERS = 8;
const KINDS = ['open', 'stat', 'held'] as const;
const SIZES = [300, 20_000] as const;
const fixture = (name: string) =>
  fileURLToPath(new URL(`../../../../test/fixtures/${name}`, import.meta.url));
const READER = fixture('document-reader.py');
const EDITOR = fixture('document-editor.py');
const PYTHON = '/usr/bin/python3';

const options = needsFuse();
const seed = seedOf(process.env);
t.comment(`SEED=${seed}`);

interface Report {
  readonly reads: number;
  readonly versions: number;
  readonly last: number;
  readonly problems: readonly string[];
}

/** A document of about `bytes` whose members all say `version`; its length changes with it. */
class Document {
  readonly runtime = new FakeRuntime();
  version = 0;
  readonly #bytes: number;
  readonly #random: Random;

  constructor(bytes: number, random: Random) {
    this.#bytes = bytes;
    this.#random = random;
    this.next();
  }

  next(): VariableChange[] {
    this.version++;
    const padding = '.'.repeat(this.#bytes / MEMBERS - 16 + this.#random.int(16));
    const text = JSON.stringify(`${this.version}:${padding}`);
    return Array.from({ length: MEMBERS }, (_, i) => this.runtime.change(`k${i}`, text)).flat();
  }
}

/** Readers of every kind on both names, in processes of their own, while `write` runs. */
async function readWhile(
  root: string,
  write: (acknowledge: (version: number) => void) => Promise<void>,
): Promise<Report[]> {
  const directory = mkdtempSync('/dev/shm/cronium-coherence-');
  const [acknowledged, stop] = [join(directory, 'acknowledged'), join(directory, 'stop')];
  writeFileSync(acknowledged, Buffer.alloc(8));
  const fd = openSync(acknowledged, 'r+');
  try {
    const paths = KINDS.map((kind) => [kind, 'work/variables.json']).concat([
      ['open', 'variables.json'],
    ]);
    const readers = paths.map(([kind = '', path = '']) =>
      runIn('/', PYTHON, [READER, kind, join(root, path), acknowledged, stop]),
    );
    const version = Buffer.alloc(8);
    try {
      await write((value) => {
        version.writeBigUint64LE(BigInt(value));
        writeSync(fd, version, 0, 8, 0);
      });
    } finally {
      writeFileSync(stop, '');
    }
    return (await Promise.all(readers)).map(({ stdout, stderr }) =>
      stdout === ''
        ? { reads: 0, versions: 0, last: 0, problems: [stderr] }
        : (JSON.parse(stdout) as Report),
    );
  } finally {
    closeSync(fd);
    rmSync(directory, { recursive: true });
  }
}

function judge(t: Tap, reports: readonly Report[], written: number): void {
  t.same(
    reports.flatMap(({ problems }) => problems),
    [],
    `SEED=${seed}`,
  );
  t.ok(
    reports.every(({ versions }) => versions > 5),
    'every reader saw the document change',
  );
  const reads = reports.map(({ reads: n }) => n).join(', ');
  t.comment(
    `${written} versions; reads: ${reads}; last seen: ${reports.map(({ last }) => last).join(', ')}`,
  );
}

type Tap = Pick<typeof t, 'same' | 'ok' | 'comment'>;

void t.test('pushes by others, at full speed', options, async (t) => {
  await using mount = await TestMount.open();
  for (const bytes of SIZES) {
    await t.test(
      `no reader of ${bytes} bytes sees a torn document, or an older one by name`,
      async (t) => {
        const random = new Random(seed);
        const document = new Document(bytes, random);
        await using tree = await mount.tree(document.runtime);
        const reports = await readWhile(tree.root, async () => {
          for (const end = Date.now() + STRESS_MS; Date.now() < end; ) {
            tree.mounted.changed(document.next());
            await sleep(random.int(3));
          }
          await shows(t, tree, document.version);
          await sleep(300);
        });
        judge(t, reports, document.version);
        t.ok(
          reports.every(({ last }) => last === document.version),
          'and in the end each has the last version',
        );
      },
    );
  }
});

void t.test('once the kernel has acknowledged a push, no new open is older', options, async (t) => {
  await using served = await ServedVolume.open();
  for (const bytes of SIZES) {
    await t.test(`${bytes} bytes`, async (t) => {
      const random = new Random(seed);
      const document = new Document(bytes, random);
      const id = `tree-${bytes}`;
      await using tree = served.bare.tree(id, document.runtime);
      const reports = await readWhile(join(served.mountPoint, id), async (acknowledge) => {
        for (const end = Date.now() + STRESS_MS; Date.now() < end; ) {
          tree.documents.changed(document.next());
          await served.acknowledged();
          acknowledge(document.version);
          if (random.int(2) === 0) await sleep(random.int(5));
        }
        await sleep(300);
      });
      judge(t, reports, document.version);
    });
  }
});

void t.test('own commits and pushes by others, interleaved', options, async (t) => {
  await using mount = await TestMount.open();
  for (const how of ['truncate', 'rename'] as const) {
    await t.test(`after a commit by ${how} the document shows both`, async (t) => {
      /** Somebody else's change arrives just before each answer. */
      class Busy extends FakeRuntime {
        tree: TestTree | undefined;
        #pushed = 0;

        override async commitVariables(edit: VariablesEdit): Promise<readonly VariableChange[]> {
          this.tree?.mounted.changed(this.change('others', String(++this.#pushed)));
          return await super.commitVariables(edit);
        }
      }
      const runtime = new Busy({ others: '0' });
      await using tree = await mount.tree(runtime);
      runtime.tree = tree;
      const { stdout, stderr } = await runIn(tree.work, PYTHON, [
        EDITOR,
        'mine',
        '100',
        how,
        'others',
      ]);
      t.same(JSON.parse(stdout || JSON.stringify([stderr])), []);
      t.equal(runtime.values.get('mine'), '100');
      t.equal(runtime.values.get('others'), '100', 'nobody took the others’ value back');
    });
  }

  await t.test(
    'pushes at any moment of a commit are never undone by it, and show in the end',
    async (t) => {
      const random = new Random(seed);
      const runtime = new FakeRuntime({ others: '0', big: JSON.stringify('.'.repeat(20_000)) });
      await using tree = await mount.tree(runtime);
      let editing = true;
      const editor = runIn(tree.work, PYTHON, [EDITOR, 'mine', '60', 'truncate', 'mine']).finally(
        () => {
          editing = false;
        },
      );
      let pushed = 0;
      while (editing) {
        tree.mounted.changed(runtime.change('others', String(++pushed)));
        await sleep(random.int(4));
      }
      const { stdout, stderr } = await editor;
      t.same(JSON.parse(stdout || JSON.stringify([stderr])), [], `SEED=${seed}`);
      t.equal(runtime.values.get('others'), String(pushed), 'no commit carried an older value');
      const expected = JSON.stringify({ others: pushed, mine: 60 });
      const seen = await tree.bash(
        `for i in $(seq 100); do s=$(jq -c '{others, mine}' variables.json); [ "$s" = '${expected}' ] && break; sleep 0.02; done; echo "$s"`,
      );
      t.equal(seen.stdout.trim(), expected);
    },
  );
});

/** Waits until the name leads to this version. */
async function shows(t: Tap, tree: TestTree, version: number): Promise<void> {
  const { stdout } = await tree.bash(
    `for i in $(seq 100); do grep -q '"${version}:' variables.json && echo yes && break; sleep 0.02; done`,
  );
  t.same(stdout, 'yes\n', 'the last push shows');
}
