import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { createServer, type RequestListener } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { LAUNCH } from '#mountd/launch-files.js';
import {
  type Engine,
  type EngineInfo,
  engineFindings,
  IMAGES,
  lookAtEngine,
} from '#server/admin/doctor-engine.js';
import type { Finding } from '#server/admin/doctor-finding.js';

const NOW = Date.parse('2026-01-01T12:00:00Z');

const GOOD: EngineInfo = {
  ServerVersion: '20.10.24',
  Driver: 'overlay2',
  SecurityOptions: ['name=seccomp,profile=default'],
  Plugins: { Log: ['json-file', 'local'] },
  CgroupVersion: '2',
  MemoryLimit: true,
  SwapLimit: true,
  CpuCfsPeriod: true,
  CpuCfsQuota: true,
  PidsLimit: true,
  SystemTime: new Date(NOW).toISOString(),
};

/** What is found of an engine that is good but for `info` and `more`, by check. */
function foundOf(info: Partial<EngineInfo>, more: Partial<Engine> = {}): Record<string, Finding> {
  const findings = engineFindings({
    socket: '/run/docker.sock',
    engine: {
      info: { ...GOOD, ...info },
      askedAt: NOW,
      answeredAt: NOW,
      missingImages: [],
      ...more,
    },
  });
  return Object.fromEntries(findings.map((finding) => [finding.check, finding]));
}

void t.test('a good engine is good', async (t) => {
  const found = foundOf({});
  t.match(found['docker'], {
    found: 'Docker 20.10.24 on /run/docker.sock, storage driver overlay2',
  });
  for (const { check, level } of Object.values(found)) t.equal(level, 'ok', check);
});

void t.test('an engine without seccomp is bad', async (t) => {
  const seccomp = (...SecurityOptions: string[]) => foundOf({ SecurityOptions })['seccomp'];
  t.match(seccomp('name=apparmor'), { level: 'bad', found: /every system call/ });
  t.match(seccomp('name=seccomp,profile=unconfined'), { level: 'ok' }, 'containers get ours');
  t.match(seccomp('name=apparmor', 'name=seccomp,profile=builtin'), { level: 'ok' });
  t.match(seccomp('seccomp'), { level: 'ok' }, 'as old engines say it');
});

void t.test('an engine without the log driver "local" starts no script', async (t) => {
  t.match(foundOf({ Plugins: { Log: ['json-file'] } })['log driver'], {
    level: 'bad',
    next: 'install Docker 18.09 or later',
  });
});

void t.test('limits that Docker would ignore are named', async (t) => {
  const cgroups = (info: Partial<EngineInfo>) => foundOf(info)['cgroups'];
  t.match(cgroups({ MemoryLimit: false, PidsLimit: false }), {
    level: 'bad',
    found: /cannot limit memory, pids: /,
  });
  t.match(cgroups({ CpuCfsQuota: false }), { level: 'bad', found: /cannot limit cpu: / });
  t.match(cgroups({ SwapLimit: false }), { level: 'warn', found: /swap cannot/ });
});

void t.test('images that are missing are named, and how to build them', async (t) => {
  t.match(foundOf({}, { missingImages: ['cronium-node'] })['images'], {
    level: 'bad',
    found: 'missing: cronium-node',
    next: 'scripts/setup --only images',
  });
  const used = Object.values(LAUNCH).map(({ image }) => image);
  t.same(
    IMAGES.map((image) => `${image}:latest`),
    used,
    'they are those that mountd starts',
  );
});

void t.test("Docker's clock is compared with ours, as exactly as its answer allows", async (t) => {
  const clock = (SystemTime: string, more: Partial<Engine> = {}) =>
    foundOf({ SystemTime }, more)['docker clock'];
  t.match(clock(new Date(NOW + 60_000).toISOString()), { level: 'warn', found: /60 s ahead of/ });
  t.match(clock(new Date(NOW - 60_000).toISOString()), { level: 'warn', found: /60 s behind/ });
  t.match(
    clock(new Date(NOW + 8_000).toISOString(), { answeredAt: NOW + 9_000 }),
    { level: 'ok' },
    'a slow answer is no wrong clock',
  );
  t.match(clock(''), { level: 'ok' });
});

/** A socket where `listener` answers as if it were Docker. */
async function engineAt(t: Test, listener: RequestListener): Promise<string> {
  const directory = mkdtempSync(join(tmpdir(), 'cronium-doctor-'));
  const server = createServer(listener).listen(join(directory, 's'));
  t.teardown(() => {
    server.closeAllConnections();
    server.close();
    rmSync(directory, { recursive: true });
  });
  await once(server, 'listening');
  return join(directory, 's');
}

void t.test('an engine that is not there, or hangs, is one finding', async (t) => {
  const absent = engineFindings(await lookAtEngine('/nowhere/docker.sock'));
  t.match(absent, [
    { level: 'bad', found: 'no Docker engine answers on /nowhere/docker.sock (ENOENT)' },
  ]);
  t.equal(absent.length, 1);
  t.match(engineFindings({ socket: '/s', problem: 'EACCES' }), [{ next: 'sudo cronium doctor' }]);
  const silent = await engineAt(t, () => {});
  t.match(engineFindings(await lookAtEngine(silent, 200)), [
    { level: 'bad', found: /no Docker engine answers on .*/, next: /scripts\/setup/ },
  ]);
});

void t.test('an engine that leaves out what we look at is judged by what it says', async (t) => {
  const socket = await engineAt(t, (request, response) => {
    const isInfo = request.url?.endsWith('/info') === true;
    response.writeHead(isInfo ? 200 : 404, { 'content-type': 'application/json' });
    response.end(isInfo ? '{"ServerVersion":"1.0","Driver":"vfs"}' : '{"message":"no such image"}');
  });
  const levels = engineFindings(await lookAtEngine(socket)).map(({ check, level }) => [
    check,
    level,
  ]);
  t.strictSame(levels, [
    ['docker', 'ok'],
    ['seccomp', 'bad'],
    ['log driver', 'bad'],
    ['cgroups', 'bad'],
    ['images', 'bad'],
    ['docker clock', 'ok'],
  ]);
});
