# Tries: to change the machine's time.
# Outcome: succeeded 0
# Stdout: ^all \d+ as they should be\n$
# Uses: attempts
import struct

attempt('clock_settime', lambda: syscall(227, 0, struct.pack('=2q', 1, 0)), 'EPERM')
attempt('settimeofday', lambda: syscall(164, struct.pack('=2q', 1, 0), None), 'EPERM')
attempt('adjtimex', lambda: syscall(159, struct.pack('=I204x', 1)), 'EPERM')
attempt('clock_adjtime', lambda: syscall(305, 0, struct.pack('=I204x', 1)), 'EPERM')
report()
