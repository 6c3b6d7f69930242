# tempfile.NamedTemporaryFile beside the file, then os.replace
import json, os, tempfile

variables = json.load(open('variables.json'))
variables['n'] += 1
with tempfile.NamedTemporaryFile('w', dir='.', delete=False) as t:
    json.dump(variables, t, indent=2)
    t.flush()
    os.fsync(t.fileno())
os.replace(t.name, 'variables.json')
with tempfile.NamedTemporaryFile('w') as t:
    print(os.path.dirname(t.name) == os.environ['TMPDIR'])
print(oct(os.stat('variables.json').st_mode), sorted(n for n in os.listdir('.') if n.startswith('tmp')))
