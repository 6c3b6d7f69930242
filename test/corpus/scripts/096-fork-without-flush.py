# os.fork with text still in the buffer of a piped stdout
import os

print('once')
if os.fork() == 0:
    print('child')
    raise SystemExit(0)
os.wait()
print('parent')
