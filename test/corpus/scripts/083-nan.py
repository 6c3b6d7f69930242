# NaN and Infinity are no JSON: nothing is stored, and warnings say so
import json

cronium.setVariable('good', 1.5)
with open('variables.json', 'w') as f:
    json.dump({'x': float('nan')}, f)
cronium.output({'x': float('inf')})
print(open('output.json').read())
