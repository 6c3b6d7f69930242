# Tries: to find a credential: in its environment and that of others, in files, sockets, and what is mounted.
# Outcome: succeeded 0
# Stdout: ^all \d+ as they should be\n$
# Uses: attempts
import glob
import re

SECRET = re.compile(rb'eyJ[\w-]{10,}\.[\w-]{10,}\.[\w-]{10,}|-----BEGIN [A-Z ]*PRIVATE KEY|(?i:token|secret|passw)\w*=\S')
for path in glob.glob('/proc/[0-9]*/environ') + glob.glob('/proc/[0-9]*/cmdline'):
    with open(path, 'rb') as file:
        must(path, not SECRET.search(file.read()))
own = next(name for name in os.listdir('.') if name.startswith('script_'))
for top in ('/cronium', '/run', '/tmp', '/etc', '/var', '/home', '/root', '/dev/shm'):
    for folder, _, names in os.walk(top):
        for name in names:
            path = os.path.join(folder, name)
            if name == own or not os.path.isfile(path):
                continue
            try:
                with open(path, 'rb') as file:
                    must(path, not SECRET.search(file.read(1 << 20)))
            except PermissionError:
                pass
for path in ('/var/run/docker.sock', '/run/docker.sock', '/run/containerd/containerd.sock', '/run/secrets'):
    attempt(path, lambda: os.stat(path), 'ENOENT', 'EACCES')
with open('/proc/net/unix') as file:
    must('no sockets of others', len(file.readlines()) == 1)
report()
