# r+: read, seek, write, truncate in one handle
import json

with open('variables.json', 'r+') as f:
    variables = json.load(f)
    del variables['long']
    f.seek(0)
    json.dump(variables, f)
    f.truncate()
with open('variables.json', 'rb+') as f:
    f.seek(6)
    f.write(b'9')
print(open('variables.json').read())
