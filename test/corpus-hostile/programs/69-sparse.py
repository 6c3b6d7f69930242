# Tries: huge files with nothing in them, and offsets at the end of all numbers.
# Outcome: succeeded 0
# Stdout: ^all \d+ as they should be\n$
# Uses: attempts
file = os.open('sparse', os.O_CREAT | os.O_RDWR)
os.pwrite(file, b'x', 1 << 30)
must('it takes little', os.fstat(file).st_blocks * 512 < 1 << 20)
must('zeros', os.pread(file, 4096, 1 << 29) == bytes(4096))
attempt('exabytes', lambda: os.ftruncate(file, 1 << 62), 'EFBIG', 'ENOSPC')
attempt('a byte at the end', lambda: os.pwrite(file, b'x', (1 << 63) - 2), 'EFBIG', 'EINVAL')
os.ftruncate(file, 0)
must('empty again', os.fstat(file).st_size == 0)
report()
