# Tries: to hold open as many files of the mount as there are, twice: here and in children.
# Outcome: succeeded 0
# Stdout: ^EMFILE below 1024\n(EMFILE below 1024\n){8}$
import errno
import os


def fill():
    held = []
    try:
        while len(held) < 100_000:
            held.append(os.open(f'file-{len(held) % 10}', os.O_CREAT | os.O_RDWR))
    except OSError as error:
        few = 'below 1024' if len(held) < 1024 else f'at {len(held)}'
        os.write(1, f'{errno.errorcode[error.errno]} {few}\n'.encode())


children = []
for _ in range(8):
    child = os.fork()
    if child == 0:
        fill()
        os._exit(0)
    children.append(child)
for child in children:
    os.waitpid(child, 0)
fill()
