import { randomBytes } from 'node:crypto';
import {
  chmodSync,
  copyFileSync,
  existsSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setImmediate } from 'node:timers/promises';
import t, { type Test } from 'tap';
import { BridgeError } from '#bridge/wire/errors.js';
import { EncryptedStore } from '#server/store/encrypted-store.js';
import { Keyring } from '#server/store/keyring.js';
import { masterKeyCommand, masterKeyFile } from '#server/store/master-key.js';
import { MemoryStore } from '#server/store/memory-store.js';
import { type Key, type Op, type Store, SYSTEM } from '#server/store/store.js';
import { codeOf, entriesOf, put, text } from './contract.js';

function filesOf(t: Test) {
  const directory = mkdtempSync(join(tmpdir(), 'cronium-rotation-'));
  t.teardown(() => rmSync(directory, { recursive: true }));
  const masterKey = join(directory, 'master.key');
  const keyring = join(directory, 'keyring.json');
  return {
    directory,
    keyring,
    masterKey,
    next: `${masterKey}.next`,
    master: masterKeyFile(masterKey),
  };
}

async function errorOf(t: Test, body: () => unknown): Promise<BridgeError> {
  try {
    await body();
  } catch (error) {
    t.match(error, { name: 'BridgeError', message: /^[^\n]{10,400}$/ });
    if (error instanceof BridgeError) return error;
  }
  return new BridgeError('internal', 'it did not fail');
}

const contentsOf = (file: string) =>
  JSON.parse(readFileSync(file, 'utf8')) as {
    namespaces: Record<string, { keys: { id: number }[] }>;
    shredding: unknown[];
  };
const keyIdsOf = (file: string): number[] =>
  Object.values(contentsOf(file).namespaces)
    .flatMap(({ keys }) => keys.map(({ id }) => id))
    .sort((a, b) => a - b);

/** Under which data keys the records of a family rest. */
async function keysInUse(inner: Store, family: string): Promise<Set<number>> {
  const ids = new Set<number>();
  for await (const { value } of inner.range([family])) ids.add(Buffer.from(value).readUInt32BE(1));
  return ids;
}

const ada = (name: string): Key => ['var', 'user:ada', name];
const bob = (name: string): Key => ['var', 'user:bob', name];
const numbered = (count: number) => Array.from({ length: count }, (_, i) => i);

// ---------------------------------------------------------------- data keys

void t.test(
  'after a rotation new records use the new key, and old ones stay readable',
  async (t) => {
    const files = filesOf(t);
    const inner = new MemoryStore();
    const keyring = Keyring.open(files, true);
    const store = new EncryptedStore(inner, keyring);
    await store.commit({ ops: [put(ada('a'), '1'), put(bob('b'), '2')] });
    t.strictSame(keyIdsOf(files.keyring), [1, 2, 3]);
    keyring.rotate('user:ada');
    t.strictSame(keyIdsOf(files.keyring), [1, 2, 3, 4]);
    await store.commit({ ops: [put(ada('new'), '3'), put(bob('new'), '4')] });
    t.strictSame(await keysInUse(inner, 'var'), new Set([2, 4, 3]));
    t.equal((await entriesOf(store, ['var'])).length, 4);
    const again = new EncryptedStore(inner, Keyring.open(files, false));
    t.equal((await entriesOf(again, ['var'])).length, 4);
    t.match(await errorOf(t, () => keyring.rotate('user:nobody')), { code: 'not_found' });
  },
);

void t.test(
  'sealed anew, versions stay, no watcher hears, and the old keys are gone',
  async (t) => {
    const files = filesOf(t);
    const inner = new MemoryStore();
    const keyring = Keyring.open(files, true);
    const store = new EncryptedStore(inner, keyring);
    for (let i = 0; i < 500; i++)
      await store.commit({ ops: [put(ada(`${i}`), `${i}`), put(['exec-index', SYSTEM, i], 'x')] });
    const before = [
      ...(await entriesOf(store, ['var'])),
      ...(await entriesOf(store, ['exec-index'])),
    ];
    const snapshot = await store.snapshot();
    const heard: unknown[] = [];
    store.watch(['var'], (change) => heard.push(change));
    keyring.rotate();
    const progress: number[] = [];
    const done = await store.reencrypt(undefined, ({ sealed }) => progress.push(sealed));
    t.match(done, { sealed: 1000, droppedKeys: 2 });
    t.strictSame(
      progress,
      [...progress].sort((a, b) => a - b),
    );
    t.strictSame(await keysInUse(inner, 'var'), new Set([4]));
    t.strictSame(await keysInUse(inner, 'exec-index'), new Set([3]));
    t.strictSame(keyIdsOf(files.keyring), [3, 4]);
    const read = async (store: Store) => [
      ...(await entriesOf(store, ['var'])),
      ...(await entriesOf(store, ['exec-index'])),
    ];
    t.strictSame(await read(store), before);
    t.strictSame(await read(new EncryptedStore(inner, Keyring.open(files, false))), before);
    t.strictSame(heard, []);
    t.equal(
      (await entriesOf(snapshot, ['var'])).length,
      500,
      'an older snapshot is still readable',
    );
    t.match(await store.reencrypt(), { sealed: 0, droppedKeys: 0 });
  },
);

void t.test('records are sealed anew while others write, and nothing is lost', async (t) => {
  const files = filesOf(t);
  const inner = new MemoryStore();
  const keyring = Keyring.open(files, true);
  const store = new EncryptedStore(inner, keyring);
  const model = new Map<string, string>();
  let isStopped = false;
  const write = async (who: number) => {
    for (let i = 0; !isStopped; i++) {
      const name = `${who}-${i % 40}`;
      if (i % 7 === 6) {
        await store.commit({ ops: [{ del: ada(name) }] });
        model.delete(name);
      } else {
        await store.commit({ ops: [put(ada(name), `${i}`)] });
        model.set(name, `${i}`);
      }
      if (i % 5 === 0) await setImmediate();
    }
  };
  const writers = numbered(4).map(write);
  for (let round = 0; round < 8; round++) {
    keyring.rotate();
    if (round % 2 === 0) keyring.rotateMaster();
    await store.reencrypt();
    t.equal(keyIdsOf(files.keyring).length, 2, `round ${round}: one key each`);
  }
  isStopped = true;
  await Promise.all(writers);
  const again = new EncryptedStore(inner, Keyring.open(files, false));
  const found = (await entriesOf(again, ['var'])).map(
    ({ key, value }) => [`${key[2]}`, Buffer.from(value).toString()] as const,
  );
  t.same(Object.fromEntries(found), Object.fromEntries(model));
});

void t.test('a commit that is on its way when the key is rotated stays readable', async (t) => {
  const keyring = Keyring.ephemeral();
  const inner = new MemoryStore();
  const store = new EncryptedStore(inner, keyring);
  await store.commit({ ops: [put(ada('first'), '')] });
  // Sealed with the old key, and held up below until after the records were looked at.
  const commit = inner.commit.bind(inner);
  let release = () => {};
  const held = new Promise<void>((resolve) => {
    release = resolve;
  });
  inner.commit = async (one) => {
    await held;
    return await commit(one);
  };
  const late = store.commit({ ops: [put(ada('late'), 'x')] });
  inner.commit = commit;
  keyring.rotate();
  const done = store.reencrypt();
  await setImmediate();
  release();
  await Promise.all([late, done]);
  t.strictSame(await keysInUse(inner, 'var'), new Set([4]));
});

void t.test('sealing anew can be stopped and goes on later', async (t) => {
  const files = filesOf(t);
  const inner = new MemoryStore();
  const keyring = Keyring.open(files, true);
  const store = new EncryptedStore(inner, keyring);
  await store.commit({ ops: numbered(1000).map((i) => put(ada(`${i}`), '')) });
  keyring.rotate();
  const stop = new AbortController();
  await store
    .reencrypt(stop.signal, ({ sealed }) => {
      if (sealed >= 300) stop.abort();
    })
    .then(
      () => t.fail('not stopped'),
      () => t.pass('stopped'),
    );
  t.strictSame(keyIdsOf(files.keyring), [1, 2, 3, 4], 'no key is dropped');
  t.equal((await entriesOf(store, ['var'])).length, 1000);
  const again = new EncryptedStore(inner, Keyring.open(files, false));
  const { sealed } = await again.reencrypt();
  t.ok(sealed < 800, `${sealed}`);
  t.strictSame(keyIdsOf(files.keyring), [3, 4]);
});

// ---------------------------------------------------------------- the master key

void t.test(
  'the master key is rotated while serving: the old one opens nothing any more',
  async (t) => {
    const files = filesOf(t);
    const inner = new MemoryStore();
    const keyring = Keyring.open(files, true);
    const store = new EncryptedStore(inner, keyring);
    await store.commit({ ops: [put(ada('a'), '1')] });
    const old = readFileSync(files.masterKey);
    keyring.rotateMaster();
    t.notSame(readFileSync(files.masterKey), old);
    t.equal(existsSync(files.next), false);
    for (const file of [files.masterKey, files.keyring])
      t.equal((statSync(file).mode & 0o7777).toString(8), '600');
    await store.commit({ ops: [put(bob('b'), '2')] });
    const again = new EncryptedStore(inner, Keyring.open(files, false));
    t.equal((await entriesOf(again, ['var'])).length, 2);
    writeFileSync(files.masterKey, old);
    t.match(await errorOf(t, () => Keyring.open(files, false)), { code: 'denied' });
  },
);

void t.test(
  'a rotation of the master key that is interrupted at any step is finished or undone',
  async (t) => {
    const files = filesOf(t);
    const inner = new MemoryStore();
    const keyring = Keyring.open(files, true);
    await new EncryptedStore(inner, keyring).commit({ ops: [put(ada('a'), '1')] });
    const aside = (name: string) => join(files.directory, name);
    copyFileSync(files.masterKey, aside('master-1'));
    copyFileSync(files.keyring, aside('keyring-1'));
    keyring.rotateMaster();
    copyFileSync(files.masterKey, aside('master-2'));
    copyFileSync(files.keyring, aside('keyring-2'));
    const steps: Readonly<Record<string, readonly [string, string | undefined, string, string]>> = {
      'before the next key is written': ['master-1', undefined, 'keyring-1', 'master-1'],
      'before the keyring is written': ['master-1', 'master-2', 'keyring-1', 'master-1'],
      'before the next key takes its place': ['master-1', 'master-2', 'keyring-2', 'master-2'],
      'after it did': ['master-2', undefined, 'keyring-2', 'master-2'],
    };
    for (const [what, [master, next, ring, expected]] of Object.entries(steps)) {
      copyFileSync(aside(master), files.masterKey);
      rmSync(files.next, { force: true });
      if (next !== undefined) copyFileSync(aside(next), files.next);
      copyFileSync(aside(ring), files.keyring);
      const again = new EncryptedStore(inner, Keyring.open(files, false));
      t.equal((await entriesOf(again, ['var'])).length, 1, what);
      t.strictSame(readFileSync(files.masterKey), readFileSync(aside(expected)), what);
      t.equal(existsSync(files.next), false, what);
      // And goes on from there.
      Keyring.open(files, false).rotateMaster();
      Keyring.open(files, false);
    }
    rmSync(files.masterKey);
    t.match(await errorOf(t, () => Keyring.open(files, false)), { code: 'not_found' });
  },
);

void t.test('a rotation that fails half-way in a running server can be repeated', async (t) => {
  const files = filesOf(t);
  let fail: 'adopt' | undefined = 'adopt';
  const master = {
    ...files.master,
    adopt: () => {
      if (fail === 'adopt') throw new BridgeError('unavailable', 'the disk is away');
      files.master.adopt();
    },
  };
  const keyring = Keyring.open({ ...files, master }, true);
  const inner = new MemoryStore();
  const store = new EncryptedStore(inner, keyring);
  t.match(await errorOf(t, () => keyring.rotateMaster()), { code: 'unavailable' });
  await store.commit({ ops: [put(ada('a'), '1')] });
  fail = undefined;
  keyring.rotateMaster();
  await store.commit({ ops: [put(bob('b'), '1')] });
  t.equal(existsSync(files.next), false);
  const again = new EncryptedStore(inner, Keyring.open(files, false));
  t.equal((await entriesOf(again, ['var'])).length, 2);
});

void t.test(
  'a master key that others can read is refused, with the way to put it right',
  async (t) => {
    const files = filesOf(t);
    Keyring.open(files, true);
    for (const mode of [0o640, 0o604, 0o660, 0o644, 0o620]) {
      chmodSync(files.masterKey, mode);
      t.match(await errorOf(t, () => Keyring.open(files, false)), {
        code: 'denied',
        message: `chmod 600 ${files.masterKey}`,
      });
    }
    for (const mode of [0o600, 0o400]) {
      chmodSync(files.masterKey, mode);
      Keyring.open(files, false);
    }
  },
);

void t.test(
  'a command can print the master key, and its rotation follows what it prints',
  async (t) => {
    const files = filesOf(t);
    const source = join(files.directory, 'printed');
    const [one, two] = [randomBytes(32), randomBytes(32)].map((key) => key.toString('base64url'));
    writeFileSync(source, `${one}\n`);
    const ring = { keyring: files.keyring, master: masterKeyCommand(`cat '${source}'`) };
    const keyring = Keyring.open(ring, true);
    const inner = new MemoryStore();
    const store = new EncryptedStore(inner, keyring);
    await store.commit({ ops: [put(ada('a'), '1')] });
    t.match(await errorOf(t, () => keyring.rotateMaster()), {
      code: 'invalid',
      message: /still prints the old/,
    });
    Keyring.open(ring, false);
    writeFileSync(source, `${two}\n`);
    t.match(await errorOf(t, () => Keyring.open(ring, false)), { code: 'denied' });
    keyring.rotateMaster();
    const again = new EncryptedStore(inner, Keyring.open(ring, false));
    t.equal((await entriesOf(again, ['var'])).length, 1);
    writeFileSync(source, `${one}\n`);
    t.match(await errorOf(t, () => Keyring.open(ring, false)), { code: 'denied' });
  },
);

void t.test('a command that fails, prints rubbish or nothing is a sentence', async (t) => {
  const files = filesOf(t);
  const open = (command: string) => () =>
    Keyring.open({ keyring: files.keyring, master: masterKeyCommand(command) }, true);
  t.match(await errorOf(t, open('echo no such key >&2; echo more >&2; exit 3')), {
    code: 'unavailable',
    message: /failed \(status 3\): no such key$/,
  });
  t.match(await errorOf(t, open('exit 1')), { code: 'unavailable', message: /status 1/ });
  t.match(await errorOf(t, open('/no/such/program')), {
    code: 'unavailable',
    message: /not found/,
  });
  t.match(await errorOf(t, open('kill -9 $$')), { code: 'unavailable' });
  for (const command of ['true', 'echo rubbish', 'head -c 33 /dev/zero | base64'])
    t.match(await errorOf(t, open(command)), { code: 'denied', message: /32-byte key/ });
  t.equal(existsSync(files.keyring), false, 'nothing was made');
});

// ---------------------------------------------------------------- erasing a namespace

async function shreddable(t: Test) {
  const files = filesOf(t);
  const inner = new MemoryStore();
  const keyring = Keyring.open(files, true);
  const store = new EncryptedStore(inner, keyring);
  const ops: Op[] = numbered(450).map((i) => put(ada(`${i}`), `secret ${i}`));
  await store.commit({
    ops: [...ops, put(['hist', 'user:ada', 'x', 1], 'old'), put(bob('b'), 'kept')],
  });
  await store.commit({ ops: [put(['quota', SYSTEM, 'user:ada'], '1')] });
  return { files, inner, keyring, store };
}

void t.test(
  'an erased namespace is gone: keys, records and copies; the others are not',
  async (t) => {
    const { files, inner, keyring, store } = await shreddable(t);
    const copies = [...(await entriesOf(inner, ['var'])), ...(await entriesOf(inner, ['hist']))];
    const snapshot = await store.snapshot();
    await store.shred('user:ada');
    t.equal((await entriesOf(inner, ['var'])).length, 1, 'the records are deleted');
    t.equal((await entriesOf(inner, ['hist'])).length, 0);
    t.equal((await entriesOf(store, ['var', 'user:ada'])).length, 0);
    t.strictSame((await store.get(bob('b')))?.value, text('kept'));
    t.strictSame((await store.get(['quota', SYSTEM, 'user:ada']))?.value, text('1'));
    t.strictSame(keyIdsOf(files.keyring), [1, 3]);
    t.strictSame(contentsOf(files.keyring).shredding, []);
    t.equal(keyring.status().shredding, 0);

    t.equal((await entriesOf(snapshot, ['var'])).length, 1, 'a snapshot cannot show them either');
    // Somebody brings back the bytes from a copy of the database.
    await inner.commit({ ops: copies.map(({ key, value }) => ({ put: key, value })) });
    for (const ring of [keyring, Keyring.open(files, false)]) {
      const reader = new EncryptedStore(inner, ring);
      t.equal(await reader.get(ada('1')), undefined);
      t.not(await codeOf(entriesOf(reader, ['var', 'user:ada'])), 'no error');
    }
  },
);

void t.test('the name of an erased namespace can be used again, with new keys', async (t) => {
  const { files, inner, keyring, store } = await shreddable(t);
  const heard: string[] = [];
  store.watch(ada('1'), ({ entries }) =>
    heard.push(...entries.map(({ value }) => Buffer.from(value).toString())),
  );
  store.watch(['var', 'user:ada'], ({ version }) => heard.push(`${version}`));
  await store.shred('user:ada');
  await store.commit({ ops: [put(ada('1'), 'new')] });
  t.strictSame(heard.sort(), [`${store.version}`, 'new'], 'who watched a name in it hears');
  t.strictSame((await store.get(ada('1')))?.value, text('new'));
  t.equal(await store.get(ada('2')), undefined);
  t.equal((await entriesOf(store, ['var', 'user:ada'])).length, 1);
  t.strictSame(keyIdsOf(files.keyring), [1, 3, 4], 'a number is never given twice');
  await store.shred('user:ada');
  await store.shred('user:ada');
  await store.shred('user:nobody');
  t.equal((await entriesOf(inner, ['var'])).length, 1);
  t.equal(keyring.status().namespaces, 2);
});

void t.test(
  'while a namespace is erased whoever uses it is told to wait, and others are not',
  async (t) => {
    const { inner, store } = await shreddable(t);
    const commit = inner.commit.bind(inner);
    const codes: unknown[] = [];
    inner.commit = async (one) => {
      codes.push(
        ...(await Promise.all([
          codeOf(store.get(ada('1'))),
          codeOf(store.getMany([ada('1'), bob('b')])),
          codeOf(entriesOf(store, ['var', 'user:ada'])),
          codeOf(entriesOf(store, ['var', 'user:ada', '1'])),
          codeOf(store.commit({ ops: [put(ada('1'), 'x')] })),
          codeOf(store.commit({ ops: [{ del: ada('1') }] })),
          codeOf(store.commit({ checks: [{ key: ada('1'), version: 0 }], ops: [] })),
        ])),
      );
      t.equal(await codeOf(store.get(bob('b'))), 'no error');
      t.equal((await entriesOf(store, ['var'])).length, 1, 'a list of all passes over it');
      t.equal((await entriesOf(store, ['var'], { limit: 1 })).length, 1);
      return await commit(one);
    };
    await store.shred('user:ada');
    t.ok(codes.length > 14);
    t.strictSame(new Set(codes), new Set(['unavailable']));
  },
);

void t.test(
  'a commit that is on its way when its namespace is erased leaves nothing behind',
  async (t) => {
    const { inner, store } = await shreddable(t);
    const commit = inner.commit.bind(inner);
    let release = () => {};
    const held = new Promise<void>((resolve) => {
      release = resolve;
    });
    inner.commit = async (one) => {
      await held;
      return await commit(one);
    };
    const late = store.commit({ ops: [put(ada('late'), 'x')] });
    inner.commit = commit;
    const done = store.shred('user:ada');
    await setImmediate();
    release();
    await Promise.all([late, done]);
    t.equal((await entriesOf(inner, ['var'])).length, 1);
  },
);

void t.test(
  'an erasure that is interrupted at any step is finished at the next start',
  async (t) => {
    for (let failAt = 0; ; failAt++) {
      const { files, inner, store } = await shreddable(t);
      const commit = inner.commit.bind(inner);
      let commits = 0;
      inner.commit = async (one) => {
        if (commits++ === failAt) throw new BridgeError('unavailable', 'killed');
        return await commit(one);
      };
      const isDone = await store.shred('user:ada').then(
        () => true,
        () => false,
      );
      inner.commit = commit;
      if (isDone) {
        t.ok(failAt >= 3, `${failAt} steps`);
        return;
      }
      // The keys went first.
      t.strictSame(keyIdsOf(files.keyring), [1, 3]);
      const again = new EncryptedStore(inner, Keyring.open(files, false));
      t.equal(
        await codeOf(again.get(ada('1'))),
        'unavailable',
        `before it is finished (${failAt})`,
      );
      await again.finishShredding();
      t.equal((await entriesOf(inner, ['var'])).length, 1);
      t.equal((await entriesOf(inner, ['hist'])).length, 0);
      await again.commit({ ops: [put(ada('1'), 'new')] });
      t.strictSame((await again.get(ada('1')))?.value, text('new'));
    }
  },
);

void t.test("the server's own namespace cannot be erased", async (t) => {
  const { store } = await shreddable(t);
  t.match(await errorOf(t, () => store.shred(SYSTEM)), { code: 'invalid' });
  t.strictSame((await store.get(['quota', SYSTEM, 'user:ada']))?.value, text('1'));
});

void t.test('as much as is granted fits below, sealed', async (t) => {
  const inner = new MemoryStore();
  const store = new EncryptedStore(inner, Keyring.ephemeral());
  const { commitOpsMax, commitBytesMax, valueBytesMax } = store.limits;
  const many = numbered(commitOpsMax).map((i) => put(['var', 'user:ada', 'x', `${i}`, 'y'], ''));
  t.equal(await codeOf(store.commit({ ops: many })), 'no error');
  const count = Math.floor(commitBytesMax / (valueBytesMax + 100));
  const large = numbered(count).map((i) => put(ada(`${i}`), Buffer.alloc(valueBytesMax)));
  t.equal(await codeOf(store.commit({ ops: large })), 'no error');
  const long: Key = ['var', 'user:ada', 'x'.repeat(3000)];
  t.equal(
    await codeOf(store.commit({ ops: [put(long, Buffer.alloc(valueBytesMax))] })),
    'no error',
  );
  t.equal(await codeOf(store.commit({ ops: [put([...long, 'x'.repeat(100)], '')] })), 'too_large');
});

void t.test('encryptions are counted', async (t) => {
  const keyring = Keyring.ephemeral();
  const store = new EncryptedStore(new MemoryStore(), keyring);
  await store.commit({ ops: [put(ada('a'), ''), put(ada('b'), ''), put(bob('c'), '')] });
  keyring.rotate();
  await store.commit({ ops: [put(ada('a'), '')] });
  t.match(keyring.status(), { encryptions: 4, encryptionsMax: 2, namespaces: 3, dataKeys: 6 });
});
