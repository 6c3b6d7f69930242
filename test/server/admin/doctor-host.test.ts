import t from 'tap';
import {
  fusectlFinding,
  fuseFinding,
  kernelFinding,
  memoryFinding,
  nodeFinding,
  openFilesFinding,
  userFinding,
} from '#server/admin/doctor-host.js';

void t.test('who is not root, or may not mount, is told what to start instead', async (t) => {
  const all = 'Name:\tnode\nCapEff:\t000001ffffffffff\n';
  t.match(userFinding(0, all), { level: 'ok', found: 'root' });
  t.match(userFinding(1000, all), {
    level: 'bad',
    found: /user 1000/,
    next: 'sudo cronium doctor',
  });
  t.match(userFinding(0, 'CapEff:\t00000000a80425fb\n'), {
    level: 'bad',
    found: /CAP_SYS_ADMIN/,
    next: /--cap-add SYS_ADMIN --device \/dev\/fuse/,
  });
});

void t.test('a Node before 20.15 is too old', async (t) => {
  for (const version of ['18.20.4', '20.9.0', '20.14.1'])
    t.match(nodeFinding(version), { level: 'bad', found: `Node ${version} is too old` });
  for (const version of ['20.15.0', '20.20.2', '22.1.0']) t.equal(nodeFinding(version).level, 'ok');
});

void t.test('a kernel before 6.9 is a warning: scripts run, but die with mountd', async (t) => {
  for (const release of ['5.15.0-91-generic', '6.1.0-18-amd64', '6.8.12'])
    t.match(kernelFinding('linux', release), {
      level: 'warn',
      found: /mountd's serving process dies they are lost/,
      next: /Linux 6\.9 or later/,
    });
  for (const release of ['6.9.0', '6.18.44-fc', '7.0.1'])
    t.equal(kernelFinding('linux', release).level, 'ok');
  t.match(kernelFinding('darwin', ''), { level: 'bad', found: /need Linux/ });
});

void t.test('/dev/fuse: missing, unknown to the kernel, forbidden, or a plain file', async (t) => {
  const found = (problem: string | undefined, isCharacterDevice = false) =>
    fuseFinding({ isCharacterDevice, problem });
  t.match(found('ENOENT'), { level: 'bad', found: 'it is missing', next: /scripts\/setup/ });
  t.match(found('ENODEV'), { level: 'bad', found: /no FUSE/, next: 'modprobe fuse' });
  t.match(found('EPERM'), { level: 'bad', found: /EPERM/, next: /--device \/dev\/fuse/ });
  t.match(found(undefined), { level: 'bad', found: 'it is no device' });
  t.match(found(undefined, true), { level: 'ok' });
});

void t.test('without fusectl a mount that hangs cannot be aborted', async (t) => {
  const mounted = '42 23 0:39 / /sys/fs/fuse/connections rw,relatime - fusectl none rw\n';
  t.equal(fusectlFinding(mounted).level, 'ok');
  t.match(fusectlFinding('23 1 0:20 / /sys rw shared:2 - sysfs sysfs rw\n'), {
    level: 'warn',
    found: /cannot be aborted/,
    next: 'mount -t fusectl none /sys/fs/fuse/connections',
  });
});

void t.test('the hard limit of open files counts, not the soft one', async (t) => {
  const limits = (hard: string) =>
    `Limit                     Soft Limit           Hard Limit           Units\nMax open files            256                  ${hard.padEnd(20)} files\n`;
  t.equal(openFilesFinding(limits('20000')).level, 'ok');
  t.equal(openFilesFinding(limits('unlimited')).level, 'ok');
  t.match(openFilesFinding(limits('2048')), { level: 'warn', next: /ulimit -Hn/ });
  t.match(openFilesFinding(limits('512')), { level: 'bad', found: /is 512: a container needs/ });
});

void t.test('memory that is available counts, not what is free', async (t) => {
  const meminfo = (mib: number) =>
    `MemTotal: 9999999 kB\nMemFree: 1 kB\nMemAvailable:   ${mib * 1024} kB\n`;
  t.match(memoryFinding(meminfo(2048)), { level: 'ok', found: '2.0 GiB available' });
  t.match(memoryFinding(meminfo(300)), { level: 'warn', found: /^300 MiB available/ });
  t.match(memoryFinding(meminfo(60)), { level: 'bad', found: /may be killed/ });
  t.equal(memoryFinding('').level, 'warn');
});
