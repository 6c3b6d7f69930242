import { createPrivateKey, X509Certificate } from 'node:crypto';
import {
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { Installation } from '#server/admin/installation.js';
import { State } from '#server/admin/state.js';
import { identityOf } from '#server/auth/identity.js';
import { CERTIFICATE_COMMANDS } from '#server/cli/certificate-commands.js';
import { dispatch } from '#server/cli/command.js';
import { TOKEN_COMMANDS } from '#server/cli/token-commands.js';

const ID = '7b0f4e6e-9f5a-4c8e-8a52-0d8b7c1f2a33';

interface Ran {
  readonly code: number;
  readonly out: string;
  readonly err: string;
}

/** An installation's state without its processes, and the commands on it. */
async function installed(t: Test) {
  const directory = mkdtempSync(join(tmpdir(), 'cronium-cert-'));
  t.teardown(() => rmSync(directory, { recursive: true }));
  const state = new State(join(directory, 'state'));
  state.prepareDirectories();
  await state.prepareCertificates();
  state.writeSettings({ listen: { host: '127.0.0.1', port: 1 } }); // nobody listens there
  return { directory, state, run: cronium(state.directory) };
}

const cronium =
  (state: string) =>
  async (...args: string[]): Promise<Ran> => {
    let [out, err] = ['', ''];
    const code = await dispatch([...CERTIFICATE_COMMANDS, ...TOKEN_COMMANDS], args, {
      out: (text) => {
        out += text;
      },
      err: (text) => {
        err += `${text}\n`;
      },
      stdin: async () => Buffer.alloc(0),
      env: { CRONIUM_STATE: state },
      signal: new AbortController().signal,
    });
    return { code, out, err };
  };

interface Row {
  name: string;
  role: string;
  fingerprint: string;
  inUse: string | null;
  state: string;
}
const rows = ({ out }: Ran) => JSON.parse(out) as Row[];

void t.test(
  'an issued certificate is good for its role, and everything it needs is in one directory',
  async (t) => {
    const { directory, state, run } = await installed(t);
    const out = join(directory, 'deep/out');
    for (const role of ['host', 'operator', 'auditor'] as const) {
      const issued = await run(
        'cert',
        'issue',
        `my-${role}`,
        '--role',
        role,
        '--out',
        out,
        '--json',
      );
      t.equal(issued.code, 0, issued.err);
      const { cert, key, ca, fingerprint } = JSON.parse(issued.out) as Record<string, string>;
      const certificate = new X509Certificate(readFileSync(cert ?? ''));
      t.match(identityOf(certificate), { role, name: `my-${role}` });
      t.equal(certificate.fingerprint256.replaceAll(':', '').toLowerCase(), fingerprint);
      t.ok(certificate.checkIssued(new X509Certificate(readFileSync(ca ?? ''))));
      t.ok(certificate.checkPrivateKey(createPrivateKey(readFileSync(key ?? ''))));
      t.equal((statSync(key ?? '').mode & 0o777).toString(8), '600');
    }
    t.strictSame(readdirSync(out).sort(), [
      'ca.crt',
      'my-auditor.crt',
      'my-auditor.key',
      'my-host.crt',
      'my-host.key',
      'my-operator.crt',
      'my-operator.key',
    ]);
    t.equal((statSync(state.path('pki', 'issued.json')).mode & 0o777).toString(8), '600');
    const listed = await run('cert', 'list', '--json');
    t.strictSame(
      rows(listed).map(({ name, role, inUse, state: how }) => [name, role, inUse, how]),
      [
        ['cronium-server', 'server', 'server', 'unknown'],
        [state.leafRequest('host').name, 'host', 'host', 'unknown'],
        ['operator', 'operator', 'operator', 'unknown'],
        ['my-host', 'host', null, 'unknown'],
        ['my-operator', 'operator', null, 'unknown'],
        ['my-auditor', 'auditor', null, 'unknown'],
      ],
    );
    t.match(listed.err, /what is revoked is not known: no server answers/);
  },
);

void t.test('--days says how long it is valid, up to the authority’s own end', async (t) => {
  const { directory, run } = await installed(t);
  const issue = async (name: string, days: string) =>
    await run('cert', 'issue', name, '--role', 'host', '--out', directory, '--days', days);
  t.equal((await issue('short', '1')).code, 0);
  const ends = Date.parse(new X509Certificate(readFileSync(join(directory, 'short.crt'))).validTo);
  t.ok(Math.abs(ends - Date.now() - 24 * 60 * 60 * 1000) < 60_000);
  for (const days of ['0', '-1', '1.5', 'x', '3651', ''])
    t.equal((await issue('bad', `${days}`)).code, 2, days);
  t.match(await issue('long', '3650'), { code: 2, err: /authority itself ends on/ });
  t.notOk(readdirSync(directory).includes('long.crt'));
});

void t.test('nothing is overwritten, not even a link that leads nowhere', async (t) => {
  const { directory, run } = await installed(t);
  const out = join(directory, 'out');
  mkdirSync(out);
  const issue = async (name: string) =>
    await run('cert', 'issue', name, '--role', 'host', '--out', out);
  t.equal((await issue('a')).code, 0);
  const before = readFileSync(join(out, 'a.key'), 'utf8');
  t.match(await issue('a'), { code: 1, err: /a\.crt is there already/ });
  t.equal(readFileSync(join(out, 'a.key'), 'utf8'), before);
  writeFileSync(join(out, 'b.key'), 'mine');
  t.match(await issue('b'), { code: 1, err: /b\.key is there already/ });
  t.notOk(readdirSync(out).includes('b.crt'));
  symlinkSync('/nonexistent/target', join(out, 'c.crt'));
  t.equal((await issue('c')).code, 1);
  writeFileSync(join(out, 'ca.crt'), 'of another installation');
  t.match(await issue('d'), { code: 1, err: /ca\.crt is there already/ });
  t.equal(readFileSync(join(out, 'ca.crt'), 'utf8'), 'of another installation');
});

void t.test('mistakes in the command line are answered with the way out', async (t) => {
  const { state, run } = await installed(t);
  const table: readonly (readonly [string[], RegExp])[] = [
    [['cert', 'issue'], /give a NAME/],
    [['cert', 'issue', 'a'], /--role is missing/],
    [['cert', 'issue', 'a', '--role', 'server'], /use one of host, operator, auditor/],
    [['cert', 'issue', 'ca', '--role', 'host'], /"ca" is taken/],
    [['cert', 'issue', '../a', '--role', 'host'], /use 1-64 letters/],
    [['cert', 'issue', '.', '--role', 'host'], /use 1-64 letters/],
    [['cert', 'issue', 'x'.repeat(65), '--role', 'host'], /use 1-64 letters/],
    [['cert', 'rotate', 'ca'], /use one of server, host, operator, all/],
    [['cert', 'revoke'], /cronium cert list/],
    [['cert', 'revoke', 'a', '--reason', 'x'.repeat(257)], /at most 256/],
    [['token', 'mint'], /for which execution/],
    [['token', 'mint', 'x'], /not an execution id/],
    [['token', 'mint', ID], /--host-cert is missing/],
    [['token', 'mint', ID, '--host-cert', '/nonexistent'], /there is no file/],
    [['token', 'mint', ID, '--host-cert', '/dev/null'], /not a certificate that cronium issued/],
    [
      ['token', 'mint', ID, '--host-cert', state.certificate('operator').cert],
      /certificate of a host is needed/,
    ],
    [['token', 'mint', ID, '--profile', 'root'], /use one of local, remote/],
    [['token', 'mint', ID, '--lifetime', '25h'], /the longest is 24h/],
    [['token', 'mint', ID, '--lifetime', '500ms'], /a second at least/],
    [['token', 'mint', ID, '--scope', 'variables'], /access is r or rw/],
    [['token', 'mint', ID, '--scope', 'secrets:r'], /areas are variables/],
    [['token', 'mint', ID, '--scope', 'variables:w'], /access is r or rw/],
    [['token', 'mint', ID, '--scope', 'variables:r:'], /cannot be empty/],
    [['token', 'mint', ID, '--scope', 'variables:r:***'], /at most 2/],
    [['token', 'revoke'], /cronium token list/],
    [['token', 'revoke', 'x'], /neither a token nor an execution/],
  ];
  for (const [args, err] of table) {
    const { code, err: found } = await run(...args);
    t.match([code, found], [/[12]/, err], args.join(' '));
  }
  const nowhere = cronium(state.path('elsewhere'));
  for (const args of [
    ['cert', 'issue', 'a', '--role', 'host'],
    ['cert', 'list'],
    ['cert', 'rotate'],
    ['cert', 'revoke', 'a'],
    ['token', 'list'],
    ['token', 'rotate-key'],
  ])
    t.match(await nowhere(...args), { code: 1, err: /cronium up/ }, args.join(' '));
});

void t.test(
  'rotation replaces the certificates asked for; the old ones stay listed, to be revoked',
  async (t) => {
    const { state, run } = await installed(t);
    const before = rows(await run('cert', 'list', '--json'));
    const rotated = await run('cert', 'rotate', 'host', '--json');
    t.equal(rotated.code, 0, rotated.err);
    const old = before.find(({ inUse }) => inUse === 'host')?.fingerprint;
    const [{ fingerprint, previous }] = JSON.parse(rotated.out) as [
      { fingerprint: string; previous: string },
    ];
    t.equal(previous, old);
    t.not(fingerprint, old);
    const { cert } = new Installation(state).tls('host');
    t.equal(
      new X509Certificate(cert).fingerprint256.replaceAll(':', '').toLowerCase(),
      fingerprint,
    );
    const after = rows(await run('cert', 'list', '--json'));
    t.equal(after.length, before.length + 1);
    t.match(
      after.find((row) => row.fingerprint === old),
      { inUse: null, role: 'host' },
    );
    t.match(await run('cert', 'rotate'), { code: 0, err: /the server does not run/ });
    t.equal(rows(await run('cert', 'list', '--json')).length, before.length + 4);
    await state.prepareCertificates();
    t.equal(
      rows(await run('cert', 'list', '--json')).length,
      before.length + 4,
      'up changes nothing',
    );
  },
);

void t.test('several at once do not lose each other’s certificates from the list', async (t) => {
  const { directory, run } = await installed(t);
  const names = Array.from({ length: 6 }, (_, i) => `n${i}`);
  const ran = await Promise.all(
    names.map(
      async (name) => await run('cert', 'issue', name, '--role', 'host', '--out', directory),
    ),
  );
  t.strictSame(
    ran.map(({ code }) => code),
    names.map(() => 0),
  );
  const listed = new Set(rows(await run('cert', 'list', '--json')).map(({ name }) => name));
  t.ok(names.every((name) => listed.has(name)));
});

void t.test('a damaged list is said, and never written over', async (t) => {
  const { directory, state, run } = await installed(t);
  const file = state.path('pki', 'issued.json');
  for (const text of ['', '{}', '{"version": 2, "certificates": []}']) {
    writeFileSync(file, text);
    t.match(await run('cert', 'list'), { code: 2, err: /is no list of certificates/ });
    t.match(await run('cert', 'issue', 'a', '--role', 'host', '--out', directory), { code: 2 });
    t.equal(readFileSync(file, 'utf8'), text);
    t.notOk(readdirSync(directory).includes('a.crt'), 'nothing is issued that could not be listed');
  }
});

void t.test('a new signing key is put in place while the server is down', async (t) => {
  const { state, run } = await installed(t);
  const file = state.path('server', 'token.key');
  t.match(await run('token', 'rotate-key', '--json'), { code: 0, out: '{"signingKey":null}\n' });
  const first = readFileSync(file, 'utf8');
  t.match(await run('token', 'rotate-key'), { code: 0, err: /uses it when it starts/ });
  const second = readFileSync(file, 'utf8');
  t.not(first, second);
  t.equal((JSON.parse(second) as { retired: unknown[] }).retired.length, 2);
});
