# integers beyond doubles, decimals and exponents, changed and unchanged
import json

v = json.load(open('variables.json'))
v['big'] += 1
v['new'] = 2**70
json.dump(v, open('variables.json', 'w'), indent=4)
json.dump({'big': v['big'], 'tiny': 1e-320, 'e': 1e22}, open('output.json', 'w'))
