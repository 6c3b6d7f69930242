# Tries: threads without end, each with a stack of its own.
# Outcome: succeeded 0
# Stdout: ^stopped below 128: can't start new thread\n$
import os
import threading

threading.stack_size(256 * 1024)
hold = threading.Event()
count = 0
try:
    while count < 100_000:
        threading.Thread(target=hold.wait, daemon=True).start()
        count += 1
except RuntimeError as error:
    print(f'stopped {"below 128" if count < 128 else f"at {count}"}: {error}', flush=True)
os._exit(0)
