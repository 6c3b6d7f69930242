# os.mkfifo: a child writes, the parent reads
import os, subprocess

os.mkfifo('pipe', 0o600)
child = subprocess.Popen(['sh', '-c', 'for i in 1 2 3; do echo $i; done > pipe'])
with open('pipe') as pipe:
    cronium.output([int(line) for line in pipe])
print(child.wait(), os.stat('pipe').st_size)
