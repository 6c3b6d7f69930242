import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import type { Test } from 'tap';
import { eventually, type TestInstallation } from './installation.js';

/** Nothing of any execution is left: no container, no scratch, no record of it, no mount but the one there was. */
export async function isClean(t: Test, cronium: TestInstallation): Promise<void> {
  await eventually('no container is left', async () => (await cronium.containers()).length === 0);
  const left = () => [
    ...readdirSync(join(cronium.state, 'mountd/scratch')).filter((name) => name !== 'mount.json'),
    ...readdirSync(join(cronium.state, 'mountd/runs')),
    ...readdirSync(join(cronium.state, 'mountd/prepared')),
  ];
  await eventually('no scratch is left', () => left().length === 0);
  t.same(cronium.mounts(), [cronium.mountPoint], 'no mount is left but the one it had');
}
