# Tries: devices: making their nodes wherever it may write, and opening those of the host.
# Outcome: succeeded 0
# Stdout: ^all \d+ as they should be\n$
# Uses: attempts
import stat

for where in ('/cronium/work', '/tmp', '/dev', '/dev/shm'):
    for name, kind, major, minor in (
        ('mem', stat.S_IFCHR, 1, 1),
        ('fuse', stat.S_IFCHR, 10, 229),
        ('disk', stat.S_IFBLK, 254, 0),
        ('null', stat.S_IFCHR, 1, 3),
    ):
        node = f'{where}/{name}-node'
        make = lambda: os.mknod(node, kind | 0o666, os.makedev(major, minor))
        attempt(node, make, 'EPERM', 'EACCES', 'EROFS')
for path in ('/dev/mem', '/dev/fuse', '/dev/kmsg', '/dev/vda', '/dev/sda', '/dev/kvm', '/dev/vsock', '/dev/loop-control', '/dev/net/tun'):
    attempt(path, lambda: opened(path, os.O_RDWR), 'ENOENT', 'EACCES', 'EPERM')
attempt('its terminal', lambda: opened('/dev/tty', os.O_RDWR), 'ENXIO', 'ENOENT', 'EACCES')
report()
