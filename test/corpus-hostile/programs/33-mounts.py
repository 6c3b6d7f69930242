# Tries: to mount, unmount, change its root, or use the file-descriptor forms of the same calls.
# Outcome: succeeded 0
# Stdout: ^all \d+ as they should be\n$
# Uses: attempts
os.mkdir('to')
work = b'/cronium/work'
to = b'/cronium/work/to'
attempt('mount tmpfs', lambda: syscall(165, b'none', to, b'tmpfs', 0, None), 'EPERM')
attempt('mount proc', lambda: syscall(165, b'none', to, b'proc', 0, None), 'EPERM')
attempt('bind', lambda: syscall(165, work, to, None, 4096, None), 'EPERM')
attempt('remount /', lambda: syscall(165, None, b'/', None, 32, None), 'EPERM')
attempt('umount', lambda: syscall(166, b'/cronium', 2), 'EPERM')
attempt('umount of a mask', lambda: syscall(166, b'/proc/kcore', 2), 'EPERM')
attempt('pivot_root', lambda: syscall(155, work, to), 'EPERM')
attempt('chroot', lambda: os.chroot('/cronium/work'), 'EPERM')
attempt('fsopen', lambda: syscall(430, b'tmpfs', 0), 'EPERM', 'ENOSYS')
attempt('open_tree', lambda: syscall(428, -100, b'/', 1), 'EPERM', 'ENOSYS')
attempt('move_mount', lambda: syscall(429, -100, b'/cronium', -100, to, 0), 'EPERM', 'ENOSYS')
attempt('mount_setattr', lambda: syscall(442, -100, b'/', 0, None, 0), 'EPERM', 'ENOSYS')
report()
