# Tries: every processor of the machine, at the highest priority it can get.
# Outcome: timed-out 143
# Stdout: ^(EACCES|EPERM)\n$
# Options: --timeout 4s
import errno
import os

try:
    os.setpriority(os.PRIO_PROCESS, 0, -20)
    print('a higher priority')
except OSError as error:
    print(errno.errorcode[error.errno], flush=True)
for _ in range(15):
    if os.fork() == 0:
        break
while True:
    pass
