# SIGKILL to itself after a print: what was stored is stored
import os, signal

cronium.setVariable('stored', True)
print('printed')
os.kill(os.getpid(), signal.SIGKILL)
