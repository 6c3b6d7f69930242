# sys.exit with a code; atexit writes the output last
import atexit, sys


@atexit.register
def last():
    cronium.output('at exit')
    print('bye')


try:
    sys.exit(7)
finally:
    print('finally')
