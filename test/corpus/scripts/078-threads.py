# threads: eight, one at a time, each with a key of its own; then a ninth that reads
import threading

lock = threading.Lock()


def work(n):
    with lock:
        cronium.setVariable(f'k{n}', n)


threads = [threading.Thread(target=work, args=(n,)) for n in range(8)]
for t in threads:
    t.start()
for t in threads:
    t.join()
print([cronium.getVariable(f'k{n}') for n in range(8)])
