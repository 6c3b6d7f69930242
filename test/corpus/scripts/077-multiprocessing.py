# multiprocessing: a pool, a queue and a lock; one process writes the result
import multiprocessing as mp


def square(n):
    return n * n


def count(lock, times):
    for _ in range(times):
        with lock:
            cronium.setVariable('n', cronium.getVariable('n') + 1)


if __name__ == '__main__':
    with mp.Pool(3) as pool:
        squares = pool.map(square, range(6))
    lock = mp.Lock()
    workers = [mp.Process(target=count, args=(lock, 5)) for _ in range(3)]
    for w in workers:
        w.start()
    for w in workers:
        w.join()
    print([w.exitcode for w in workers])
    cronium.output({'squares': squares, 'n': cronium.getVariable('n')})
