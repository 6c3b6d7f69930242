import { lstatSync, rmSync } from 'node:fs';
import { connect } from 'node:net';
import { BridgeError, errnoCode } from '#bridge/wire/errors.js';

/**
 * Makes room for a unix socket at `path`: what a dead server has left is removed.
 * @throws BridgeError `unavailable` when a server answers there, `invalid` when it is no socket
 */
export async function clearSocketPath(path: string): Promise<void> {
  const stat = lstatSync(path, { throwIfNoEntry: false });
  if (stat === undefined) return;
  if (!stat.isSocket())
    throw new BridgeError('invalid', `${path} is in the way and no socket: move it elsewhere`);
  const problem = await new Promise<Error | undefined>((resolve) => {
    const probe = connect(path);
    probe.once('connect', () => {
      probe.destroy();
      resolve(undefined);
    });
    probe.once('error', resolve);
  });
  // Anything but "nobody listens", such as a full queue, comes from somebody who does.
  if (problem === undefined || errnoCode(problem) !== 'ECONNREFUSED')
    throw new BridgeError('unavailable', `another server answers on ${path}; stop it first`, {
      cause: problem,
    });
  rmSync(path, { force: true });
}
