import { readFileSync } from 'node:fs';
import Docker from 'dockerode';
import t from 'tap';
import { TestInstallation } from '#test/support/installation.js';
import { needsMachine } from '#test/support/machine.js';

const options = await needsMachine();
const docker = new Docker({ socketPath: '/var/run/docker.sock' });

/**
 * Calls with arguments that do nothing, and what an unprivileged process in one of our containers gets: `denied` is EPERM from the
 * profile or from the kernel, `absent` ENOSYS, so that libraries do without; anything else means that the call was made.
 * Numbers of x86_64: linux/arch/x86/entry/syscalls/syscall_64.tbl.
 */
const PROBES: readonly (readonly [
  string,
  number,
  readonly number[],
  'denied' | 'absent' | 'made',
])[] = [
  ['acct', 163, [0], 'denied'],
  ['add_key', 248, [0, 0, 0, 0, 0], 'denied'],
  ['adjtimex', 159, [0], 'denied'],
  ['bpf', 321, [0, 0, 0], 'denied'],
  ['chroot', 161, [0], 'denied'],
  ['clock_adjtime', 305, [0, 0], 'denied'],
  ['clock_settime', 227, [0, 0], 'denied'],
  ['clone with CLONE_NEWUSER', 56, [0x1000_0000, 0, 0, 0, 0], 'denied'],
  ['clone3', 435, [0, 0], 'absent'],
  ['delete_module', 176, [0, 0], 'denied'],
  ['fanotify_init', 300, [0, 0], 'denied'],
  ['finit_module', 313, [-1, 0, 0], 'denied'],
  ['fsmount', 432, [-1, 0, 0], 'denied'],
  ['fsopen', 430, [0, 0], 'denied'],
  ['fspick', 433, [-1, 0, 0], 'denied'],
  ['get_kernel_syms', 177, [0], 'denied'],
  ['init_module', 175, [0, 0, 0], 'denied'],
  ['io_setup', 206, [0, 0], 'denied'],
  ['io_uring_enter', 426, [-1, 0, 0, 0, 0], 'absent'],
  ['io_uring_register', 427, [-1, 0, 0, 0], 'absent'],
  ['io_uring_setup', 425, [0, 0], 'absent'],
  ['ioperm', 173, [0, 0, 0], 'denied'],
  ['iopl', 172, [0], 'denied'],
  ['kcmp', 312, [0, 0, 0, 0, 0], 'denied'],
  ['kexec_file_load', 320, [-1, -1, 0, 0, 0], 'denied'],
  ['kexec_load', 246, [0, 0, 0, 0], 'denied'],
  ['keyctl', 250, [0, 0, 0, 0, 0], 'denied'],
  ['landlock_create_ruleset', 444, [0, 0, 1], 'denied'],
  ['lookup_dcookie', 212, [0, 0, 0], 'denied'],
  ['mbind', 237, [0, 0, 0, 0, 0, 0], 'denied'],
  ['memfd_secret', 447, [-1], 'denied'],
  ['migrate_pages', 256, [0, 0, 0, 0], 'denied'],
  ['modify_ldt', 154, [0, 0, 0], 'denied'],
  ['mount', 165, [0, 0, 0, 0, 0], 'denied'],
  ['mount_setattr', 442, [-1, 0, 0, 0, 0], 'denied'],
  ['move_mount', 429, [-1, 0, -1, 0, 0], 'denied'],
  ['move_pages', 279, [0, 0, 0, 0, 0, 0], 'denied'],
  ['mq_open', 240, [0, 0, 0, 0], 'denied'],
  ['msgget', 68, [0, 0o600], 'denied'],
  ['name_to_handle_at', 303, [-1, 0, 0, 0, 0], 'denied'],
  ['nfsservctl', 180, [0, 0, 0], 'denied'],
  ['open_by_handle_at', 304, [-1, 0, 0], 'denied'],
  ['open_tree', 428, [-1, 0, 0], 'denied'],
  ['perf_event_open', 298, [0, 0, -1, -1, 0], 'denied'],
  ['personality ADDR_NO_RANDOMIZE', 135, [0x004_0000], 'denied'],
  ['pidfd_getfd', 438, [-1, -1, 0], 'denied'],
  ['pivot_root', 155, [0, 0], 'denied'],
  ['process_madvise', 440, [-1, 0, 0, 0, 0], 'denied'],
  ['process_vm_readv', 310, [0, 0, 0, 0, 0, 0], 'denied'],
  ['process_vm_writev', 311, [0, 0, 0, 0, 0, 0], 'denied'],
  ['ptrace', 101, [0, 0, 0, 0], 'denied'],
  ['quotactl', 179, [0, 0, 0, 0], 'denied'],
  ['reboot', 169, [0, 0, 0, 0], 'denied'],
  ['request_key', 249, [0, 0, 0, 0], 'denied'],
  ['semget', 64, [0, 1, 0o600], 'denied'],
  ['setdomainname', 171, [0, 0], 'denied'],
  ['sethostname', 170, [0, 0], 'denied'],
  ['setns', 308, [-1, 0], 'denied'],
  ['settimeofday', 164, [0, 0], 'denied'],
  ['shmget', 29, [0, 4096, 0o600], 'denied'],
  ['socket AF_ALG', 41, [38, 5, 0], 'denied'],
  ['socket AF_PACKET', 41, [17, 3, 0], 'denied'],
  ['socket AF_VSOCK', 41, [40, 1, 0], 'denied'],
  ['socket NETLINK_AUDIT', 41, [16, 3, 9], 'denied'],
  ['swapoff', 168, [0], 'denied'],
  ['swapon', 167, [0, 0], 'denied'],
  ['syslog', 103, [3, 0, 0], 'denied'],
  ['umount2', 166, [0, 0], 'denied'],
  ['unshare CLONE_NEWUSER', 272, [0x1000_0000], 'denied'],
  ['userfaultfd', 323, [0], 'denied'],
  ['vhangup', 153, [], 'denied'],
  // What scripts live on.
  ['getpid', 39, [], 'made'],
  ['memfd_create', 319, [0, 0], 'made'],
  ['openat2', 437, [-1, 0, 0, 0], 'made'],
  ['personality to ask', 135, [0xffff_ffff], 'made'],
  ['pidfd_open', 434, [-1, 0], 'made'],
  ['socket AF_INET', 41, [2, 1, 0], 'made'],
  ['socket AF_UNIX', 41, [1, 1, 0], 'made'],
  ['statx', 332, [-1, 0, 0, 0, 0], 'made'],
];

/** A child makes each call: one that ends, or becomes two, does not disturb the others. */
const PROBE = `
import ctypes, errno, json, os
libc = ctypes.CDLL(None, use_errno=True)
answers = {}
for name, number, args in json.loads('''${JSON.stringify(PROBES.map(([name, number, args]) => [name, number, args]))}'''):
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        ctypes.set_errno(0)
        result = libc.syscall(ctypes.c_long(number), *[ctypes.c_long(n) for n in args])
        code = ctypes.get_errno() if result == -1 else 0
        os.write(writer, errno.errorcode.get(code, str(code)).encode())
        os._exit(0)
    os.close(writer)
    answers[name] = os.read(reader, 100).decode()
    os.close(reader)
    os.waitpid(pid, 0)
print(json.dumps(answers))
`;

const kindOf = (answer: string | undefined): string =>
  answer === 'EPERM' ? 'denied' : answer === 'ENOSYS' ? 'absent' : 'made';

void t.test('what a script may not ask the kernel', options, async (t) => {
  await using cronium = await TestInstallation.up();

  await t.test('every system call has the stated answer', async (t) => {
    if (process.arch !== 'x64') {
      t.pass('the numbers are those of x86_64');
      return;
    }
    const run = await cronium.run('py', PROBE);
    t.match(run, { status: 'succeeded', stderr: '' });
    const answers = JSON.parse(run.stdout) as Record<string, string>;
    for (const [name, , , kind] of PROBES)
      t.equal(kindOf(answers[name]), kind, `${name}: ${answers[name]}`);

    // The same container without the profile: then the calls are made that only it denies.
    const bare = JSON.parse(await unconfined()) as Record<string, string>;
    for (const name of [
      'io_uring_setup',
      'ptrace',
      'socket AF_VSOCK',
      'shmget',
      'unshare CLONE_NEWUSER',
    ])
      t.equal(kindOf(bare[name]), 'made', `${name} without the profile: ${bare[name]}`);
  });

  await t.test('every setting is what it should be, as Docker tells it', async (t) => {
    const inspected = cronium.run('sh', 'sleep 2');
    const { Id } = await cronium.runningContainer();
    const { HostConfig, Config, Mounts, State } = await docker.getContainer(Id).inspect();
    const profile = JSON.parse(
      readFileSync(new URL('../../../images/seccomp.json', import.meta.url), 'utf8'),
    ) as object;
    const [, seccomp = ''] = HostConfig.SecurityOpt ?? [];
    t.same(JSON.parse(seccomp.replace('seccomp=', '')), profile);
    t.match(HostConfig, {
      Privileged: false,
      CapDrop: ['ALL'],
      CapAdd: null,
      Devices: null,
      DeviceCgroupRules: null,
      GroupAdd: null,
      Init: true,
      IpcMode: 'private',
      CgroupnsMode: 'private',
      NetworkMode: 'none',
      PidMode: '',
      UTSMode: '',
      UsernsMode: '',
      OomKillDisable: false,
      OomScoreAdj: 500,
      PublishAllPorts: false,
      ReadonlyRootfs: true,
      RestartPolicy: { Name: '' },
      VolumesFrom: null,
      Binds: null,
      PidsLimit: 128,
      Ulimits: [
        { Name: 'nofile', Hard: 1024, Soft: 1024 },
        { Name: 'core', Hard: 0, Soft: 0 },
      ],
      Tmpfs: { '/tmp': /^rw,noexec,nosuid,nodev,.*size=\d+$/ },
    });
    t.ok(HostConfig.Memory !== undefined && HostConfig.Memory === HostConfig.MemorySwap, 'no swap');
    t.match(Config, { User: '1000:1000', Tty: false, OpenStdin: false, ExposedPorts: undefined });
    t.equal(
      Config.Env.some((one) => /token|secret|key|password/i.test(one)),
      false,
    );
    t.same(
      // Docker tells them in any order.
      Mounts.map(({ Destination, RW, Propagation }) => [Destination, RW, Propagation]).sort(
        ([a = ''], [b = '']) => (a < b ? -1 : 1),
      ),
      [
        ['/cronium', true, 'rprivate'],
        ['/etc/hosts', false, 'rprivate'],
      ],
    );
    t.equal(State.Running, true);
    await inspected;
  });

  await t.test('the checks of docker-bench-security on containers', async (t) => {
    const running = cronium.run('sh', 'sleep 3');
    const { Id } = await cronium.runningContainer();
    const about = await docker.getContainer(Id).inspect();
    const { Processes } = (await docker.getContainer(Id).top()) as { Processes: string[][] };
    for (const [check, passes] of benchChecks(about, Processes)) t.ok(passes, check);
    await running;
  });

  await t.test('what tells of the machine is not to be read', async (t) => {
    const run = await cronium.run(
      'sh',
      `cd /proc
for f in cmdline kallsyms keys interrupts iomem diskstats; do printf '%s %s\\n' $f "$(wc -c < $f)"; done
ls -A /sys/kernel /sys/firmware /sys/fs/fuse 2> /dev/null | grep -v : | tr -d '\\n'
for f in /proc/sys/kernel/hostname /proc/self/oom_score_adj; do (echo -1000 > $f) 2>&1 | sed 's/.*: //'; done
find / -xdev -perm /6000 2> /dev/null
find / -xdev -type d -perm -2 ! -path '/proc/*' 2> /dev/null`,
    );
    t.equal(
      run.stdout,
      [
        'cmdline 0\nkallsyms 0\nkeys 0\ninterrupts 0\niomem 0\ndiskstats 0\n',
        'Read-only file system\nPermission denied\n',
        '/tmp\n/var/tmp\n',
      ].join(''),
      run.stderr,
    );
  });
});

/** Of a host, nothing may be there that a container could write to. */
const HOST_DIRECTORIES = [
  '/',
  '/boot',
  '/dev',
  '/etc',
  '/lib',
  '/proc',
  '/sys',
  '/usr',
  '/var/run',
];

/**
 * tests/5_container_runtime.sh of docker-bench-security, by its numbers. Left out: 5.1, 5.2 and 5.3, swarm, AppArmor and SELinux, which
 * are the host's; 5.15, about containers that are restarted; 5.23, 5.24 and 5.28, about what operators type; 5.27, a health check: a
 * script is over before one is due.
 */
function benchChecks(
  { HostConfig: host, Config: config, Mounts, NetworkSettings }: Docker.ContainerInspectInfo,
  processes: readonly (readonly string[])[],
): [check: string, passes: boolean][] {
  const options = host.SecurityOpt ?? [];
  const isOff = (option: string) => options.some((one: string) => one.startsWith(option));
  return [
    ['5.4 no capabilities are added', (host.CapAdd ?? []).length === 0],
    ['5.5 it is not privileged', host.Privileged === false],
    [
      '5.6 no sensitive directory of the host is mounted',
      Mounts.every(({ Source }) => !HOST_DIRECTORIES.includes(Source.replace(/\/$/, '') || '/')),
    ],
    ['5.7 no sshd runs in it', processes.every((words) => !words.join(' ').includes('sshd'))],
    ['5.8, 5.9, 5.14 no port is published', Object.keys(NetworkSettings.Ports ?? {}).length === 0],
    ['5.10 it has not the network of the host', host.NetworkMode !== 'host'],
    ['5.11 its memory is limited', (host.Memory ?? 0) > 0],
    ['5.12 its share of the processor is limited', (host.NanoCpus ?? 0) > 0],
    ['5.13 its root cannot be written to', host.ReadonlyRootfs === true],
    ['5.16 it has not the process ids of the host', host.PidMode !== 'host'],
    ['5.17 it has not the IPC of the host', host.IpcMode !== 'host'],
    ['5.18 no device of the host is in it', (host.Devices ?? []).length === 0],
    ['5.19 its own ulimits are set', (host.Ulimits ?? []).length > 0],
    [
      '5.20 no mount is shared with the host',
      Mounts.every(({ Propagation }) => Propagation !== 'shared'),
    ],
    ['5.21 it has not the UTS namespace of the host', host.UTSMode !== 'host'],
    [
      '5.22 no profile is turned off',
      !isOff('seccomp=unconfined') && !isOff('apparmor=unconfined') && !isOff('label=disable'),
    ],
    ['5.25 it is in the usual cgroup', (host.CgroupParent ?? '') === ''],
    ['5.26 it cannot get new privileges', isOff('no-new-privileges')],
    ['5.29 its processes are limited', (host.PidsLimit ?? 0) > 0],
    ['5.30 it is not on docker0', !['default', 'bridge'].includes(host.NetworkMode ?? '')],
    ['5.31 it has not the user namespace of the host', host.UsernsMode !== 'host'],
    [
      '5.32 the Docker socket is not in it',
      Mounts.every(({ Source }) => !Source.endsWith('docker.sock')),
    ],
    ['4.1 its user is not root', !/^(0|root)?(:|$)/.test(config.User)],
  ];
}

/** What the probe prints without the profile. */
async function unconfined(): Promise<string> {
  const container = await docker.createContainer({
    Image: 'cronium-python:latest',
    Cmd: ['python', '-c', `print('answers')\n${PROBE}`], // the library takes what begins as JSON for an answer of Docker's
    User: '1000:1000',
    Tty: true,
    HostConfig: {
      NetworkMode: 'none',
      CapDrop: ['ALL'],
      SecurityOpt: ['no-new-privileges:true', 'seccomp=unconfined'],
    },
  });
  try {
    await container.start();
    await container.wait();
    const logs = await container.logs({ stdout: true, stderr: true });
    return logs.toString('utf8').replace('answers', '');
  } finally {
    await container.remove({ force: true });
  }
}
