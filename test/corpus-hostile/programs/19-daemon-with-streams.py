# Tries: to keep its run from ending by a daemon that holds its output and ignores SIGTERM.
# Outcome: timed-out 137
# Stdout: ^parent ends\n$
# Options: --timeout 5s
import os
import signal
import time

if os.fork() == 0:
    os.setsid()
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    while True:
        time.sleep(1)
print('parent ends')
