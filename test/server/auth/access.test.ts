import t from 'tap';
import {
  AREAS,
  type Area,
  Capability,
  KeyPattern,
  PROFILES,
} from '#bridge/wire/protocol/credentials.js';
import { type Access, accessOf, allows, assertAllowed, matches } from '#server/auth/access.js';
import { randomTest } from '#test/support/random.js';

type Verdict = 'yes' | 'denied' | 'read_only';

function verdict(access: Access, area: Area, want: 'r' | 'w', key?: string): Verdict {
  try {
    assertAllowed(access, area, want, key);
    return 'yes';
  } catch (error) {
    return (error as { code: Verdict }).code;
  }
}

const [yes, no, ro] = ['yes', 'denied', 'read_only'] as const;

/** What each profile and mode may read and write. Complete: a new area does not compile without its row. */
// biome-ignore format: a table
const TABLE: { readonly [A in Area]: readonly [string, Verdict, Verdict, Verdict, Verdict, Verdict, Verdict, Verdict, Verdict] } = {
  //               local rw: r, w   local ro: r, w  remote rw: r, w  remote ro: r, w
  variables:  ['variables',  yes, yes,  yes, ro,   yes, no,   yes, ro],
  output:     ['output',     yes, yes,  yes, ro,   yes, yes,  yes, ro],
  condition:  ['condition',  yes, yes,  yes, ro,   yes, yes,  yes, ro],
  events:     ['events',     yes, yes,  yes, ro,   no,  no,   no,  ro],
  locks:      ['locks',      yes, yes,  yes, ro,   no,  no,   no,  ro],
  streams:    ['streams',    yes, yes,  yes, ro,   no,  no,   no,  ro],
  tools:      ['tools',      yes, yes,  yes, ro,   no,  no,   no,  ro],
};

void t.test('what a profile allows in each mode, area by area', async (t) => {
  t.strictSame(Object.keys(TABLE), [...AREAS]);
  for (const area of AREAS) {
    const [, ...expected] = TABLE[area];
    const found = PROFILES.flatMap((profile) =>
      (['rw', 'ro'] as const).flatMap((mode) =>
        (['r', 'w'] as const).map((want) => verdict(accessOf(profile, mode), area, want)),
      ),
    );
    t.strictSame(found, expected, area);
  }
});

void t.test('capabilities narrow a profile and never widen it: every combination', async (t) => {
  let tried = 0;
  for (const profile of PROFILES)
    for (const mode of ['rw', 'ro'] as const)
      for (const has of AREAS)
        for (const access of ['r', 'rw'] as const)
          for (const keys of [undefined, ['app_*']])
            for (const area of AREAS)
              for (const want of ['r', 'w'] as const)
                for (const key of [undefined, 'app_x', 'other']) {
                  const grant = {
                    profile,
                    mode,
                    cap: [{ area: has, access, ...(keys && { keys }) }],
                  };
                  const byProfile = verdict(accessOf(profile, mode), area, want);
                  const byCap =
                    has === area &&
                    (want === 'r' || access === 'rw') &&
                    (keys === undefined || key === 'app_x');
                  const expected = byProfile === 'yes' && !byCap ? 'denied' : byProfile;
                  const found = verdict(grant, area, want, key);
                  if (found !== expected)
                    t.fail(`${JSON.stringify({ grant, area, want, key, found, expected })}`);
                  if (allows(grant, area, want, key) !== (expected === 'yes')) t.fail('allows');
                  tried++;
                }
  t.equal(tried, 2 * 2 * 7 * 2 * 2 * 7 * 2 * 3);
});

void t.test('a token without capabilities opens nothing', async (t) => {
  for (const area of AREAS)
    for (const want of ['r', 'w'] as const)
      t.equal(verdict({ profile: 'local', mode: 'rw', cap: [] }, area, want, 'k'), 'denied');
});

void t.test('of several capabilities for an area one is enough', async (t) => {
  const access = {
    profile: 'local',
    mode: 'rw',
    cap: [
      { area: 'variables', access: 'r' },
      { area: 'variables', access: 'rw', keys: ['tmp_*'] },
      { area: 'variables', access: 'rw', keys: ['count', '*_log'] },
    ],
  } as const;
  const found = ['tmp_a', 'count', 'a_log', 'city'].map((key) => [
    verdict(access, 'variables', 'r', key),
    verdict(access, 'variables', 'w', key),
  ]);
  t.strictSame(found, [
    [yes, yes],
    [yes, yes],
    [yes, yes],
    [yes, no],
  ]);
  t.equal(verdict(access, 'variables', 'r'), yes, 'the whole area can be read');
  t.equal(verdict(access, 'variables', 'w'), no, 'but not be written');
});

void t.test('a pattern matches by its stars, and everything else is itself', async (t) => {
  const table: readonly (readonly [string, readonly string[], readonly string[]])[] = [
    ['city', ['city'], ['', 'cit', 'cityy', 'City', 'city*']],
    ['*', ['', 'a', 'anything at all', '*'], []],
    ['app_*', ['app_', 'app_x', 'app_*'], ['app', 'xapp_', 'App_x']],
    ['*_url', ['_url', 'db_url'], ['url', 'db_url2']],
    ['app_*_url', ['app__url', 'app_db_url'], ['app_url', 'app_db_ur']],
    ['*secret*', ['secret', 'a secret b', 'secretsecret'], ['secre', 'sec ret']],
    ['a*a', ['aa', 'aba', 'aaa'], ['a', 'ab', '']],
    ['a*b*c', ['abc', 'aXbYc', 'abbc', 'abcbc'], ['ac', 'abC', 'acb', 'bac']],
    ['aa*aa*aa', ['aaaaaa', 'aaaaaaa'], ['aaaaa', 'aaaa', 'aa']],
    ['**', ['', 'x'], []],
    ['.*', ['.', '.x'], ['x']],
    ['[a-z]', ['[a-z]'], ['a']],
    ['a?', ['a?'], ['ab']],
    ['büro_*', ['büro_1'], ['buro_1']],
  ];
  for (const [pattern, good, bad] of table) {
    t.strictSame(
      good.filter((key) => !matches(pattern, key)),
      [],
      `${pattern} matches`,
    );
    t.strictSame(
      bad.filter((key) => matches(pattern, key)),
      [],
      `${pattern} does not match`,
    );
  }
});

randomTest('a pattern means what a regular expression says it means', async (t, random) => {
  const text = (length: number) =>
    Array.from({ length: random.int(length) }, () => random.pick(['a', 'b', '.'])).join('');
  let hits = 0;
  for (let i = 0; i < 20_000; i++) {
    const pattern = Array.from({ length: 1 + random.int(3) }, () => text(4)).join('*');
    const key = text(9);
    const source = pattern.replaceAll('.', '\\.').replaceAll('*', '.*');
    const expected = new RegExp(`^${source}$`).test(key);
    if (matches(pattern, key) !== expected) throw new Error(`${pattern} on ${key}: ${!expected}`);
    if (expected) hits++;
  }
  t.ok(hits > 500, `${hits} matched`);
});

void t.test('patterns and capabilities have limits that are said', async (t) => {
  const problem = (pattern: string) => KeyPattern.safeParse(pattern).error?.issues[0]?.message;
  t.equal(problem('a*b*c'), undefined);
  t.equal(problem(''), 'a key pattern cannot be empty');
  t.equal(problem('*a*b*'), 'a key pattern has at most 2 "*"');
  t.equal(problem('é'.repeat(128)), 'a key pattern has at most 255 bytes');
  t.equal(problem('a\nb'), 'a key pattern is plain text');
  for (const bad of [
    { area: 'variables' },
    { area: 'Variables', access: 'r' },
    { area: 'variables', access: 'w' },
    { area: 'variables', access: 'r', keys: [] },
    { area: 'variables', access: 'r', keys: Array.from({ length: 33 }, () => 'x') },
    { area: 'variables', access: 'r', keys: ['x'], more: true },
  ])
    t.notOk(Capability.safeParse(bad).success, JSON.stringify(bad));
});

void t.test('a refusal says what was refused, without the key', async (t) => {
  const remote = accessOf('remote');
  t.throws(() => assertAllowed(remote, 'variables', 'w', 'password_of_ada'), {
    code: 'denied',
    message: 'this execution may not write this key of variables',
  });
  t.throws(() => assertAllowed(remote, 'locks', 'r'), {
    message: 'this execution may not read locks',
  });
  t.throws(() => assertAllowed(accessOf('local', 'ro'), 'output', 'w'), {
    code: 'read_only',
    message: 'this execution runs in read-only mode',
  });
});
