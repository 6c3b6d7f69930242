# An ordinary script that works while the others attack. It ends when the variable `phase` is "over".
import os
import time

errors = []
times = {'before': [], 'attacked': []}
stored = {'before': [], 'attacked': []}
n = 0
while True:
    phase = cronium.getVariable('phase')
    if phase == 'over':
        break
    phase = 'attacked' if phase == 'attacked' else 'before'
    n += 1
    text = f'{n} ' * 500
    started = time.perf_counter()
    try:
        with open('note.new', 'w') as file:
            file.write(text)
        os.rename('note.new', 'note')
        with open('note') as file:
            if file.read() != text:
                errors.append(f'round {n}: read something else')
        times[phase].append(time.perf_counter() - started)
        started = time.perf_counter()
        if cronium.setVariable('n', n) is not True:
            errors.append(f'round {n}: the variable was not stored')
        stored[phase].append(time.perf_counter() - started)
        if cronium.getVariable('n') != n:
            errors.append(f'round {n}: the variable is {cronium.getVariable("n")}')
    except Exception as error:
        errors.append(f'round {n}: {error}')
    if len(errors) > 20:
        break
    time.sleep(0.02)


def quantiles(seconds):
    ordered = sorted(seconds)
    at = lambda q: round(ordered[min(len(ordered) - 1, int(len(ordered) * q))] * 1000, 2)
    return {'n': len(ordered), 'p50': at(0.5), 'p99': at(0.99)} if ordered else {'n': 0}


cronium.output({
    'errors': errors,
    'files': {phase: quantiles(of) for phase, of in times.items()},
    'variables': {phase: quantiles(of) for phase, of in stored.items()},
})
