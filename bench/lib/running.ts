// What the benches share: the client, the programs beside it, and what is said about the machine.
import { type ChildProcess, spawn } from 'node:child_process';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { machine as machineFacts } from './figures.js';

/** The slowest row takes seconds; a client that takes this long hangs. */
export const CLIENT_MS = 120_000;

export const ROOT = fileURLToPath(new URL('../../../', import.meta.url));
export const PEERS = join(ROOT, 'bench/peers');

/** Ends the bench with a sentence instead of a stack. */
export class CannotRun extends Error {}

export const say = (text: string) => process.stderr.write(`${text}\n`);

export interface Ran {
  /** Null when it was killed, as after `timeout`; 127 when it could not be started. */
  readonly code: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

/** Always from a directory of the host's: the mounts are touched by the program, never by this process. */
export async function run(
  command: string,
  args: readonly string[],
  timeout = CLIENT_MS,
): Promise<Ran> {
  const child = spawn(command, args, { cwd: '/', stdio: ['ignore', 'pipe', 'pipe'], timeout });
  let [stdout, stderr] = ['', ''];
  child.stdout.on('data', (chunk: Buffer) => {
    stdout += chunk.toString();
  });
  child.stderr.on('data', (chunk: Buffer) => {
    stderr += chunk.toString();
  });
  return await new Promise((resolve) => {
    child.on('error', (error) => resolve({ code: 127, stdout, stderr: error.message }));
    child.on('close', (code) => resolve({ code, stdout, stderr: stderr.trim() }));
  });
}

/** Compiles one of bench/peers; undefined = done, otherwise why not. */
export async function compile(
  source: string,
  output: string,
  flags: readonly string[],
): Promise<string | undefined> {
  const { code, stderr } = await run('cc', ['-O2', '-o', output, join(PEERS, source), ...flags]);
  if (code === 0) return undefined;
  return code === 127
    ? 'there is no C compiler: apt-get install gcc libc6-dev'
    : `${source} does not compile: ${stderr}`;
}

/** The first that the process writes to its stdout; undefined when it ends before, or says nothing for `timeoutMs`. */
export async function firstWord(
  child: ChildProcess,
  timeoutMs: number,
): Promise<string | undefined> {
  return await new Promise((resolve) => {
    const timer = setTimeout(() => resolve(undefined), timeoutMs);
    const settle = (word?: string) => {
      clearTimeout(timer);
      resolve(word);
    };
    child.stdout?.once('data', (chunk: Buffer) => settle(chunk.toString().trim()));
    child.once('error', () => settle());
    child.once('close', () => settle());
  });
}

/** For the reader of the figures; `before` is the load average when the measuring started. */
export function machine(before: readonly number[]) {
  const { load: after, ...about } = machineFacts();
  const loads = [before, after].map((load) => load.map((l) => l.toFixed(1)).join(' '));
  const facts = {
    date: new Date().toISOString(),
    machine: about,
    loadBefore: before,
    loadAfter: after,
  };
  return { facts, text: `Load ${loads.join(', then ')}.` };
}
