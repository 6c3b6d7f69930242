# Tries: namespaces: new ones, where it would be root, and those of others.
# Outcome: succeeded 0
# Stdout: ^all \d+ as they should be\n$
# Uses: attempts
import struct


def clone3(flags):
    size = 64
    return syscall(435, struct.pack('=8Q', flags, 0, 0, 0, 17, 0, 0, 0), size)


def write_map():
    file = os.open('/proc/self/uid_map', os.O_WRONLY)
    os.write(file, b'0 1000 1')


for name, flag in (
    ('user', 0x10000000),
    ('mount', 0x20000),
    ('net', 0x40000000),
    ('pid', 0x20000000),
    ('ipc', 0x8000000),
    ('uts', 0x4000000),
    ('cgroup', 0x2000000),
):
    attempt(f'unshare {name}', lambda: syscall(272, flag), 'EPERM')
    attempt(f'clone {name}', lambda: syscall(56, flag | 17, 0, 0, 0, 0), 'EPERM')
    attempt(f'clone3 {name}', lambda: clone3(flag), 'EPERM', 'ENOSYS')
for name in ('user', 'mnt', 'net', 'pid'):
    own = os.open(f'/proc/self/ns/{name}', os.O_RDONLY)
    attempt(f'setns {name}', lambda: syscall(308, own, 0), 'EPERM')
attempt('a map of users', write_map, 'EPERM', 'EACCES')
report()
