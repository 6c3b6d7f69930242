# Tries: symbolic links out of its tree, also under the names that the host reads when it ends.
# Outcome: succeeded 0
# Stdout: ^all \d+ as they should be\n$
# Warnings: ^(Warning: Failed to [^\n]+\n?)*$
# Output: null
# Uses: attempts
NO = ('ENOENT', 'EACCES', 'EPERM', 'ELOOP', 'ENOTDIR')
for n, target in enumerate(('/etc/shadow', '../../../../etc/shadow', '/proc/1/root/../etc/shadow', '/var/run/docker.sock')):
    os.symlink(target, f'link-{n}')
    attempt(target, lambda: opened(f'link-{n}'), *NO)
os.symlink('loop', 'loop')
attempt('a loop', lambda: opened('loop'), 'ELOOP')
attempt('a target of 5000 bytes', lambda: os.symlink('x' * 5000, 'long'), 'ENAMETOOLONG')
for name, target in (('output.json', '/etc/passwd'), ('condition.json', '/proc/self/environ')):
    os.symlink(target, name)
os.remove('variables.json')
os.symlink('/etc/passwd', 'variables.json')
report()
