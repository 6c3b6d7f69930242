# Python keeps big integers; 1e400 becomes Infinity, so the whole document is no JSON any more
import json

v = json.load(open('variables.json'))
print(v['big'] == 2**63 - 1, v['huge'])
cronium.setVariable('n', 1)
