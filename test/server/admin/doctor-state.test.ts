import { copyFileSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t from 'tap';
import { Authority } from '#server/admin/certificates.js';
import {
  certificateFinding,
  clockFinding,
  diskFindings,
  type KeyFiles,
  keysFinding,
  lookAtCertificate,
  mountdFinding,
  mountFinding,
  serverFinding,
} from '#server/admin/doctor-state.js';

const NOW = Date.parse('2026-01-01T12:00:00Z');
const DAY_MS = 24 * 60 * 60 * 1000;

void t.test('a certificate that is over, soon over, or not valid yet', async (t) => {
  const found = (of: 'ca' | 'server' | 'host', days: number) =>
    certificateFinding(of, { notBefore: NOW - DAY_MS, notAfter: NOW + days * DAY_MS }, NOW);
  t.match(found('host', 200), { level: 'ok', found: 'valid until 2026-07-20' });
  t.match(found('host', 13), {
    level: 'warn',
    found: 'expires on 2026-01-14, in 13 days',
    next: 'cronium cert rotate host',
  });
  t.match(found('ca', 1), { level: 'warn', found: /in 1 day$/, next: /STATE\/pki/ });
  t.match(found('host', -1), { level: 'bad', found: 'expired on 2025-12-31', next: 'cronium up' });
  t.match(found('server', -1), { level: 'bad', next: 'cronium down && cronium up' });
  t.match(certificateFinding('host', { notBefore: NOW + 1, notAfter: NOW + DAY_MS }, NOW), {
    level: 'bad',
    found: /^not valid before 2026-01-01T12/,
  });
});

void t.test('a certificate without its key, of another authority, or unreadable', async (t) => {
  const directory = mkdtempSync(join(tmpdir(), 'cronium-doctor-'));
  t.teardown(() => rmSync(directory, { recursive: true }));
  const files = (name: string) => ({
    cert: join(directory, `${name}.crt`),
    key: join(directory, `${name}.key`),
  });
  for (const ca of ['ca', 'other'])
    await (await Authority.open(files(ca))).issue({
      files: files(`host-of-${ca}`),
      name: 'build-7',
      role: 'host',
    });
  const look = (cert: string, key: string) =>
    lookAtCertificate({ cert: files(cert).cert, key: files(key).key }, files('ca').cert);
  const found = (cert: string, key: string) =>
    certificateFinding('host', look(cert, key), Date.now());
  t.equal(found('host-of-ca', 'host-of-ca').level, 'ok');
  t.match(found('host-of-ca', 'host-of-other'), { level: 'bad', found: /is not the key of/ });
  t.match(found('host-of-other', 'host-of-other'), { level: 'bad', found: /another authority/ });
  t.match(found('host-of-ca', 'none'), { level: 'bad', found: /none\.key is missing/ });
  copyFileSync(files('ca').key, files('odd').cert);
  t.match(found('odd', 'ca'), { level: 'bad', found: /odd\.crt cannot be read/ });
});

void t.test('keys that others can read, or put aside, are named with the cure', async (t) => {
  const file = (path: string, mode: number | undefined = 0o600, uid = 0) => ({ path, mode, uid });
  const good: KeyFiles = {
    keys: [file('/s/pki/host.key')],
    directories: [file('/s', 0o700)],
    masterKey: file('/s/server/master.key'),
    keyring: file('/s/server/keyring.json'),
  };
  const found = (changed: Partial<KeyFiles>, uid = 0) => keysFinding({ ...good, ...changed }, uid);
  t.equal(found({}).level, 'ok');
  t.match(found({ masterKey: undefined }), { level: 'ok', found: /a command prints/ });
  t.match(found({ keys: [file('/s/pki/a b.key', 0o644)] }), {
    level: 'bad',
    found: 'others can read /s/pki/a b.key (mode 644)',
    next: "chmod 600 '/s/pki/a b.key'",
  });
  t.match(found({ masterKey: file('/s/server/master.key', 0o640) }), {
    level: 'bad',
    next: 'chmod 600 /s/server/master.key',
  });
  t.match(found({ directories: [file('/s', 0o777)] }), {
    level: 'bad',
    found: /others may write to \/s /,
    next: 'chmod go-w /s',
  });
  t.match(found({ keyring: file('/s/server/keyring.json', 0o600, 7) }), {
    level: 'bad',
    next: 'chown 0 /s/server/keyring.json',
  });
  const gone = { path: '/s/server/master.key', mode: undefined, uid: undefined };
  t.match(found({ masterKey: gone }), { level: 'bad', found: /master key .* is missing/ });
});

void t.test('a disk that is nearly full, by bytes, by share and by inodes', async (t) => {
  const MIB = 1024 * 1024;
  const disk = { bsize: MIB, blocks: 10_000, bavail: 5_000, files: 1_000_000, ffree: 900_000 };
  const levels = (changed: Partial<typeof disk>) =>
    diskFindings('/s', { ...disk, ...changed }).map(({ level }) => level);
  t.strictSame(levels({}), ['ok', 'ok']);
  t.strictSame(levels({ bavail: 900 }), ['warn', 'ok'], 'below 1 GiB');
  t.strictSame(levels({ blocks: 1_000_000 }), ['warn', 'ok'], 'below 5 %');
  t.strictSame(levels({ bavail: 99 }), ['bad', 'ok'], 'below 100 MiB');
  t.strictSame(levels({ ffree: 40_000 }), ['ok', 'warn']);
  t.strictSame(levels({ ffree: 10 }), ['ok', 'bad']);
  t.strictSame(levels({ files: 0, ffree: 0 }), ['ok', 'ok'], 'btrfs counts none');
  t.match(diskFindings('/s', { ...disk, bavail: 10 })[0], {
    found: '10 MiB free (0 %) for /s: commits fail with ENOSPC soon',
    next: /^du /,
  });
});

void t.test('a clock that was set back is behind what lies here', async (t) => {
  const file = (ms: number) => ({ what: '/s/server/db.head was written', at: NOW + ms });
  t.equal(clockFinding([], NOW).level, 'ok');
  t.equal(clockFinding([file(-DAY_MS), file(30_000)], NOW).level, 'ok');
  t.match(clockFinding([file(0), file(120_000)], NOW), {
    level: 'warn',
    found: /\/s\/server\/db\.head was written at 2026-01-01T12:02/,
  });
  t.match(clockFinding([file(DAY_MS)], NOW), { level: 'bad', next: /set-ntp/ });
  const certificate = { what: 'the certificate host became valid', at: NOW + 1_000 };
  t.match(clockFinding([{ ...certificate, isCertificate: true }], NOW), {
    level: 'bad',
    found: /certificate host became valid/,
  });
});

void t.test('a mount that nobody serves is told, with how to abort it', async (t) => {
  const line = (minor: number, path: string) =>
    `44 27 0:${minor} / ${path} rw,nosuid,nodev shared:9 - fuse.cronium cronium rw,user_id=0\n`;
  const found = (text: string, isServed: boolean) => mountFinding(text, '/a b/mountd', isServed);
  const own = line(40, '/a\\040b/mountd/mnt');
  t.match(found(own, true), { level: 'ok', found: '/a b/mountd/mnt is served' });
  t.match(found(own, false), {
    level: 'bad',
    found: /nobody serves the mount at \/a b\/mountd\/mnt/,
    next: /cronium up .*echo 1 > \/sys\/fs\/fuse\/connections\/40\/abort; umount -l '\/a b\/mountd\/mnt'/,
  });
  t.match(found(own + line(41, '/a\\040b/mountd/mnt'), true), {
    level: 'bad',
    next: /connections\/40\/abort/,
  });
  t.match(found(line(42, '/other/mountd/mnt'), false), {
    level: 'ok',
    found: 'nothing is mounted',
  });
});

void t.test('server and mountd: down, silent, damaged, apart', async (t) => {
  const silent = { state: 'silent', pid: 7, problem: 'no answer' } as const;
  t.match(serverFinding({ state: 'down' }, '/l'), { level: 'warn', next: 'cronium up' });
  t.match(mountdFinding({ state: 'down' }, '/l'), { level: 'warn', next: 'cronium up' });
  t.match(serverFinding(silent, '/l'), { level: 'bad', found: /process 7 .*no answer/ });
  t.match(mountdFinding(silent, '/l'), { level: 'bad', next: /^tail \/l/ });
  const damaged = { state: 'up', pid: 7, status: { problems: ['1 record is missing'] } } as const;
  t.match(serverFinding(damaged, '/l'), { level: 'bad', found: /only be read: 1 record/ });
  const link = { connected: false, since: 0, problem: 'refused' };
  t.match(mountdFinding({ state: 'up', pid: 7, status: { driver: 'kernel', link } }, '/l'), {
    level: 'warn',
    found: /not connected with the server: refused/,
  });
});
