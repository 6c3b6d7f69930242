# Tries: to wait in a call that nothing will end: open(2) of a FIFO, with SIGTERM blocked.
# Outcome: timed-out 137
# Options: --timeout 5s
import os
import signal

signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
os.mkfifo('pipe')
open('pipe')
