# Tries: memory through the tmpfs at /tmp, by bytes and then by names.
# Outcome: succeeded 0
# Stdout: ^ENOSPC at 64 MiB or less\nENOSPC below 4096 files\n$
import errno
import os

written = 0
try:
    with open('/tmp/fill', 'wb', buffering=0) as file:
        while written < 1 << 30:
            written += file.write(bytes(1 << 20))
except OSError as error:
    size = 'at 64 MiB or less' if written <= 64 << 20 else f'at {written}'
    print(errno.errorcode[error.errno], size)
os.remove('/tmp/fill')
names = 0
try:
    while names < 100_000:
        os.close(os.open(f'/tmp/{names}', os.O_CREAT | os.O_WRONLY))
        names += 1
except OSError as error:
    print(errno.errorcode[error.errno], 'below 4096 files' if names < 4096 else f'at {names}')
