# os.chdir: the helper misses the files; absolute paths do not
import json, os

os.mkdir('sub')
os.chdir('sub')
print(cronium.getVariable('city'), cronium.setVariable('city', 'Lost'), os.listdir('.'))
path = os.path.join(os.path.dirname(os.path.abspath('.')), 'variables.json')
v = json.load(open(path))
v['found'] = True
json.dump(v, open(path, 'w'))
