# Tries: to drown the log, hundreds of megabytes until the time limit; its result must come through.
# Outcome: timed-out 143
# Stdout: ^begin\nx
# Output: {"before":"the flood"}
# Warnings: ^(Warning: stdout had \d+ bytes; the first \d+ are here)?$
# Options: --timeout 4s
import os

cronium.output({'before': 'the flood'})
os.write(1, b'begin\n')
block = b'x' * 65535 + b'\n'
while True:
    os.write(1, block)
