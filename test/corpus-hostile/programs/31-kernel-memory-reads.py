# Tries: to read what the kernel or other processes keep in memory.
# Outcome: succeeded 0
# Stdout: ^all \d+ as they should be\n$
# Uses: attempts
NO = ('EACCES', 'EPERM', 'ENOENT', 'ENXIO', 'EIO')


def read(path):
    """Docker lays /dev/null over some: then there is nothing in it, which counts as refused."""
    with open(path, 'rb', buffering=0) as file:
        data = file.read(64)
    if not data:
        raise PermissionError(errno.EACCES, path)
    return data


for path in (
    '/proc/kcore',
    '/proc/kmsg',
    '/proc/keys',
    '/proc/timer_list',
    '/proc/sched_debug',
    '/proc/kpagecount',
    '/proc/vmallocinfo',
    '/proc/slabinfo',
    '/dev/mem',
    '/dev/kmem',
    '/dev/port',
    '/dev/kmsg',
    '/sys/firmware/dmi/tables/DMI',
    '/sys/kernel/debug/sched/debug',
    '/sys/kernel/tracing/trace',
    '/sys/kernel/notes-of-nobody',
):
    attempt(path, lambda: read(path), *NO)
with open('/proc/kallsyms') as file:
    must('kernel addresses are hidden', all(int(line.split()[0], 16) == 0 for line in list(file)[:1000]))
processes = [name for name in os.listdir('/proc') if name.isdigit()]
must('only its own processes', len(processes) < 10)
for path in ('/proc/1/root/etc/shadow', '/proc/1/cwd/../../etc/shadow', '/proc/1/root/var/run/docker.sock'):
    attempt(path, lambda: opened(path), *NO)
report()
