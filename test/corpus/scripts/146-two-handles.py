# two handles on variables.json at once: the one that closes last has the last word
import json

first = open('variables.json', 'r+')
v = json.load(first)
second = open('variables.json', 'r+')
w = json.load(second)
w['b'] = 2
second.seek(0)
json.dump(w, second)
second.truncate()
second.close()
print(json.load(open('variables.json')))
v['a'] = 3
v['b'] = 4
first.seek(0)
json.dump(v, first)
first.truncate()
first.close()
print(json.load(open('variables.json')))
