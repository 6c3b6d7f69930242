import {
  createHmac,
  createPrivateKey,
  createPublicKey,
  generateKeyPairSync,
  type KeyObject,
  sign,
} from 'node:crypto';
import { mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type JWTPayload, SignJWT } from 'jose';
import t, { type Test } from 'tap';
import { BridgeError, type Code } from '#bridge/wire/errors.js';
import { ExecutionId } from '#bridge/wire/names.js';
import { accessOf } from '#server/auth/access.js';
import { keyIdOf, SigningKeys } from '#server/auth/signing-keys.js';
import { TOKEN_LIFETIME_MS, Tokens } from '#server/auth/tokens.js';
import { randomTest } from '#test/support/random.js';

const HOST = 'thumbprint-of-host-a';
const OTHER_HOST = 'thumbprint-of-host-b';
const EXECUTION = ExecutionId.parse('7b0f4e6e-9f5a-4c8e-8a52-0d8b7c1f2a33');
const GRANT = { executionId: EXECUTION, namespace: { user: 'ada' }, ...accessOf('local') } as const;

/** 2026-11-23T07:00:00Z, exactly on a second. */
const START = Date.UTC(2026, 10, 23, 7);
const DAY_MS = 24 * 60 * 60 * 1000;

/** A server's tokens under a clock that the test moves, with the key it signs with. */
class Office {
  readonly key: KeyObject;
  readonly tokens: Tokens;
  now = START;

  constructor(key = generateKeyPairSync('ed25519').privateKey) {
    this.key = key;
    this.tokens = new Tokens(new SigningKeys(key), () => this.now);
  }

  mint = async (lifetimeMs?: number): Promise<string> =>
    (await this.tokens.mint(GRANT, HOST, lifetimeMs)).token;

  /** `granted`, or the code of the refusal. */
  async verdict(token: string, thumbprint = HOST): Promise<Code | 'granted'> {
    try {
      await this.tokens.verify(token, thumbprint);
      return 'granted';
    } catch (error) {
      if (error instanceof BridgeError) return error.code;
      throw error;
    }
  }
}

const encode = (value: unknown) => Buffer.from(JSON.stringify(value)).toString('base64url');
const decode = (part: string | undefined) =>
  JSON.parse(Buffer.from(part ?? '', 'base64url').toString()) as Record<string, unknown>;

const JTI = '0f3b1c52-54a1-4d59-9a05-1a8c0b0d7e11';

/** The claims and header of a good token. */
const CLAIMS: JWTPayload = {
  iss: 'cronium-server',
  aud: 'cronium-runtime',
  sub: `exec:${EXECUTION}`,
  jti: JTI,
  fam: JTI,
  iat: START / 1000,
  nbf: START / 1000,
  exp: START / 1000 + 300,
  ns: { user: 'ada' },
  profile: 'local',
  mode: 'rw',
  cap: [{ area: 'variables', access: 'rw' }],
  cnf: { 'x5t#S256': HOST },
};
const headerOf = (key: KeyObject) => ({
  alg: 'EdDSA',
  typ: 'at+jwt',
  kid: keyIdOf(createPublicKey(key)),
});

/** Signs CLAIMS with changes; a claim or header that is undefined is left out. */
const forge = (
  key: KeyObject,
  claims: Readonly<Record<string, unknown>> = {},
  header: Readonly<Record<string, unknown>> = {},
) =>
  new SignJWT(JSON.parse(JSON.stringify({ ...CLAIMS, ...claims })) as JWTPayload)
    .setProtectedHeader({ ...headerOf(key), ...header })
    .sign(key);

void t.test('a token grants to its host what was granted to its execution', async (t) => {
  const { tokens, now } = new Office();
  const minted = await tokens.mint(GRANT, HOST);
  t.equal(minted.expiresAt, now + TOKEN_LIFETIME_MS);
  const { jti, expiresAt } = minted;
  t.strictSame(await tokens.verify(minted.token, HOST), { ...GRANT, jti, family: jti, expiresAt });
  const narrow = {
    executionId: EXECUTION,
    namespace: { org: 'acme' },
    profile: 'remote',
    mode: 'ro',
    cap: [{ area: 'variables', access: 'r', keys: ['app_*', '*_url'] }],
  } as const;
  const other = await tokens.mint(narrow, HOST, 1000);
  t.strictSame(await tokens.verify(other.token, HOST), {
    ...narrow,
    jti: other.jti,
    family: other.jti,
    expiresAt: now + 1000,
  });
});

void t.test(
  'a token is an RFC 9068 access token, bound to a certificate as RFC 8705 says',
  async (t) => {
    const office = new Office();
    const [header, claims] = (await office.mint())
      .split('.')
      .map((part, i) => (i < 2 ? decode(part) : {}));
    t.strictSame(header, headerOf(office.key));
    t.match(claims, {
      ...CLAIMS,
      jti: /^[0-9a-f-]{36}$/,
      fam: claims?.['jti'],
      cap: [...GRANT.cap],
    });
    const again = decode((await office.mint()).split('.')[1]);
    t.not(again['jti'], claims?.['jti'], 'every token has an id of its own');
  },
);

void t.test(
  'the forged tokens below would be granted if nothing were wrong with them',
  async (t) => {
    const office = new Office();
    t.equal(await office.verdict(await forge(office.key)), 'granted');
    t.equal(
      await office.verdict(await forge(office.key, { more: 'a claim of a newer version' })),
      'granted',
    );
  },
);

void t.test(
  'a token works until its end and a little longer, as clocks differ, and then is expired',
  async (t) => {
    const office = new Office();
    const token = await office.mint(60_000);
    for (const [afterMs, verdict] of [
      [0, 'granted'],
      [59_000, 'granted'],
      [64_000, 'granted'],
      [66_000, 'token_expired'],
      [86_400_000, 'token_expired'],
    ] as const) {
      office.now = START + afterMs;
      t.equal(await office.verdict(token), verdict, `after ${afterMs} ms`);
    }
  },
);

void t.test('a token from the future is refused, unless clocks merely differ', async (t) => {
  const office = new Office();
  const token = await office.mint();
  for (const [beforeMs, verdict] of [
    [4000, 'granted'],
    [7000, 'denied'],
    [3_600_000, 'denied'],
  ] as const) {
    office.now = START - beforeMs;
    t.equal(await office.verdict(token), verdict, `${beforeMs} ms before it was made`);
  }
  office.now = START;
  t.equal(await office.verdict(await forge(office.key, { nbf: START / 1000 + 60 })), 'denied');
});

void t.test('an expired token of somebody else is denied, not expired', async (t) => {
  const token = await new Office().mint(1000);
  const office = new Office();
  office.now = START + 3_600_000;
  t.equal(await office.verdict(token), 'denied');
});

void t.test('a token is refused at another host than its own', async (t) => {
  const office = new Office();
  const token = await office.mint();
  t.equal(await office.verdict(token, HOST), 'granted');
  for (const thumbprint of [OTHER_HOST, '', HOST.toUpperCase(), `${HOST} `, HOST.slice(0, -1)])
    t.equal(await office.verdict(token, thumbprint), 'denied', JSON.stringify(thumbprint));
});

void t.test('a token with any other claim than ours is denied', async (t) => {
  const office = new Office();
  const table: Record<string, Readonly<Record<string, unknown>>> = {
    'another issuer': { iss: 'someone-else' },
    'no issuer': { iss: undefined },
    'another audience': { aud: 'cronium-admin' },
    'no audience': { aud: undefined },
    'an audience that only begins like ours': { aud: 'cronium-runtime-2' },
    'no end': { exp: undefined },
    'an end that is no number': { exp: '9999999999' },
    'no certificate': { cnf: undefined },
    'an empty confirmation': { cnf: {} },
    'a key instead of a certificate': { cnf: { jkt: HOST } },
    'a certificate by another hash': { cnf: { 'x5t#S1': HOST } },
    'no namespace': { ns: undefined },
    'two namespaces': { ns: { user: 'ada', org: 'acme' } },
    'a namespace of nobody': { ns: {} },
    'a namespace with a name that is none': { ns: { user: '../root' } },
    'no scopes': { cap: undefined },
    'scopes as the first version wrote them': { cap: ['variables'] },
    'a scope instead of a list': { cap: { area: 'variables', access: 'rw' } },
    'an area that does not exist': { cap: [{ area: 'admin', access: 'r' }] },
    'a good area and one that does not exist': {
      cap: [
        { area: 'variables', access: 'rw' },
        { area: 'everything', access: 'r' },
      ],
    },
    'an access that does not exist': { cap: [{ area: 'variables', access: 'w' }] },
    'a capability that says more': { cap: [{ area: 'variables', access: 'r', not: ['x'] }] },
    'no pattern': { cap: [{ area: 'variables', access: 'r', keys: [] }] },
    'a pattern with three stars': { cap: [{ area: 'variables', access: 'r', keys: ['*a*b*'] }] },
    'a pattern that is too long': {
      cap: [{ area: 'variables', access: 'r', keys: ['x'.repeat(256)] }],
    },
    'too many patterns': {
      cap: [{ area: 'variables', access: 'r', keys: Array.from({ length: 33 }, () => 'x') }],
    },
    'too many capabilities': {
      cap: Array.from({ length: 33 }, () => ({ area: 'variables', access: 'r' })),
    },
    'no profile': { profile: undefined },
    'a profile that does not exist': { profile: 'root' },
    'no mode': { mode: undefined },
    'a mode that does not exist': { mode: 'r' },
    'no subject': { sub: undefined },
    'a subject that is no execution': { sub: 'user:ada' },
    'no id': { jti: undefined },
    'an id that is none of ours': { jti: 'f5a7' },
    'no family': { fam: undefined },
    'a family that is none of ours': { fam: 'system' },
  };
  for (const [what, claims] of Object.entries(table))
    t.equal(await office.verdict(await forge(office.key, claims)), 'denied', what);
});

void t.test(
  'a subject that only looks like an execution is denied, like everything else',
  async (t) => {
    const office = new Office();
    for (const sub of ['exec:', 'exec:1', 'exec:../../etc', `exec:${EXECUTION} `]) {
      const token = await forge(office.key, { sub });
      const error: unknown = await office.tokens.verify(token, HOST).catch((e: unknown) => e);
      t.match(error, { name: 'BridgeError', code: 'denied' }, sub);
    }
  },
);

void t.test('a token of another kind is denied, though we signed it', async (t) => {
  const office = new Office();
  for (const typ of [
    'JWT',
    'jwt',
    'id+jwt',
    'at',
    '',
    'at+jwt+more',
    'AT+JWT',
    'application/at+jwt',
  ])
    t.equal(
      await office.verdict(await forge(office.key, {}, { typ })),
      'denied',
      JSON.stringify(typ),
    );
  const { typ: _, ...untyped } = headerOf(office.key);
  const bare = await new SignJWT(CLAIMS).setProtectedHeader(untyped).sign(office.key);
  t.equal(await office.verdict(bare), 'denied', 'no type');
  const critical = `${encode({ ...headerOf(office.key), crit: ['exp'], exp: 1 })}.${encode(CLAIMS)}`;
  t.equal(await office.verdict(`${critical}.AA`), 'denied', 'an unknown critical header');
});

void t.test('a token signed with another key is denied', async (t) => {
  const office = new Office();
  const stranger = new Office();
  t.equal(await office.verdict(await stranger.mint()), 'denied');
  t.equal(await stranger.verdict(await stranger.mint()), 'granted', 'at home it is good');
  const { privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' });
  t.equal(
    await office.verdict(await forge(privateKey, {}, { alg: 'ES256' })),
    'denied',
    'of another kind',
  );
  const jwk = createPublicKey(stranger.key).export({ format: 'jwk' });
  t.equal(
    await office.verdict(await forge(stranger.key, {}, { jwk })),
    'denied',
    'which it brings along',
  );
});

void t.test('alg none is denied, with and without a signature, in any spelling', async (t) => {
  const office = new Office();
  const signature = (await office.mint()).split('.')[2];
  for (const alg of ['none', 'None', 'NONE', 'nOnE', '', null, undefined])
    for (const end of ['', signature, 'AA']) {
      const token = `${encode({ ...headerOf(office.key), alg })}.${encode(CLAIMS)}.${end}`;
      t.equal(
        await office.verdict(token),
        'denied',
        `${JSON.stringify(alg)} and ${end?.slice(0, 4)}`,
      );
    }
});

void t.test('a token signed by HMAC with our public key for a secret is denied', async (t) => {
  const office = new Office();
  const publicKey = createPublicKey(office.key);
  const secrets = {
    PEM: publicKey.export({ format: 'pem', type: 'spki' }),
    'PEM without the newline': publicKey.export({ format: 'pem', type: 'spki' }).toString().trim(),
    DER: publicKey.export({ format: 'der', type: 'spki' }),
    'the raw key': Buffer.from(publicKey.export({ format: 'jwk' }).x ?? '', 'base64url'),
    nothing: '',
  };
  for (const [what, secret] of Object.entries(secrets))
    for (const [alg, hash] of [
      ['HS256', 'sha256'],
      ['HS512', 'sha512'],
      ['EdDSA', 'sha512'],
    ] as const) {
      const signed = `${encode({ ...headerOf(office.key), alg })}.${encode(CLAIMS)}`;
      const token = `${signed}.${createHmac(hash, secret).update(signed).digest('base64url')}`;
      t.equal(await office.verdict(token), 'denied', `${alg} with ${what}`);
    }
});

void t.test('a token whose payload or header was changed is denied', async (t) => {
  const office = new Office();
  const [header, payload, signature] = (await office.mint()).split('.');
  const claims = decode(payload);
  const changes: Record<string, unknown> = {
    exp: START / 1000 + 86_400,
    ns: { user: 'eve' },
    cap: [{ area: 'tools', access: 'rw' }],
    mode: 'ro',
    profile: 'remote',
    jti: crypto.randomUUID(),
    sub: 'exec:11111111-2222-4333-8444-555555555555',
    cnf: { 'x5t#S256': OTHER_HOST },
    iss: 'cronium-server ',
  };
  for (const [claim, value] of Object.entries(changes)) {
    const token = [header, encode({ ...claims, [claim]: value }), signature].join('.');
    for (const thumbprint of [HOST, OTHER_HOST])
      t.equal(await office.verdict(token, thumbprint), 'denied', claim);
  }
  const kid = encode({ ...decode(header), kid: '1' });
  t.equal(
    await office.verdict([kid, payload, signature].join('.')),
    'denied',
    'a header with a key id',
  );
  const other = (await office.mint()).split('.');
  t.equal(
    await office.verdict([header, payload, other[2]].join('.')),
    'denied',
    'the signature of another token',
  );
});

void t.test('what is no token at all is denied', async (t) => {
  const office = new Office();
  const good = await office.mint();
  const nonsense = [
    '',
    '.',
    '..',
    '...',
    'x',
    'a.b',
    'a.b.c',
    `${good}.x`,

    `Bearer ${good}`,
    good.split('.').slice(0, 2).join('.'),
    `${good.split('.').slice(0, 2).join('.')}.`,
    'x'.repeat(8192),
    '\0',
    '{"alg":"EdDSA"}',
    good.replaceAll('.', ''),
    'a.b.c.d.e',
  ];
  for (const token of nonsense)
    t.equal(await office.verdict(token), 'denied', JSON.stringify(token.slice(0, 40)));
  t.equal(await office.verdict(good), 'granted');
});

randomTest('a token with any character changed is refused', async (t, random) => {
  const office = new Office();
  const token = await office.mint();
  const alphabet = 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_.=+/ é'.split(
    '',
  );
  const bytesOf = (text: string) =>
    text.split('.').map((part) => Buffer.from(part, 'base64url').toString('hex'));
  let tried = 0;
  while (tried < 300) {
    const at = random.int(token.length);
    const changed = token.slice(0, at) + random.pick(alphabet) + token.slice(at + 1);
    // The last character of a part has bits that mean nothing.
    if (bytesOf(changed).join() === bytesOf(token).join()) continue;
    tried++;
    const verdict = await office.verdict(changed);
    if (verdict !== 'denied') throw new Error(`${changed}, changed at ${at}, is ${verdict}`);
  }
  t.equal(await office.verdict(token), 'granted', 'unchanged it is good');
});

void t.test('a refusal tells a stranger nothing about the token', async (t) => {
  const office = new Office();
  const messages = new Set<string>();
  const { key } = office;
  const tokens = [
    await forge(key, { iss: 'x' }),
    await forge(key, { aud: 'x' }),
    await forge(key, { cap: ['x'] }),
    await forge(key, {}, { kid: undefined }),
    await forge(key, {}, { kid: 'x' }),
    await forge(key, {}, { jku: 'https://example.org/keys' }),
    await new Office().mint(),
    'x',
  ];
  for (const token of tokens)
    await office.tokens.verify(token, HOST).catch((error: unknown) => messages.add(String(error)));
  t.strictSame([...messages], ['BridgeError: the token is not valid here']);
});

function temporaryFile(t: Test): string {
  const directory = mkdtempSync(join(tmpdir(), 'cronium-tokens-'));
  t.teardown(() => rmSync(directory, { recursive: true }));
  return join(directory, 'token.key');
}

void t.test(
  'a token whose header says anything else than algorithm, type and our key is denied with one sentence',
  async (t) => {
    const office = new Office();
    const stranger = new Office();
    const { kid } = headerOf(office.key);
    const jwk = createPublicKey(stranger.key).export({ format: 'jwk' });
    const headers: Record<string, Readonly<Record<string, unknown>>> = {
      'no kid': { kid: undefined },
      'an empty kid': { kid: '' },
      'an unknown kid': { kid: 'AAAAAAAAAAAAAAAA' },
      'a kid that is no text': { kid: [kid] },
      'a kid that begins like ours': { kid: `${kid}=` },
      'a kid of somebody else': { kid: headerOf(stranger.key).kid },
      'a kid that is a path': { kid: '../../server/token.key' },
      'a kid of an object’s own': { kid: '__proto__' },
      'its own key': { jwk },
      'its own key under our kid': { jwk: { ...jwk, kid }, kid },
      'a place to get a key': { jku: 'https://example.org/keys.json' },
      'a certificate': { x5c: ['MIIB'] },
      'a place to get a certificate': { x5u: 'https://example.org/cert.pem' },
      'the hash of a certificate': { x5t: 'AAAA', 'x5t#S256': HOST },
      'another content type': { cty: 'JWT' },
      'compressed content': { zip: 'DEF' },
      'a claim in the header': { sub: `exec:${EXECUTION}` },
    };
    const sentences = new Set<string>();
    const judge = async (what: string, token: string) => {
      const error: unknown = await office.tokens.verify(token, HOST).catch((e: unknown) => e);
      t.match(error, { name: 'BridgeError', code: 'denied' }, what);
      sentences.add(String(error));
    };
    // Signed by our own key, so that only the header is wrong; and by a stranger's, who knows our kid.
    for (const [what, header] of Object.entries(headers))
      for (const key of [office.key, stranger.key])
        await judge(what, await forge(key, {}, { kid, ...header }));
    await judge('a stranger under our kid', await forge(stranger.key, {}, { kid }));
    const payload = encode(CLAIMS);
    for (const header of [
      { ...headerOf(office.key), crit: ['b64'], b64: false },
      { ...headerOf(office.key), crit: ['kid'] },
      { ...headerOf(office.key), crit: [] },
      { ...headerOf(office.key), alg: ['EdDSA'] },
      { ...headerOf(office.key), alg: 'Ed25519' },
      { ...headerOf(office.key), alg: 'ES256' },
      [headerOf(office.key)],
      null,
      'EdDSA',
    ]) {
      const signed = `${encode(header)}.${payload}`;
      const signature = sign(null, Buffer.from(signed), office.key).toString('base64url');
      await judge(JSON.stringify(header), `${signed}.${signature}`);
    }
    t.strictSame([...sentences], ['BridgeError: the token is not valid here']);
    t.equal(await office.verdict(await forge(office.key, {}, { kid })), 'granted');
  },
);

void t.test('a renewed token has an id of its own and its family’s', async (t) => {
  const { tokens } = new Office();
  const first = await tokens.verify((await tokens.mint(GRANT, HOST)).token, HOST);
  const second = await tokens.verify((await tokens.mint(first, HOST)).token, HOST);
  const third = await tokens.verify((await tokens.mint(second, HOST)).token, HOST);
  t.equal(new Set([first.jti, second.jti, third.jti]).size, 3);
  t.strictSame([second.family, third.family], [first.jti, first.jti]);
  const { jti: _, expiresAt: __, ...rest } = first;
  t.match(third, rest, 'it grants the same');
});

void t.test('a token is good for the certificates that took over from its own', async (t) => {
  const { tokens } = new Office();
  const { token } = await tokens.mint(GRANT, HOST);
  t.match(await tokens.verify(token, OTHER_HOST, HOST), { executionId: EXECUTION });
  await t.rejects(tokens.verify(token, OTHER_HOST), { code: 'denied' });
  await t.rejects(tokens.verify(token), { code: 'denied' });
});

void t.test('scopes that would make a token longer than a host can send are refused', async (t) => {
  const { tokens } = new Office();
  const keys = Array.from({ length: 32 }, (_, i) => `${'x'.repeat(250)}${i}`);
  const wide = { ...GRANT, cap: [{ area: 'variables', access: 'r', keys } as const] };
  await t.rejects(tokens.mint(wide, HOST), { code: 'too_large', message: /fewer or shorter/ });
});

void t.test(
  'the signing key is made once, with mode 0600, and tokens outlive a restart',
  async (t) => {
    const file = temporaryFile(t);
    const umask = process.umask(0);
    t.teardown(() => process.umask(umask));
    const { token } = await Tokens.open(file).mint(GRANT, HOST);
    t.equal((statSync(file).mode & 0o7777).toString(8), '600');
    const text = readFileSync(file, 'utf8');
    const { signing } = JSON.parse(text) as { signing: string };
    t.equal(createPrivateKey(signing).asymmetricKeyType, 'ed25519');
    t.match(await Tokens.open(file).verify(token, HOST), { executionId: EXECUTION });
    t.equal(readFileSync(file, 'utf8'), text);
  },
);

void t.test(
  'after a rotation new tokens have a new key, and old ones live to their end',
  async (t) => {
    const file = temporaryFile(t);
    let now = START;
    const tokens = Tokens.open(file, () => now);
    const running = Tokens.open(file, () => now);
    const old = await tokens.mint(GRANT, HOST, DAY_MS);
    const oldKey = tokens.keyId;
    tokens.rotateSigningKey();
    t.not(tokens.keyId, oldKey);
    t.equal((statSync(file).mode & 0o7777).toString(8), '600');
    t.match(await tokens.verify(old.token, HOST), { jti: old.jti });
    const fresh = await tokens.mint(GRANT, HOST, 10 * DAY_MS);
    t.equal(decode(fresh.token.split('.')[0])['kid'], tokens.keyId);

    await t.rejects(
      running.verify(fresh.token, HOST),
      { code: 'denied' },
      'before it has reloaded',
    );
    running.reload();
    t.equal(running.keyId, tokens.keyId);
    t.match(await running.verify(fresh.token, HOST), { jti: fresh.jti });
    t.match(await running.verify(old.token, HOST), { jti: old.jti });

    // A token that the old key signed with a longer life than we give would have to be a forgery by whoever stole the key.
    now = START + DAY_MS + 61_000;
    t.equal(
      await running.verify(old.token, HOST).catch((e: unknown) => (e as BridgeError).code),
      'denied',
      'the old key is gone with the last token it can have signed',
    );
    t.match(await running.verify(fresh.token, HOST), { jti: fresh.jti });
    running.rotateSigningKey();
    const { retired } = JSON.parse(readFileSync(file, 'utf8')) as { retired: unknown[] };
    t.equal(retired.length, 1, 'and so is its place in the file');
  },
);

void t.test('rotated twice in a row, both earlier keys verify', async (t) => {
  const tokens = Tokens.open(temporaryFile(t), () => START);
  const minted = [];
  for (let i = 0; i < 3; i++) {
    minted.push(await tokens.mint(GRANT, HOST));
    if (i < 2) tokens.rotateSigningKey();
  }
  for (const { token, jti } of minted) t.match(await tokens.verify(token, HOST), { jti });
});

void t.test('a key file of the first version, a bare PEM, is still read', async (t) => {
  const file = temporaryFile(t);
  const { privateKey } = generateKeyPairSync('ed25519');
  writeFileSync(file, privateKey.export({ format: 'pem', type: 'pkcs8' }));
  const tokens = Tokens.open(file, () => START);
  t.equal(tokens.keyId, keyIdOf(createPublicKey(privateKey)));
  const { token } = await tokens.mint(GRANT, HOST);
  tokens.rotateSigningKey();
  t.match(await tokens.verify(token, HOST), { executionId: EXECUTION });
});

void t.test(
  'a damaged key file is refused with a sentence, and a running server keeps its keys',
  async (t) => {
    const file = temporaryFile(t);
    const tokens = Tokens.open(file, () => START);
    const { token } = await tokens.mint(GRANT, HOST);
    const { privateKey: ec } = generateKeyPairSync('ec', { namedCurve: 'P-256' });
    const ecPem = ec.export({ format: 'pem', type: 'pkcs8' }).toString();
    for (const text of [
      '',
      '{}',
      'nonsense',
      '-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n',
      ecPem,
      JSON.stringify({ version: 1, signing: ecPem, retired: [] }),
      JSON.stringify({ version: 2, signing: '', retired: [] }),
      JSON.stringify({ version: 1, signing: '', retired: [], more: 1 }),
    ]) {
      writeFileSync(file, text);
      t.throws(
        () => Tokens.open(file),
        { code: 'invalid', message: /holds no signing keys/ },
        text,
      );
      t.throws(() => tokens.reload(), { code: 'invalid' });
      t.throws(() => tokens.rotateSigningKey(), { code: 'invalid' });
      t.equal(readFileSync(file, 'utf8'), text, 'nothing is made over it');
    }
    t.match(await tokens.verify(token, HOST), { executionId: EXECUTION });
  },
);
