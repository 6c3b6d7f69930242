# Tries: its neighbour's files, with the neighbour's id at hand: by way of .., by path, by file handles.
# Outcome: succeeded 0
# Stdout: ^all \d+ as they should be\n$
# Options: --env OTHER=$NEIGHBOUR
# Uses: attempts
import struct

other = os.environ['OTHER']
must('the id is one', len(other) == 36)
for path in (
    f'/cronium/../{other}/work/note',
    f'/cronium/{other}/work/note',
    f'/cronium/work/../../{other}/work/note',
    f'/{other}/work/note',
    f'/proc/1/root/cronium/../{other}/work/note',
):
    attempt(path, lambda: opened(path), 'ENOENT', 'EACCES')
must('.. is the root', os.path.samefile('/cronium/..', '/'))
work = os.open('/cronium', os.O_RDONLY)
attempt('.. of a descriptor', lambda: os.open(f'../{other}', os.O_RDONLY, dir_fd=work), 'ENOENT')
for node in range(1, 200):
    handle = struct.pack('=IiQI', 12, 0x81, node, 0)
    attempt(f'handle of node {node}', lambda: syscall(304, work, handle, 0), 'EPERM', 'ESTALE', 'ENOSYS', 'EOPNOTSUPP')
report()
