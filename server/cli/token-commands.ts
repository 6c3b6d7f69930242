import { ExecutionId } from '#bridge/wire/names.js';
import {
  AREAS,
  CAPABILITIES_MAX,
  type Capability,
  KeyPattern,
  PATTERNS_MAX,
  PROFILES,
  TOKEN_LIFETIME_MS_MAX,
  type TokenRecord,
} from '#bridge/wire/protocol/credentials.js';
import { Installation } from '#server/admin/installation.js';
import { readCertificate } from '#server/admin/issued-certificates.js';
import { State } from '#server/admin/state.js';
import { reasonArgument } from './certificate-commands.js';
import { atMost, COMMON, command, type Io, Misuse } from './command.js';
import { fingerprintOf } from './fingerprints.js';
import { duration, oneOf } from './values.js';

const installation = (state: string | undefined, { env }: Io) =>
  new Installation(State.of(state, env));

const tokenMint = command({
  name: 'token mint',
  summary: 'Make one more token for a running execution',
  usage:
    'cronium token mint EXECUTION --host-cert FILE [--profile local|remote] [--read-only] [--scope AREA:r|rw[:PATTERN]]... [--lifetime TIME] [--json]',
  help: [
    'Prints the token. Only the host with that certificate can use it, by opening the execution with it.',
    '',
    '  --host-cert FILE     certificate of the host the token is bound to',
    '  --profile NAME       remote (default): reads variables, sets output and condition; local: everything',
    '  --read-only          refuses every write',
    `  --scope AREA:r|rw[:PATTERN]  narrows the profile to these: ${AREAS.join(', ')};`,
    '                       PATTERN says which keys, with up to two "*"; may be given several times',
    '  --lifetime TIME      5m (default) to 24h',
    '',
    'example: cronium token mint 5f0c… --host-cert build-7.crt --profile local --scope variables:r:app_*',
  ].join('\n'),
  options: {
    ...COMMON,
    'host-cert': { type: 'string' },
    profile: { type: 'string', default: 'remote' },
    'read-only': { type: 'boolean', default: false },
    scope: { type: 'string', multiple: true },
    lifetime: { type: 'string', default: '5m' },
  },
  async run({ positionals, values }, io) {
    atMost(positionals, 1);
    const executionId = executionArgument(positionals[0]);
    const profile = oneOf(values.profile, PROFILES, '--profile');
    const scopes = values.scope && scopesOf(values.scope);
    const lifetimeMs = duration(values.lifetime, '--lifetime', TOKEN_LIFETIME_MS_MAX);
    if (lifetimeMs < 1000) throw new Misuse('--lifetime: a token lives a second at least');
    const file = values['host-cert'];
    if (file === undefined)
      throw new Misuse(
        '--host-cert is missing: the certificate of the host that may use the token',
      );
    const { role, thumbprint } = readCertificate(file);
    if (role !== 'host')
      throw new Misuse(
        `--host-cert ${file} is for the role "${role}"; the certificate of a host is needed`,
      );
    using server = await installation(values.state, io).operator();
    const minted = await server.call('token.mint', {
      executionId,
      thumbprint,
      profile,
      mode: values['read-only'] ? 'ro' : 'rw',
      ...(scopes && { scopes }),
      lifetimeMs,
    });
    const { token, ...record } = minted;
    if (values.json) io.out(`${JSON.stringify({ token, ...described(record) })}\n`);
    else {
      io.out(`${token}\n`);
      io.err(`token ${record.jti}, until ${new Date(record.expiresAt).toISOString()}`);
    }
    return 0;
  },
});

const tokenList = command({
  name: 'token list',
  summary: 'List the tokens that were handed out and have not expired',
  usage: 'cronium token list [--json]',
  help: [
    'Tokens themselves are not kept. What a host renewed is not listed: it belongs to the token it came from, and is revoked',
    'with it or with its execution, also after that one has expired here.',
    '',
    "example: cronium token list --json | jq -r '.[].executionId'",
  ].join('\n'),
  options: COMMON,
  async run({ positionals, values }, io) {
    atMost(positionals, 0);
    using server = await installation(values.state, io).operator();
    const { tokens } = await server.call('token.list', {});
    if (values.json)
      io.out(
        `${JSON.stringify(tokens.map(({ isRevoked, ...token }) => ({ ...described(token), isRevoked })))}\n`,
      );
    else
      for (const { jti, executionId, profile, mode, expiresAt, by, isRevoked } of tokens)
        io.out(
          `${jti}  execution ${executionId}  ${profile.padEnd(6)} ${mode}  until ${new Date(expiresAt).toISOString()}  ${by}${isRevoked ? '  revoked' : ''}\n`,
        );
    return 0;
  },
});

const tokenRevoke = command({
  name: 'token revoke',
  summary: 'Refuse a token from now on and close its channels',
  usage: 'cronium token revoke TOKEN-ID|EXECUTION [--reason TEXT] [--json]',
  help: [
    "TOKEN-ID takes that token and all that was renewed from it; an execution's id takes all of its tokens. The script itself is",
    'not stopped: it can no longer read or write what the server keeps.',
    '',
    'example: cronium token revoke 5f0c… --reason "script was tampered with"',
  ].join('\n'),
  options: { ...COMMON, reason: { type: 'string', default: '' } },
  async run({ positionals, values }, io) {
    atMost(positionals, 1);
    const [given] = positionals;
    if (given === undefined) throw new Misuse('which token? list them with: cronium token list');
    if (!ExecutionId.safeParse(given).success)
      throw new Misuse(`${JSON.stringify(given)} is the id of neither a token nor an execution`);
    const reason = reasonArgument(values.reason);
    using server = await installation(values.state, io).operator();
    const revoked = await server.call('token.revoke', { id: given, reason });
    const { id, by, revokedAt, isKnown } = revoked;
    if (values.json)
      io.out(
        `${JSON.stringify({ id, reason: revoked.reason, by, revokedAt: new Date(revokedAt).toISOString(), isKnown })}\n`,
      );
    else {
      io.err(`revoked ${id}`);
      if (!isKnown) io.err('no such token or execution is on record; it is refused all the same');
    }
    return 0;
  },
});

const tokenRotateKey = command({
  name: 'token rotate-key',
  summary: 'Sign tokens with a new key from now on, without a restart',
  usage: 'cronium token rotate-key [--json]',
  help: [
    'Tokens that the present key signed are good until they expire. To end them at once, revoke them.',
    '',
    'example: cronium token rotate-key',
  ].join('\n'),
  options: COMMON,
  async run({ positionals, values }, io) {
    atMost(positionals, 0);
    const target = installation(values.state, io);
    using server = target.server.pid === undefined ? undefined : await target.operator();
    await target.pki.rotateSigningKey();
    const signingKey = (await server?.call('server.reload', {}))?.signingKey ?? null;
    if (values.json) io.out(`${JSON.stringify({ signingKey })}\n`);
    else
      io.err(
        signingKey === null
          ? 'a new key is in place; the server does not run, and uses it when it starts'
          : `tokens are signed with key ${signingKey} now`,
      );
    return 0;
  },
});

export const TOKEN_COMMANDS = [tokenMint, tokenList, tokenRevoke, tokenRotateKey];

function executionArgument(id: string | undefined): ExecutionId {
  if (id === undefined) throw new Misuse('for which execution? `cronium run` prints its id');
  const executionId = ExecutionId.safeParse(id);
  if (!executionId.success) throw new Misuse(`${JSON.stringify(id)} is not an execution id`);
  return executionId.data;
}

/** Patterns for the same area and access become one capability. */
function scopesOf(texts: readonly string[]): Capability[] {
  const scopes = new Map<
    string,
    { area: Capability['area']; access: 'r' | 'rw'; keys?: string[] }
  >();
  for (const text of texts) {
    const [, area = '', access = '', pattern] =
      /^([^:]*)(?::([^:]*)(?::(.*))?)?$/su.exec(text) ?? [];
    const problem = (what: string) =>
      new Misuse(
        `--scope ${JSON.stringify(text)}: ${what}; write AREA:r, AREA:rw or AREA:rw:PATTERN`,
      );
    const known = AREAS.find((one) => one === area);
    if (known === undefined) throw problem(`areas are ${AREAS.join(', ')}`);
    if (access !== 'r' && access !== 'rw') throw problem('access is r or rw');
    if (pattern === undefined) {
      scopes.set(`${area}:${access}`, { area: known, access });
      continue;
    }
    const checked = KeyPattern.safeParse(pattern);
    if (!checked.success) throw problem(checked.error.issues[0]?.message ?? 'no key pattern');
    const name = `${area}:${access}:`;
    const { keys = [] } = scopes.get(name) ?? {};
    if (keys.length >= PATTERNS_MAX) throw problem(`at most ${PATTERNS_MAX} patterns for each`);
    scopes.set(name, { area: known, access, keys: [...keys, checked.data] });
  }
  if (scopes.size > CAPABILITIES_MAX) throw new Misuse(`at most ${CAPABILITIES_MAX} scopes`);
  return [...scopes.values()];
}

const described = ({
  jti,
  executionId,
  profile,
  mode,
  cap,
  thumbprint,
  by,
  expiresAt,
}: TokenRecord) => ({
  id: jti,
  executionId,
  profile,
  mode,
  scopes: cap,
  hostFingerprint: fingerprintOf(thumbprint),
  by,
  expiresAt: new Date(expiresAt).toISOString(),
});
