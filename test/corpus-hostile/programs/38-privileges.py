# Tries: to become root, or to get a group or a capability it was not given.
# Outcome: succeeded 0
# Stdout: ^all \d+ as they should be\n$
# Uses: attempts
import shutil
import struct
import subprocess

attempt('setuid', lambda: os.setuid(0), 'EPERM')
attempt('setgid', lambda: os.setgid(0), 'EPERM')
attempt('setresuid', lambda: os.setresuid(0, 0, 0), 'EPERM')
attempt('setgroups', lambda: os.setgroups([0]), 'EPERM')
header = struct.pack('=Ii', 0x20080522, 0)
attempt('capset', lambda: syscall(126, header, struct.pack('=6I', *[0xFFFFFFFF] * 6)), 'EPERM')
attempt('an ambient capability', lambda: syscall(157, 47, 2, 21, 0, 0), 'EPERM', 'EINVAL')
os.close(os.open('mine', os.O_CREAT | os.O_WRONLY))
attempt('a file for root', lambda: os.chown('mine', 0, 0), 'EPERM')
capabilities = struct.pack('=5I', 0x2000001, 0xFFFFFFFF, 0, 0, 0)
attempt('a file capability', lambda: os.setxattr('mine', 'security.capability', capabilities), 'EPERM', 'EOPNOTSUPP', 'ENOTSUP')
shutil.copy('/usr/bin/id', 'id')
os.chmod('id', 0o6755)
must('set-user-id does nothing', subprocess.run(['./id', '-u'], capture_output=True).stdout == b'1000\n')
found = subprocess.run(['find', '/', '-xdev', '-perm', '/6000', '-type', 'f'], capture_output=True, text=True).stdout
must(f'no set-user-id program: {found}', found == '')
with open('/proc/self/status') as file:
    status = file.read()
for name in ('CapInh', 'CapPrm', 'CapEff', 'CapBnd', 'CapAmb'):
    must(name, f'{name}:\t0000000000000000\n' in status)
must('no new privileges', 'NoNewPrivs:\t1\n' in status)
must('seccomp filters', 'Seccomp:\t2\n' in status)
report()
