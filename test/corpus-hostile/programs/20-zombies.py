# Tries: zombies, which nobody waits for, until there is no process number left.
# Outcome: succeeded 0
# Stdout: ^EAGAIN below 128\n$
import errno
import os

count = 0
try:
    while count < 100_000:
        if os.fork() == 0:
            os._exit(0)
        count += 1
except OSError as error:
    print(errno.errorcode[error.errno], 'below 128' if count < 128 else f'at {count}')
