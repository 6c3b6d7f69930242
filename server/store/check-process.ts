import { spawn } from 'node:child_process';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { BridgeError, type Code } from '#bridge/wire/errors.js';

const PROGRAM = fileURLToPath(new URL('../store/check-main.js', import.meta.url));

/** What a full check found. */
export interface StoreReport {
  readonly version: number;
  readonly records: number;
  /** Sentences; empty when everything holds. */
  readonly problems: readonly string[];
  /** LevelDB's. With everything in place they are about the torn end of a log, which nobody was told was stored. */
  readonly complaints: readonly string[];
}

export interface CheckRequest {
  readonly directory: string;
  /** The integrity key, base64: over a pipe, which no other user can read. */
  readonly key: string;
  /** Whether the head file beside the database has to agree with it: not so for a copy of a running one. */
  readonly hasHead: boolean;
}

export type CheckReport =
  | { readonly report: StoreReport }
  | { readonly failed: { readonly code: Code; readonly message: string } };

/**
 * Opens and reads a database that nobody has open, in a child process. @throws BridgeError `busy` and the like when it
 * cannot be looked at, the reason of `stopping`; what is wrong with it is in the report.
 */
export async function checkInChild(
  request: CheckRequest,
  progress: (records: number) => void = () => {},
  stopping?: AbortSignal,
): Promise<StoreReport> {
  stopping?.throwIfAborted();
  const child = spawn(process.execPath, [PROGRAM], { stdio: ['pipe', 'pipe', 'pipe'] });
  const stop = () => child.kill('SIGKILL'); // it only reads
  stopping?.addEventListener('abort', stop, { once: true });
  child.stdin.on('error', () => {}); // it died: its end tells
  child.stdin.end(JSON.stringify(request));
  let said = '';
  child.stderr.on('data', (chunk: Buffer) => {
    said = (said + chunk.toString()).slice(0, 2000);
  });
  let result: CheckReport | undefined;
  createInterface({ input: child.stdout }).on('line', (line) => {
    const told = JSON.parse(line) as CheckReport | { progress: number };
    if ('progress' in told) progress(told.progress);
    else result = told;
  });
  const [code, signal] = await new Promise<[number | null, NodeJS.Signals | null]>(
    (resolve, reject) => {
      child.on('error', reject);
      child.on('close', (...ended) => resolve(ended));
    },
  );
  stopping?.removeEventListener('abort', stop);
  stopping?.throwIfAborted();
  if (result === undefined) {
    const [words] = said.split('\n').filter((line) => /assert|error/i.test(line));
    const how = signal ?? `exit code ${code}`;
    return {
      version: 0,
      records: 0,
      complaints: [],
      problems: [
        `LevelDB gave up reading it (${how}${words === undefined ? '' : `: ${words.slice(-120)}`})`,
      ],
    };
  }
  if ('failed' in result) throw new BridgeError(result.failed.code, result.failed.message);
  return result.report;
}
