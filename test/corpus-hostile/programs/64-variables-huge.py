# Tries: a variables.json beyond every limit, by size and by the number of keys.
# Outcome: succeeded 0
# Stdout: ^size: (EFBIG|ENOSPC|EDQUOT)\nkeys: (E2BIG|EFBIG|ENOSPC|EDQUOT|EINVAL)\n$
# Warnings: ^(Warning: [^\n]+\n?)+$
# Options: --timeout 60s
import errno


def store(what, text):
    try:
        with open('variables.json', 'w') as file:
            file.write(text)
        print(f'{what}: no error')
    except OSError as error:
        print(f'{what}: {errno.errorcode[error.errno]}')


store('size', '{"a": "' + 'x' * (12 << 20) + '"}')
store('keys', '{' + ','.join(f'"k{n}":1' for n in range(200_000)) + '}')
