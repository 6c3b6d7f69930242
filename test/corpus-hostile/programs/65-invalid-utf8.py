# Tries: documents that are no UTF-8. By the contract a wrong byte reads as U+FFFD, as it did for legacy Node.
# Outcome: succeeded 0
# Output: {"a":"����","condition":true}
for name in ('variables.json', 'output.json', 'condition.json'):
    with open(name, 'wb') as file:
        file.write(b'{"a": "\xff\xfe\xc0\x80", "condition": true}')
