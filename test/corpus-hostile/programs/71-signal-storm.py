# Tries: signals a thousand times a second while it reads and writes, for calls that are torn.
# Outcome: succeeded 0
# Stdout: ^whole\n$
import os
import signal
import time

signal.signal(signal.SIGALRM, lambda *_: None)
signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
end = time.time() + 2
n = 0
while time.time() < end:
    n += 1
    with open('x', 'w') as file:
        file.write(str(n) * 10_000)
    os.rename('x', 'y')
    with open('y') as file:
        assert file.read() == str(n) * 10_000
signal.setitimer(signal.ITIMER_REAL, 0)
print('whole')
