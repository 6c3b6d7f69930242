# fcntl.flock and lockf between forked processes
import fcntl, json, os, sys

sys.stdout.flush()
for how in (fcntl.flock, fcntl.lockf):
    children = []
    for _ in range(3):
        pid = os.fork()
        if pid == 0:
            for _ in range(5):
                with open('lock', 'w') as lock:
                    how(lock, fcntl.LOCK_EX)
                    v = json.load(open('variables.json'))
                    v['n'] += 1
                    with open('variables.json', 'w') as f:
                        json.dump(v, f)
            os._exit(0)
        children.append(pid)
    print([os.waitpid(pid, 0)[1] for pid in children])
held = open('lock', 'w')
fcntl.flock(held, fcntl.LOCK_EX)
try:
    fcntl.flock(open('lock', 'w'), fcntl.LOCK_EX | fcntl.LOCK_NB)
except BlockingIOError as error:
    print(error.strerror)
