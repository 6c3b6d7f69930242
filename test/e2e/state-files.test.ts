import t from 'tap';
import { TestInstallation } from '#test/support/installation.js';
import { needsMachine } from '#test/support/machine.js';
import { killProcess } from '#test/support/processes.js';

const options = await needsMachine();

void t.test('errors and status tell a script what it cannot see otherwise', options, async (t) => {
  await using cronium = await TestInstallation.up();

  await t.test('what failed at a close is in errors, which nobody can write to', async (t) => {
    const run = await cronium.run(
      'sh',
      `cat /cronium/errors
       echo '[1' > output.json 2> /dev/null
       cat /cronium/errors
       jq -r .message < /cronium/errors
       { echo x > /cronium/errors; } 2> /dev/null || echo refused
       rm -f /cronium/errors 2> /dev/null || echo kept
       jq -r .link < /cronium/status`,
      '--strict',
    );
    const [line = '', message, ...more] = run.stdout.trimEnd().split('\n');
    t.match(JSON.parse(line), {
      at: /^20\d\d-.*Z$/,
      message: /^Warning: Failed to parse output\.json/,
    });
    t.match(message, /^Warning: Failed to parse output\.json/);
    t.strictSame(more, ['refused', 'kept', 'up']);
  });

  await t.test(
    'while the server is away status says since when, and values can be read',
    async (t) => {
      await cronium.cronium(['var', 'set', 'known', '"here"']);
      const running = cronium.run(
        'sh',
        `echo begun
       until grep -q '"down"' /cronium/status; do sleep 0.05; done
       cat /cronium/status
       cronium_getVariable known
       until grep -q '"up"' /cronium/status; do sleep 0.05; done
       cronium_setVariable after 1`,
        '--timeout=100s',
      );
      await cronium.runningContainer();
      const { server } = cronium.installation;
      const { serverPid } = cronium;
      killProcess(server.pid, 'SIGKILL');
      killProcess(serverPid, 'SIGKILL');
      await new Promise((resolve) => setTimeout(resolve, 1_500));
      t.equal((await cronium.cronium(['up'])).code, 0);
      const { stdout, status } = await running;
      t.equal(status, 'succeeded');
      const [begun, down = '', ...rest] = stdout.trimEnd().split('\n');
      t.equal(begun, 'begun');
      const { link, since, asOf, problem } = JSON.parse(down) as Record<string, string>;
      t.match({ link, problem }, { link: 'down', problem: /./ });
      t.equal(since, asOf);
      t.ok(Date.now() - Date.parse(asOf ?? '') < 60_000, 'as of now');
      t.strictSame(rest, ['here', 'true']);
    },
  );
});
