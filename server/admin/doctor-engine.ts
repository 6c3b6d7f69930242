import { setTimeout as sleep } from 'node:timers/promises';
import { z } from 'zod';
import { RUNTIMES } from '#bridge/wire/control.js';
import { errnoCode } from '#bridge/wire/errors.js';
import { bad, type Finding, ok, warn } from './doctor-finding.js';

/** Docker counts its containers and images for this answer; on a busy machine that takes seconds. */
export const ENGINE_MS = 10_000;

/** What mountd starts scripts in, unless told otherwise. */
export const IMAGES = RUNTIMES.map((runtime) => `cronium-${runtime}`);

/** Of the engine's answer to /info, what we look at. Engines differ in what they leave out. */
const EngineInfo = z.object({
  ServerVersion: z.string().catch('of an unknown version'),
  Driver: z.string().catch('unknown'),
  SecurityOptions: z.array(z.string()).nullish(),
  Plugins: z.object({ Log: z.array(z.string()).nullish() }).nullish(),
  CgroupVersion: z.string().nullish(),
  MemoryLimit: z.boolean().nullish(),
  SwapLimit: z.boolean().nullish(),
  CpuCfsPeriod: z.boolean().nullish(),
  CpuCfsQuota: z.boolean().nullish(),
  PidsLimit: z.boolean().nullish(),
  SystemTime: z.string().nullish(),
});
export type EngineInfo = z.infer<typeof EngineInfo>;

export interface Engine {
  readonly info: EngineInfo;
  /** Milliseconds since the epoch by our clock, before the question and after the answer. */
  readonly askedAt: number;
  readonly answeredAt: number;
  readonly missingImages: readonly string[];
}

export interface EngineLook {
  readonly socket: string;
  /** Undefined when it does not answer: then `problem` says why. */
  readonly engine?: Engine;
  readonly problem?: string;
}

/** Asks the engine on `socket`. Never throws. */
export async function lookAtEngine(socket: string, timeoutMs = ENGINE_MS): Promise<EngineLook> {
  const waiting = new AbortController();
  const late = sleep(timeoutMs, { socket, problem: `no answer within ${timeoutMs} ms` }, waiting);
  try {
    return await Promise.race([late, answerOf(socket, timeoutMs)]);
  } finally {
    waiting.abort();
    late.catch(() => {}); // nobody waits for it any more
  }
}

async function answerOf(socket: string, timeoutMs: number): Promise<EngineLook> {
  // Loaded only here: it takes longer to load than most commands take to run.
  const { default: Docker } = await import('dockerode');
  // Its own timeout closes the connection, which would keep this process alive.
  const docker = new Docker({ socketPath: socket, timeout: timeoutMs });
  try {
    const askedAt = Date.now();
    const info = EngineInfo.parse(await docker.info());
    const answeredAt = Date.now();
    const missing = await Promise.all(
      IMAGES.map(async (image) => {
        try {
          await docker.getImage(image).inspect();
          return [];
        } catch (error) {
          if ((error as { statusCode?: unknown }).statusCode === 404) return [image];
          throw error;
        }
      }),
    );
    return { socket, engine: { info, askedAt, answeredAt, missingImages: missing.flat() } };
  } catch (error) {
    const text = error instanceof Error ? error.message : String(error);
    return { socket, problem: errnoCode(error) ?? text };
  }
}

/** All that depends on the engine; one finding when there is none. */
export function engineFindings({ socket, engine, problem }: EngineLook): Finding[] {
  if (engine === undefined)
    return [
      bad(
        'docker',
        `no Docker engine answers on ${socket} (${problem ?? 'unknown'})`,
        problem === 'EACCES'
          ? 'sudo cronium doctor'
          : 'scripts/setup --only machine   # or name its socket in settings.json: "dockerSocket"',
      ),
    ];
  const { info } = engine;
  return [
    ok('docker', `Docker ${info.ServerVersion} on ${socket}, storage driver ${info.Driver}`),
    seccompFinding(info),
    logDriverFinding(info),
    limitsFinding(info),
    imagesFinding(engine.missingImages),
    engineClockFinding(engine),
  ];
}

/** A script may make the calls that our profile allows: without seccomp, all of them. */
function seccompFinding({ SecurityOptions }: EngineInfo): Finding {
  const option = SecurityOptions?.find((text) => /(^|,)(name=)?seccomp(,|$)/.test(text));
  if (option === undefined)
    return bad(
      'seccomp',
      'Docker runs containers without it: scripts may make every system call',
      'use a kernel with CONFIG_SECCOMP_FILTER, and a Docker engine built with seccomp',
    );
  // Whichever profile is the engine's own: mountd gives every container ours.
  return ok('seccomp', 'Docker has it; scripts get the profile of images/seccomp.json');
}

function logDriverFinding({ Plugins }: EngineInfo): Finding {
  return Plugins?.Log?.includes('local') === true
    ? ok('log driver', 'Docker has the driver "local"')
    : bad(
        'log driver',
        'Docker has no log driver "local": no script can be started',
        'install Docker 18.09 or later',
      );
}

function limitsFinding(info: EngineInfo): Finding {
  const check = 'cgroups';
  const version = `version ${info.CgroupVersion ?? '1'}`;
  const missing = [
    ...(info.MemoryLimit === true ? [] : ['memory']),
    ...(info.CpuCfsPeriod === true && info.CpuCfsQuota === true ? [] : ['cpu']),
    ...(info.PidsLimit === true ? [] : ['pids']),
  ];
  if (missing.length > 0)
    return bad(
      check,
      `${version}, but Docker cannot limit ${missing.join(', ')}: one script could use up the machine`,
      'scripts/setup --only machine   # where that does not help, boot with cgroup_enable=memory',
    );
  if (info.SwapLimit !== true)
    return warn(
      check,
      `${version}; memory, cpu and pids can be limited, swap cannot: a script may use that in place of memory`,
      'swapoff -a   # or boot with swapaccount=1',
    );
  return ok(check, `${version}; memory, cpu and pids can be limited`);
}

function imagesFinding(missing: readonly string[]): Finding {
  return missing.length === 0
    ? ok('images', IMAGES.join(', '))
    : bad('images', `missing: ${missing.join(', ')}`, 'scripts/setup --only images');
}

/** Below it nobody minds: Docker's times are compared with ours to tell how long a container ran. */
const ENGINE_CLOCK_MS_MAX = 5_000;

/** They share a kernel's clock, unless the socket leads to another machine. */
function engineClockFinding({ info, askedAt, answeredAt }: Engine): Finding {
  const check = 'docker clock';
  const at = Date.parse(info.SystemTime ?? '');
  if (Number.isNaN(at)) return ok(check, 'Docker does not say what time it is');
  // Its answer is from some time in between.
  const offMs = at < askedAt ? at - askedAt : Math.max(0, at - answeredAt);
  if (Math.abs(offMs) <= ENGINE_CLOCK_MS_MAX) return ok(check, 'the same as ours');
  const side = offMs < 0 ? 'behind' : 'ahead of';
  return warn(
    check,
    `Docker's clock is ${Math.round(Math.abs(offMs) / 1000)} s ${side} ours: its engine runs on another machine, where bind mounts of ours lead nowhere`,
    'use the engine of this machine, and set both clocks: timedatectl set-ntp true',
  );
}
