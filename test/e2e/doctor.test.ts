import { chmodSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import type { Finding } from '#server/admin/doctor-finding.js';
import { TestInstallation } from '#test/support/installation.js';
import { needsMachine } from '#test/support/machine.js';

const options = await needsMachine();

interface DoctorJson {
  well: boolean;
  state: string;
  checks: (Finding & { next: string | null })[];
}

async function examined(cronium: TestInstallation) {
  const { code, stdout } = await cronium.cronium(['doctor', '--json']);
  return { code, ...(JSON.parse(stdout) as DoctorJson) };
}

const levelsOf = ({ checks }: DoctorJson) =>
  Object.fromEntries(checks.map(({ check, level }) => [check, level]));

void t.test(
  'doctor finds what is wrong with an installation, and only that',
  options,
  async (t) => {
    const stopped = new TestInstallation();
    const before = await examined(stopped);
    await stopped[Symbol.asyncDispose]();
    t.equal(before.code, 0, 'before anything is installed');
    t.match(
      before.checks.find(({ check }) => check === 'server'),
      { level: 'ok', found: /nothing is installed in .* yet/ },
    );

    await using cronium = await TestInstallation.up();
    const well = await examined(cronium);
    t.match(well, { code: 0, well: true, state: cronium.state });
    t.same(
      well.checks.filter(({ level }) => level === 'bad'),
      [],
    );
    t.match(levelsOf(well), { server: 'ok', mountd: 'ok', mount: 'ok', keys: 'ok', clock: 'ok' });

    const settingsFile = join(cronium.state, 'settings.json');
    const settings = readFileSync(settingsFile, 'utf8');
    const key = join(cronium.state, 'pki/host.key');
    chmodSync(key, 0o644);
    const dockerSocket = join(cronium.directory, 'nobody.sock');
    writeFileSync(settingsFile, JSON.stringify({ ...JSON.parse(settings), dockerSocket }));
    const { code, stdout, stderr } = await cronium.cronium(['doctor']);
    t.equal(code, 1);
    const bad = stdout.split('\n').filter((line) => line.startsWith('bad'));
    t.equal(bad.length, 2);
    t.match(stdout, `no Docker engine answers on ${dockerSocket} (ENOENT)`);
    t.match(stdout, `others can read ${key} (mode 644)`);
    t.match(stdout, `do: chmod 600 ${key}\n`);
    t.match(stderr, /^2 bad, /);
    chmodSync(key, 0o600);

    writeFileSync(settingsFile, '{');
    const unreadable = await examined(cronium);
    t.equal(unreadable.code, 1);
    t.match(
      unreadable.checks.find(({ check }) => check === 'settings'),
      { level: 'bad', found: /settings\.json cannot be read/ },
    );
    writeFileSync(settingsFile, settings);

    t.equal((await cronium.cronium(['down'])).code, 0);
    const down = await examined(cronium);
    t.equal(down.code, 0, 'what does not run is a warning');
    t.match(levelsOf(down), { server: 'warn', mountd: 'warn', mount: 'ok' });
  },
);
