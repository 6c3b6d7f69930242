# Tries: system calls with a history of holes.
# Outcome: succeeded 0
# Stdout: ^all \d+ as they should be\n$
# Uses: attempts
NO = ('EPERM', 'ENOSYS', 'EACCES')
attempt('bpf', lambda: syscall(321, 0, ctypes.create_string_buffer(128), 128), *NO)
attempt('keyctl', lambda: syscall(250, 0, -3, 1), *NO)
attempt('add_key', lambda: syscall(248, b'user', b'x', b'y', 1, -3), *NO)
attempt('request_key', lambda: syscall(249, b'user', b'x', None, -3), *NO)
attempt('perf_event_open', lambda: syscall(298, ctypes.create_string_buffer(128), 0, -1, -1, 0), *NO)
attempt('userfaultfd', lambda: syscall(323, 0), *NO)
attempt('lookup_dcookie', lambda: syscall(212, 0, None, 0), *NO)
attempt('move_pages', lambda: syscall(279, 1, 0, None, None, None, 0), *NO)
report()
