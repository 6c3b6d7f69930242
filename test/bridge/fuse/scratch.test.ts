import { chmodSync, mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { DRIVERS } from '#bridge/wire/control.js';
import { needsFuse } from '#test/support/machine.js';
import { FakeRuntime, runIn, TestMount } from '#test/support/mounted.js';
import { isDocumented, type NativeLimit } from '#test/support/native-limits.js';

/**
 * Programs that print what they see. What they print on tmpfs is the truth; the mount must print the same. Times and
 * inode numbers are not printed.
 */
const PROGRAMS: Readonly<Record<string, readonly [command: string, script: string]>> = {
  'create, write, append, truncate, seek': [
    'python3',
    `
import os
f = open('a', 'wb+'); f.write(b'hello world'); f.flush(); f.seek(6); print(f.read()); f.truncate(5); f.close()
print(os.stat('a').st_size, open('a').read())
with open('a', 'a') as g: g.write('!more')
print(open('a').read())
fd = os.open('a', os.O_RDWR); os.pwrite(fd, b'X', 100000); print(os.fstat(fd).st_size); print(os.pread(fd, 4, 50)); os.close(fd)
os.truncate('a', 3); print(open('a').read()); os.truncate('a', 10); print(open('a','rb').read())
try: os.open('a', os.O_CREAT | os.O_EXCL)
except OSError as e: print(e.errno)
print(oct(os.stat('a').st_mode), os.stat('a').st_nlink)
`,
  ],
  'directories: make, list, remove, refuse': [
    'python3',
    `
import os
os.makedirs('d/e/f'); open('d/x','w').close()
print(sorted(os.listdir('d')), os.stat('d').st_nlink)
for call in (lambda: os.rmdir('d'), lambda: os.mkdir('d'), lambda: os.rmdir('d/x'), lambda: os.unlink('d/e'), lambda: os.listdir('d/x'), lambda: os.stat('d/none'), lambda: os.stat('d/x/y'), lambda: os.open('d', os.O_WRONLY), lambda: os.mkdir('n'*256), lambda: os.mkdir('n'*255)):
    try: call(); print('ok')
    except OSError as e: print(e.errno)
os.rmdir('d/e/f'); print(os.stat('d/e').st_nlink)
for i in range(500): open('d/%03d' % i, 'w').close()
names = [e.name for e in os.scandir('d')]; print(len(names), len(set(names)), all(e.is_file() or e.name == 'e' for e in os.scandir('d')))
for e in os.scandir('d'):
    if e.is_file(): os.unlink(e.path)
print(os.listdir('d'))
`,
  ],
  'rename replaces, refuses, exchanges': [
    'python3',
    `
import os, ctypes
libc = ctypes.CDLL(None, use_errno=True)
def rename2(a, b, flags):
    r = libc.renameat2(-100, a.encode(), -100, b.encode(), flags); print('r2', 0 if r == 0 else ctypes.get_errno())
def w(n, s): open(n, 'w').write(s)
w('a', 'A'); w('b', 'B'); os.rename('a', 'b'); print(open('b').read(), os.path.exists('a'))
w('a', 'A'); rename2('a', 'b', 1); rename2('a', 'c', 1); print(sorted(os.listdir('.')))
rename2('b', 'c', 2); print(open('b').read(), open('c').read()); rename2('b', 'zz', 2); rename2('b', 'c', 3)
os.mkdir('d'); os.mkdir('e'); w('e/x', ''); 
for a, b in (('d', 'e'), ('b', 'd'), ('d', 'b'), ('d', 'd/in'), ('none', 'x'), ('e', 'd')):
    try: os.rename(a, b); print('ok', a, b)
    except OSError as e: print(e.errno, a, b)
os.link('b', 'b2'); os.rename('b', 'b2'); print(os.stat('b').st_nlink, sorted(os.listdir('.')))
f = open('c'); os.rename('b', 'c'); print(f.read(), os.fstat(f.fileno()).st_nlink)
`,
  ],
  'links, symbolic and hard': [
    'python3',
    `
import os
open('a','w').write('x'); os.link('a','b'); os.symlink('a','s'); os.symlink('nowhere','dangling'); os.symlink('loop','loop')
print(os.stat('b').st_nlink, os.readlink('s'), open('s').read(), os.lstat('s').st_size)
os.chmod('b', 0o640); print(oct(os.stat('a').st_mode))
os.unlink('a'); print(os.stat('b').st_nlink)
for call in (lambda: open('s'), lambda: open('dangling'), lambda: open('loop'), lambda: os.link('b','s'), lambda: os.symlink('t'*4096,'long'), lambda: os.symlink('t'*4095,'long')):
    try: call(); print('ok')
    except OSError as e: print(e.errno)
open('dangling','w').write('made'); print(open('nowhere').read())
`,
  ],
  'modes, owners, umask, set-id bits': [
    'python3',
    `
import os
os.umask(0o027); open('a','w').close(); os.mkdir('d'); print(oct(os.stat('a').st_mode), oct(os.stat('d').st_mode))
os.chmod('a', 0o4755); print(oct(os.stat('a').st_mode)); os.chown('a', 1000, 1000); s = os.stat('a'); print(oct(s.st_mode), s.st_uid, s.st_gid)
os.chmod('d', 0o2770); os.chown('d', 0, 1234); os.mkdir('d/e'); open('d/f','w').close()
print(oct(os.stat('d/e').st_mode), os.stat('d/e').st_gid, os.stat('d/f').st_gid)
os.chmod('d', 0o1777); open('d/mine','w').close(); os.chmod('a', 0o600)
pid = os.fork()
if pid == 0:
    os.setgid(1000); os.setuid(1001)
    for call in (lambda: open('a'), lambda: os.unlink('d/mine'), lambda: open('d/new','w').close(), lambda: os.chmod('a', 0o777), lambda: os.listdir('d')):
        try: call(); print('ok', flush=True)
        except OSError as e: print(e.errno, flush=True)
    os._exit(0)
os.waitpid(pid, 0); print(os.stat('d/new').st_uid)
`,
  ],
  'times: set, kept, moved by writing': [
    'python3',
    `
import os, time
open('a','w').close(); os.utime('a', ns=(123456789, 987654321123456789)); s = os.stat('a'); print(s.st_atime_ns, s.st_mtime_ns)
os.utime('a', ns=(-1, -10**9 - 5)); s = os.stat('a'); print(s.st_atime_ns, s.st_mtime_ns)
os.utime('a', ns=(0, 0)); open('a','w').write('x'); print(os.stat('a').st_mtime_ns > 10**18)
os.mkdir('d'); os.utime('d', (0, 0)); open('d/x','w').close(); print(os.stat('d').st_mtime_ns > 10**18)
os.utime('d', (0, 0)); os.unlink('d/x'); print(os.stat('d').st_mtime_ns > 10**18)
os.utime('a', (0, 0)); os.chmod('a', 0o600); print(os.stat('a').st_mtime_ns, os.stat('a').st_ctime_ns > 10**18)
`,
  ],
  'unlinked and renamed-over files live on in their handles': [
    'python3',
    `
import os
f = open('a','w+'); f.write('still here'); f.flush(); os.unlink('a'); f.seek(0); print(f.read(), os.fstat(f.fileno()).st_nlink)
os.ftruncate(f.fileno(), 5); os.fchmod(f.fileno(), 0o600); f.seek(0); print(f.read(), os.listdir('.')); f.close()
os.mkdir('e'); os.chdir('e'); os.rmdir('../e')
try: open('x','w')
except OSError as e: print(e.errno)
`,
  ],
  'a directory goes although a file removed from it is still open': [
    'python3',
    `
import os
os.mkdir('d'); g = open('d/x','w'); os.unlink('d/x'); print(os.listdir('d')); os.rmdir('d'); g.write('late'); g.close(); print(os.listdir('.'))
`,
  ],
  'shared mappings': [
    'python3',
    `
import mmap, os
with open('a','wb') as f: f.write(b'\\0' * 8192)
fd = os.open('a', os.O_RDWR); m = mmap.mmap(fd, 8192); m[0:5] = b'hello'; m[8000:8003] = b'end'; m.flush()
print(os.pread(fd, 5, 0), open('a','rb').read()[8000:8003]); os.pwrite(fd, b'J', 0); print(m[0:5]); m.close(); os.close(fd)
print(open('a','rb').read(5))
`,
  ],
  'fifo, unix socket, flock, POSIX locks, exec': [
    'bash',
    `
mkfifo p; (echo through > p) & cat p; wait
python3 -c "
import socket, os
s = socket.socket(socket.AF_UNIX); s.bind('sock'); s.listen(); c = socket.socket(socket.AF_UNIX); c.connect('sock'); a, _ = s.accept(); c.send(b'hi'); print(a.recv(2)); print(oct(os.stat('sock').st_mode & 0o170000))
"
(flock 9; flock -n l -c true && echo free || echo taken) 9> l
python3 -c "
import fcntl, os
f = open('l', 'w'); fcntl.lockf(f, fcntl.LOCK_EX)
if os.fork() == 0:
    try: fcntl.lockf(open('l', 'w'), fcntl.LOCK_EX | fcntl.LOCK_NB); print('free', flush=True)
    except OSError as e: print('taken', flush=True)
    os._exit(0)
os.wait()"
printf '#!/bin/sh\\necho ran $1\\n' > x; chmod +x x; ./x well
cp x y && cmp x y && rm x y; dd if=/dev/zero of=z bs=1M count=8 status=none; stat -c %s z
`,
  ],
  'tools: cp -a, tar, sed -i, mv across, find, git': [
    'bash',
    `
mkdir -p src/deep; echo one > src/a; echo two > src/deep/b; ln -s a src/l; cp -a src dst; diff -r src dst && echo same
tar cf t.tar src && mkdir x && tar xf t.tar -C x && diff -r src x/src && echo tarred
sed -i s/one/uno/ src/a; cat src/a; mv src/a /tmp/cronium-test-mv-$$ && mv /tmp/cronium-test-mv-$$ back; cat back
find . -name b | sort
git init -q g && cd g && git config user.email a@b && git config user.name n && echo f > f && git add f && git commit -qm m && git log --oneline | wc -l && git fsck 2>&1 | grep -c error; cd ..
python3 -c "
import tempfile, os
with tempfile.NamedTemporaryFile(dir='.', delete=False) as f: f.write(b'new')
os.replace(f.name, 'target'); print(open('target').read())"
`,
  ],
  'sqlite with a write-ahead log': [
    'bash',
    `
python3 -c "
import sqlite3
c = sqlite3.connect('db'); c.execute('pragma journal_mode=wal'); c.execute('create table t(x)'); c.executemany('insert into t values(?)', [(i,) for i in range(1000)]); c.commit()
print(c.execute('select sum(x) from t').fetchone(), c.execute('pragma integrity_check').fetchone())"
`,
  ],
  'sqlite with a rollback journal': [
    'bash',
    `
python3 -c "
import sqlite3
c = sqlite3.connect('db'); c.execute('create table t(x)'); c.executemany('insert into t values(?)', [(i,) for i in range(1000)]); c.commit()
print(c.execute('select sum(x) from t').fetchone(), c.execute('pragma integrity_check').fetchone())"
`,
  ],
  'a lock holds for every name of a file': [
    'python3',
    `
import fcntl, os
open('a','w').close(); os.link('a', 'b'); a = open('a'); fcntl.flock(a, fcntl.LOCK_EX); b = open('b')
try: fcntl.flock(b, fcntl.LOCK_EX | fcntl.LOCK_NB); print('free')
except OSError: print('taken')
`,
  ],
  preallocation: ['bash', `fallocate -l 1000 f && stat -c %s f`],
  'one time of the two': [
    'bash',
    `: > f; touch -d @2000 f; touch -m -d @1000 f; stat -c '%X %Y' f; touch -a -d @3000 f; stat -c '%X %Y' f; touch f; [ $(stat -c %Y f) -gt 3000 ] && echo now`,
  ],
  'names in UTF-8': [
    'python3',
    `
import os
for name in ('grüße', '日本', '😀'): open(name, 'w').write(name); os.symlink(name, name + '.l')
print(sorted(os.listdir('.')), open('日本.l').read(), os.readlink('grüße.l'))
os.rename('grüße', '日本2'); print(sorted(os.listdir('.')))
`,
  ],
  'names in other encodings': [
    'python3',
    `
import os
for name in (b'gr\\xfc\\xdfe', b'\\xff', b'\\xfe'): open(name, 'w').close()
print(sorted(os.listdir(b'.')))
`,
  ],
  xattrs: [
    'python3',
    `
import os
open('a','w').close()
for call in (lambda: os.setxattr('a','user.x',b'1'), lambda: os.setxattr('a','user.x',b'2',os.XATTR_CREATE), lambda: os.setxattr('a','user.y',b'2',os.XATTR_REPLACE), lambda: os.setxattr('a','user.x',b'22',os.XATTR_REPLACE), lambda: print(os.getxattr('a','user.x')), lambda: print(os.listxattr('a')), lambda: os.removexattr('a','user.x'), lambda: os.getxattr('a','user.x')):
    try: call(); print('ok')
    except OSError as e: print(e.errno)
`,
  ],
  'holes: sparse files, fallocate, punched ranges, SEEK_DATA and SEEK_HOLE': [
    'python3',
    `
import ctypes, errno, os
libc = ctypes.CDLL(None, use_errno=True); libc.fallocate.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_long, ctypes.c_long]
fd = os.open('a', os.O_RDWR | os.O_CREAT)
def show(what):
    s, at, parts = os.fstat(fd), 0, []
    while True:
        try: data = os.lseek(fd, at, os.SEEK_DATA)
        except OSError as e: parts.append(errno.errorcode[e.errno]); break
        at = os.lseek(fd, data, os.SEEK_HOLE); parts.append((data, at))
    print(what, s.st_size, s.st_blocks, parts)
def fallocate(mode, offset, length):
    r = libc.fallocate(fd, mode, offset, length); show((mode, offset, length, 0 if r == 0 else errno.errorcode[ctypes.get_errno()]))
os.ftruncate(fd, 2**40); show('sparse'); os.pwrite(fd, b'x' * 10000, 2**30); show('an island'); os.ftruncate(fd, 2**30 + 5000); show('cut')
fallocate(0, 0, 100000); fallocate(1, 2**31, 4096); fallocate(0, 0, -1); fallocate(0, 2**62, 2**62); fallocate(2, 0, 10); fallocate(8, 0, 4096)
os.pwrite(fd, bytes(range(256)) * 400, 0); show('written'); fallocate(3, 5000, 20000); fallocate(3, 8192, 4096); fallocate(3, 2**30, 2**40); fallocate(3, 2**50, 1)
print([os.pread(fd, 3, at) for at in (4999, 24999, 2**30)], os.pread(fd, 20000, 5000) == bytes(20000))
os.pwrite(fd, b'back', 9000); show('refilled'); print(os.pread(fd, 12, 8996)); os.ftruncate(fd, 0); show('empty')
`,
  ],
  'files without a name: O_TMPFILE, and the name that comes later': [
    'python3',
    `
import ctypes, os
libc = ctypes.CDLL(None, use_errno=True)
def link(fd, name):
    if libc.linkat(-100, b'/proc/self/fd/%d' % fd, -100, name.encode(), 0x400) < 0: raise OSError(ctypes.get_errno(), '')
fd = os.open('.', os.O_RDWR | os.O_TMPFILE, 0o640); os.write(fd, b'unseen'); print(os.listdir('.'), os.fstat(fd).st_nlink, oct(os.fstat(fd).st_mode))
link(fd, 'seen'); print(open('seen').read(), os.fstat(fd).st_nlink); os.unlink('seen'); print(os.fstat(fd).st_nlink)
try: link(fd, 'again')
except OSError as e: print(e.errno)
os.close(fd); fd = os.open('.', os.O_WRONLY | os.O_TMPFILE | os.O_EXCL)
try: link(fd, 'never')
except OSError as e: print(e.errno)
os.close(fd); print(os.listdir('.'))
`,
  ],
  'copy_file_range: whole, in parts, within a file, past the end': [
    'python3',
    `
import os
data = os.urandom(3 * 1024 * 1024); open('a', 'wb').write(data); a = os.open('a', os.O_RDWR); b = os.open('b', os.O_RDWR | os.O_CREAT)
left = len(data)
while left: left -= os.copy_file_range(a, b, left)
print(open('b', 'rb').read() == data, os.copy_file_range(a, b, 100), os.copy_file_range(a, b, 10, 0, 2**32), os.fstat(b).st_size)
print(os.copy_file_range(a, a, 5, 0, 10), os.pread(a, 5, 10) == data[:5], os.copy_file_range(a, b, 10, len(data) - 3, 0), os.pread(b, 3, 0) == data[-3:])
for call in (lambda: os.copy_file_range(a, a, 10, 0, 5), lambda: os.copy_file_range(a, os.open('a', os.O_RDONLY), 1), lambda: os.copy_file_range(a, os.open('a', os.O_WRONLY | os.O_APPEND), 1)):
    try: print(call())
    except OSError as e: print(e.errno)
`,
  ],
  'locks: flock, POSIX and OFD, shared, upgraded, lost with the process, waited for and interrupted':
    [
      'python3',
      `
import fcntl, os, signal, struct, time
F_OFD_SETLK, F_OFD_SETLKW = 37, 38
def ofd(f, kind, wait=False, start=0, length=0):
    fcntl.fcntl(f, F_OFD_SETLKW if wait else F_OFD_SETLK, struct.pack('hhqqi4x', kind, 0, start, length, 0))
def tries(what, call):
    try: call(); print(what, 'got', flush=True)
    except OSError as e: print(what, e.errno, flush=True)
def child(body):
    pid = os.fork()
    if pid == 0:
        try: body()
        finally: os._exit(0)
    return pid
a, b = open('l', 'w+'), open('l', 'w+')
fcntl.flock(a, fcntl.LOCK_SH); tries('two shared', lambda: fcntl.flock(b, fcntl.LOCK_SH | fcntl.LOCK_NB)); tries('upgrade', lambda: fcntl.flock(b, fcntl.LOCK_EX | fcntl.LOCK_NB))
fcntl.flock(a, fcntl.LOCK_UN); fcntl.flock(b, fcntl.LOCK_UN)
ofd(a, fcntl.F_WRLCK, start=0, length=10); tries('ofd same process', lambda: ofd(b, fcntl.F_WRLCK, start=5, length=10)); tries('ofd apart', lambda: ofd(b, fcntl.F_WRLCK, start=10, length=10))
tries('posix against ofd', lambda: fcntl.lockf(b, fcntl.LOCK_EX | fcntl.LOCK_NB, 5)); a.close(); tries('after close', lambda: ofd(b, fcntl.F_WRLCK, start=0, length=10)); ofd(b, fcntl.F_UNLCK)
fcntl.lockf(b, fcntl.LOCK_EX)
os.waitpid(child(lambda: tries('posix other process', lambda: fcntl.lockf(open('l', 'w+'), fcntl.LOCK_EX | fcntl.LOCK_NB))), 0)
open('l').close(); os.waitpid(child(lambda: tries('lost by any close', lambda: fcntl.lockf(open('l', 'w+'), fcntl.LOCK_EX | fcntl.LOCK_NB))), 0)
holder = child(lambda: (fcntl.flock(open('l', 'w+'), fcntl.LOCK_EX), time.sleep(60))); time.sleep(0.2)
tries('held', lambda: fcntl.flock(b, fcntl.LOCK_EX | fcntl.LOCK_NB))
class Alarm(Exception): pass
def on(*_): raise Alarm
signal.signal(signal.SIGALRM, on); signal.setitimer(signal.ITIMER_REAL, 0.2)
try: fcntl.flock(b, fcntl.LOCK_EX); print('got it?')
except Alarm: print('a wait is interrupted')
os.kill(holder, signal.SIGKILL); os.waitpid(holder, 0); fcntl.flock(b, fcntl.LOCK_EX); print('a killed holder lets go')
`,
    ],
};

/** A listed program must fail in just this way: once it passes, the list and the table of docs/drivers.md are to be corrected. */
const NATIVE_CANNOT: Readonly<Record<string, NativeLimit>> = {
  'rename replaces, refuses, exchanges': {
    row: 'renameat2(2) with flags',
    prints: /^A False\nr2 17\nr2 22\n\['a', 'b'\]\nr2 2\n/, // NOREPLACE is refused, EXCHANGE finds no c
  },
  'modes, owners, umask, set-id bits': {
    row: 'the caller’s uid and gid',
    prints: /\nok\n0\n$/, // the owner of the directory, not the one who made the file
  },
  'times: set, kept, moved by writing': {
    row: 'utimensat(2)',
    prints: /^123000000 123000000\n0 0\nTrue\nTrue\nTrue\n0 True\n$/, // atime for both; milliseconds; not before 1970
  },
  'one time of the two': { row: 'utimensat(2)', prints: /^2000 2000\n2000 2000\nnow\n$/ },
  'a directory goes although a file removed from it is still open': {
    row: 'rmdir(2) of a directory whose removed file is open',
    prints: /^\[\]\n[^]*Directory not empty: 'd'/,
  },
  'shared mappings': { row: 'mmap(2) with MAP_SHARED', prints: /No such device/ },
  'sqlite with a write-ahead log': {
    row: 'mmap(2) with MAP_SHARED',
    prints: /sqlite3\.OperationalError/,
  },
  'a lock holds for every name of a file': {
    row: 'locks through two hard links of a file',
    prints: /^free\n$/,
  },
  preallocation: { row: 'fallocate(2)', prints: /Operation not supported/ },
  'holes: sparse files, fallocate, punched ranges, SEEK_DATA and SEEK_HOLE': {
    row: 'fallocate(2)',
    prints: /^sparse 1099511627776 0 \[\(0, 1099511627776\), 'ENXIO'\]\n[^]*'ENOTSUP'/,
  },
  'files without a name: O_TMPFILE, and the name that comes later': {
    row: 'O_TMPFILE',
    prints: /Operation not supported: '\.'/,
  },
  'names in other encodings': {
    row: 'names that are not UTF-8',
    prints: /\[Errno 84\] Invalid or incomplete multibyte/,
  },
};

const options = needsFuse();

void t.test(
  'the list of what fuse-native cannot do is about these programs, and documented',
  async (t) => {
    for (const [name, { row }] of Object.entries(NATIVE_CANNOT)) {
      t.ok(name in PROGRAMS, name);
      t.ok(isDocumented(row), row);
    }
  },
);

for (const driver of DRIVERS)
  void t.test(`scratch behaves like a local directory, driver ${driver}`, options, async (t) => {
    await using mount = await TestMount.open({ driver });
    // /dev/shm is tmpfs on every Linux; tmpfs has user.* attributes from 6.6 on only, so those are compared with ext4 too.
    for (const [name, [command, script]] of Object.entries(PROGRAMS)) {
      const limit = driver === 'fuse-native' ? NATIVE_CANNOT[name] : undefined;
      await t.test(limit === undefined ? name : `${name}: not here`, async (t) => {
        const reference = mkdtempSync(
          join(name === 'xattrs' ? mount.directory : '/dev/shm', 'cronium-reference-'),
        );
        chmodSync(reference, 0o755);
        try {
          await using tree = await mount.tree(new FakeRuntime());
          await tree.bash('mkdir here');
          const truth = await runIn(reference, command, ['-c', script]);
          const ours = await runIn(join(tree.work, 'here'), command, ['-c', script]);
          t.equal(truth.code, 0, truth.stderr);
          t.not(truth.stdout, '');
          if (limit === undefined) {
            t.equal(ours.stdout, truth.stdout);
            t.equal(ours.code, truth.code, ours.stderr);
          } else {
            t.not(ours.stdout, truth.stdout, 'it still cannot');
            t.match(ours.stdout + ours.stderr, limit.prints, limit.row);
          }
        } finally {
          rmSync(reference, { recursive: true });
        }
      });
    }

    await t.test(
      'a quota ends in ENOSPC, df shows it, and deleting gives the room back',
      async (t) => {
        await using tree = await mount.tree(new FakeRuntime(), {
          quota: { bytesMax: 4 * 1024 * 1024, inodesMax: 40 },
        });
        const { stdout } = await tree.bash(`
      df --output=size,used . | tail -1 | tr -s ' '
      dd if=/dev/zero of=big bs=1M count=8 2>&1 | grep -o 'No space.*'
      stat -c %s big; rm big; dd if=/dev/zero of=big bs=1M count=3 status=none && echo fits; rm big
      for i in $(seq 100); do : > "f$i" || break; done 2>&1 | grep -o 'No space.*'; rm f*; : > again && echo again
      truncate -s 1T sparse; du sparse; truncate -s 9T huge 2>&1 | grep -o 'File too large'`);
        t.match(
          stdout,
          /^ 4096 \d+\nNo space left on device\n4\d{6}\nfits\nNo space left on device\nagain\n0\tsparse\nFile too large\n$/,
        );
      },
    );

    await t.test('what belongs to one execution has no path from another', async (t) => {
      await using a = await mount.tree(new FakeRuntime());
      await using b = await mount.tree(new FakeRuntime());
      await a.bash('echo secret > s');
      const { stderr } = await b.bash(`ln ${a.work}/s ${b.work}/s3`);
      t.match(
        stderr,
        /Invalid cross-device link/,
        'even root on the host cannot link one tree to another',
      );
    });

    await t.test('a file has no handle that could be opened from elsewhere', async (t) => {
      await using tree = await mount.tree(new FakeRuntime());
      const { stdout } = await tree.python(`
import ctypes, errno
libc = ctypes.CDLL(None, use_errno=True)
handle = ctypes.create_string_buffer(136); ctypes.memmove(handle, (128).to_bytes(4, 'little'), 4)
r = libc.name_to_handle_at(-100, b'input.json', handle, ctypes.byref(ctypes.c_int()), 0)
print(r, errno.errorcode.get(ctypes.get_errno()))`);
      // Root on the host gets one through the other driver; a container lacks the capability to open it.
      t.equal(stdout, driver === 'kernel' ? '-1 ENOTSUP\n' : '0 None\n');
    });

    if (driver === 'kernel')
      await t.test('holes that are made in holes take no room on the host either', async (t) => {
        await using tree = await mount.tree(new FakeRuntime(), {
          quota: { bytesMax: 2 * 1024 * 1024, inodesMax: 100 },
        });
        // A page in every mebibyte, and then punched around it: the host once wrote zeros where nothing was, uncounted.
        const { stdout, stderr } = await tree.python(`
import ctypes, os
libc = ctypes.CDLL(None, use_errno=True); libc.fallocate.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_long, ctypes.c_long]
fd = os.open('sparse', os.O_RDWR | os.O_CREAT); M = 1048576
for i in range(50): os.pwrite(fd, b'x', i * M + 100)
for i in range(50): assert libc.fallocate(fd, 3, i * M + 4096, M - 4096) == 0 and libc.fallocate(fd, 3, i * M + 50, 10) == 0
print(os.fstat(fd).st_blocks, os.pread(fd, 1, 100))`);
        t.equal(stdout, "400 b'x'\n", stderr);
        const du = await runIn('/', 'du', ['-sk', join(mount.directory, 'backing')]);
        t.ok(Number.parseInt(du.stdout, 10) < 2048, `KiB on the host: ${du.stdout}`);
      });

    await t.test('a directory of thousands is listed whole, also while it shrinks', async (t) => {
      await using tree = await mount.tree(new FakeRuntime());
      const { stdout } = await tree.python(`
import os
os.mkdir('many')
for i in range(8000): open('many/%d' % i, 'w').close()
print(len(set(os.listdir('many'))), len(set(os.listdir('many'))))
seen = 0
for entry in os.scandir('many'):
    if int(entry.name) % 2: os.unlink(entry.path)
    seen += 1
print(seen >= 4000, len(os.listdir('many')), all(int(n) % 2 == 0 for n in os.listdir('many')))`);
      t.equal(stdout, '8000 8000\nTrue 4000 True\n');
    });

    await t.test('device nodes are refused, whoever asks', async (t) => {
      await using tree = await mount.tree(new FakeRuntime());
      t.match((await tree.bash('mknod dev c 1 3')).stderr, /Operation not permitted/);
    });

    await t.test('files survive 16 processes at once', async (t) => {
      await using tree = await mount.tree(new FakeRuntime());
      const { stdout, stderr } = await tree.bash(`
      for p in $(seq 16); do (for i in $(seq 50); do echo "$p-$i" > "f-$p-$i"; echo "$p-$i" >> log; mv "f-$p-$i" "g-$p-$i"; cat "g-$p-$i" > /dev/null; rm "g-$p-$i"; done) & done; wait
      sort -u log | wc -l; ls | grep -c '^[fg]-'`);
      t.equal(stderr, '');
      t.equal(stdout, '800\n0\n');
    });

    mkdirSync(join(mount.directory, 'after'));
    t.pass('the host directory is still usable');
  });
