# an exception ends the run with 1; what was stored before stays, what was open is flushed
cronium.setVariable('step', 'one')
out = open('output.json', 'w')
out.write('{"partial": true}')
print('working')
raise ValueError('here')
