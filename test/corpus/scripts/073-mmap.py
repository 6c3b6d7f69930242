# mmap of variables.json, changed in place
import mmap

with open('variables.json', 'r+b') as f, mmap.mmap(f.fileno(), 0) as m:
    at = m.find(b'Oslo')
    print(len(m), at)
    m[at : at + 4] = b'Rome'
    m.flush()
with open('variables.json', 'rb') as f, mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_READ) as m:
    print(m[:].decode())
