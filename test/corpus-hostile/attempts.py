# Stands in front of every program that says "Uses: attempts".
import ctypes
import errno
import os
import sys

_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long
_wrong = []
_tried = 0


def attempt(what, call, *refusals):
    """Calls, which must fail with one of these errors, by name."""
    global _tried
    _tried += 1
    try:
        got = f'succeeded: {call()!r:.100}'
    except OSError as error:
        got = errno.errorcode.get(error.errno, str(error.errno))
    if got not in refusals:
        _wrong.append(f'{what}: {got}, not {" or ".join(refusals)}')


def must(what, holds):
    global _tried
    _tried += 1
    if not holds:
        _wrong.append(what)


def syscall(number, *args):
    """By its number on x86_64: the names are not in libc, or hide what the kernel says."""
    plain = [ctypes.c_long(one) if isinstance(one, int) else one for one in args]
    result = _libc.syscall(ctypes.c_long(number), *plain)
    if result < 0:
        raise OSError(ctypes.get_errno(), f'system call {number}')
    return result


def opened(path, flags=os.O_RDONLY):
    os.close(os.open(path, flags))


def report():
    for line in _wrong:
        print(line)
    if not _wrong:
        print(f'all {_tried} as they should be')
    sys.exit(1 if _wrong else 0)
