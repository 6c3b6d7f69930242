// `npm run bench -- memory`: how much memory the serving process takes while a script writes a scratch file of 1 GiB and
// reads it back twice. docs/benchmarks.md says what is counted. Root, /dev/fuse and a C compiler are needed.
import { spawn } from 'node:child_process';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, statfsSync } from 'node:fs';
import { loadavg } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { CannotRun, compile, firstWord, machine, run, say } from './lib/running.js';

const FILE_MIB = 1024;
const RSS_MIB_MAX = 250;
const SAMPLE_MS = 50;
const SERVER_START_MS = 10_000;
/** 3 GiB through a disk that others use. */
const CLIENT_MS = 600_000;
/** TMPFS_MAGIC of linux/magic.h */
const TMPFS = 0x0102_1994;

/** MiB. proc_pid_status(5): VmRSS now, VmHWM its highest since the start. */
function memoryOf(pid: number): { rss: number; highest: number } {
  const status = readFileSync(`/proc/${pid}/status`, 'latin1');
  const mib = (name: string) =>
    Number(new RegExp(`^${name}:\\s+(\\d+) kB`, 'm').exec(status)?.[1]) / 1024;
  return { rss: mib('VmRSS'), highest: mib('VmHWM') };
}

async function bench(directory: string): Promise<boolean> {
  mkdirSync(directory, { recursive: true });
  if (statfsSync(directory).type === TMPFS)
    throw new CannotRun(`${directory} is memory, not a disk: name another with --directory`);
  const base = mkdtempSync(join(directory, 'cronium-bench-'));
  try {
    const client = join(base, 'client');
    const failure = await compile('client.c', client, []);
    if (failure !== undefined) throw new CannotRun(`no client: ${failure}`);
    const script = fileURLToPath(new URL('./peers/serve.js', import.meta.url));
    const server = spawn(process.execPath, [script, String(2 * FILE_MIB * 1024 ** 2)], {
      cwd: '/',
      stdio: ['pipe', 'pipe', 'inherit'],
      env: { ...process.env, TMPDIR: base },
    });
    const closed = new Promise<void>((resolve) => server.on('close', () => resolve()));
    try {
      const work = await firstWord(server, SERVER_START_MS);
      const { pid } = server;
      if (work === undefined || pid === undefined) throw new CannotRun('the server did not start');
      return await measure(client, work, pid);
    } finally {
      server.stdin.end();
      await closed;
    }
  } finally {
    rmSync(base, { recursive: true, force: true });
  }
}

/** Whether the goal was reached. */
async function measure(client: string, work: string, pid: number): Promise<boolean> {
  const load = loadavg();
  const idle = memoryOf(pid).rss;
  const samples: number[] = [];
  const sampling = setInterval(() => samples.push(memoryOf(pid).rss), SAMPLE_MS);
  const { code, stdout, stderr } = await run(
    client,
    ['scratch', work, String(FILE_MIB), '1'],
    CLIENT_MS,
  );
  clearInterval(sampling);
  if (code !== 0)
    throw new CannotRun(`the client failed: ${stderr || `no end within ${CLIENT_MS} ms`}`);
  const { highest } = memoryOf(pid);
  const sampled = Math.max(...samples);
  const [write, first, second] = stdout.trim().split(' ').map(Number.parseFloat);
  const isHit = highest < RSS_MIB_MAX;
  process.stdout.write(
    `${FILE_MIB} MiB written at ${write?.toFixed(0)} MB/s, read and compared at ${first?.toFixed(0)} and ${second?.toFixed(0)} MB/s. ${machine(load).text}
resident memory of the serving process: ${idle.toFixed(0)} MiB before, at most ${sampled.toFixed(0)} MiB in ${samples.length} samples, ${highest.toFixed(0)} MiB by the kernel's own mark
${isHit ? 'hit' : 'MISSED'} wanted < ${RSS_MIB_MAX} MiB
`,
  );
  return isHit;
}

async function main(): Promise<number> {
  let directory: string;
  try {
    const options = { directory: { type: 'string', default: '/var/tmp' } } as const;
    ({ directory } = parseArgs({ options }).values);
  } catch (error) {
    say(
      `${error instanceof Error ? error.message : String(error)}\nusage: npm run bench -- memory [--directory DIR]   (DIR: on a disk, default /var/tmp)`,
    );
    return 2;
  }
  if (process.getuid?.() !== 0) {
    say('mounting needs root: run the bench as root');
    return 1;
  }
  try {
    return (await bench(directory)) ? 0 : 1;
  } catch (error) {
    if (!(error instanceof CannotRun)) throw error;
    say(error.message);
    return 1;
  }
}

process.exitCode = await main();
