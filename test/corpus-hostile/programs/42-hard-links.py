# Tries: hard links: to files outside, to directories, and to the documents, to change them behind the bridge's back.
# Outcome: succeeded 0
# Stdout: ^all \d+ as they should be\n$
# Uses: attempts
attempt('/etc/passwd', lambda: os.link('/etc/passwd', 'passwd'), 'EXDEV', 'EPERM')
attempt('from /tmp', lambda: (opened('/tmp/x', os.O_CREAT | os.O_WRONLY), os.link('/tmp/x', 'x')), 'EXDEV')
os.mkdir('d')
attempt('a directory', lambda: os.link('d', 'e'), 'EPERM')
attempt('/proc/self/exe', lambda: os.link('/proc/self/exe', 'exe'), 'EXDEV', 'EPERM')
attempt('the launcher, out of its directory, and open for writing', lambda: (os.link('/cronium/.launch/run', 'run'), opened('run', os.O_WRONLY)), 'EPERM', 'EACCES')
os.link('variables.json', 'alias')
with open('alias', 'w') as file:
    file.write('{"through": "a link"}')
report()
