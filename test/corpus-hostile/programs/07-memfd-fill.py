# Tries: memory in files without a name, which no quota of a file system sees.
# Outcome: oom 137
# Options: --memory 64m
import os

file = os.memfd_create('fill')
while True:
    os.write(file, b'x' * (1 << 20))
