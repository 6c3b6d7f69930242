# Tries: a race: a name is a file, a link to the image and a directory in turn, while others open, list and rename it.
# Outcome: succeeded 0
# Stdout: ^nothing foreign in \d+ readings\n$
# Warnings: ^(Warning: Failed to [^\n]+\n?)*$
import os
import threading
import time

end = time.time() + 3
readings = 0
foreign = []


def swap():
    while time.time() < end:
        try:
            with open('x.new', 'w') as file:
                file.write('mine')
            os.rename('x.new', 'x')
            os.symlink('/etc/shadow', 'y')
            os.rename('y', 'x')
            os.rename('x', 'output.json')
            os.remove('output.json')
            os.mkdir('x')
            os.rmdir('x')
        except OSError:
            pass


def read():
    global readings
    while time.time() < end:
        try:
            with open('x') as file:
                text = file.read()
            readings += 1
            if text not in ('', 'mine'):
                foreign.append(text)
        except OSError:
            pass


threads = [threading.Thread(target=one) for one in (swap, swap, read, read)]
for one in threads:
    one.start()
for one in threads:
    one.join()
print(f'{foreign[:3] or "nothing"} foreign in {readings} readings')
