# Tries: to change the kernel's settings through /proc and /sys.
# Outcome: succeeded 0
# Stdout: ^all \d+ as they should be\n$
# Uses: attempts
import glob


def lower_oom_score():
    file = os.open('/proc/self/oom_score_adj', os.O_WRONLY)
    os.write(file, b'-1000')


NO = ('EACCES', 'EPERM', 'EROFS', 'ENOENT')
paths = [
    '/proc/sysrq-trigger',
    '/proc/sys/kernel/core_pattern',
    '/proc/sys/kernel/modprobe',
    '/proc/sys/vm/drop_caches',
    '/proc/sys/kernel/hostname',
    '/proc/sys/fs/file-max',
    '/proc/sys/net/ipv4/ip_forward',
    '/proc/irq/default_smp_affinity',
    '/proc/mtrr',
    '/proc/acpi/wakeup',
    '/sys/kernel/uevent_helper',
    '/sys/power/state',
    '/sys/kernel/mm/transparent_hugepage/enabled',
    '/sys/fs/fuse/connections',
    '/sys/kernel/security/lockdown',
    *glob.glob('/sys/fs/cgroup/**/cgroup.procs', recursive=True),
    *glob.glob('/sys/fs/cgroup/**/release_agent', recursive=True),
    *glob.glob('/sys/fs/cgroup/**/devices.allow', recursive=True),
    *glob.glob('/sys/fs/cgroup/**/memory.limit_in_bytes', recursive=True),
    *glob.glob('/sys/fs/cgroup/**/memory.max', recursive=True),
    *glob.glob('/sys/fs/fuse/connections/*/*'),
    *glob.glob('/sys/block/*/queue/scheduler'),
    *glob.glob('/sys/bus/pci/rescan'),
]
for path in paths:
    attempt(path, lambda: opened(path, os.O_WRONLY), *NO, 'EISDIR')
attempt('a cgroup of its own', lambda: os.mkdir('/sys/fs/cgroup/mine'), *NO)
attempt('a better oom score', lower_oom_score, 'EACCES', 'EPERM')
report()
