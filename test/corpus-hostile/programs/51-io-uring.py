# Tries: io_uring, which passes by filters of system calls, and memory that the kernel itself cannot see.
# Outcome: succeeded 0
# Stdout: ^all \d+ as they should be\n$
# Uses: attempts
attempt('io_uring_setup', lambda: syscall(425, 8, ctypes.create_string_buffer(120)), 'ENOSYS', 'EPERM')
attempt('memfd_secret', lambda: syscall(447, 0), 'ENOSYS', 'EPERM')
attempt('modify_ldt', lambda: syscall(154, 0, ctypes.create_string_buffer(64), 64), 'ENOSYS', 'EPERM')
report()
