import { execFile } from 'node:child_process';
import { promisify } from 'node:util';
import { errnoCode } from '#bridge/wire/errors.js';
import { type Finding, ok } from './doctor-finding.js';

/** Whoever else changes the rules is done by then. */
const FILTER_MS = 5_000;
/** As mountd does: programs of root's are where a user's PATH often does not lead. */
const ENV = { PATH: '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin', LC_ALL: 'C' };

/** Undefined when Docker's chain is there; else the errno's name, or what iptables said. Changes nothing. */
export async function lookAtFilter(): Promise<string | undefined> {
  try {
    await promisify(execFile)('iptables', ['-w', '3', '-n', '-L', 'DOCKER-USER'], {
      env: ENV,
      timeout: FILTER_MS,
    });
    return undefined;
  } catch (error) {
    const { stderr = '' } = error as { stderr?: string };
    const [said = ''] = stderr.trim().split('\n');
    return errnoCode(error) ?? (said === '' ? 'it does not answer' : said);
  }
}

/** Never bad: scripts run without it, as most do. */
export function egressFinding(problem: string | undefined): Finding {
  const check = 'egress';
  if (problem === undefined)
    return ok(check, 'scripts can be given chosen connections: cronium run --egress HOST:PORT');
  const without = 'cronium run --egress is refused; scripts without a network run';
  return problem === 'ENOENT'
    ? ok(check, `there is no iptables: ${without}`, 'apt-get install iptables   # if you need it')
    : ok(
        check,
        `there is no chain DOCKER-USER (${problem}): ${without}`,
        'start dockerd without --iptables=false   # if you need it',
      );
}
