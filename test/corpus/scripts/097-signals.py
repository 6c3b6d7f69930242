# an alarm and a handler; an uncaught SIGTERM
import os, signal, time


def rang(number, frame):
    cronium.output({'rang': number})
    os.kill(os.getpid(), signal.SIGTERM)


signal.signal(signal.SIGALRM, rang)
signal.setitimer(signal.ITIMER_REAL, 0.05)
time.sleep(10)
