# the special names renamed away, back, and over one another
import os

size = os.stat('variables.json').st_size
os.rename('variables.json', 'v')
print(os.path.exists('variables.json'), cronium.getVariable('a'))
os.rename('v', 'variables.json')
print(os.stat('variables.json').st_size == size, cronium.getVariable('a'))
open('output.json', 'w').write('{"condition": "was output"}')
os.rename('output.json', 'condition.json')
