# A legacy script: it knows the cronium helper and files in its directory, nothing else.
import time

name = cronium.input()['name']
visits = (cronium.getVariable('visits_python') or 0) + 1
print('python: hello', name + ', this is visit', visits)
time.sleep(0.3)
cronium.setVariable('visits_python', visits)
cronium.output({'language': 'python', 'visits': visits})
cronium.setCondition(visits > 1)
