# Tries: the inodes of the host, by empty files, and by hard links, which are names without inodes.
# Outcome: succeeded 0
# Stdout: ^(ENOSPC|EDQUOT) below 100001 files\n(ENOSPC|EDQUOT|EMLINK) below 100001 links\n$
# Warnings: ^Warning: a write was refused for want of room: .*$
# Options: --timeout 150s
# Alone: the host creates and removes 200,000 names for it
import errno
import os


def until_refused(what, call):
    count = 0
    try:
        while count < 150_000:
            call(count)
            count += 1
        print(f'{count} {what} without an error')
    except OSError as error:
        few = f'below 100001 {what}' if count < 100_001 else f'at {count} {what}'
        print(errno.errorcode[error.errno], few)


os.mkdir('many')
flags = os.O_CREAT | os.O_WRONLY
until_refused('files', lambda n: os.close(os.open(f'many/{n}', flags)))
os.remove('many/0')
os.remove('many/1')
os.close(os.open('one', flags))
os.mkdir('links')
until_refused('links', lambda n: os.link('one', f'links/{n}'))
