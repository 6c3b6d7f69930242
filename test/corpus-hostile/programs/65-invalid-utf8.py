# Tries: documents that are no UTF-8.
# Outcome: succeeded 0
# Output: null
# Warnings: ^(Warning: Failed to [^\n]+\n?){3}$
for name in ('variables.json', 'output.json', 'condition.json'):
    with open(name, 'wb') as file:
        file.write(b'{"a": "\xff\xfe\xc0\x80", "condition": true}')
