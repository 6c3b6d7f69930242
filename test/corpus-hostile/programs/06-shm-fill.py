# Tries: memory through /dev/shm, beyond its 16 MiB.
# Outcome: succeeded 0
# Stdout: ^ENOSPC after 16 MiB\n$
import errno

written = 0
try:
    with open('/dev/shm/fill', 'wb', buffering=0) as file:
        while written < 1 << 30:
            written += file.write(bytes(1 << 20))
except OSError as error:
    print(errno.errorcode[error.errno], 'after', written >> 20, 'MiB')
