import {
  createHmac,
  createPrivateKey,
  createPublicKey,
  generateKeyPairSync,
  type KeyObject,
} from 'node:crypto';
import { mkdtempSync, readFileSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type JWTPayload, SignJWT } from 'jose';
import t, { type Test } from 'tap';
import { BridgeError, type Code } from '#bridge/wire/errors.js';
import { ExecutionId } from '#bridge/wire/names.js';
import { SCOPES, TOKEN_LIFETIME_MS, Tokens } from '#server/auth/tokens.js';
import { randomTest } from '#test/support/random.js';

const HOST = 'thumbprint-of-host-a';
const OTHER_HOST = 'thumbprint-of-host-b';
const EXECUTION = ExecutionId.parse('7b0f4e6e-9f5a-4c8e-8a52-0d8b7c1f2a33');
const GRANT = { executionId: EXECUTION, namespace: { user: 'ada' }, scopes: SCOPES } as const;

/** 2026-11-23T07:00:00Z, exactly on a second. */
const START = Date.UTC(2026, 10, 23, 7);

/** A server's tokens under a clock that the test moves, with the key it signs with. */
class Office {
  readonly key: KeyObject;
  readonly tokens: Tokens;
  now = START;

  constructor(key = generateKeyPairSync('ed25519').privateKey) {
    this.key = key;
    this.tokens = new Tokens(key, () => this.now);
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

/** The claims and header of a good token. */
const CLAIMS: JWTPayload = {
  iss: 'cronium-server',
  aud: 'cronium-runtime',
  sub: `exec:${EXECUTION}`,
  jti: 'f5a7',
  iat: START / 1000,
  nbf: START / 1000,
  exp: START / 1000 + 300,
  ns: { user: 'ada' },
  cap: ['variables'],
  cnf: { 'x5t#S256': HOST },
};
const HEADER = { alg: 'EdDSA', typ: 'at+jwt' };

/** Signs CLAIMS with changes; a claim that is undefined is left out. */
const forge = (
  key: KeyObject,
  claims: Readonly<Record<string, unknown>> = {},
  header: Readonly<Record<string, unknown>> = {},
) =>
  new SignJWT(JSON.parse(JSON.stringify({ ...CLAIMS, ...claims })) as JWTPayload)
    .setProtectedHeader({ ...HEADER, ...header })
    .sign(key);

void t.test('a token grants to its host what was granted to its execution', async (t) => {
  const { tokens, now } = new Office();
  const minted = await tokens.mint(GRANT, HOST);
  t.equal(minted.expiresAt, now + TOKEN_LIFETIME_MS);
  t.strictSame(await tokens.verify(minted.token, HOST), { ...GRANT, expiresAt: minted.expiresAt });
  const narrow = {
    executionId: EXECUTION,
    namespace: { org: 'acme' },
    scopes: ['output'],
  } as const;
  const other = await tokens.mint(narrow, HOST, 1000);
  t.strictSame(await tokens.verify(other.token, HOST), { ...narrow, expiresAt: now + 1000 });
});

void t.test(
  'a token is an RFC 9068 access token, bound to a certificate as RFC 8705 says',
  async (t) => {
    const office = new Office();
    const [header, claims] = (await office.mint())
      .split('.')
      .map((part, i) => (i < 2 ? decode(part) : {}));
    t.strictSame(header, HEADER);
    t.match(claims, { ...CLAIMS, jti: /^[0-9a-f-]{36}$/, cap: [...SCOPES] });
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
    'a scope that does not exist': { cap: ['variables', 'admin'] },
    'a scope instead of a list': { cap: 'variables' },
    'no subject': { sub: undefined },
    'a subject that is no execution': { sub: 'user:ada' },
    'no id': { jti: undefined },
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
  for (const typ of ['JWT', 'jwt', 'id+jwt', 'at', '', 'at+jwt+more'])
    t.equal(
      await office.verdict(await forge(office.key, {}, { typ })),
      'denied',
      JSON.stringify(typ),
    );
  const { typ: _, ...untyped } = HEADER;
  const bare = await new SignJWT(CLAIMS).setProtectedHeader(untyped).sign(office.key);
  t.equal(await office.verdict(bare), 'denied', 'no type');
  const critical = `${encode({ ...HEADER, crit: ['exp'], exp: 1 })}.${encode(CLAIMS)}`;
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
      const token = `${encode({ ...HEADER, alg })}.${encode(CLAIMS)}.${end}`;
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
      const signed = `${encode({ ...HEADER, alg })}.${encode(CLAIMS)}`;
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
    cap: ['variables'],
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
  'the signing key is made once, with mode 0600, and tokens outlive a restart',
  async (t) => {
    const file = temporaryFile(t);
    const umask = process.umask(0);
    t.teardown(() => process.umask(umask));
    const { token } = await Tokens.open(file).mint(GRANT, HOST);
    t.equal((statSync(file).mode & 0o7777).toString(8), '600');
    const pem = readFileSync(file, 'utf8');
    t.equal(createPrivateKey(pem).asymmetricKeyType, 'ed25519');
    t.match(await Tokens.open(file).verify(token, HOST), { executionId: EXECUTION });
    t.equal(readFileSync(file, 'utf8'), pem);
  },
);
