import { randomUUID } from 'node:crypto';
import t from 'tap';
import { BridgeError } from '#bridge/wire/errors.js';
import { JsonText, type Namespace, VariableKey } from '#bridge/wire/names.js';
import { MergePolicies } from '#server/services/merge-policies.js';
import { type Setting, Variables } from '#server/services/variables.js';
import { StoreClock } from '#server/store/clock.js';
import { LARGE_LIMITS } from '#server/store/large-values.js';
import { MemoryStore } from '#server/store/memory-store.js';

const ADA: Namespace = { user: 'ada' };
const ORIGIN = { by: 'operator:test' };
const key = (text: string): VariableKey => VariableKey.parse(text);
const json = (value: unknown): string => JsonText.parse(JSON.stringify(value));

/** Two servers on one store, under a clock that the test moves. */
class Desk {
  now = Date.UTC(2026, 10, 24);
  readonly store = new MemoryStore(
    new StoreClock(
      0,
      () => {},
      () => this.now,
      () => 0,
    ),
    LARGE_LIMITS,
  );
  readonly variables = new Variables(this.store, new MergePolicies(this.store));
  readonly other = new Variables(this.store, new MergePolicies(this.store));

  set = async (name: string, text: string, more: Partial<Setting> = {}) =>
    await this.variables.set(ADA, key(name), { text, ...more }, ORIGIN);

  async text(name: string): Promise<string | null> {
    return (await this.variables.get(ADA, key(name))).text;
  }
}

async function errorOf(body: Promise<unknown>): Promise<string> {
  return await body.then(
    () => 'no error',
    (error: unknown) =>
      error instanceof BridgeError ? `${error.code}: ${error.message}` : String(error),
  );
}

void t.test(
  'a type holds for every later write, by whomever, until it is taken away',
  async (t) => {
    const desk = new Desk();
    const good: Record<string, unknown> = {
      string: 'x',
      number: 1.5,
      boolean: false,
      object: { a: 1 },
      array: [],
      bytes: 'aGk=',
    };
    for (const type of ['string', 'number', 'boolean', 'object', 'array', 'bytes'] as const) {
      await desk.set(type, json(good[type]), { attributes: { type } });
      for (const [other, value] of Object.entries({ ...good, null: null })) {
        const edit = { set: [[key(type), json(value)] as const], delete: [] };
        const error = await errorOf(desk.variables.edit(ADA, edit, { by: 'run-1' }));
        const fits = other === type || (type === 'string' && other === 'bytes');
        t.equal(error.split(':')[0], fits ? 'no error' : 'invalid', `${other} into ${type}`);
      }
    }
    await desk.set('number', '2', { attributes: { type: null } });
    t.equal(await errorOf(desk.set('number', '"two"')), 'no error');
  },
);

void t.test('a schema is enforced, with what is wrong where, and must itself be one', async (t) => {
  const desk = new Desk();
  const schema = json({
    type: 'object',
    properties: { port: { type: 'integer', maximum: 65535 } },
    required: ['port'],
    additionalProperties: false,
  });
  await desk.set('server', '{"port": 80}', { attributes: { schema } });
  t.match(
    await errorOf(desk.set('server', '{"port": 70000}')),
    /^invalid: variable "server" does not fit its schema: \/port must be <= 65535/,
  );
  t.match(await errorOf(desk.set('server', '{}')), /must have required property 'port'/);
  t.equal(await desk.text('server'), '{"port": 80}', 'as the author wrote it');
  t.match(
    await errorOf(desk.set('a', '1', { attributes: { schema: '{"type": "nonsense"}' } })),
    /^invalid: the schema cannot be used/,
  );
  t.match(
    await errorOf(desk.set('a', '1', { attributes: { schema: '5' } })),
    /^invalid: the schema cannot be used/,
  );
  t.match(
    await errorOf(
      desk.set('a', '1', { attributes: { schema: json({ $ref: 'https://example.com/x' }) } }),
    ),
    /^invalid/,
    'nothing is fetched',
  );
  t.equal((await desk.variables.get(ADA, key('server'))).schema, schema);
});

void t.test(
  'a variable expires at its time: for readers at once, for everybody with the next sweep',
  async (t) => {
    const desk = new Desk();
    await desk.set('session', '"x"', { attributes: { expiresAt: desk.now + 1000 } });
    await desk.set('kept', '1');
    const heard: (string | null)[] = [];
    desk.other.watch(ADA, (changes) => heard.push(...changes.map(({ text }) => text)));
    t.equal(await desk.text('session'), '"x"');
    desk.now += 1001;
    t.match(await errorOf(desk.text('session')), /^not_found/);
    t.strictSame(
      (await desk.variables.list(ADA)).map((one) => one.key as string),
      ['kept'],
    );
    t.equal(await desk.variables.sweep(), 1);
    t.strictSame(heard, [null], 'running executions hear of it');
    t.equal(await desk.variables.sweep(), 0, 'once');
    await desk.set('session', '"y"', { ifVersion: 0 });
    t.equal(
      await desk.text('session'),
      '"y"',
      'the name is free again, without the old attributes',
    );
    t.equal((await desk.variables.get(ADA, key('session'))).expiresAt, undefined);
  },
);

void t.test(
  'a later time, or a new value without one, keeps a variable from expiring',
  async (t) => {
    const desk = new Desk();
    await desk.set('a', '1', { attributes: { expiresAt: desk.now + 1000 } });
    await desk.set('a', '2', { attributes: { expiresAt: desk.now + 5000 } });
    await desk.set('b', '1', { attributes: { expiresAt: desk.now + 1000 } });
    await desk.set('b', '2', { attributes: { expiresAt: null } });
    desk.now += 2000;
    await desk.variables.sweep();
    t.equal(await desk.text('a'), '2');
    t.equal(await desk.text('b'), '2');
    desk.now += 4000;
    await desk.variables.sweep();
    t.match(await errorOf(desk.text('a')), /^not_found/);
  },
);

void t.test('compare and set: only from the version that was read, and once', async (t) => {
  const desk = new Desk();
  const { version } = await desk.set('a', '1', { ifVersion: 0 });
  t.match(
    await errorOf(desk.set('a', '2', { ifVersion: 0 })),
    /^conflict: variable "a" is at version 1, not 0/,
  );
  const outcomes = await Promise.all(
    Array.from({ length: 20 }, (_, i) =>
      errorOf(
        (i % 2 === 0 ? desk.variables : desk.other).set(
          ADA,
          key('a'),
          { text: `${i}`, ifVersion: version },
          ORIGIN,
        ),
      ),
    ),
  );
  t.equal(outcomes.filter((one) => one === 'no error').length, 1);
  t.ok(outcomes.every((one) => one === 'no error' || one.startsWith('conflict')));
  t.match(
    await errorOf(desk.variables.delete(ADA, key('a'), { ifVersion: version }, ORIGIN)),
    /^conflict/,
  );
  const present = await desk.variables.get(ADA, key('a'));
  await desk.variables.delete(ADA, key('a'), { ifVersion: present.version }, ORIGIN);
  t.match(await errorOf(desk.text('a')), /^not_found/);
});

void t.test('a change asked for again under its id is made once', async (t) => {
  const desk = new Desk();
  await desk.set('n', '1');
  const ids = [randomUUID(), randomUUID(), randomUUID()];
  for (let twice = 0; twice < 2; twice++) {
    await desk.variables.add(ADA, key('n'), '5', ids[0], ORIGIN);
    await desk.variables.append(ADA, key('list'), '[1]', ids[1], ORIGIN);
    await desk.other.edit(
      ADA,
      { set: [[key('e'), '1']], delete: [], commitId: ids[2] ?? '' },
      ORIGIN,
    );
    await desk.set('e', '2');
  }
  t.equal(await desk.text('n'), '6');
  t.equal(await desk.text('list'), '[1]');
  t.equal(await desk.text('e'), '2');
  await desk.variables.add(ADA, key('n'), '5', ids[0], { by: 'somebody else' });
  t.equal(await desk.text('n'), '11', 'an id belongs to whoever made it up');
});

void t.test(
  'add is exact to the last digit, append keeps what the author wrote, and both lose nothing',
  async (t) => {
    const desk = new Desk();
    await desk.set('big', '9007199254740993');
    t.equal(
      (await desk.variables.add(ADA, key('big'), '0.1', undefined, ORIGIN)).text,
      '9007199254740993.1',
    );
    t.match(
      await errorOf(desk.variables.add(ADA, key('word'), '"x"', undefined, ORIGIN)),
      /^invalid/,
    );
    await desk.set('text', '"a\\u00e9"');
    t.equal(
      (await desk.variables.append(ADA, key('text'), '"\\n"', undefined, ORIGIN)).text,
      '"a\\u00e9\\n"',
    );
    await desk.set('list', '[ 1.0 ]');
    t.equal(
      (await desk.variables.append(ADA, key('list'), '[]', undefined, ORIGIN)).text,
      '[ 1.0 ]',
    );
    t.equal(
      (await desk.variables.append(ADA, key('list'), '[2.0, 3]', undefined, ORIGIN)).text,
      '[ 1.0,2.0, 3]',
    );
    t.match(
      await errorOf(desk.variables.append(ADA, key('list'), '"x"', undefined, ORIGIN)),
      /^invalid/,
    );
    await Promise.all(
      Array.from({ length: 100 }, (_, i) =>
        (i % 2 === 0 ? desk.variables : desk.other).add(
          ADA,
          key('hits'),
          '1',
          randomUUID(),
          ORIGIN,
        ),
      ),
    );
    t.equal(await desk.text('hits'), '100', 'a hundred at once, through two servers');
  },
);

void t.test(
  'values that stood for a while are kept, and can be made the present one again',
  async (t) => {
    const desk = new Desk();
    const versions: number[] = [];
    for (let i = 0; i < 14; i++) {
      versions.push((await desk.set('a', `"value ${i}"`)).version);
      await desk.set('quick', `${i}`);
      await desk.set('quick', `${i}.5`);
      desk.now += 1000;
    }
    const history = await desk.variables.history(ADA, key('a'));
    t.strictSame(
      history.map(({ text }) => text),
      [12, 11, 10, 9, 8, 7, 6, 5, 4, 3].map((i) => `"value ${i}"`),
      'the last ten, newest first',
    );
    t.equal(history[0]?.version, versions[12]);
    t.notOk(
      (await desk.variables.history(ADA, key('quick'))).some(({ text }) => !text.includes('.5')),
      'what stood for less than a second is not',
    );
    await desk.variables.restore(ADA, key('a'), versions[5] ?? 0, undefined, ORIGIN);
    t.equal(await desk.text('a'), '"value 5"');
    t.match(
      await errorOf(desk.variables.restore(ADA, key('a'), versions[0] ?? 0, undefined, ORIGIN)),
      /^not_found: no version/,
    );
    await desk.variables.delete(ADA, key('a'), {}, ORIGIN);
    await desk.variables.restore(ADA, key('a'), versions[12] ?? 0, undefined, ORIGIN);
    t.equal(await desk.text('a'), '"value 12"', 'a deleted one too');
    let kept = 0;
    for await (const _ of desk.store.range(['hist', 'user:ada', 'a'])) kept++;
    t.ok(kept <= 10, `${kept} values are stored, no more`);
  },
);

void t.test(
  'what is said about a variable stays through plain writes, and goes with its deletion',
  async (t) => {
    const desk = new Desk();
    await desk.set('k', '"hush"', {
      attributes: { secret: true, metadata: { team: 'a' }, type: 'string' },
    });
    await desk.variables.edit(ADA, { set: [[key('k'), '"still"']], delete: [] }, { by: 'run-1' });
    t.match(await desk.variables.get(ADA, key('k')), {
      text: '"still"',
      secret: true,
      metadata: { team: 'a' },
      type: 'string',
      by: 'run-1',
    });
    t.match(
      await desk.other.list(ADA),
      [{ key: 'k', secret: true }],
      'the other server has it too',
    );
    await desk.variables.delete(ADA, key('k'), {}, ORIGIN);
    await desk.set('k', '1');
    t.equal((await desk.variables.get(ADA, key('k'))).secret, undefined);
  },
);

void t.test(
  'the cache of one server never shows less than what the other has acknowledged',
  async (t) => {
    const desk = new Desk();
    await desk.set('a', '0');
    await desk.other.get(ADA, key('a'));
    const looks: boolean[] = [];
    for (const { cache } of [desk.variables, desk.other]) cache.looked = (hit) => looks.push(hit);
    for (let i = 0; i < 200; i++) {
      const [writer, reader] =
        i % 2 === 0 ? [desk.variables, desk.other] : [desk.other, desk.variables];
      await writer.set(ADA, key('a'), { text: `${i}` }, ORIGIN);
      t.equal((await reader.get(ADA, key('a'))).text, `${i}`);
    }
    t.ok(looks.length >= 100 && looks.every((hit) => hit), 'nothing was read again');
    looks.length = 0;
    desk.now += 10 * 60 * 1000;
    t.equal(await desk.text('a'), '199');
    t.strictSame(looks, [false], 'after its time it is read anew');
  },
);

void t.test('what is deleted, and what is large, does not pile up', async (t) => {
  const desk = new Desk();
  for (let i = 0; i < 1300; i++) {
    await desk.set(`gone-${i}`, '1');
    desk.now += 1001;
    await desk.variables.delete(ADA, key(`gone-${i}`), {}, ORIGIN);
  }
  await desk.set('kept', '1');
  await desk.set('kept', '2');
  const count = async (family: string) => {
    let records = 0;
    for await (const _ of desk.store.range([family, 'user:ada'])) records++;
    return records;
  };
  t.ok((await count('var')) < 1100, `${await count('var')} records of deleted variables`);
  t.ok((await count('hist')) < 1100, `${await count('hist')} values of theirs`);
  await desk.set('gone-0', '"again"', { ifVersion: 0 });
  t.equal(await desk.text('gone-0'), '"again"', 'a name whose trace is gone can be used');
  const large = JSON.stringify('x'.repeat(60 * 1024 + 8 * 1024));
  const before = await count('hist');
  for (let i = 0; i < 3; i++) {
    await desk.set('large', large.slice(0, -2) + `${i}"`);
    desk.now += 2000;
  }
  t.equal(await count('hist'), before, 'a large value leaves no earlier ones behind');
});
