# Tries: directories 3,000 levels deep, far beyond what a path can name, and leaves them to be cleaned up.
# Outcome: succeeded 0
# Stdout: ^3000 levels\n$
# Options: --timeout 60s
import os

for _ in range(3000):
    os.mkdir('d')
    os.chdir('d')
with open('bottom', 'w') as file:
    file.write('x')
print('3000 levels')
