import { accessSync, constants, existsSync } from 'node:fs';
import { connect } from 'node:net';
import t from 'tap';

/** Set to 1 on a machine without root, FUSE or Docker: what needs them is then skipped, visibly. */
const SKIP = 'CRONIUM_SKIP_MACHINE_TESTS';

/** Containers start in a fraction of a second, but a loaded machine takes its time; a test that hangs ends here. */
const TIMEOUT_MS = 900_000;
t.setTimeout(TIMEOUT_MS); // of the file as a whole: tap's own 30 s are for unit tests

interface TestOptions {
  readonly timeout: number;
  readonly skip?: string;
}

/** tap options: `skip` when the laptop variable is set. Throws a sentence when the machine lacks what it must have. */
export async function needsMachine(): Promise<TestOptions> {
  if (process.env[SKIP] === '1') return { timeout: TIMEOUT_MS, skip: `${SKIP}=1` };
  const problem = fuseProblem() ?? (await dockerProblem());
  if (problem === undefined) return { timeout: TIMEOUT_MS };
  throw new Error(`${problem}; or set ${SKIP}=1 to leave these tests out`);
}

/** As needsMachine, for tests that need a mount but no container. */
export function needsFuse(): TestOptions {
  if (process.env[SKIP] === '1') return { timeout: TIMEOUT_MS, skip: `${SKIP}=1` };
  const problem = fuseProblem();
  if (problem === undefined) return { timeout: TIMEOUT_MS };
  throw new Error(`${problem}; or set ${SKIP}=1 to leave these tests out`);
}

function fuseProblem(): string | undefined {
  if (!existsSync('/dev/fuse'))
    return 'there is no /dev/fuse: run scripts/setup --only machine as root';
  try {
    accessSync('/dev/fuse', constants.R_OK | constants.W_OK);
    return undefined;
  } catch {
    return '/dev/fuse cannot be opened: run the tests as root';
  }
}

async function dockerProblem(): Promise<string | undefined> {
  const path = '/var/run/docker.sock';
  return await new Promise((resolve) => {
    const socket = connect(path, () => {
      socket.destroy();
      resolve(undefined);
    });
    socket.on('error', ({ message }) =>
      resolve(`no Docker engine answers (${message}): run scripts/setup --only machine as root`),
    );
  });
}
