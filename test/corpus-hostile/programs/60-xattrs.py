# Tries: memory of the bridge through extended attributes: huge, many, and of other kinds.
# Outcome: succeeded 0
# Stdout: ^all \d+ as they should be\n$
# Uses: attempts
# Warnings: ^Warning: a write was refused for want of room: .*$
# Options: --timeout 60s
os.close(os.open('x', os.O_CREAT | os.O_WRONLY))
attempt('64 KiB and a byte', lambda: os.setxattr('x', 'user.a', bytes(65537)), 'E2BIG')
attempt('a long name', lambda: os.setxattr('x', 'user.' + 'a' * 300, b'x'), 'ERANGE', 'ENAMETOOLONG')
attempt('trusted', lambda: os.setxattr('x', 'trusted.a', b'x'), 'EPERM', 'ENOTSUP', 'EOPNOTSUPP')
attempt('security', lambda: os.setxattr('x', 'security.selinux', b'x'), 'EPERM', 'ENOTSUP', 'EOPNOTSUPP')


def many():
    for n in range(100_000):
        os.setxattr('x', f'user.{n}', bytes(65536))


attempt('6 GiB of them', many, 'ENOSPC', 'EDQUOT', 'E2BIG')
report()
