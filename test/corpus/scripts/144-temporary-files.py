# tempfile.TemporaryFile (O_TMPFILE), SpooledTemporaryFile, TemporaryDirectory, mkstemp; fallocate, sendfile, utime
import os, tempfile

with tempfile.TemporaryFile('w+') as t:
    t.write('nameless')
    t.seek(0)
    print(t.read(), os.listdir(tempfile.gettempdir()))
with tempfile.TemporaryDirectory() as d:
    open(f'{d}/x', 'w').write('x')
    print(os.path.dirname(d) == os.environ['TMPDIR'])
fd, path = tempfile.mkstemp(dir='.')
os.posix_fallocate(fd, 0, 10000)
print(os.fstat(fd).st_size)
os.ftruncate(fd, 0)
os.write(fd, b'{"sent": true}')
with open('output.json', 'wb') as out:
    print(os.sendfile(out.fileno(), fd, 0, 100))
os.utime(path, (1, 2))
print(os.stat(path).st_mtime, os.stat(path).st_blksize > 0, os.access(path, os.X_OK))
os.chown(path, 1000, -1)
