# Tries: locks: thirty processes that take, wait for and drop them, some killed while they hold or wait.
# Outcome: succeeded 0
# Stdout: ^free again\n$
import fcntl
import os
import signal
import time

children = []
for n in range(30):
    child = os.fork()
    if child == 0:
        with open('lock', 'a') as file:
            while True:
                (fcntl.flock if n % 2 else fcntl.lockf)(file, fcntl.LOCK_EX)
                (fcntl.flock if n % 2 else fcntl.lockf)(file, fcntl.LOCK_UN)
    children.append(child)
time.sleep(2)
for child in children:
    os.kill(child, signal.SIGKILL)
for child in children:
    os.waitpid(child, 0)
with open('lock', 'a') as file:
    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
print('free again')
