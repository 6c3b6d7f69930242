import t from 'tap';
import { findCgroup, usageV1, usageV2 } from '#mountd/usage.js';

/** Of containers that ran under Docker 20 and 27. */
const ID = '4f6a';

void t.test('version 1: each controller has its own directory', async (t) => {
  const process = `8:pids:/docker/${ID}\n7:blkio:/docker/${ID}\n4:memory:/docker/${ID}\n2:cpu,cpuacct:/docker/${ID}\n1:name=systemd:/docker/${ID}\n0::/docker/${ID}\n`;
  const mounts = [
    '30 22 0:27 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755',
    '31 30 0:28 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct',
    '34 30 0:31 / /sys/fs/cgroup/memory rw shared:3 - cgroup cgroup rw,memory',
    '37 30 0:34 / /sys/fs/cgroup/blkio rw - cgroup cgroup rw,blkio',
    '38 30 0:35 /elsewhere /sys/fs/cgroup/pids rw - cgroup cgroup rw,pids',
    '40 30 0:37 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw',
  ].join('\n');
  const found = findCgroup(process, mounts);
  t.equal(found?.version, 1);
  t.same(Object.fromEntries(found?.directories ?? []), {
    memory: `/sys/fs/cgroup/memory/docker/${ID}`,
    cpu: `/sys/fs/cgroup/cpu,cpuacct/docker/${ID}`,
    cpuacct: `/sys/fs/cgroup/cpu,cpuacct/docker/${ID}`,
    blkio: `/sys/fs/cgroup/blkio/docker/${ID}`,
  });
});

void t.test('version 2: one directory for all, wherever it is mounted', async (t) => {
  const process = `0::/system.slice/docker-${ID}.scope\n`;
  const at = (root: string) =>
    findCgroup(process, `29 23 0:26 ${root} /sys/fs/cgroup rw - cgroup2 cgroup2 rw,nsdelegate`);
  t.match(at('/'), { version: 2 });
  t.equal(at('/')?.directories.get('memory'), `/sys/fs/cgroup/system.slice/docker-${ID}.scope`);
  t.equal(at('/system.slice')?.directories.get('io'), `/sys/fs/cgroup/docker-${ID}.scope`);
  t.match(at('/user.slice')?.directories, undefined, 'it is mounted, but not this part of it');
  t.equal(findCgroup(process, ''), undefined);
});

void t.test('version 1: what the files say', async (t) => {
  const texts = {
    'memory.usage_in_bytes': '7340032\n',
    'memory.max_usage_in_bytes': '9437184\n',
    'memory.limit_in_bytes': '268435456\n',
    'memory.oom_control': 'oom_kill_disable 0\nunder_oom 0\noom_kill 2\n',
    'cpuacct.usage': '1234567890\n',
    'cpu.stat': 'nr_periods 17\nnr_throttled 5\nthrottled_time 40000999\n',
    'cpu.cfs_quota_us': '50000\n',
    'cpu.cfs_period_us': '100000\n',
    'pids.current': '3\n',
    'pids.max': '128\n',
    'blkio.throttle.io_service_bytes':
      '8:16 Read 4096\n8:16 Write 8192\n8:16 Total 12288\n8:0 Read 1\n8:0 Write 2\nTotal 12291\n',
  };
  t.same(usageV1(texts), {
    memory: { now: 7_340_032, peak: 9_437_184, limit: 268_435_456 },
    cpu: { usedUs: 1_234_567, limit: 0.5, throttledPeriods: 5, throttledUs: 40_000 },
    pids: { now: 3, limit: 128 },
    io: { read: 4097, written: 8194 },
    oomKills: 2,
  });
  const unlimited = {
    'memory.usage_in_bytes': '1\n',
    'memory.limit_in_bytes': '9223372036854771712\n',
    'cpu.cfs_quota_us': '-1\n',
    'cpu.cfs_period_us': '100000\n',
    'pids.max': 'max\n',
    'blkio.throttle.io_service_bytes': 'Total 0\n',
  };
  t.match(usageV1(unlimited), {
    memory: { now: 1, peak: null, limit: null },
    cpu: { usedUs: 0, limit: null },
    pids: { limit: null },
    io: { read: 0, written: 0 },
  });
  t.equal(usageV1({}), undefined, 'the container has gone');
});

void t.test('version 2: what the files say', async (t) => {
  const texts = {
    'memory.current': '7340032\n',
    'memory.peak': '9437184\n',
    'memory.max': '268435456\n',
    'memory.events': 'low 0\nhigh 0\nmax 12\noom 3\noom_kill 2\noom_group_kill 0\n',
    'cpu.stat':
      'usage_usec 1234567\nuser_usec 1000000\nsystem_usec 234567\nnr_periods 17\nnr_throttled 5\nthrottled_usec 40000\n',
    'cpu.max': '50000 100000\n',
    'pids.current': '3\n',
    'pids.max': '128\n',
    'io.stat':
      '8:16 rbytes=4096 wbytes=8192 rios=1 wios=2 dbytes=5 dios=1\n8:0 rbytes=1 wbytes=2 rios=0 wios=0 dbytes=0 dios=0\n',
  };
  t.same(usageV2(texts), {
    memory: { now: 7_340_032, peak: 9_437_184, limit: 268_435_456 },
    cpu: { usedUs: 1_234_567, limit: 0.5, throttledPeriods: 5, throttledUs: 40_000 },
    pids: { now: 3, limit: 128 },
    io: { read: 4097, written: 8194 },
    oomKills: 2,
  });
  t.match(usageV2({ 'memory.current': '1\n', 'memory.max': 'max\n', 'cpu.max': 'max 100000\n' }), {
    memory: { now: 1, peak: null, limit: null },
    cpu: { limit: null },
  });
  t.equal(usageV2({}), undefined);
});
