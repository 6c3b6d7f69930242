# 400 lists in one another, and a document with many members
import json

v = json.load(open('variables.json'))
v['deep'] = json.loads('[' * 400 + ']' * 400)
for i in range(300):
    v[f'k{i}'] = i
json.dump(v, open('variables.json', 'w'), separators=(',', ':'))
print(len(open('variables.json').read()))
v = json.load(open('variables.json'))
for i in range(300):
    del v[f'k{i}']
json.dump(v, open('variables.json', 'w'), separators=(',', ':'))
