# Tries: the disk of the host, by written bytes, by fallocate(2), and by a file without a name.
# Outcome: succeeded 0
# Stdout: ^write: (ENOSPC|EDQUOT) at 1 GiB or less\nfallocate: (ENOSPC|EDQUOT)\nO_TMPFILE: (ENOSPC|EDQUOT)\nroom again\n$
# Warnings: ^Warning: a write was refused for want of room: .*$
# Options: --timeout 90s
import errno
import os

GIB = 1 << 30
written = 0
block = os.urandom(1 << 20)
try:
    with open('fill', 'wb', buffering=0) as file:
        while written < 4 * GIB:
            written += file.write(block)
except OSError as error:
    size = 'at 1 GiB or less' if written <= GIB else f'at {written}'
    print('write:', errno.errorcode[error.errno], size)
try:
    with open('reserved', 'wb') as file:
        os.posix_fallocate(file.fileno(), 0, 2 * GIB)
    print('fallocate: no error')
except OSError as error:
    print('fallocate:', errno.errorcode[error.errno])
try:
    file = os.open('.', os.O_TMPFILE | os.O_RDWR)
    for _ in range(1024):
        os.write(file, block)
    print('O_TMPFILE: no error')
except OSError as error:
    print('O_TMPFILE:', errno.errorcode[error.errno])
os.close(file)
os.remove('fill')
with open('small', 'wb') as file:
    file.write(block)
print('room again')
