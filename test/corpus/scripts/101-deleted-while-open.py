# files that are unlinked or replaced while a handle is open
import os

old = open('variables.json')
os.unlink('variables.json')
print(old.read())
f = open('output.json', 'w')
f.write('"unlinked"')
os.unlink('output.json')
f.close()
open('variables.json', 'w').write('{"new": 1}')
old.seek(0)
print(len(old.read()), os.fstat(old.fileno()).st_nlink)
