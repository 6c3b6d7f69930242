# Tries: to look into and steer its parent and a child by ptrace(2) and its relatives.
# Outcome: succeeded 0
# Stdout: ^all \d+ as they should be\n$
# Uses: attempts
import time

child = os.fork()
if child == 0:
    time.sleep(60)
buffer = ctypes.create_string_buffer(64)
for who, pid in (('parent', os.getppid()), ('child', child), ('init', 1)):
    attempt(f'attach to {who}', lambda: syscall(101, 16, pid, 0, 0), 'EPERM', 'ENOSYS')
    attempt(f'seize {who}', lambda: syscall(101, 0x4206, pid, 0, 0), 'EPERM', 'ENOSYS')
    attempt(f'process_vm_readv {who}', lambda: syscall(310, pid, buffer, 1, buffer, 1, 0), 'EPERM', 'ENOSYS')
    attempt(f'process_vm_writev {who}', lambda: syscall(311, pid, buffer, 1, buffer, 1, 0), 'EPERM', 'ENOSYS')
    attempt(f'kcmp {who}', lambda: syscall(312, pid, os.getpid(), 1, 0, 0), 'EPERM', 'ENOSYS')
    handle = os.pidfd_open(pid)
    attempt(f'pidfd_getfd {who}', lambda: syscall(438, handle, 1, 0), 'EPERM', 'ENOSYS')
os.kill(child, 9)
report()
