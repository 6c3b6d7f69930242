# os.open with O_APPEND, O_EXCL and O_TRUNC, os.pwrite, os.ftruncate
import os

fd = os.open('output.json', os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND)
for part in (b'{"a"', b': ', b'[1, 2', b']}'):
    os.write(fd, part)
os.close(fd)
try:
    os.open('output.json', os.O_WRONLY | os.O_CREAT | os.O_EXCL)
except FileExistsError as error:
    print(error.strerror)
fd = os.open('output.json', os.O_RDWR)
os.pwrite(fd, b'7', 7)
print(os.lseek(fd, 0, os.SEEK_END), os.pread(fd, 100, 0))
os.close(fd)
fd = os.open('condition.json', os.O_WRONLY | os.O_CREAT)
os.write(fd, b'{"condition": true}  tail')
os.ftruncate(fd, 19)
os.close(fd)
