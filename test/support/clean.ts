import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import type { Test } from 'tap';
import { eventually, type TestInstallation } from './installation.js';

/**
 * Nothing of any execution is left: no container, no scratch, no record of a run, no mount but the one there was. Those that wait
 * for a script may.
 */
export async function isClean(t: Test, cronium: TestInstallation): Promise<void> {
  const runs = () =>
    ['runs', 'prepared'].flatMap((name) => readdirSync(join(cronium.state, 'mountd', name)));
  const scratch = () =>
    readdirSync(join(cronium.state, 'mountd/scratch')).filter((name) => name !== 'mount.json');
  await eventually('no container, scratch or record is left', async () => {
    const { waiting = 0, executions } = await cronium.mountdStatus();
    const containers = (await cronium.containers()).length;
    const isQuiet = executions.length === 0 && runs().length === 0;
    return isQuiet && containers === waiting && scratch().length === waiting;
  });
  t.same(cronium.mounts(), [cronium.mountPoint], 'no mount is left but the one it had');
}
