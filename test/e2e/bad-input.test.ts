import { execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { connect } from 'node:tls';
import t from 'tap';
import { Authority } from '#server/admin/certificates.js';
import { finished, TestInstallation } from '#test/support/installation.js';
import { needsMachine } from '#test/support/machine.js';
import { killProcess } from '#test/support/processes.js';
import { SmallDisk } from '#test/support/small-disk.js';

const options = await needsMachine();

void t.test(
  'mistakes get one sentence that names the thing and the next step',
  options,
  async (t) => {
    await using cronium = await TestInstallation.up();
    const hello = cronium.script('sh', 'echo hello');

    const cases: [name: string, args: string[], code: number, says: RegExp][] = [
      ['an unknown command', ['rum'], 2, /there is no command "rum"/],
      ['half a command', ['var'], 2, /which one\? cronium var get/],
      ['an unknown option', ['run', '--imput', '{}', hello], 2, /--imput/],
      ['no script', ['run'], 2, /which script\? give its path/],
      [
        'a script that is not there',
        ['run', '/no/such/script.sh'],
        2,
        /cannot read the script \/no\/such\/script\.sh: .*no such file/i,
      ],
      [
        'a script that is a directory',
        ['run', '--runtime', 'bash', '/tmp'],
        2,
        /cannot read the script \/tmp: .*directory/i,
      ],
      [
        'a runtime nobody knows',
        ['run', '--runtime', 'cobol', hello],
        2,
        /--runtime "cobol": use one of bash, python, node/,
      ],
      [
        'an extension that says nothing',
        ['run', cronium.script('txt', 'x')],
        2,
        /which runtime is .*\.txt for\? say --runtime/,
      ],
      [
        'invalid --input',
        ['run', '--input', '{name: 1}', hello],
        2,
        /--input is not valid JSON: .*quote it for the shell/,
      ],
      [
        'an --input file that is not there',
        ['run', '--input', '@/no/file', hello],
        2,
        /--input: cannot read \/no\/file/,
      ],
      [
        'an unknown member of --event',
        ['run', '--event', '{"colour": 1}', hello],
        2,
        /--event: .*colour/,
      ],
      [
        'a member of the wrong type',
        ['run', '--event', '{"name": 1}', hello],
        2,
        /--event: name: .*string/,
      ],
      ['a bad --env', ['run', '--env', 'NOVALUE', hello], 2, /--env "NOVALUE": write NAME=VALUE/],
      [
        'an --env that would reach into the launch',
        ['run', '--env', 'BASH_ENV=/x', hello],
        2,
        /BASH_ENV: this variable is set by the bridge/,
      ],
      [
        'an absurd time',
        ['run', '--timeout', 'soon', hello],
        2,
        /--timeout soon: write a time like 30s/,
      ],
      [
        'a time longer than any run',
        ['run', '--timeout', '600h', hello],
        2,
        /--timeout 600h: the longest is \d+h/,
      ],
      [
        'an image name that is none',
        ['run', '--image', 'BAD NAME', hello],
        2,
        /no name of an image/,
      ],
      ['words too many', ['var', 'list', 'x'], 2, /what is "x"\?/],
      ['an absurd size', ['run', '--memory', '-1', hello], 2, /--memory/],
      [
        'too little memory for Docker',
        ['run', '--memory', '1m', hello],
        2,
        /memoryBytes: Docker needs at least 6m/,
      ],
      [
        'a negative time',
        ['run', '--timeout', '-5s', hello],
        2,
        /--timeout -5s: write a time like 30s/,
      ],
      ['no time', ['run', '--timeout', '0', hello], 2, /--timeout 0: write a time like 30s/],
      [
        'fewer than no processors',
        ['run', '--cpus', '-1', hello],
        2,
        /--cpus -1: write a number like 1 or 0.5/,
      ],
      [
        'more processors than there are',
        ['run', '--cpus', '999', hello],
        1,
        /Docker: .*only \d+ CPUs available/,
      ],
      ['more processors than any machine has', ['run', '--cpus', '1e9', hello], 2, /cpus: .*1024/],
      [
        'memory without a number',
        ['run', '--memory', 'plenty', hello],
        2,
        /--memory plenty: write a size like 256m or 1g/,
      ],
      [
        'nothing may be printed',
        ['run', '--log-limit', '0', hello],
        2,
        /--log-limit 0: write a size like 256m or 1g/,
      ],
      [
        'an image without the runtime',
        ['run', '--image', 'cronium-bash:latest', cronium.script('py', 'print(1)')],
        1,
        /^cronium: there is no python in this image: use another one \(--image\), or ours$/m,
      ],
      ['no processor', ['run', '--cpus', '0', hello], 2, /--cpus 0: write a number/],
      [
        'a user id with a slash',
        ['run', '--user', 'a/b', hello],
        2,
        /--user "a\/b": use 1-128 letters/,
      ],
      [
        'an image that is not there',
        ['run', '--image', 'no-such-image:1', hello],
        1,
        /there is no image no-such-image:1: build ours with scripts\/setup, or pull it/,
      ],
      [
        'a variable that is not there',
        ['var', 'get', 'nothing'],
        1,
        /no variable "nothing" for user:default; see: cronium var list/,
      ],
      [
        'a key with a newline',
        ['var', 'set', 'a\nb', '1'],
        2,
        /variable "a\\nb": a variable key cannot hold control characters/,
      ],
      ['an empty key', ['var', 'set', '', '1'], 2, /a variable key cannot be empty/],
      ['a key that is too long', ['var', 'set', 'k'.repeat(256), '1'], 2, /at most 255 bytes/],
      ['the helpers’ time stamp', ['var', 'set', '__updated__', '1'], 2, /never stored/],
      [
        '--user and --org at once',
        ['var', 'list', '--user', 'a', '--org', 'b'],
        2,
        /exclude each other/,
      ],
      ['an import that is no object', ['var', 'import', '[1]'], 2, /not a JSON object/],
      [
        'deleting what is not there',
        ['var', 'delete', 'nothing'],
        1,
        /there was no variable "nothing"/,
      ],
      ['an execution id that is none', ['exec', 'show', 'x'], 2, /"x" is not an execution id/],
      [
        'an execution that is not there',
        ['exec', 'show', '11111111-1111-4111-8111-111111111111'],
        1,
        /there is no execution 11111111/,
      ],
      ['a listen address without a port', ['up', '--listen', 'localhost'], 2, /write HOST:PORT/],
    ];
    for (const [name, args, code, says] of cases) {
      await t.test(name, async (t) => {
        const run = await cronium.cronium(args);
        t.equal(run.code, code);
        t.match(run.stderr, says);
        t.equal(run.stdout, '', 'nothing on stdout');
        t.notMatch(run.stderr, /\n\s+at /, 'no stack trace');
      });
    }

    await t.test(
      'a script that stores a key nobody could name hears it, and the rest of the run goes on',
      async (t) => {
        const run = await cronium.run(
          'py',
          'import json\njson.dump({"bad\\nkey": 1}, open("variables.json", "w"))',
          '--user',
          'keys',
        );
        t.match(
          run.warnings.join(),
          /Failed to persist variable changes: variable "bad\\nkey": a variable key cannot hold control/,
        );
        t.same(run.variables.set, {});
      },
    );

    await t.test(
      'an expired operator certificate is named, and `cronium up` renews it',
      async (t) => {
        const files = cronium.installation.state.certificate('operator');
        const ours = await Authority.open(cronium.installation.state.certificate('ca'));
        await ours.issue({
          files,
          name: 'operator',
          role: 'operator',
          notAfter: new Date(Date.now() - 1000),
        });
        const refused = await cronium.cronium(['var', 'list']);
        t.equal(refused.code, 1);
        t.match(
          refused.stderr,
          /refused .*operator\.crt: the certificate has expired; renew it with: cronium up/,
        );
        await cronium.cronium(['up']);
        t.equal((await cronium.cronium(['var', 'list'])).code, 0);
      },
    );

    await t.test('with nothing running every command says how to start it', async (t) => {
      await cronium.cronium(['down']);
      const list = await cronium.cronium(['var', 'list']);
      t.equal(list.code, 1);
      t.match(list.stderr, /no server answers at 127\.0\.0\.1:\d+; start it with: cronium up/);
      const run = await cronium.cronium(['run', hello]);
      t.equal(run.code, 1);
      t.match(run.stderr, /mountd does not answer on .*; start it with: cronium up/);
      const status = await cronium.cronium(['status']);
      t.equal(status.code, 1);
      t.match(status.stdout, /server {2}down: no server answers[^]*mountd {2}down: /);
      const nowhere = await cronium.cronium([
        'status',
        '--state',
        join(cronium.directory, 'nowhere'),
      ]);
      t.match(nowhere, {
        code: 1,
        stderr: /nothing is installed in .*nowhere; start it with: cronium up/,
      });
    });
  },
);

void t.test('up, down and up again', options, async (t) => {
  await using cronium = await TestInstallation.up();

  await t.test('starting twice is fine', async (t) => {
    const again = await cronium.cronium(['up']);
    t.match(again, { code: 0, stderr: /already running/ });
    t.match(JSON.parse((await cronium.cronium(['status', '--json'])).stdout), { well: true });
  });

  await t.test('a second server on the same store is refused with a clear sentence', async (t) => {
    const second = mkdtempSync(join(tmpdir(), 'cronium-second-'));
    rmSync(second, { recursive: true });
    // Another state directory whose database is the first one's.
    execFileSync('cp', ['-r', cronium.state, second], { stdio: 'ignore' });
    rmSync(join(second, 'run'), { recursive: true });
    rmSync(join(second, 'server/db'), { recursive: true });
    execFileSync('ln', ['-s', join(cronium.state, 'server/db'), join(second, 'server/db')]);
    const up = await cronium.cronium(['up', '--state', second, '--listen', '127.0.0.1:0']);
    t.match(up, {
      code: 1,
      stderr: /the store in .* is in use by another server; stop that one first/,
    });
    rmSync(second, { recursive: true, force: true });
  });

  await t.test('a taken port is named', async (t) => {
    const { port } = cronium.installation.state.settings().listen;
    const other = join(cronium.directory, 'other');
    const up = await cronium.cronium(['up', '--state', other, '--listen', `127.0.0.1:${port}`]);
    t.match(up, {
      code: 1,
      stderr: /cannot listen on 127\.0\.0\.1:\d+: the port is taken; choose another with --listen/,
    });
  });

  await t.test(
    'a wrong master key and a missing keyring are refused, and nothing is lost',
    async (t) => {
      await cronium.cronium(['var', 'set', 'kept', 'yes']);
      await cronium.cronium(['down']);
      const masterKey = join(cronium.state, 'server/master.key');
      const keyring = join(cronium.state, 'server/keyring.json');
      const [rightKey, rightRing] = [readFileSync(masterKey), readFileSync(keyring)];
      writeFileSync(masterKey, `${Buffer.alloc(32, 7).toString('base64url')}\n`);
      t.match(await cronium.cronium(['up']), {
        code: 1,
        stderr: /the master key in .* does not open .*: put the right one back/,
      });
      writeFileSync(masterKey, rightKey);
      rmSync(keyring);
      t.match(await cronium.cronium(['up']), { code: 1, stderr: /the keyring .* is missing/ });
      t.notOk(existsSync(keyring), 'no new keyring was made over the old data');
      writeFileSync(keyring, rightRing, { mode: 0o600 });
      t.equal((await cronium.cronium(['up'])).code, 0);
      t.equal((await cronium.cronium(['var', 'get', 'kept'])).stdout, 'yes\n');
    },
  );

  await t.test(
    'the server and its supervisor killed under a running script: after up the script goes on, nothing is lost',
    async (t) => {
      const running = cronium.run(
        'sh',
        'cronium_setVariable before 1 >/dev/null; touch /tmp/x; for i in $(seq 300); do [ "$(cronium_getVariable go)" = 1 ] && break; sleep 0.05; done; cronium_setVariable after 1 >/dev/null; cronium_output \'"done"\'',
        '--user',
        'survivor',
        '--timeout',
        '60s',
      );
      for (;;) {
        const { stdout } = await cronium.cronium(['var', 'export', '--user', 'survivor']);
        if (stdout.includes('before')) break;
      }
      const { serverPid } = cronium;
      killProcess(cronium.installation.server.pid, 'SIGKILL');
      killProcess(serverPid, 'SIGKILL');
      t.equal((await cronium.cronium(['up'])).code, 0);
      await cronium.cronium(['var', 'set', 'go', '1', '--string', '--user', 'survivor']);
      t.match(await running, { status: 'succeeded', output: 'done', warnings: [] });
      t.match(
        (await cronium.cronium(['var', 'export', '--user', 'survivor'])).stdout,
        /"before": "1"[^]*"after": "1"/,
      );
    },
  );

  await t.test('a second mountd on the same directory is refused and harms nothing', async (t) => {
    const runFile = join(cronium.state, 'run/mountd.json');
    const kept = readFileSync(runFile);
    rmSync(runFile);
    t.match(await cronium.cronium(['up']), {
      code: 1,
      stderr: /another mountd serves .*; stop it first/,
    });
    writeFileSync(runFile, kept);
    t.equal((await cronium.run('sh', 'echo unharmed')).stdout, 'unharmed\n');
  });

  await t.test('down leaves no process, mount or container; the data stay', async (t) => {
    t.match(await cronium.cronium(['down']), { code: 0, stderr: /stopped mountd and server/ });
    t.same(cronium.mounts(), []);
    t.same(await cronium.containers(), []);
    t.equal(cronium.installation.server.pid, undefined);
    t.match(await cronium.cronium(['down']), { code: 0, stderr: /nothing was running/ });
    t.ok(statSync(join(cronium.state, 'server/db/CURRENT')).size > 0);
  });
});

void t.test('where and how it is started does not matter', options, async (t) => {
  await t.test('a state path with spaces and colons', async (t) => {
    const base = mkdtempSync(join(tmpdir(), 'cronium-paths-'));
    {
      await using cronium = await TestInstallation.up(join(base, 'a b:c'));
      t.match(await cronium.run('sh', 'cronium_output 1; cat /etc/hosts'), {
        output: 1,
        stdout: /localhost/,
      });
    }
    rmSync(base, { recursive: true });
  });

  await t.test('four first starts at once make one consistent installation', async (t) => {
    await using cronium = new TestInstallation();
    const ups = await Promise.all([1, 2, 3, 4].map(async () => await cronium.cronium(['up'])));
    t.same(
      ups.map(({ code }) => code),
      [0, 0, 0, 0],
      ups.map(({ stderr }) => stderr).join(),
    );
    t.equal(ups.filter(({ stderr }) => stderr.includes('started server and mountd')).length, 1);
    t.equal((await cronium.run('sh', 'echo one')).stdout, 'one\n');
    await cronium.cronium(['down']);
    t.equal(
      (await cronium.cronium(['up'])).code,
      0,
      'keys and certificates fit together afterwards',
    );
  });

  await t.test(
    'a state directory that others may write to, and one that is a file, are refused',
    async (t) => {
      const base = mkdtempSync(join(tmpdir(), 'cronium-paths-'));
      mkdirSync(join(base, 'open'));
      execFileSync('chmod', ['777', join(base, 'open')]);
      writeFileSync(join(base, 'file'), '');
      const up = async (name: string) => {
        await using refused = new TestInstallation(join(base, name));
        return await refused.cronium(['up']);
      };
      t.match(await up('open'), { code: 1, stderr: /others may write to .*open; run: chmod go-w/ });
      t.match(await up('file'), {
        code: 1,
        stderr: /cannot use .*file.*: E\w+; choose another with --state/,
      });
      t.match(await up('x'.repeat(120)), {
        code: 2,
        stderr: /too long for a socket: choose a shorter --state/,
      });
      rmSync(base, { recursive: true });
    },
  );

  await t.test('a reader that has seen enough is no error', async (t) => {
    await using cronium = await TestInstallation.up();
    const piped = async (command: string) =>
      await finished(
        spawn('bash', ['-c', `set -o pipefail; ${process.execPath} bin/cronium ${command}`], {
          env: { ...process.env, CRONIUM_STATE: cronium.state },
          stdio: ['ignore', 'pipe', 'pipe'],
        }),
      );
    const run = await piped(
      `run ${cronium.script('sh', 'seq 1 200000')} 2>&1 >/dev/null | head -c0; ${process.execPath} bin/cronium run ${cronium.script('sh', 'seq 1 200000')} | head -1`,
    );
    t.match(run, { stdout: '1\n' });
    t.notMatch(run.stderr, /\n\s+at /);
    t.notMatch((await piped('status | head -c1')).stderr, /\n\s+at /);
  });

  await t.test(
    'clients that are refused and stay do not keep the server from stopping',
    async (t) => {
      await using cronium = await TestInstallation.up();
      const { port } = cronium.installation.state.settings().listen;
      const sockets = await Promise.all(
        Array.from({ length: 50 }, async () => {
          const socket = connect({
            host: '127.0.0.1',
            port,
            rejectUnauthorized: false,
          });
          socket.on('error', () => {});
          await once(socket, 'secureConnect');
          socket.write(
            'GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n',
          );
          return socket;
        }),
      );
      const started = Date.now();
      t.equal((await cronium.cronium(['down'])).code, 0);
      t.ok(Date.now() - started < 15_000, 'and it stopped soon');
      for (const socket of sockets) socket.destroy();
    },
  );

  await t.test(
    'large variables, outputs and texts that are no JSON still give a result',
    async (t) => {
      await using cronium = await TestInstallation.up();
      const big = await cronium.run(
        'py',
        'cronium.setVariable("big", "x" * 9_000_000)\ncronium.output("y" * 9_000_000)',
        '--user',
        'big',
      );
      t.match(big, {
        status: 'succeeded',
        variables: { set: {} },
        warnings: [/too large to be shown/],
      });
      const more = async (key: string) =>
        await cronium.cronium(
          ['var', 'set', key, '-', '--string', '--user', 'big'],
          'x'.repeat(9_000_000),
        );
      t.equal((await more('more')).code, 0);
      t.match(await more('most'), {
        code: 1,
        stderr: /the variables of user:big would take \d+ bytes, of \d+: delete some first/,
      });
      const listed = await cronium.cronium(['var', 'list', '--user', 'big']);
      t.equal(listed.code, 0);
      t.ok(listed.stdout.length > 18_000_000, 'both are listed');
      const raw = await cronium.run('py', 'open("output.json", "wb").write(b"\\xff" * 9_000_000)');
      t.match(raw, {
        status: 'succeeded',
        output: null,
        warnings: [/Failed to parse output\.json/, /is kept up to/],
      });
    },
  );
});

void t.test('a full state disk is ENOSPC for the script and loses nothing', options, async (t) => {
  using disk = new SmallDisk();
  await using cronium = await TestInstallation.up(disk.state);
  await cronium.cronium(['var', 'set', 'kept', 'yes']);
  disk.fill();
  const full = await cronium
    .run(
      'py',
      [
        'import errno, os',
        'def attempt(name, text):',
        '    try:',
        '        with open(name, "w") as f: f.write(text)',
        '        print(name, "ok")',
        '    except OSError as e: print(name, errno.errorcode[e.errno])',
        'attempt("output.json", \'"\' + "x" * 300000 + \'"\')',
        'attempt("scratch", "x" * 300000)',
      ].join('\n'),
      '--user',
      'full',
    )
    .catch((error: unknown) => String(error));
  const text = typeof full === 'string' ? full : full.stdout;
  t.match(text, /ENOSPC|full: free some space/);
  t.equal(
    (await cronium.cronium(['var', 'get', 'kept'])).stdout,
    'yes\n',
    'what was stored is still there',
  );
  disk.empty();
  const after = await cronium.run('sh', 'cronium_output \'"fits again"\'', '--user', 'full');
  t.match(after, { status: 'succeeded', output: 'fits again', warnings: [] });
});
