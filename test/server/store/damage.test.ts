import {
  cpSync,
  existsSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { BridgeError } from '#bridge/wire/errors.js';
import { LevelStore } from '#server/store/level-store.js';
import type { Entry, Key } from '#server/store/store.js';
import { type Random, randomTest } from '#test/support/random.js';
import { entriesOf, put } from './contract.js';

const ROUNDS = Number(process.env['DAMAGE_ROUNDS'] ?? 12);

// Every round copies, opens and perhaps reads a database in another process.
t.setTimeout(300_000);

const integrityKey = () => Buffer.alloc(32, 7);
const openIn = async (directory: string, readOnly = false) =>
  await LevelStore.open(join(directory, 'db'), { integrityKey, readOnly });

function temporaryDirectory(t: Test): string {
  const directory = mkdtempSync(join(tmpdir(), 'cronium-damage-'));
  t.teardown(() => rmSync(directory, { recursive: true, force: true }));
  return directory;
}

/** Commits that create, replace and delete, with ids, so that tables and a log are there. */
async function fill(store: LevelStore, random: Random, commits: number): Promise<void> {
  const some = async () => {
    const ops = Array.from({ length: 1 + random.int(4) }, () => {
      const key: Key = ['var', `user:${random.int(3)}`, `key-${random.int(200)}`];
      return random.chance(0.15) ? { del: key } : put(key, random.bytes(random.int(400)));
    });
    await store.commit({ ops, ...(random.chance(0.2) && { id: `id-${random.int(1e9)}` }) });
  };
  for (let i = 0; i < commits; i += 20) await Promise.all(Array.from({ length: 20 }, some));
}

async function contentOf(store: LevelStore): Promise<string> {
  const entries: Entry[] = await entriesOf(store, ['var']);
  const shown = entries.map(({ key, value, version }) => [
    key,
    version,
    Buffer.from(value).toString('base64'),
  ]);
  return JSON.stringify([store.version, shown]);
}

/** A store that has been opened twice: what the first opening wrote lies in tables, the rest in the log. */
async function build(directory: string, random: Random, isClosed: boolean): Promise<string> {
  await (async () => {
    await using store = await openIn(directory);
    await fill(store, random, 200);
  })();
  const store = await openIn(directory);
  await fill(store, random, 200);
  const content = await contentOf(store);
  if (!isClosed) {
    // What a killed process leaves behind.
    cpSync(directory, `${directory}.killed`, { recursive: true });
    await store[Symbol.asyncDispose]();
    rmSync(directory, { recursive: true });
    renameSync(`${directory}.killed`, directory);
  } else await store[Symbol.asyncDispose]();
  return content;
}

const filesOf = (directory: string) =>
  [...readdirSync(join(directory, 'db')).map((name) => join('db', name)), 'db.head', 'db.sums']
    .filter((name) => existsSync(join(directory, name)))
    .filter((name) => !/LOCK$|LOG(\.old)?$/.test(name) && statSync(join(directory, name)).size > 0);

const DAMAGES: Readonly<
  Record<string, (directory: string, random: Random, old: string) => string>
> = {
  'flipped bytes': (directory, random) => {
    const file = random.pick(filesOf(directory));
    const bytes = readFileSync(join(directory, file));
    const at = random.int(bytes.length);
    for (let i = at; i < Math.min(bytes.length, at + 1 + random.int(8)); i++)
      bytes[i] = (bytes[i] ?? 0) ^ (1 + random.int(255));
    writeFileSync(join(directory, file), bytes);
    return `${file} at ${at}`;
  },
  'a hole of zeros': (directory, random) => {
    const file = random.pick(filesOf(directory));
    const bytes = readFileSync(join(directory, file));
    const at = random.int(bytes.length);
    bytes.fill(0, at, Math.min(bytes.length, at + 4096));
    writeFileSync(join(directory, file), bytes);
    return `${file} at ${at}`;
  },
  'a truncated file': (directory, random) => {
    const file = random.pick(filesOf(directory));
    const { size } = statSync(join(directory, file));
    const length = random.int(size);
    truncateSync(join(directory, file), length);
    return `${file} from ${size} to ${length}`;
  },
  'a deleted file': (directory, random) => {
    const file = random.pick(filesOf(directory));
    rmSync(join(directory, file));
    return file;
  },
  'two files swapped': (directory, random) => {
    const [a, b] = [random.pick(filesOf(directory)), random.pick(filesOf(directory))];
    const [inA, inB] = [readFileSync(join(directory, a)), readFileSync(join(directory, b))];
    writeFileSync(join(directory, a), inB);
    writeFileSync(join(directory, b), inA);
    return `${a} and ${b}`;
  },
  'an older copy of a file': (directory, random, old) => {
    const files = filesOf(directory).filter((file) => existsSync(join(old, file)));
    const file = random.pick(files);
    cpSync(join(old, file), join(directory, file));
    return file;
  },
  'the whole database of earlier': (directory, _random, old) => {
    rmSync(join(directory, 'db'), { recursive: true });
    cpSync(join(old, 'db'), join(directory, 'db'), { recursive: true });
    return 'db';
  },
};

for (const isClosed of [true, false])
  randomTest(
    `whatever happens to the files of a store that was ${isClosed ? 'closed' : 'killed'}: it is refused, or all is there`,
    async (t, random) => {
      const directory = temporaryDirectory(t);
      const home = join(directory, 'store');
      const old = join(directory, 'old');
      await (async () => {
        await using store = await openIn(home);
        await fill(store, random, 100);
      })();
      cpSync(home, old, { recursive: true });
      const content = await build(home, random, isClosed);
      let refused = 0;
      for (let round = 0; round < ROUNDS; round++) {
        const copy = join(directory, 'copy');
        cpSync(home, copy, { recursive: true });
        const [what, damage] = random.pick(Object.entries(DAMAGES));
        const where = damage(copy, random, old);
        try {
          await using store = await openIn(copy);
          const after = await contentOf(store);
          if (after !== content) t.fail(`${what}, ${where}: other data are served, unnoticed`);
        } catch (error) {
          // It did say only what LevelDB said when a block could not be read at all: no word of what to do.
          if (
            !(error instanceof BridgeError) ||
            error.code !== 'internal' ||
            !/damaged.*cronium store restore/.test(error.message)
          )
            t.fail(`${what}, ${where}: ${String(error)}`);
          refused++;
        }
        rmSync(copy, { recursive: true });
      }
      t.comment(`refused ${refused} of ${ROUNDS}`);
      t.ok(refused > ROUNDS / 3, `${refused} of ${ROUNDS} were noticed; the others had no effect`);
    },
  );

void t.test(
  'a damaged store opens for reading only, when asked, and tells what is affected',
  async (t) => {
    const directory = temporaryDirectory(t);
    await (async () => {
      await using store = await openIn(directory);
      for (let i = 0; i < 50; i++)
        await store.commit({ ops: [put(['var', 'user:a', `k${i}`], 'x'.repeat(500))] });
    })();
    await (await openIn(directory))[Symbol.asyncDispose](); // the log becomes a table
    const table = readdirSync(join(directory, 'db')).find((name) => name.endsWith('.ldb')) ?? '';
    const bytes = readFileSync(join(directory, 'db', table));
    const at = bytes.indexOf('x'.repeat(100));
    bytes[at + 10] = 0x79;
    writeFileSync(join(directory, 'db', table), bytes);

    await openIn(directory).then(
      () => t.fail('it opened'),
      (error: unknown) =>
        t.match(error, {
          code: 'internal',
          message: /damaged \(1 record of family var not authentic.*cronium store restore/,
        }),
    );
    await using store = await openIn(directory, true);
    t.match(store.problems, [/1 record of family var not authentic/]);
    await store.commit({ ops: [put(['var', 'user:a', 'new'], 'x')] }).then(
      () => t.fail('it was written'),
      (error: unknown) => t.match(error, { code: 'read_only' }),
    );
    const outcomes = await Promise.allSettled(
      Array.from({ length: 50 }, async (_, i) => await store.get(['var', 'user:a', `k${i}`])),
    );
    const failed = outcomes.filter(({ status }) => status === 'rejected');
    t.equal(failed.length, 1, 'only the damaged record is refused');
    t.match(failed[0], {
      reason: { code: 'internal', message: /a record of family var is damaged/ },
    });
    t.match((await store.verify()).problems, [/1 record of family var not authentic/]);
  },
);

void t.test(
  'wherever a table cannot be read, a check names what is affected and the rest can still be read',
  async (t) => {
    const directory = temporaryDirectory(t);
    const home = join(directory, 'home');
    await (async () => {
      await using store = await openIn(home);
      for (let i = 0; i < 100; i++)
        await store.commit({ ops: [put(['var', 'user:a', `k${i}`], 'x'.repeat(400))] });
      await store.compact();
    })();
    const table = readdirSync(join(home, 'db')).find((name) => name.endsWith('.ldb')) ?? '';
    const whole = readFileSync(join(home, 'db', table));
    let read = 0;
    // Headers of blocks among them: LevelDB refuses what comes after, instead of giving records that do not hold.
    for (let round = 0; round < 16; round++) {
      const copy = join(directory, 'copy');
      cpSync(home, copy, { recursive: true });
      const at = Math.floor((whole.length * round) / 16);
      const bytes = Buffer.from(whole);
      for (let i = at; i < at + 64; i++) bytes[i] = (bytes[i] ?? 0) ^ 0xff;
      writeFileSync(join(copy, 'db', table), bytes);
      await t.rejects(
        openIn(copy),
        { code: 'internal', message: /is damaged \(.*cronium store restore/ },
        `at ${at}`,
      );
      await using store = await openIn(copy, true);
      t.match(store.problems, [/./], `at ${at}`);
      for (let i = 0; i < 100; i++)
        await store.get(['var', 'user:a', `k${i}`]).then(
          (entry) => (entry === undefined ? undefined : read++),
          (error: unknown) =>
            t.match(error, { code: 'internal', message: /damaged.*cronium store restore/ }),
        );
      rmSync(copy, { recursive: true });
    }
    t.ok(read > 800, `${read} of 1600 reads were answered`);
  },
);

void t.test('a store that was written by another key or another format is refused', async (t) => {
  const directory = temporaryDirectory(t);
  await (async () => {
    await using store = await openIn(directory);
    await store.commit({ ops: [put(['var', 'user:a', 'k'], 'x')] });
  })();
  const other = LevelStore.open(join(directory, 'db'), { integrityKey: () => Buffer.alloc(32, 8) });
  await other.then(
    () => t.fail('it opened'),
    (error: unknown) => t.match(error, { code: 'internal', message: /not authentic/ }),
  );
  await using store = await openIn(directory);
  t.equal(store.version, 1, 'the right key still opens it');
});
