# Tries: JSON that is nested 200,000 levels deep, to overflow the stack of whoever parses it.
# Outcome: succeeded 0
# Stdout: ^(written|E[A-Z]+)\n$
# Warnings: ^(Warning: Failed to [^\n]+\n?){0,2}$
import errno

try:
    with open('variables.json', 'w') as file:
        file.write('{"a":' * 200_000 + '1' + '}' * 200_000)
except OSError:
    pass
try:
    with open('output.json', 'w') as file:
        file.write('[' * 200_000 + ']' * 200_000)
    with open('output.json', 'w') as file:
        file.write('{"flat": true}')
    print('written')
except OSError as error:
    print(errno.errorcode[error.errno])
