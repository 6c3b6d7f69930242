import { X509Certificate } from 'node:crypto';
import { readdirSync, readFileSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { connect } from 'node:tls';
import Docker from 'dockerode';
import t from 'tap';
import { Connection } from '#bridge/client/connection.js';
import { BridgeError } from '#bridge/wire/errors.js';
import { ExecutionId } from '#bridge/wire/names.js';
import { Authority } from '#server/admin/certificates.js';
import { thumbprintOf } from '#server/auth/identity.js';
import { Tokens } from '#server/auth/tokens.js';
import { TestInstallation } from '#test/support/installation.js';
import { needsMachine } from '#test/support/machine.js';

/** The start of every signed token: base64url of `{"alg":…`, then a dot and another object. */
const TOKEN = /eyJ[A-Za-z0-9_-]{8,}\.eyJ[A-Za-z0-9_-]{8,}/;

const options = await needsMachine();

void t.test('no secret where it does not belong, and no way in without one', options, async (t) => {
  await using cronium = await TestInstallation.up();
  const { host, port } = cronium.installation.state.settings().listen;
  const address = { host, port };
  const software = 'test';

  await t.test(
    'the container holds no token: not in its environment, files, /proc or docker inspect',
    async (t) => {
      const everything = `
env; cat /proc/*/environ /proc/*/cmdline /proc/self/mountinfo 2>/dev/null | tr '\\0' '\\n'
find / -xdev -type f -size -2000k -not -path '/usr/*' 2>/dev/null | while read -r f; do cat "$f" 2>/dev/null; done
find /cronium -type f -exec cat {} + 2>/dev/null
sleep 2`;
      const running = cronium.run('sh', everything);
      const info = await cronium.runningContainer();

      const container = new Docker({ socketPath: '/var/run/docker.sock' }).getContainer(info.Id);
      const inspected = JSON.stringify(await container.inspect());
      const { stdout, stderr, status } = await running;
      t.equal(status, 'succeeded');
      t.match(stdout, /TMPDIR=/, 'the search did read the environment');
      t.match(stdout, /setVariable/, 'and the files');
      t.notMatch(stdout + stderr, TOKEN);
      t.notMatch(inspected, TOKEN);

      const planted = `eyJhbGciOiJFZERTQSJ9.eyJzdWIiOiJwbGFudGVkIn0.x`;
      const control = await cronium.run('sh', everything, '--env', `PLANTED=${planted}`);
      t.match(control.stdout, TOKEN, 'a token that is there would have been found');
    },
  );

  await t.test('nothing a script stores can be read in the database files', async (t) => {
    const canary = 'canary-7f3d1c';
    await cronium.run(
      'py',
      `cronium.setVariable("${canary}-key", "${canary}-value")\ncronium.output("${canary}-output")`,
      '--input',
      `"${canary}-input"`,
    );
    t.match((await cronium.cronium(['var', 'export'])).stdout, canary, 'it is stored');
    await cronium.cronium(['down']);
    const directory = join(cronium.state, 'server/db');
    const files = readdirSync(directory).map((name) => readFileSync(join(directory, name)));
    t.ok(files.reduce((sum, file) => sum + file.length, 0) > 500, 'there are files with content');
    for (const file of files) t.notOk(file.includes(canary), 'no canary');
    await cronium.cronium(['up']);
    t.match(
      (await cronium.cronium(['var', 'export'])).stdout,
      canary,
      'and it is still there after a restart',
    );
  });

  await t.test('keys are readable by their owner only', async (t) => {
    const secret = [
      'pki/ca.key',
      'pki/server.key',
      'pki/host.key',
      'pki/operator.key',
      'server/master.key',
      'server/keyring.json',
      'server/token.key',
    ];
    for (const file of secret)
      t.equal(statSync(join(cronium.state, file)).mode & 0o777, 0o600, file);
    t.equal(statSync(join(cronium.state, 'run/mountd.sock')).mode & 0o777, 0o600, 'control socket');
    t.equal(statSync(cronium.state).mode & 0o777, 0o700, 'state directory');
  });

  await t.test(
    'without a client certificate there is no session, not even a look at one',
    async (t) => {
      const ca = readFileSync(join(cronium.state, 'pki/ca.crt'), 'utf8');
      const answer = await new Promise<string>((resolve, reject) => {
        const socket = connect({ ...address, ca, servername: 'localhost' });
        let text = '';
        socket.on('data', (data: Buffer) => {
          text += data.toString();
        });
        socket.on('error', reject);
        socket.on('end', () => resolve(text));
        socket.write(
          'GET / HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n',
        );
      });
      t.match(answer, /^HTTP\/1\.1 401 Unauthorized\r\n[^]*a client certificate is needed\n$/);
      const oldTls = await new Promise<string>((resolve) => {
        const socket = connect({ ...address, ca, servername: 'localhost', maxVersion: 'TLSv1.2' });
        socket.on('error', (error) =>
          resolve('code' in error ? String(error.code) : error.message),
        );
        socket.on('secureConnect', () => resolve('connected'));
      });
      t.equal(oldTls, 'ERR_SSL_TLSV1_ALERT_PROTOCOL_VERSION', 'and TLS 1.2 is not spoken');
    },
  );

  await t.test(
    'certificates of another authority, expired ones and servers of another CA are refused in a sentence',
    async (t) => {
      const elsewhere = await Authority.open({
        cert: join(cronium.directory, 'other.crt'),
        key: join(cronium.directory, 'other.key'),
      });
      const files = {
        cert: join(cronium.directory, 'x.crt'),
        key: join(cronium.directory, 'x.key'),
      };
      const tls = () => ({
        ca: readFileSync(join(cronium.state, 'pki/ca.crt'), 'utf8'),
        cert: readFileSync(files.cert, 'utf8'),
        key: readFileSync(files.key, 'utf8'),
        certPath: files.cert,
      });
      const refused = async () =>
        await Connection.open({ address, tls: tls(), software }).then(
          () => 'connected',
          (error: unknown) =>
            error instanceof BridgeError ? `${error.code}: ${error.message}` : String(error),
        );
      await elsewhere.issue({ files, name: 'stranger', role: 'operator' });
      t.match(await refused(), /^denied: .*comes from another CA; use one that its own CA issued/);
      const ours = await Authority.open(cronium.installation.state.certificate('ca'));
      await ours.issue({
        files,
        name: 'late',
        role: 'operator',
        notAfter: new Date(Date.now() - 60_000),
      });
      t.match(await refused(), /^denied: .*has expired; renew it with: cronium up/);
      await ours.issue({ files, name: 'fresh', role: 'operator' });
      t.equal(await refused(), 'connected', 'a good one gets in');
      t.match(
        await Connection.open({
          address,
          tls: { ...tls(), ca: readFileSync(join(cronium.directory, 'other.crt'), 'utf8') },
          software,
        }).then(String, String),
        /did not issue: is it the right server/,
      );
    },
  );

  await t.test(
    'a token opens nothing on another host’s connection, when expired, or when made up',
    async (t) => {
      const ours = await Authority.open(cronium.installation.state.certificate('ca'));
      const files = {
        cert: join(cronium.directory, 'host2.crt'),
        key: join(cronium.directory, 'host2.key'),
      };
      await ours.issue({ files, name: 'host2', role: 'host' });
      const tlsOf = (paths: { cert: string; key: string }) => ({
        ca: readFileSync(join(cronium.state, 'pki/ca.crt'), 'utf8'),
        cert: readFileSync(paths.cert, 'utf8'),
        key: readFileSync(paths.key, 'utf8'),
        certPath: paths.cert,
      });
      const hostFiles = cronium.installation.state.certificate('host');
      using first = await Connection.open({ address, tls: tlsOf(hostFiles), software });
      using second = await Connection.open({ address, tls: tlsOf(files), software });
      const now = new Date().toISOString();
      const created = await first.call('execution.create', {
        user: 'ada',
        variablesOf: { user: 'ada' },
        runtime: 'bash',
        timeoutMs: 1000,
        event: {
          id: 1,
          name: 'n',
          description: null,
          type: 'BASH',
          runLocation: 'LOCAL',
          createdAt: now,
          updatedAt: now,
          userId: 'ada',
          server: null,
          successCount: 0,
          failureCount: 0,
          lastRunAt: null,
        },
      });
      const open = async (connection: Connection, token: string) =>
        await connection.call('execution.open', { token }).then(
          ({ channel }) => channel,
          (error: unknown) => (error instanceof BridgeError ? error.code : String(error)),
        );
      t.equal(await open(second, created.token), 'denied', 'bound to another certificate');
      t.equal(
        await open(first, `${created.token.slice(0, -4)}AAAA`),
        'denied',
        'a changed signature',
      );
      t.equal(await open(first, 'nonsense'), 'denied', 'no token at all');

      const thumbprint = thumbprintOf(new X509Certificate(readFileSync(hostFiles.cert)).raw);
      const mint = Tokens.open(join(cronium.state, 'server/token.key'));
      const grant = {
        executionId: created.executionId,
        namespace: { user: 'ada' },
        profile: 'local',
        mode: 'rw',
        cap: [{ area: 'variables', access: 'rw' }],
      } as const;
      const expired = await mint.mint(grant, thumbprint, -60_000);
      t.equal(await open(first, expired.token), 'token_expired');
      const unknown = await mint.mint(
        { ...grant, executionId: ExecutionId.parse(crypto.randomUUID()) },
        thumbprint,
      );
      t.equal(await open(first, unknown.token), 'denied', 'an execution that does not exist');

      const channel = await open(first, created.token);
      t.type(channel, 'number', 'the right token on the right connection opens');
      const asChannel = async (connection: Connection, number: number) =>
        await connection.call('condition.set', { condition: true }, { channel: number }).then(
          () => 'done',
          (error: unknown) => (error instanceof BridgeError ? error.code : String(error)),
        );
      t.equal(await asChannel(first, Number(channel)), 'done');
      t.equal(await asChannel(second, Number(channel)), 'denied', 'a channel is its connection’s');
      t.equal(
        await asChannel(first, Number(channel) + 1),
        'denied',
        'and nobody can guess another one',
      );
      const noOutput = await mint.mint(grant, thumbprint);
      const narrow = Number(await open(first, noOutput.token));
      t.equal(
        await first.call('output.set', { text: '1' }, { channel: narrow }).then(
          () => 'done',
          (e: unknown) => (e instanceof BridgeError ? e.code : ''),
        ),
        'denied',
        'a token without the scope does not reach the output',
      );
      t.equal(
        await first.call('variable.list', { namespace: { user: 'ada' } }).then(
          () => 'done',
          (e: unknown) => (e instanceof BridgeError ? e.code : ''),
        ),
        'denied',
        'a host is no operator',
      );
    },
  );

  await t.test('the log tells what happened and no secret', async (t) => {
    const log = cronium.log('server') + cronium.log('mountd');
    t.match(log, /"op":"execution.create"/);
    t.notMatch(log, TOKEN);
    t.notMatch(log, /canary-7f3d1c-(value|output)/);
  });
});
