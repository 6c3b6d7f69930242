import t from 'tap';
import { eventually, TestInstallation } from '#test/support/installation.js';
import { needsMachine } from '#test/support/machine.js';
import { killProcess } from '#test/support/processes.js';

const SCRIPTS = {
  sh: `
before=$(cronium_getVariable visits)
cronium_setVariable visits "$(( \${before:-0} + 1 ))" > /dev/null
cronium_output "{\\"by\\": \\"$(cronium_input | jq -r .name)\\", \\"visits\\": $(cronium_getVariable visits)}"
cronium_setCondition true > /dev/null
echo scratch > a; mv a b; cat b
`,
  py: `
cronium.setVariable('visits', int(cronium.getVariable('visits') or 0) + 1)
cronium.output({'by': cronium.input()['name'], 'visits': cronium.getVariable('visits')})
cronium.setCondition(True)
import os
with open('a', 'w') as f: print('scratch', file=f)
os.rename('a', 'b'); print(open('b').read(), end='')
`,
  js: `
cronium.setVariable('visits', Number(cronium.getVariable('visits') ?? 0) + 1);
cronium.output({ by: cronium.input().name, visits: cronium.getVariable('visits') });
cronium.setCondition(true);
const fs = require('node:fs');
fs.writeFileSync('a', 'scratch\\n'); fs.renameSync('a', 'b'); process.stdout.write(fs.readFileSync('b'));
`,
} as const;

const options = await needsMachine();

void t.test('cronium up --driver fuse-native serves unmodified scripts', options, async (t) => {
  const cronium = await TestInstallation.up(undefined, '--driver', 'fuse-native');
  try {
    const { stdout } = await cronium.cronium(['status', '--json']);
    const { pid } = JSON.parse(stdout).mountd as { pid: number };
    t.match(JSON.parse(stdout), { well: true, mountd: { driver: 'fuse-native' } });
    t.match((await cronium.cronium(['status'])).stdout, / \(driver fuse-native\), connected\n/);

    const visit = async (extension: keyof typeof SCRIPTS, visits: number) => {
      const options = ['--user', `user-${extension}`, '--input', '{"name": "Ada"}'];
      t.match(
        await cronium.run(extension, SCRIPTS[extension], ...options),
        {
          status: 'succeeded',
          stdout: 'scratch\n',
          stderr: '',
          output: { by: 'Ada', visits },
          condition: true,
          warnings: [],
        },
        `${extension}, visit ${visits}`,
      );
    };
    for (const extension of ['sh', 'py', 'js'] as const) {
      await visit(extension, 1);
      await visit(extension, 2);
    }

    killProcess(pid, 'SIGKILL');
    await eventually('mountd serves again', async () => {
      const { code, stdout } = await cronium.cronium(['status', '--json']);
      return code === 0 && JSON.parse(stdout).mountd.pid !== pid;
    });
    await visit('py', 3);
    t.same(await cronium.containers(), []);
    t.equal(cronium.mounts().length, 1);
  } finally {
    await cronium[Symbol.asyncDispose](); // fails when a mount or a container is left
  }
  t.same(cronium.mounts(), []);
});

void t.test('an unknown driver is refused with the known ones', options, async (t) => {
  await using cronium = new TestInstallation();
  t.match(await cronium.cronium(['up', '--driver', 'nfs']), {
    code: 2,
    stderr: /--driver nfs: there are kernel and fuse-native/,
  });
});
