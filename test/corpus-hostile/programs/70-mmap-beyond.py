# Tries: to touch a mapping beyond the end of its file.
# Outcome: succeeded 0
# Stdout: ^SIGBUS\n$
import mmap
import os
import signal

file = os.open('x', os.O_CREAT | os.O_RDWR)
os.ftruncate(file, 8192)
if os.fork() == 0:
    mapped = mmap.mmap(file, 8192)
    os.ftruncate(file, 0)
    mapped[5000]
    os._exit(0)
_, status = os.wait()
print(signal.Signals(os.WTERMSIG(status)).name if os.WIFSIGNALED(status) else status)
