import { existsSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { LevelStore } from '#server/store/level-store.js';
import type { Store } from '#server/store/store.js';
import { backup, restore } from '#server/store/store-backup.js';
import { randomTest } from '#test/support/random.js';
import { codeOf, entriesOf, put } from './contract.js';

const KEY = Buffer.alloc(32, 7);
const KEYRING = Buffer.from('{"wrapped": "keys"}');

function temporaryDirectory(t: Test): string {
  const directory = mkdtempSync(join(tmpdir(), 'cronium-backup-'));
  t.teardown(() => rmSync(directory, { recursive: true, force: true }));
  return directory;
}

const open = async (directory: string) =>
  await LevelStore.open(directory, { integrityKey: () => KEY });

async function bytesOf(store: LevelStore): Promise<Buffer> {
  const chunks: Buffer[] = [];
  for await (const chunk of backup(store, () => KEYRING, KEY)) chunks.push(chunk);
  return Buffer.concat(chunks);
}

async function* inPieces(bytes: Buffer, size: number): AsyncGenerator<Buffer> {
  for (let at = 0; at < bytes.length; at += size) yield bytes.subarray(at, at + size);
}

const content = async (store: Store) =>
  (await entriesOf(store, ['f'])).map(({ key, value, version }) => [
    key,
    version,
    Buffer.from(value).toString('base64'),
  ]);

void t.test(
  'a backup made while commits go on holds one moment, and the restored store goes on from there',
  async (t) => {
    const directory = temporaryDirectory(t);
    await using store = await open(join(directory, 'a'));
    for (let i = 0; i < 300; i++)
      await store.commit({
        ops: [put(['f', i], `${i}`.repeat(500))],
      });
    let running = true;
    const writing = (async () => {
      for (let i = 0; running; i++)
        await store.commit({ ops: [put(['f', i % 400], `late ${i}`), put(['f', 'late'], `${i}`)] });
    })();
    const bytes = await bytesOf(store);
    running = false;
    await writing;
    const keyrings: string[] = [];
    const restored = await restore(join(directory, 'b'), inPieces(bytes, 10_007), (keyring) => {
      keyrings.push(keyring.toString());
      return KEY;
    });
    t.strictSame(keyrings, [KEYRING.toString()]);
    await using second = await open(join(directory, 'b'));
    t.equal(second.version, restored.version);
    t.strictSame((await second.verify()).problems, []);
    const versions = (await entriesOf(second, ['f'])).map(({ version }) => version);
    t.equal(Math.max(...versions), second.version, 'the newest commit of that moment is there');
    const last = await second.get(['f', 'late']);
    t.equal(last === undefined || last.version === second.version, true, 'and whole');
    t.match(await second.commit({ ops: [put(['f', 'new'], 'x')] }), {
      ok: true,
      version: restored.version + 1,
    });
  },
);

randomTest('a backup that was cut or changed anywhere is refused', async (t, random) => {
  const directory = temporaryDirectory(t);
  const bytes = await (async () => {
    await using store = await open(join(directory, 'a'));
    for (let i = 0; i < 40; i++) await store.commit({ ops: [put(['f', i], random.bytes(100))] });
    return await bytesOf(store);
  })();
  for (let round = 0; round < 40; round++) {
    const bad = Buffer.from(bytes);
    const at = random.int(bad.length);
    // The keyring is checked by whoever unwraps it, not here: its bytes count in the check all the same.
    bad[at] = (bad[at] ?? 0) ^ (1 + random.int(255));
    const changed = random.chance(0.5) ? bad : bytes.subarray(0, at);
    const target = join(directory, `b${round}`);
    t.equal(
      await codeOf(restore(target, inPieces(changed, 4096), () => KEY)),
      'invalid',
      `at ${at}`,
    );
  }
  t.equal(
    await codeOf(
      restore(
        join(directory, 'longer'),
        inPieces(Buffer.concat([bytes, Buffer.alloc(5)]), 4096),
        () => KEY,
      ),
    ),
    'invalid',
    'with something behind it',
  );
  t.equal(
    await codeOf(restore(join(directory, 'a'), inPieces(bytes, 4096), () => KEY)),
    'busy',
    'over a store',
  );
  await restore(join(directory, 'whole'), inPieces(bytes, 1), () => KEY);
  await using first = await open(join(directory, 'a'));
  await using second = await open(join(directory, 'whole'));
  t.strictSame(await content(second), await content(first), 'and the whole one is not');
  t.ok(existsSync(join(directory, 'whole.head')));
});

void t.test('an empty store can be backed up and restored', async (t) => {
  const directory = temporaryDirectory(t);
  const bytes = await (async () => {
    await using store = await open(join(directory, 'a'));
    return await bytesOf(store);
  })();
  t.strictSame(await restore(join(directory, 'b'), inPieces(bytes, 100), () => KEY), {
    version: 0,
    records: 0,
  });
  await using store = await open(join(directory, 'b'));
  t.match(await store.commit({ ops: [put(['f'], 'x')] }), { ok: true, version: 1 });
});
