# os.link as a lock file, os.symlink, os.stat of links
import os

open('mine', 'w').write(str(os.getpid()))
os.link('mine', 'lock')
try:
    os.link('mine', 'lock')
except FileExistsError:
    print('taken', os.stat('lock').st_nlink, os.path.samefile('mine', 'lock'))
os.unlink('lock')
os.symlink('out/result', 'output.json')
os.mkdir('out')
open('output.json', 'w').write('{"by": "link"}')
print(os.path.islink('output.json'), os.readlink('output.json'), os.lstat('output.json').st_size, os.listdir('out'))
