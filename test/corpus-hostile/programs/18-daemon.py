# Tries: to outlive its run as a daemon: forked twice, a session of its own, no standard streams.
# Outcome: succeeded 0
# Stdout: ^gone\n$
import os
import signal
import time

if os.fork() == 0:
    os.setsid()
    if os.fork() > 0:
        os._exit(0)
    for one in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        signal.signal(one, signal.SIG_IGN)
    for fd in range(64):
        try:
            os.close(fd)
        except OSError:
            pass
    while True:
        with open('alive', 'a') as file:
            file.write('x')
        time.sleep(0.01)
time.sleep(0.3)
print('gone' if os.path.getsize('alive') > 0 else 'the daemon did not start')
