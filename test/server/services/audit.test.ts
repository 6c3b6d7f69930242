import { execFileSync } from 'node:child_process';
import { setTimeout as sleep } from 'node:timers/promises';
import t, { type Test } from 'tap';
import { type AuditRow, lineOf } from '#bridge/wire/audit-chain.js';
import { BridgeError } from '#bridge/wire/errors.js';
import { BATCH_BYTES_MAX } from '#server/services/audit/batches.js';
import { type AuditNote, noteOf, target } from '#server/services/audit/note.js';
import { AUDIT_QUEUE_MAX, Audit } from '#server/services/audit.js';
import { StoreClock } from '#server/store/clock.js';
import { MemoryStore } from '#server/store/memory-store.js';
import type { Commit, Committed, Key, RangeOptions, Recorder } from '#server/store/store.js';
import { randomTest } from '#test/support/random.js';

const ADA = { role: 'operator', name: 'ada', thumbprint: 'A'.repeat(43) };
const note = (op: string, ...names: string[]): AuditNote => target(noteOf(ADA, op), names);
const write = (name: string, version?: number): Commit => ({
  ops: [{ put: ['var', 'user:ada', name], value: Buffer.from('canary-value') }],
  ...(version !== undefined && { checks: [{ key: ['var', 'user:ada', name], version }] }),
  note: note('variable.set', name),
});

/** All events, the oldest first. */
async function eventsOf(audit: Audit, limit = 1000): Promise<AuditRow[]> {
  await audit.flush();
  const rows: AuditRow[] = [];
  for (let after: string | undefined; ; ) {
    const page = await audit.read({ after, limit, reverse: false });
    rows.push(...page.events);
    if (!page.more) return rows;
    after = page.cursor;
  }
}

const shown = (rows: readonly AuditRow[]) =>
  rows
    .filter(({ op }) => op !== 'audit.start')
    .map(({ op, outcome, target: [name = ''] = [] }) => `${op} ${name} ${outcome}`);

const namesOf = (rows: readonly AuditRow[]) => rows.map(({ target: [name = ''] = [] }) => name);
const byText = (a: string, b: string) => (a < b ? -1 : 1);

async function assertIntact(t: Test, audit: Audit): Promise<void> {
  const { broken } = await audit.verify();
  t.same(broken, []);
}

/** The store as one of several server processes has it: with a recorder of its own. */
class ServerView extends MemoryStore {
  readonly #shared: MemoryStore;
  #recorder: Recorder | undefined;

  constructor(shared: MemoryStore) {
    super();
    this.#shared = shared;
  }

  override recordWith(recorder: Recorder): void {
    this.#recorder = recorder;
  }

  override async commit(commit: Commit): Promise<Committed> {
    if (this.#recorder !== undefined) this.#shared.recordWith(this.#recorder);
    return await this.#shared.commit(commit); // done when it returns its promise
  }

  override get = async (key: Key) => await this.#shared.get(key);
  override getMany = async (keys: readonly Key[]) => await this.#shared.getMany(keys);
  override snapshot = async () => await this.#shared.snapshot();
  override range = (prefix: Key, options?: RangeOptions) => this.#shared.range(prefix, options);
}

/** A store whose commits fail when told to: before anything was written, or with the answer lost after. */
class FailingStore extends MemoryStore {
  failure: 'none' | 'not written' | 'answer lost' = 'none';
  #recorder: Recorder | undefined;
  #needsReset = false;
  #turn: Promise<unknown> = Promise.resolve();

  override recordWith(recorder: Recorder): void {
    this.#recorder = recorder;
    super.recordWith({
      record: (group) => {
        const ops = recorder.record(group);
        if (this.failure === 'not written') throw new BridgeError('no_space', 'the disk is full');
        return ops;
      },
      reset: async (reader) => {
        await recorder.reset(reader);
      },
    });
  }

  override async commit(commit: Commit): Promise<Committed> {
    const made = this.#turn.then(async () => await this.#commit(commit));
    this.#turn = made.catch(() => {});
    return await made;
  }

  async #commit(commit: Commit): Promise<Committed> {
    if (this.#needsReset) await this.#recorder?.reset(this);
    this.#needsReset = false;
    try {
      const committed = await super.commit(commit);
      if (this.failure === 'answer lost' && commit.note !== undefined)
        throw new BridgeError('unavailable', 'nobody knows');
      return committed;
    } catch (error) {
      this.#needsReset = true;
      throw error;
    }
  }
}

void t.test(
  'what is done is on record in the order it was done, changes with their outcome',
  async (t) => {
    const store = new MemoryStore();
    await using audit = await Audit.open(store);
    void audit.done(note('variable.get', 'a'));
    await store.commit(write('b'));
    await store.commit(write('b', 0));
    await store.commit({ ...write('c'), id: 'same' });
    const again = note('variable.set', 'c');
    await store.commit({ ...write('c'), id: 'same', note: again });
    void audit.done(again);
    void audit.failed(note('variable.get', 'd'), new BridgeError('denied', 'not yours'));
    void audit.failed(note('variable.set', 'e'), new BridgeError('invalid', 'canary-value is odd'));
    const rows = await eventsOf(audit);
    t.same(shown(rows), [
      'variable.get a ok',
      'variable.set b ok',
      'variable.set b conflict',
      'variable.set c ok',
      'variable.set c repeated',
      'variable.get d denied',
      'variable.set e invalid',
    ]);
    const [, , , conflict, made, repeated, denied, invalid] = rows;
    t.equal(conflict?.version, undefined);
    t.ok(made?.version !== undefined && made.version === repeated?.version);
    t.equal(denied?.detail, 'not yours');
    t.equal(invalid?.detail, undefined, 'sentences that may quote what was sent are not kept');
    t.match(denied, { who: 'operator:ada', peer: 'A'.repeat(16) });
    await assertIntact(t, audit);
  },
);

void t.test('a change and its event are one commit', async (t) => {
  const store = new MemoryStore();
  await using audit = await Audit.open(store);
  const committed = await store.commit(write('a'));
  const [head] = await audit.heads();
  const entry = await store.get(['audit-head', 'system', head?.writer ?? 0]);
  t.ok(committed.ok && entry?.version === committed.version);
});

void t.test(
  'changes and reads at once, by two servers, make unbroken chains that are read as one',
  async (t) => {
    const store = new MemoryStore();
    const servers = await Promise.all(
      [new ServerView(store), new ServerView(store)].map(async (view) => ({
        view,
        audit: await Audit.open(view),
      })),
    );
    await Promise.all(
      Array.from({ length: 2000 }, async (_, n) => {
        const { view, audit } = servers[n % 2] as (typeof servers)[number];
        if (n % 3 === 0) await view.commit(write(`key-${n}`));
        else await audit.done(note('variable.get', `key-${n}`));
        if (n % 100 === 0) await sleep(1);
      }),
    );
    for (const { audit } of servers) await audit.flush();
    for (const { audit } of servers) {
      const rows = (await eventsOf(audit, 100)).filter(({ op }) => op !== 'audit.start');
      t.equal(rows.length, 2000);
      t.equal(new Set(rows.map(({ target: [name] = [] }) => name)).size, 2000);
      t.same(
        rows.map(({ at }) => at),
        rows.map(({ at }) => at).sort((a, b) => a - b),
      );
      await assertIntact(t, audit);
    }
  },
);

void t.test('every record of the log stays below its limit, however long names are', async (t) => {
  const store = new MemoryStore();
  await using audit = await Audit.open(store);
  const long = '\u0001'.repeat(300); // six bytes each in JSON
  for (let n = 0; n < 200; n++) {
    const odd = { who: long, peer: long, op: long, outcome: long, detail: long, namespace: long };
    void audit.add({ ...odd, execution: long, target: [long, '\ud800', long, long] });
  }
  await audit.flush();
  const sizes: number[] = [];
  for await (const { value } of store.range(['audit', 'system'])) sizes.push(value.byteLength);
  t.ok(sizes.length > 10);
  t.ok(Math.max(...sizes) <= BATCH_BYTES_MAX);
  await assertIntact(t, audit);
});

void t.test(
  'a new run goes on from the ones before it, also when several run at once',
  async (t) => {
    const store = new MemoryStore();
    const first = await Audit.open(store);
    void first.done(note('variable.get', 'a'));
    await first.flush();
    const second = await Audit.open(store);
    void first.done(note('variable.get', 'b')); // a server that is still there
    store.recordWith(first);
    await first.flush();
    const third = await Audit.open(store);
    const starts = (await eventsOf(third)).filter(({ op }) => op === 'audit.start');
    t.same(
      starts.map(({ writer, links = [] }) => [
        writer,
        links.map((link) => [link.writer, link.seq]),
      ]),
      [
        [1, []],
        [2, [[1, 1]]],
        [
          3,
          [
            [2, 0],
            [1, 2],
          ],
        ],
      ],
    );
    t.same([first.writer, second.writer, third.writer], [1, 2, 3]);
    await assertIntact(t, third);
  },
);

void t.test('servers that start at the same moment get numbers of their own', async (t) => {
  const store = new MemoryStore();
  const audits = await Promise.all(Array.from({ length: 10 }, async () => await Audit.open(store)));
  t.equal(new Set(audits.map(({ writer }) => writer)).size, 10);
  await assertIntact(t, audits[0] as Audit);
});

void t.test('values are nowhere in what is stored of the log', async (t) => {
  const store = new MemoryStore();
  await using audit = await Audit.open(store);
  await store.commit(write('a'));
  void audit.failed(note('variable.set', 'a'), new BridgeError('invalid', 'canary-value'));
  void audit.failed(note('variable.set', 'a'), new Error('canary-value'));
  await audit.flush();
  for (const family of ['audit', 'audit-head'])
    for await (const { value } of store.range([family]))
      t.notOk(Buffer.from(value).includes('canary-value'));
});

void t.test('a read is written within a moment, without another commit', async (t) => {
  const store = new MemoryStore();
  await using audit = await Audit.open(store);
  void audit.done(note('variable.get', 'a'));
  await sleep(200);
  const { events } = await audit.read({ limit: 10, reverse: true });
  t.same(shown(events), ['variable.get a ok']);
});

void t.test(
  'a full queue makes callers wait, and refuses them when nothing can be written',
  async (t) => {
    const store = new FailingStore();
    const errors: BridgeError[] = [];
    await using audit = await Audit.open(store, (error) => errors.push(error));
    store.failure = 'not written';
    for (let n = 0; n < AUDIT_QUEUE_MAX; n++) {
      const wait = audit.done(note('variable.get', `${n}`));
      if (wait !== undefined) t.fail('there was room');
    }
    const refused = audit.done(note('variable.get', 'over'));
    t.ok(refused !== undefined);
    await t.rejects(refused ?? Promise.resolve(), {
      code: 'unavailable',
      message: /the disk is full/,
    });
    t.ok(errors.length > 0);
    store.failure = 'none';
    await audit.flush();
    const rows = await eventsOf(audit);
    t.equal(rows.filter(({ op }) => op === 'variable.get').length, AUDIT_QUEUE_MAX);
    t.match(
      rows.find(({ op }) => op === 'audit.lost'),
      { targets: 1, outcome: 'unavailable' },
    );
    const waits = Array.from({ length: AUDIT_QUEUE_MAX + 10 }, (_, n) =>
      audit.done(note('variable.get', `more-${n}`)),
    );
    t.equal(waits.filter((wait) => wait !== undefined).length, 10);
    await Promise.all(waits.filter((wait) => wait !== undefined));
    t.equal((await eventsOf(audit)).length, rows.length + AUDIT_QUEUE_MAX + 10);
    await assertIntact(t, audit);
  },
);

randomTest(
  'commits that fail lose nothing else and put nothing on record twice',
  async (t, random) => {
    const store = new FailingStore();
    await using audit = await Audit.open(store);
    const expected = new Set<string>();
    for (let n = 0; n < 600; n++) {
      const name = `key-${n}`;
      store.failure = random.chance(0.8) ? 'none' : random.pick(['not written', 'answer lost']);
      if (random.chance(0.5)) {
        void audit.done(note('variable.get', name));
        expected.add(name);
      } else {
        const { failure } = store;
        const made = await store.commit(write(name)).then(
          () => true,
          () => false,
        );
        if (made || failure === 'answer lost') expected.add(name);
      }
      if (random.chance(0.02)) await sleep(60);
    }
    store.failure = 'none';
    const rows = (await eventsOf(audit, 50)).filter(({ op }) => op !== 'audit.start');
    t.same(namesOf(rows).sort(byText), [...expected].sort(byText));
    await assertIntact(t, audit);
  },
);

void t.test('a store that does not record is noticed', async (t) => {
  class Forgetful extends MemoryStore {
    override recordWith(): void {}
  }
  const audit = await Audit.open(new Forgetful());
  void audit.done(note('variable.get', 'a'));
  await t.rejects(audit.flush(), { code: 'internal', message: /does not record/ });
  await audit[Symbol.asyncDispose]();
});

void t.test(
  'events are found by time, execution, owner, operation and outcome, in both directions',
  async (t) => {
    let now = Date.UTC(2026, 0, 1);
    const clock = () =>
      new StoreClock(
        0,
        () => {},
        () => now,
        () => now,
      );
    const store = new MemoryStore(clock());
    const expected: string[] = [];
    let audit = await Audit.open(store);
    for (let n = 0; n < 3000; n++) {
      now += 1000;
      if (n % 1000 === 999) {
        await audit.flush();
        audit = await Audit.open(store);
      }
      const event = note('variable.get', `key-${n}`);
      event.namespace = n % 2 === 0 ? 'user:ada' : 'org:acme';
      event.execution = `run-${n % 7}`;
      void audit.add({ ...event, outcome: n % 10 === 0 ? 'denied' : 'ok' });
      expected.push(`key-${n}`);
      if (n % 50 === 0) await audit.flush();
    }
    await audit.flush();
    const find = async (query: object, reverse: boolean, limit = 17) => {
      const names: string[] = [];
      for (let after: string | undefined; ; ) {
        const page = await audit.read({ ...query, after, limit, reverse });
        for (const { target: [name] = [] } of page.events) if (name !== undefined) names.push(name);
        if (!page.more) return reverse ? names.reverse() : names;
        after = page.cursor;
      }
    };
    const start = Date.UTC(2026, 0, 1);
    for (const reverse of [false, true]) {
      t.same(await find({}, reverse, 100), expected);
      const range = { from: start + 501_000, to: start + 2_501_000 };
      t.same(await find(range, reverse, 100), expected.slice(500, 2500));
      const few = { execution: 'run-3', namespace: 'user:ada', outcome: 'denied' };
      const those = expected.filter((_, n) => n % 7 === 3 && n % 2 === 0 && n % 10 === 0);
      t.same(await find(few, reverse), those);
      t.same(await find({ op: 'variable.set' }, reverse), []);
    }
    await t.rejects(audit.read({ after: 'nonsense', limit: 1, reverse: false }), {
      code: 'invalid',
    });
    const { end } = await audit.read({ limit: 1, reverse: true });
    await t.rejects(audit.read({ after: end, limit: 1, reverse: true }), { code: 'invalid' });
    await audit[Symbol.asyncDispose]();
  },
);

void t.test('a follower sees each event once, whichever server wrote it', async (t) => {
  const store = new MemoryStore();
  const first = await Audit.open(store);
  let { end: after } = await first.read({ limit: 1, reverse: true });
  const seen: string[] = [];
  const follow = async () => {
    const page = await first.read({ after, limit: 1000, reverse: false });
    after = page.cursor;
    seen.push(...shown(page.events));
  };
  void first.done(note('variable.get', 'a'));
  await follow();
  t.same(seen, []);
  await first.flush();
  await follow();
  const second = await Audit.open(store);
  void second.done(note('variable.get', 'c'));
  void first.done(note('variable.get', 'b')); // earlier by number, later in the log
  await second.flush();
  await follow();
  store.recordWith(first);
  await first.flush();
  await follow();
  await follow();
  t.same(seen, ['variable.get a ok', 'variable.get c ok', 'variable.get b ok']);
  await first[Symbol.asyncDispose]();
});

void t.test('anybody can check a hash with a shell', async (t) => {
  const store = new MemoryStore();
  await using audit = await Audit.open(store);
  await store.commit(write('é"\\'));
  const row = (await eventsOf(audit)).at(-1) as AuditRow;
  const sum = execFileSync('sha256sum', { input: row.prev + lineOf(row) });
  t.equal(sum.toString().slice(0, 64), row.hash);
});
