/**
 * Calls of every operation with something in their parameters, or around them, that is not as it should be. Each is answered
 * with one error, a code and a sentence, or closes its connection with a reason; it has no effect, and nobody else notices.
 *
 * ROUNDS=n makes it longer; SEED=n repeats it.
 */
import { randomUUID } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { Packr } from 'msgpackr';
import t, { type Test } from 'tap';
import { CODES } from '#bridge/wire/errors.js';
import { decodeFrames, encodeFrame, type Frame } from '#bridge/wire/frames.js';
import { SERVER_OPERATIONS } from '#bridge/wire/protocol.js';
import { callerOf, OPS, type Op } from '#test/support/example-calls.js';
import { Bench, thumbprintOfTls } from '#test/support/matrix.js';
import { type Random, randomTest } from '#test/support/random.js';
import { RawClient } from '#test/support/raw-client.js';
import { changedKeys, contentsOf } from '#test/support/store-contents.js';

t.setTimeout(1_800_000);

/** Calls of each operation. */
const ROUNDS = Number(process.env['ROUNDS'] ?? 15);

/** An attacker in the same process as the server is counted too. */
const GROWTH_BYTES_MAX = 64 * 1024 * 1024;
/** What a neighbour waits at most while somebody sends what takes long to read, on two busy cores. */
const NEIGHBOUR_MS_MAX = 2000;
const ANSWER_MS_MAX = 20_000;

/** Take long, and are not about what they are told. */
const SLOW: ReadonlySet<Op> = new Set<Op>([
  'store.verify' as Op,
  'store.backup' as Op,
  'store.compact' as Op,
]);

setFlagsFromString('--expose-gc');
const collectGarbage = runInNewContext('gc') as () => void;

function memory(): number {
  collectGarbage();
  const { heapUsed, arrayBuffers } = process.memoryUsage();
  return heapUsed + arrayBuffers;
}

/** Packs what our own client would not: dates, maps, errors, regular expressions. */
const anyPackr = new Packr({ useRecords: false, moreTypes: true });
const packed = (frame: readonly unknown[]): Buffer => Buffer.from(anyPackr.pack(frame));

type Ended = { readonly code: string; readonly message: string };

/** Sends any bytes as calls, and waits for what they end with. */
class Attacker implements Disposable {
  readonly #client: RawClient;
  #nextId = 1_000_000;

  private constructor(client: RawClient) {
    this.#client = client;
  }

  static async open(bench: Bench, who: string): Promise<Attacker> {
    const client = await RawClient.open(bench.server, bench.server.tls(who));
    await client.peer.call('hello', {
      protocol: (await helloOf(bench)).protocol,
      software: 'fuzz',
    });
    return new Attacker(client);
  }

  get client(): RawClient {
    return this.#client;
  }

  /** `closed` with the reason as its message, when the connection is. */
  async call(frame: (id: number) => Uint8Array): Promise<Ended> {
    const id = this.#nextId++;
    const late = new AbortController();
    try {
      return await Promise.race([
        this.#client
          .answerTo(id)
          .then(
            (answer): Ended =>
              answer[0] === 2
                ? { code: answer[2], message: answer[3] }
                : { code: 'ok', message: '' },
          ),
        this.#client.closed.then(({ code, reason }) => ({
          code: 'closed',
          message: `${code} ${reason}`,
        })),
        sleep(ANSWER_MS_MAX, { code: 'no answer', message: '' }, { signal: late.signal }),
        this.#sent(frame(id)),
      ]);
    } finally {
      late.abort();
    }
  }

  async #sent(bytes: Uint8Array): Promise<never> {
    this.#client.send(bytes);
    return await new Promise<never>(() => {});
  }

  [Symbol.dispose](): void {
    this.#client[Symbol.dispose]();
  }
}

const helloOf = async (bench: Bench) => (await bench.example('hello')) as { protocol: number };

// ------------------------------------------------------------------------------------------------------ mutations

const nested = (depth: number, inside: unknown, isArray: boolean): unknown => {
  let value = inside;
  for (let i = 0; i < depth; i++) value = isArray ? [value] : { a: value };
  return value;
};

/** An own member of any name, `__proto__` too. */
const withMember = (object: object, name: string, value: unknown): object => {
  const copy = { ...object };
  Object.defineProperty(copy, name, {
    value,
    enumerable: true,
    configurable: true,
    writable: true,
  });
  return copy;
};

const NAMES = [
  'x',
  '',
  '__proto__',
  'constructor',
  'toString',
  'hasOwnProperty',
  'then',
  'key ',
  '\n\u001b[2J',
];

const INTEGERS: readonly unknown[] = [
  0,
  -1,
  1,
  2 ** 31,
  2 ** 32,
  2 ** 53 - 1,
  -(2 ** 53 - 1),
  2 ** 53,
  1.5,
  -0,
  Number.NaN,
  Number.POSITIVE_INFINITY,
  1e308,
  2n ** 63n,
  -(2n ** 63n),
];

const TEXTS: readonly string[] = [
  '',
  ' ',
  '\0',
  '\ud800',
  'a\udfff',
  '../../etc/passwd',
  '__proto__',
  '__updated__',
  '.',
  '..',
  'x'.repeat(256),
  'é'.repeat(128),
  'x'.repeat(70_000),
  randomUUID(),
  'null',
  '-0',
  '1e999999999',
  '1e-999999999',
  '9'.repeat(9_999),
  '9'.repeat(200_000),
  '[]',
  '{"a":1,"a":2}',
  '{"__proto__":{"a":1}}',
  '"\\ud800"',
  '"\\u0000"',
  '[1,]',
  '{"a":',
  '\ufeff1',
  `${'['.repeat(5_000)}${']'.repeat(5_000)}`,
  `${'['.repeat(200_000)}${']'.repeat(200_000)}`,
  '{"$ref":"#"}',
  '{"allOf":[{"$ref":"#"}]}',
  '{"$ref":"https://example.org/schema.json"}',
  '{"type":"nonsense"}',
  '{"pattern":"("}',
  '{"pattern":"^(a+)+$"}',
  '{"$defs":{"a":{"$ref":"#/$defs/a"}},"$ref":"#/$defs/a"}',
];

const THINGS = (random: Random): readonly unknown[] => [
  null,
  undefined,
  true,
  [],
  {},
  [[]],
  new Date(0),
  new Date(Number.NaN),
  new Map([['a', 1]]),
  new Map([[{}, []]]),
  new Set([1]),
  /a/,
  new Error('boo'),
  Buffer.alloc(100),
  new Float64Array(10),
  random.pick(INTEGERS),
  random.pick(TEXTS),
  nested(500, null, true),
  nested(500, null, false),
  Array.from({ length: 100_001 }, () => null),
  Array.from({ length: 40 }, (_, i) => [`k${i}`, '1']),
  Object.fromEntries(Array.from({ length: 1000 }, (_, i) => [`k${i}`, i])),
];

/** One thing in a copy of `value` is another. */
function mutated(random: Random, value: unknown): unknown {
  const isInside = typeof value === 'object' && value !== null && random.chance(0.85);
  if (!isInside) {
    if (typeof value === 'number' && random.chance(0.6)) return random.pick(INTEGERS);
    if (typeof value === 'string' && random.chance(0.6)) return random.pick(TEXTS);
    return random.pick(THINGS(random));
  }
  if (Array.isArray(value)) {
    const at = random.int(value.length + 1);
    if (at === value.length || random.chance(0.2))
      return [...(value as unknown[]), random.pick(THINGS(random))];
    return value.map((one: unknown, i) => (i === at ? mutated(random, one) : one));
  }
  const names = Object.keys(value);
  if (names.length === 0 || random.chance(0.25))
    return withMember(value, random.pick(NAMES), random.pick(THINGS(random)));
  const name = random.pick(names);
  if (random.chance(0.2))
    return Object.fromEntries(Object.entries(value).filter(([one]) => one !== name));
  return withMember(value, name, mutated(random, (value as Record<string, unknown>)[name]));
}

/** Members that examples leave out, so that they are mutated as well. */
const MORE: { readonly [O in Op]?: Readonly<Record<string, unknown>> } = {
  'execution.create': { executionId: randomUUID(), profile: 'local', readOnly: false, org: 'acme' },
  'execution.finish': { rawOutput: 'raw', exitCode: 1, signal: 'SIGKILL', warnings: ['careful'] },
  'execution.list': { before: 1, running: true, namespace: { user: 'ada' } },
  'token.mint': { scopes: [{ area: 'variables', access: 'r', keys: ['a*'] }] },
  'variables.commit': { bases: [['count', '1']], delete: ['gone'] },
  'variable.get': { reveal: true },
  'variable.list': { prefix: 'c' },
  'variable.set': {
    ifVersion: 0,
    commitId: randomUUID(),
    type: 'string',
    secret: true,
    expiresAt: 4_000_000_000_000,
    metadata: { label: 'x' },
  },
  'variable.delete': { ifVersion: 0, commitId: randomUUID() },
  'variable.add': { commitId: randomUUID() },
  'variable.append': { commitId: randomUUID() },
  'variable.history': { reveal: true },
  'variable.restore': { commitId: randomUUID() },
  'variable.edit': { commitId: randomUUID(), delete: ['gone'] },
  'audit.read': { from: 0, to: 1, execution: 'x', op: 'hello', outcome: 'ok', after: 'e30' },
  'audit.verify': { heads: ['0'.repeat(64)] },
};

// ------------------------------------------------------------------------------------------------------ judgement

/** As the server reads it. Undefined: it will not read it at all. */
function readBack(bytes: Uint8Array): Frame | undefined {
  try {
    return decodeFrames(bytes)[0];
  } catch {
    return undefined;
  }
}

/** No stack, no path, no word of a library. */
const isSentence = (text: string): boolean =>
  text.length > 0 &&
  text.length <= 8192 &&
  !/\n\s+at |node_modules|\/server\/|\/dist\/|Zod|TypeError|RangeError|\[object /.test(text);

function isWrong({ code, message }: Ended, isGood: boolean): boolean {
  if (code === 'closed') return isGood || !/^10\d\d [^\n]{5,}$/.test(message);
  if (code === 'ok') return !isGood;
  if (!Object.hasOwn(CODES, code) || code === 'internal' || !isSentence(message)) return true;
  return !isGood && code !== 'invalid' && code !== 'too_large';
}

const shown = (value: unknown): string => {
  try {
    return JSON.stringify(value, (_, one: unknown) =>
      typeof one === 'bigint' ? `${one}n` : one,
    ).slice(0, 300);
  } catch {
    return 'too deep to show';
  }
};

/** Another operator, who is answered all the while. Returns the longest wait. */
async function neighbour(bench: Bench, signal: AbortSignal): Promise<number> {
  let longestMs = 0;
  while (!signal.aborted) {
    const began = performance.now();
    await bench.operator.peer.call('variable.get', {
      namespace: bench.subjects.namespace,
      key: bench.subjects.keys.text,
    } as never);
    longestMs = Math.max(longestMs, performance.now() - began);
    await sleep(5);
  }
  return longestMs;
}

/** Whoever may make the call, so that nothing but its parameters stands in the way. */
const callerFor = (op: Op): 'host' | 'operator' =>
  ['host', 'channel', 'user', 'reader', 'any'].includes(callerOf(op)) ? 'host' : 'operator';

async function undisturbed(t: Test, body: (bench: Bench) => Promise<void>): Promise<void> {
  const bench = await Bench.open(t);
  const over = new AbortController();
  const waited = neighbour(bench, over.signal);
  const before = memory();
  await body(bench);
  over.abort();
  const longestMs = await waited;
  t.ok(longestMs < NEIGHBOUR_MS_MAX, `a neighbour has waited ${Math.round(longestMs)} ms at most`);
  await bench.server.audit.flush();
  const grown = memory() - before;
  t.ok(grown < GROWTH_BYTES_MAX, `memory has grown by ${Math.round(grown / 1024)} KiB`);
}

randomTest(
  'parameters that are not as they should be are refused with a sentence, and do nothing',
  async (t, random) => {
    await undisturbed(t, async (bench) => {
      let [refused, accepted] = [0, 0];
      for (const op of OPS) {
        let attacker = await Attacker.open(bench, callerFor(op));
        let channel = 0;
        // Made before anything is watched; opening it changes nothing.
        let token = await bench.token();
        const reopen = async () => {
          if (callerFor(op) === 'host') channel = await bench.open(token, attacker.client);
        };
        const frame = (params: unknown) => (id: number) =>
          packed([0, id, op, channel, 5000, params]);
        const isGood = (params: unknown): boolean => {
          const read = readBack(frame(params)(1));
          return read !== undefined && SERVER_OPERATIONS[op].params.safeParse(read[5]).success;
        };
        const call = async (params: unknown, good: boolean): Promise<void> => {
          const ended = await attacker.call(frame(params));
          if (isWrong(ended, good))
            t.fail(`${op} ${shown(params)}: ${ended.code} ${ended.message}`);
          if (ended.code === 'closed') {
            attacker[Symbol.dispose]();
            attacker = await Attacker.open(bench, callerFor(op));
          }
          const isOver = ended.code === 'closed' || (good && op === 'execution.finish');
          if (good && op === 'execution.finish') token = await bench.token();
          if (isOver) await reopen();
        };
        await reopen();
        const all: unknown[] = [];
        for (let i = 0; i < ROUNDS; i++) {
          const example = (await bench.example(op)) as object;
          all.push(mutated(random, random.chance(0.7) ? { ...example, ...MORE[op] } : example));
        }
        all.push(...THINGS(random));
        const good = all.filter(isGood);
        const bad = all.filter((params) => !good.includes(params));
        // What has expired goes by itself: not while others are watched.
        while ((await bench.server.variables.sweep()) > 0);
        const before = await contentsOf(bench.server.store);
        for (const params of bad) await call(params, false);
        const changed = changedKeys(before, await contentsOf(bench.server.store));
        if (changed.length > 0) t.fail(`${op} has changed ${changed.join()}`);
        if (!SLOW.has(op)) for (const params of good) await call(params, true);
        refused += bad.length;
        accepted += good.length;
        attacker[Symbol.dispose]();
      }
      t.ok(refused > OPS.length * 15, `${refused} were refused`);
      t.ok(accepted > OPS.length, `${accepted} were fine all the same`);
    });
  },
);

randomTest(
  'what stands around the parameters is refused as well, with a reason',
  async (t, random) => {
    await undisturbed(t, async (bench) => {
      const before = await contentsOf(bench.server.store);
      const params = (await bench.example('variable.edit')) as object;
      const good = [0, 0, 'variable.edit', 0, 5000, params];
      const parts: Readonly<Record<number, readonly unknown[]>> = {
        0: [-1, 4, 127, '0', null, 0.5],
        1: [-1, 1.5, 2 ** 53, 2n ** 63n, '1', null, Number.NaN],
        2: [
          '',
          'variable',
          'variable.edit ',
          '__proto__',
          'constructor',
          'x'.repeat(65),
          'x'.repeat(100_000),
          7,
          null,
        ],
        3: [-1, 1.5, 2 ** 53, '0', null, Number.NaN],
        4: [0, -1, 1.5, 2 ** 31, 2 ** 53, Number.POSITIVE_INFINITY, '5000', null],
      };
      const frames: unknown[] = [null, 0, '', [], {}, [0], good.slice(0, 5), [...good, 1], [good]];
      for (const [at, values] of Object.entries(parts))
        for (const value of values)
          frames.push(good.map((one, i) => (i === Number(at) ? value : one)));
      for (const frame of frames) {
        const attacker = await Attacker.open(bench, 'operator');
        const isFrame = Array.isArray(frame) && frame.length === 6;
        const ended = await attacker.call((id) =>
          anyPackr.pack(
            isFrame ? frame.map((one: unknown, i) => (i === 1 && one === 0 ? id : one)) : frame,
          ),
        );
        const isFine =
          ['closed', 'invalid', 'too_large'].includes(ended.code) && !isWrong(ended, false);
        if (!isFine) t.fail(`${shown(frame)}: ${ended.code} ${ended.message}`);
        attacker[Symbol.dispose]();
      }
      for (const protocol of [0, -1, 99, 1.5, 2 ** 40]) {
        const client = await RawClient.open(bench.server, bench.server.tls('host'));
        const ended = await client.outcome('hello', { protocol, software: 'future' });
        t.match(ended, { code: 'invalid', message: /\w+ \w+/ }, `protocol ${protocol}`);
        t.match(await client.outcome('server.status', {}), { code: 'denied' });
        client[Symbol.dispose]();
      }
      for (let i = 0; i < 200; i++) {
        const bytes = Buffer.from(encodeFrame([0, 1, 'variable.edit', 0, 5000, params]));
        for (let flips = 1 + random.int(4); flips > 0; flips--)
          bytes[random.int(10)] = random.int(256);
        // With another number or channel it is a call as good as before.
        if (readBack(bytes)?.[2] === 'variable.edit') continue;
        const attacker = await Attacker.open(bench, random.pick(['host', 'operator']));
        attacker.client.send(bytes);
        attacker[Symbol.dispose]();
      }
      await sleep(200);
      t.strictSame(
        changedKeys(before, await contentsOf(bench.server.store)),
        [],
        'nothing has changed',
      );
    });
  },
);

void t.test(
  'a schema whose check would never end is given up, and keeps nobody waiting',
  async (t) => {
    await undisturbed(t, async (bench) => {
      const { namespace } = bench.subjects;
      const set = async (schema: string, text: string) =>
        await bench.operator.outcome('variable.set', { namespace, key: 'checked', schema, text });
      const slow = '{"type":"string","pattern":"^(a+)+$"}';
      t.match(await set(slow, '"aaaa"'), { code: 'ok' });
      const ended = await set(slow, `"${'a'.repeat(60)}!"`);
      t.match(ended, { code: 'invalid', message: /takes too long/ });
      const many = JSON.stringify(Array.from({ length: 60_000 }, (_, i) => ({ i })));
      t.match(await set('{"uniqueItems":true}', many), {
        code: 'invalid',
        message: /takes too long/,
      });
      t.match(await set('{"type":"string"}', '"fine"'), { code: 'ok' });
      const channel = await bench.open(await bench.token());
      const own = { key: 'own', schema: slow, text: '"a"' };
      t.match(await bench.host.outcome('variable.set', own, channel), { code: 'denied' });
    });
  },
);

randomTest('no token with anything changed opens anything', async (t, random) => {
  const bench = await Bench.open(t);
  const { tokens } = bench.server;
  const thumbprint = thumbprintOfTls(bench.server.tls('host'));
  const [token, other] = [await bench.token(), await bench.token()];
  const channels = bench.server.runtime.channels;
  const changed = (): string => {
    const bytes = Buffer.from(token);
    const parts = [token.split('.'), other.split('.')] as const;
    switch (random.int(6)) {
      case 0: {
        const at = random.int(bytes.length);
        bytes[at] = (bytes[at] ?? 0) ^ (1 << random.int(8));
        return bytes.toString('latin1');
      }
      case 1:
        return token.slice(0, random.int(token.length));
      case 2:
        return token.slice(1 + random.int(token.length - 1));
      case 3:
        return [0, 1, 2].map((i) => random.pick(parts)[i]).join('.');
      case 4:
        return [0, 1, 2].map(() => parts[0][random.int(3)]).join('.');
      default: {
        const at = random.int(token.length);
        return `${token.slice(0, at)}${random.pick(['=', '.', ' ', '\n', 'A', '%00', token])}${token.slice(at)}`;
      }
    }
  };
  for (let i = 0; i < 30 * ROUNDS; i++) {
    const bad = changed();
    if (bad === token || bad === other) continue;
    const verdict = await tokens.verify(bad, thumbprint).then(
      () => 'granted',
      (error: unknown) => String(error),
    );
    if (verdict !== 'BridgeError: the token is not valid here') t.fail(`${bad} is ${verdict}`);
    if (i % 10 > 0) continue;
    const ended = await bench.host.outcome('execution.open', { token: bad });
    if (ended.code !== 'denied' && ended.code !== 'invalid') t.fail(`${bad}: ${ended.code}`);
  }
  t.equal(bench.server.runtime.channels, channels);
  await bench.open(token);
  t.pass('unchanged it opens');
});
