# Tries: renames: over what it was given, of a directory into itself, of documents and directories for each other.
# Outcome: succeeded 0
# Stdout: ^all \d+ as they should be\n$
# Warnings: ^(Warning: Failed to [^\n]+\n?)*$
# Uses: attempts
os.makedirs('a/b/c')
attempt('into itself', lambda: os.rename('a', 'a/b/c/d'), 'EINVAL')
attempt('over its parent', lambda: os.rename('a/b', 'a'), 'ENOTEMPTY', 'EEXIST', 'EINVAL')
attempt('a file over a directory', lambda: os.rename('event.json', 'a'), 'EISDIR')
attempt('work itself', lambda: os.rename('/cronium/work', '/cronium/elsewhere'), 'EACCES', 'EPERM', 'EBUSY')
attempt('..', lambda: os.rename('a', '..'), 'EBUSY', 'EINVAL', 'ENOTEMPTY', 'EEXIST')
for name in ('input.json', 'event.json'):
    with open('forged', 'w') as file:
        file.write('{"forged": true}')
    os.rename('forged', name)
    with open(name) as file:
        must(f'{name} is its own', file.read() == '{"forged": true}')
os.mkdir('e')
syscall(316, -100, b'e', -100, b'input.json', 2)
must('exchanged', os.path.isdir('input.json'))
report()
