# Tries: names: too long, with newlines and control characters, no UTF-8, the kernel's own.
# Outcome: succeeded 0
# Stdout: ^all \d+ as they should be\n$
# Uses: attempts
create = os.O_CREAT | os.O_WRONLY
attempt('256 bytes', lambda: opened('x' * 256, create), 'ENAMETOOLONG')
attempt('100,000 bytes', lambda: opened('x' * 100_000, create), 'ENAMETOOLONG')
attempt('a path of 5000 bytes', lambda: opened('./' * 2500 + 'x', create), 'ENAMETOOLONG')
attempt('nothing', lambda: opened('', create), 'ENOENT')
attempt('a dot', lambda: os.mkdir('.'), 'EEXIST')
attempt('two dots', lambda: os.mkdir('..'), 'EEXIST')
attempt('a file and a slash', lambda: opened('event.json/x', create), 'ENOTDIR')
names = [b'x' * 255, b'a\nb', b'\xff\xfe', b'\x01\x1b[2J', b'-rf', b'...', b' ', b'\xc3\xa9' * 127, b'\\..\\x', b'%2e%2e']
for name in names:
    os.close(os.open(name, create))
found = os.listdir(b'.')
for name in names:
    must(f'{name!r} is listed', name in found)
    os.remove(name)
report()
