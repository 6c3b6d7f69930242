# Tries: to write into its image, and over the files that Docker and the bridge lay into it.
# Outcome: succeeded 0
# Stdout: ^all \d+ as they should be\n$
# Uses: attempts
NO = ('EROFS', 'EACCES', 'EPERM')
for path in ('/etc/passwd', '/etc/hosts', '/etc/hostname', '/etc/resolv.conf', '/usr/bin/bash'):
    attempt(path, lambda: opened(path, os.O_WRONLY), *NO)
    attempt(f'rename {path}', lambda: os.rename(path, f'{path}.old'), *NO, 'EBUSY')
    attempt(f'remove {path}', lambda: os.remove(path), *NO, 'EBUSY')
for where in ('/', '/etc', '/usr/bin', '/usr/lib', '/var', '/dev', '/run', '/proc', '/sys', '/home', '/root', '/cronium/.launch'):
    if os.path.isdir(where):
        attempt(where, lambda: opened(f'{where}/new', os.O_CREAT | os.O_WRONLY), *NO, 'ENOENT')
attempt('the launcher', lambda: opened('/cronium/.launch/run', os.O_WRONLY), *NO)
attempt('its mode', lambda: os.chmod('/cronium/.launch/run', 0o777), *NO)
attempt('the mount point', lambda: os.rename('/cronium', '/tmp/cronium'), *NO, 'EBUSY', 'EXDEV')
attempt('/cronium/errors', lambda: opened('/cronium/errors', os.O_WRONLY), *NO)
attempt('/cronium/status', lambda: opened('/cronium/status', os.O_WRONLY), *NO)
report()
