import { closeSync, openSync, rmSync, writeSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { BridgeError, errnoCode } from '#bridge/wire/errors.js';
import { isRunning, type ProcessMark, readMark, thisProcess } from './process-mark.js';

/** `up` takes seconds, `down` as long as scripts take to end; whoever waits longer than both waits for a fault. */
const WAIT_MS = 60_000;
const POLL_MS = 50;

/**
 * Does `work` while no other process does any under the same lock file: of two `cronium up` at once, one waits. A lock
 * whose process has died is taken over. @throws BridgeError `busy` naming the holder
 */
export async function exclusively<T>(lockFile: string, work: () => Promise<T>): Promise<T> {
  const deadline = Date.now() + WAIT_MS;
  while (!take(lockFile)) {
    const holder = readMark(lockFile);
    if (holder !== undefined && !isRunning(holder)) release(lockFile, holder);
    else if (Date.now() > deadline)
      throw new BridgeError(
        'busy',
        `process ${holder?.pid ?? '?'} is starting or stopping this installation; try again`,
      );
    else await sleep(POLL_MS);
  }
  try {
    return await work();
  } finally {
    rmSync(lockFile, { force: true });
  }
}

function take(lockFile: string): boolean {
  try {
    const fd = openSync(lockFile, 'wx', 0o600);
    writeSync(fd, JSON.stringify(thisProcess()));
    closeSync(fd);
    return true;
  } catch (error) {
    if (errnoCode(error) === 'EEXIST') return false;
    throw error;
  }
}

/** Removes a dead process's lock, unless somebody else has just taken it over. */
function release(lockFile: string, holder: ProcessMark): void {
  const now = readMark(lockFile);
  if (now?.pid === holder.pid && now.startTicks === holder.startTicks)
    rmSync(lockFile, { force: true });
}
