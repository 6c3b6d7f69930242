# one handle, many flushes and fsyncs; a second handle reads what is there so far
import os

f = open('variables.json', 'w')
print(repr(open('variables.json').read()))
f.write('{"a": ')
f.flush()
print(repr(open('variables.json').read()))
f.write('1}')
f.flush()
os.fsync(f.fileno())
print(repr(open('variables.json').read()))
f.seek(0)
f.write('{"a": 2}')
f.close()
