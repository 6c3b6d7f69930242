# what Python cannot serialise leaves its first part in the file
cronium.output({'a': 1, 'b': {1, 2}})
print(repr(open('output.json').read()))
