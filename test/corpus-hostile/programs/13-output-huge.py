# Tries: an output.json of 64 MiB, valid if it were read as a whole.
# Outcome: succeeded 0
# Stdout: ^EFBIG\n$
# Warnings: ^Warning: Failed to parse output\.json: [^\n]+\nWarning: output\.json is kept up to 262144 characters$
import errno
import os

file = os.open('output.json', os.O_CREAT | os.O_WRONLY)
try:
    os.write(file, b'[')
    for _ in range(64):
        os.write(file, b'1,' * (1 << 19))
    print('no error')
except OSError as error:
    print(errno.errorcode[error.errno])
try:
    os.close(file)
except OSError:
    pass
