# open, json.load, json.dump with sort_keys: read and written whole
import json

with open('variables.json') as f:
    variables = json.load(f)
variables['added'] = {'n': 1.50}
with open('variables.json', 'w') as f:
    json.dump(variables, f, sort_keys=True)
print(open('variables.json').read())
