import type { Connection } from '#bridge/client/connection.js';
import { asBridgeError } from '#bridge/wire/errors.js';
import { REASON_LENGTH_MAX, type Revocation } from '#bridge/wire/protocol/credentials.js';
import { Installation } from '#server/admin/installation.js';
import { CERTIFICATE_DAYS_MAX, type ListedCertificate, type Rotated } from '#server/admin/pki.js';
import { OWN_CERTIFICATES, State } from '#server/admin/state.js';
import { atMost, COMMON, command, type Io, Misuse } from './command.js';
import { fingerprintOf, thumbprintOfFingerprint } from './fingerprints.js';
import { oneOf } from './values.js';

const DAYS = 365;

/** ub-common-name of RFC 5280; and it becomes a file name. */
const NAME = /^[A-Za-z0-9_@-][A-Za-z0-9_.@-]{0,63}$/;

const ISSUED_ROLES = ['host', 'operator', 'auditor'] as const;

/** So much of a fingerprint tells certificates of one installation apart, and is short enough to type. */
const PREFIX_LENGTH_MIN = 8;

const installation = (state: string | undefined, { env }: Io) =>
  new Installation(State.of(state, env));

const certificateIssue = command({
  name: 'cert issue',
  summary: 'Issue a certificate for another host, operator or auditor',
  usage: 'cronium cert issue NAME --role host|operator|auditor [--days N] [--out DIR] [--json]',
  help: [
    'Writes NAME.crt, NAME.key (mode 0600) and ca.crt. Nothing is overwritten.',
    '',
    '  --role ROLE          host: runs scripts; operator: may do everything; auditor: may look, but sees no values',
    `  --days N             how long it is valid (default ${DAYS}, at most ${CERTIFICATE_DAYS_MAX})`,
    '  --out DIR            where the files go (default: the current directory)',
    '',
    'example: cronium cert issue build-7 --role host --days 90 --out ./build-7',
  ].join('\n'),
  options: {
    ...COMMON,
    role: { type: 'string' },
    days: { type: 'string', default: String(DAYS) },
    out: { type: 'string', default: '.' },
  },
  async run({ positionals, values }, io) {
    atMost(positionals, 1);
    const [name] = positionals;
    if (name === undefined) throw new Misuse('a certificate for whom? give a NAME');
    if (!NAME.test(name) || name === 'ca')
      throw new Misuse(
        `${JSON.stringify(name)}: use 1-64 letters, digits, "_", ".", "@" or "-" for a name; "ca" is taken`,
      );
    if (values.role === undefined)
      throw new Misuse(`--role is missing: one of ${ISSUED_ROLES.join(', ')}`);
    const role = oneOf(values.role, ISSUED_ROLES, '--role');
    const days = Number(values.days);
    if (!/^\d+$/.test(values.days) || days < 1 || days > CERTIFICATE_DAYS_MAX)
      throw new Misuse(`--days ${values.days}: write a number from 1 to ${CERTIFICATE_DAYS_MAX}`);
    const { pki } = installation(values.state, io);
    const { certificate, ...files } = await pki.issue({ name, role, days, directory: values.out });
    if (values.json) io.out(`${JSON.stringify({ ...described(certificate), ...files })}\n`);
    else {
      io.out(`${files.cert}\n${files.key}\n${files.ca}\n`);
      io.err(
        `issued for the ${role} ${name}, until ${dayOf(certificate.notAfter)}; fingerprint ${fingerprintOf(certificate.thumbprint)}`,
      );
    }
    return 0;
  },
});

const certificateList = command({
  name: 'cert list',
  summary: "List the installation's certificates and those it issued",
  usage: 'cronium cert list [--json]',
  help: [
    'Which ones are revoked is asked of the server; without it, that is not known and said so.',
    '',
    'example: cronium cert list --json | jq -r \'.[] | select(.state == "revoked").name\'',
  ].join('\n'),
  options: COMMON,
  async run({ positionals, values }, io) {
    atMost(positionals, 0);
    const target = installation(values.state, io);
    target.state.settings(); // throws, with what to do, where nothing is installed
    const certificates = target.pki.list();
    const revocations = await revokedCertificates(target).catch((error: unknown) => {
      io.err(`what is revoked is not known: ${asBridgeError(error).message}`);
      return undefined;
    });
    const rows = certificates.map((certificate) => ({
      ...described(certificate),
      inUse: certificate.inUse ?? null,
      ...stateOf(certificate, revocations),
    }));
    if (values.json) io.out(`${JSON.stringify(rows)}\n`);
    else
      for (const { name, role, fingerprint, notAfter, inUse, state } of rows)
        io.out(
          `${name.padEnd(20)} ${role.padEnd(8)} ${state.padEnd(7)} ${notAfter.slice(0, 10)} ${fingerprint}${inUse === null ? '' : '  in use here'}\n`,
        );
    return 0;
  },
});

const certificateRotate = command({
  name: 'cert rotate',
  summary: "Issue the installation's own certificates anew, without a restart",
  usage: 'cronium cert rotate [server|host|operator|all] [--json]',
  help: [
    'Connections that are open go on. The server shows its new certificate from the next connection on; mountd and this',
    'command use theirs at their next one. The old ones stay valid until they expire; to end them, revoke them.',
    '',
    'example: cronium cert rotate host && cronium cert list',
  ].join('\n'),
  options: COMMON,
  async run({ positionals, values }, io) {
    atMost(positionals, 1);
    const which = oneOf(positionals[0] ?? 'all', [...OWN_CERTIFICATES, 'all'], 'cert rotate');
    const target = installation(values.state, io);
    const isServerUp = target.server.pid !== undefined;
    // Before anything changes: what cannot be reached now could not be told afterwards.
    using server = isServerUp ? await target.operator() : undefined;
    const rotated = await target.pki.rotate(which === 'all' ? OWN_CERTIFICATES : [which]);
    if (server !== undefined) await tell(server, rotated);
    if (values.json)
      io.out(
        `${JSON.stringify(
          rotated.map(({ of, certificate, previous }) => ({
            inUse: of,
            ...described(certificate),
            previous: previous === undefined ? null : fingerprintOf(previous.thumbprint),
          })),
        )}\n`,
      );
    else {
      for (const { of, certificate } of rotated)
        io.err(
          `${of}: ${fingerprintOf(certificate.thumbprint)}, until ${dayOf(certificate.notAfter)}`,
        );
      if (!isServerUp) io.err('the server does not run; it uses them when it starts');
    }
    return 0;
  },
});

const certificateRevoke = command({
  name: 'cert revoke',
  summary: 'Refuse a certificate from now on and close its connections',
  usage: 'cronium cert revoke FINGERPRINT|NAME [--reason TEXT] [--json]',
  help: [
    `FINGERPRINT is the SHA-256 of the certificate, or the first ${PREFIX_LENGTH_MIN} or more digits of one that is listed. NAME works where`,
    'one certificate of that name is valid. A revocation cannot be taken back: issue a new certificate instead.',
    '',
    '  --reason TEXT        kept with it, for the next reader',
    '',
    'example: cronium cert revoke build-7 --reason "machine was sold"',
  ].join('\n'),
  options: { ...COMMON, reason: { type: 'string', default: '' } },
  async run({ positionals, values }, io) {
    atMost(positionals, 1);
    const [argument] = positionals;
    if (argument === undefined)
      throw new Misuse('which certificate? list them with: cronium cert list');
    const reason = reasonArgument(values.reason);
    const target = installation(values.state, io);
    target.state.settings();
    using server = await target.operator();
    const { revocations } = await server.call('cert.revoked', {});
    const certificates = target.pki.list();
    const thumbprint = chosen(argument, certificates, revocations);
    const certificate = certificates.find((one) => one.thumbprint === thumbprint);
    if (certificate?.role === 'server')
      throw new Misuse(
        "nobody asks whether a server's certificate was revoked; replace it with: cronium cert rotate server",
      );
    const revocation = await server.call('cert.revoke', { thumbprint, reason });
    const { revokedAt, by } = revocation;
    if (values.json)
      io.out(
        `${JSON.stringify({
          fingerprint: fingerprintOf(thumbprint),
          name: certificate?.name ?? null,
          role: certificate?.role ?? null,
          reason: revocation.reason,
          by,
          revokedAt: new Date(revokedAt).toISOString(),
        })}\n`,
      );
    else {
      const who = certificate === undefined ? 'a certificate we did not issue' : certificate.name;
      io.err(`revoked ${who}: ${fingerprintOf(thumbprint)}`);
      if (certificate?.inUse === 'host')
        io.err(
          'mountd of this installation used it; give it another with: cronium cert rotate host',
        );
    }
    return 0;
  },
});

export const CERTIFICATE_COMMANDS = [
  certificateIssue,
  certificateList,
  certificateRotate,
  certificateRevoke,
];

/** Kept for a long time, and shown in lists. */
export function reasonArgument(reason: string): string {
  if (reason.length > REASON_LENGTH_MAX)
    throw new Misuse(`--reason has at most ${REASON_LENGTH_MAX} characters`);
  return reason;
}

/** The server hears of what it has to know: its own new certificate, and whose executions the new host certificate takes over. */
async function tell(server: Connection, rotated: readonly Rotated[]): Promise<void> {
  for (const { of, certificate, previous } of rotated)
    if (of === 'host' && previous !== undefined)
      await server.call('cert.succeed', {
        thumbprint: previous.thumbprint,
        successor: certificate.thumbprint,
      });
  if (rotated.some(({ of }) => of === 'server')) await server.call('server.reload', {});
}

async function revokedCertificates(target: Installation): Promise<readonly Revocation[]> {
  using server = await target.operator();
  return (await server.call('cert.revoked', {})).revocations;
}

/** The thumbprint that an argument of `cert revoke` means. */
function chosen(
  argument: string,
  certificates: readonly ListedCertificate[],
  revocations: readonly Revocation[],
): string {
  const digits = argument.replaceAll(':', '').toLowerCase();
  const candidates = certificates.filter(
    (certificate) =>
      (certificate.name === argument && stateOf(certificate, revocations).state === 'valid') ||
      (digits.length >= PREFIX_LENGTH_MIN &&
        fingerprintOf(certificate.thumbprint).startsWith(digits)),
  );
  const [only, another] = candidates;
  if (only !== undefined && another === undefined) return only.thumbprint;
  if (another !== undefined)
    throw new Misuse(
      [
        `${argument} names ${candidates.length} certificates; give the fingerprint of one:`,
        ...candidates.map(
          ({ thumbprint, notAfter, inUse }) =>
            `  ${fingerprintOf(thumbprint)}  until ${dayOf(notAfter)}${inUse === undefined ? '' : '  in use here'}`,
        ),
      ].join('\n'),
    );
  const thumbprint = thumbprintOfFingerprint(argument);
  if (thumbprint === undefined)
    throw new Misuse(
      `${JSON.stringify(argument)} is neither the fingerprint nor the name of a valid certificate; see: cronium cert list`,
    );
  return thumbprint;
}

function stateOf(
  { thumbprint, notAfter }: ListedCertificate,
  revocations: readonly Revocation[] | undefined,
) {
  const found = revocations?.find(({ kind, id }) => kind === 'certificate' && id === thumbprint);
  const revoked = found && {
    at: new Date(found.revokedAt).toISOString(),
    by: found.by,
    reason: found.reason,
  };
  const isExpired = notAfter < Date.now();
  const state =
    revoked !== undefined
      ? 'revoked'
      : isExpired
        ? 'expired'
        : revocations === undefined
          ? 'unknown'
          : 'valid';
  return { state, revoked: revoked ?? null };
}

const described = ({
  name,
  role,
  thumbprint,
  notAfter,
}: Pick<ListedCertificate, 'name' | 'role' | 'thumbprint' | 'notAfter'>) => ({
  name,
  role,
  fingerprint: fingerprintOf(thumbprint),
  notAfter: new Date(notAfter).toISOString(),
});

const dayOf = (ms: number) => new Date(ms).toISOString().slice(0, 10);
