import 'reflect-metadata'; // asked for by a dependency of @peculiar/x509
import { createHash, createPrivateKey, webcrypto, X509Certificate } from 'node:crypto';
import { mkdtempSync, readFileSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import * as x509 from '@peculiar/x509';
import t from 'tap';
import { BridgeError } from '#bridge/wire/errors.js';
import { Authority, type LeafRequest } from '#server/admin/certificates.js';
import { type Identity, identityOf, ROLES, thumbprintOf } from '#server/auth/identity.js';

const DAY_MS = 24 * 60 * 60 * 1000;

const directory = mkdtempSync(join(tmpdir(), 'cronium-identity-'));
t.teardown(() => rmSync(directory, { recursive: true }));
const filesFor = (name: string) => ({
  cert: join(directory, `${name}.crt`),
  key: join(directory, `${name}.key`),
});
const authority = await Authority.open(filesFor('ca'));

let issued = 0;
/** A certificate of our authority, as the TLS layer hands it over. */
async function certificateFor(request: Omit<LeafRequest, 'files'>): Promise<X509Certificate> {
  const files = filesFor(`leaf-${issued++}`);
  await authority.issue({ ...request, files });
  return new X509Certificate(readFileSync(files.cert));
}

/** The identity, or the message of a `denied`. */
function identify(certificate: X509Certificate, now?: number): Identity | string {
  try {
    return identityOf(certificate, now);
  } catch (error) {
    if (error instanceof BridgeError && error.code === 'denied') return error.message;
    throw error;
  }
}

void t.test('a certificate says who is there: role, name and thumbprint', async (t) => {
  for (const role of ROLES) {
    const certificate = await certificateFor({ name: `${role}-7.example.org`, role });
    const thumbprint = createHash('sha256').update(certificate.raw).digest('base64url');
    const notAfter = Date.parse(certificate.validTo);
    const identity = { role, name: `${role}-7.example.org`, thumbprint, notAfter };
    t.strictSame(identify(certificate), identity);
    t.equal(thumbprintOf(certificate.raw), thumbprint);
    t.equal(
      Buffer.from(thumbprint, 'base64url').toString('hex'),
      certificate.fingerprint256.replaceAll(':', '').toLowerCase(),
    );
  }
});

void t.test('two certificates of one host have two thumbprints', async (t) => {
  const [one, two] = [
    await certificateFor({ name: 'a', role: 'host' }),
    await certificateFor({ name: 'a', role: 'host' }),
  ];
  t.not(identityOf(one).thumbprint, identityOf(two).thumbprint);
});

void t.test('a certificate counts from its first to its last day, not longer', async (t) => {
  const notAfter = new Date(Math.ceil(Date.now() / 1000) * 1000 + 10 * DAY_MS);
  const certificate = await certificateFor({ name: 'a', role: 'host', notAfter });
  const begins = Date.parse(certificate.validFrom);
  const ends = notAfter.getTime();
  for (const [what, now] of [
    ['at its beginning', begins],
    ['now', Date.now()],
    ['at its end', ends],
  ] as const)
    t.match(identify(certificate, now), { role: 'host' }, what);
  for (const [what, now] of [
    ['a second before', begins - 1000],
    ['years before', begins - 3650 * DAY_MS],
    ['a second later', ends + 1000],
    ['years later', ends + 3650 * DAY_MS],
  ] as const)
    t.equal(identify(certificate, now), 'the certificate of a is not valid at this time', what);
});

void t.test('an expired certificate is refused by the real clock', async (t) => {
  const certificate = await certificateFor({
    name: 'a',
    role: 'operator',
    notAfter: new Date(Date.now() - 2000),
  });
  t.equal(identify(certificate), 'the certificate of a is not valid at this time');
});

void t.test('a certificate that names no role of ours is refused', async (t) => {
  const roles = [
    'server',
    'admin',
    'HOST',
    'Host',
    'host ',
    'hosts',
    'operator2',
    'root',
    'Auditor',
    'audit',
  ];
  for (const role of roles) {
    const certificate = await certificateFor({ name: 'a', role: role as 'server' });
    t.match(identify(certificate), /names no host, operator or auditor/, role);
  }
});

void t.test('a certificate without a role, such as the authority’s own, is refused', async (t) => {
  const certificate = new X509Certificate(readFileSync(filesFor('ca').cert));
  t.match(identify(certificate), /names no host, operator or auditor/);
});

void t.test('a role in another place than OU is no role', async (t) => {
  for (const name of ['host', 'OU=host', 'operator', 'a/OU=operator', 'role=operator']) {
    const certificate = await certificateFor({ name, role: 'server' });
    t.match(
      identify(certificate),
      /names no host, operator or auditor/,
      `${name} by ${certificate.subject}`,
    );
  }
});

void t.test('a host cannot be given another role by its name', async (t) => {
  const names = [
    'a, OU=auditor',
    'a, OU=operator',
    'a,OU=operator',
    'a+OU=operator',
    'a\nOU=operator',
    'OU=operator, CN=a',
    'a, OU=operator, CN=b',
    '"a", OU=operator',
    'a\\, OU=operator',
  ];
  for (const name of names) {
    // Refusing to issue such a name is as good as writing it into the certificate as it is.
    const certificate = await certificateFor({ name, role: 'host' }).catch(() => undefined);
    const identity = certificate && identify(certificate);
    const role = typeof identity === 'object' ? identity.role : 'refused';
    t.match(role, /^(host|refused)$/, JSON.stringify(name));
  }
});

void t.test('a certificate that names two roles is refused', async (t) => {
  const algorithm = { name: 'ECDSA', namedCurve: 'P-256', hash: 'SHA-256' };
  const keys = await webcrypto.subtle.generateKey(algorithm, true, ['sign', 'verify']);
  for (const name of [
    'CN=a, OU=operator, OU=host',
    'OU=host, CN=a, OU=operator',
    'CN=a, CN=b, OU=host',
  ]) {
    const { rawData } = await x509.X509CertificateGenerator.createSelfSigned({
      name,
      keys,
      serialNumber: '01',
      notBefore: new Date(Date.now() - DAY_MS),
      notAfter: new Date(Date.now() + DAY_MS),
      signingAlgorithm: algorithm,
    });
    t.type(identify(new X509Certificate(Buffer.from(rawData))), 'string', name);
  }
});

void t.test('names as hosts have them come back as they were given', async (t) => {
  for (const name of [
    'localhost',
    'host-7',
    'a.b.example.org',
    'Ada’s laptop',
    'büro-3',
    'x'.repeat(64),
  ])
    t.match(identify(await certificateFor({ name, role: 'host' })), { name }, name);
});

void t.test(
  'the authority issues leaves that it and nobody else has signed, with keys of mode 0600',
  async (t) => {
    const files = filesFor('checked');
    await authority.issue({ name: 'a', role: 'host', files });
    const leaf = new X509Certificate(readFileSync(files.cert));
    const own = new X509Certificate(readFileSync(filesFor('ca').cert));
    const stranger = await Authority.open(filesFor('stranger'));
    const foreign = new X509Certificate(readFileSync(filesFor('stranger').cert));
    t.ok(leaf.verify(own.publicKey) && leaf.checkIssued(own), 'by us');
    t.notOk(leaf.verify(foreign.publicKey), 'not by a stranger of the same name');
    t.ok(leaf.checkPrivateKey(createPrivateKey(readFileSync(files.key))), 'the key belongs to it');
    t.equal(leaf.ca, false);
    for (const key of [files.key, filesFor('ca').key])
      t.equal((statSync(key).mode & 0o7777).toString(8), '600');
    t.ok(await stranger.ensure({ name: 'a', role: 'host', files: filesFor('strange-leaf') }));
  },
);

void t.test(
  'ensure issues what is missing or about to expire, and leaves the rest alone',
  async (t) => {
    const request = { name: 'a', role: 'host', files: filesFor('ensured') } as const;
    t.ok(await authority.ensure(request), 'missing');
    const first = readFileSync(request.files.cert, 'utf8');
    t.notOk(await authority.ensure(request), 'good');
    t.equal(readFileSync(request.files.cert, 'utf8'), first);
    rmSync(request.files.key);
    t.ok(await authority.ensure(request), 'without its key');
    await authority.issue({ ...request, notAfter: new Date(Date.now() + 29 * DAY_MS) });
    t.ok(await authority.ensure(request), 'with 29 days left');
    await authority.issue({ ...request, notAfter: new Date(Date.now() + 31 * DAY_MS) });
    t.notOk(await authority.ensure(request), 'with 31 days left');
  },
);

void t.test(
  'ensure replaces a leaf of an authority that was made anew on the same machine',
  async (t) => {
    const request = { name: 'a', role: 'host', files: filesFor('orphan') } as const;
    await authority.ensure(request);
    const renewed = await Authority.open(filesFor('renewed-ca'));
    t.ok(await renewed.ensure(request));
    const own = new X509Certificate(readFileSync(filesFor('renewed-ca').cert));
    t.ok(new X509Certificate(readFileSync(request.files.cert)).verify(own.publicKey));
  },
);

void t.test('ensure replaces a leaf whose key file belongs to another certificate', async (t) => {
  const request = { name: 'a', role: 'host', files: filesFor('mixed') } as const;
  await authority.ensure(request);
  // What is left when a machine stops between the two files of writeFiles: the new key beside the old certificate.
  await authority.issue({
    ...request,
    files: { cert: filesFor('other').cert, key: request.files.key },
  });
  t.ok(await authority.ensure(request));
});
