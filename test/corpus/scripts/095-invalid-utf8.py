# invalid UTF-8 reads as U+FFFD; UTF-16 is no JSON
with open('variables.json', 'wb') as f:
    f.write(b'{"latin": "caf\xe9", "cut": "\xf0\x9f\x98"}')
open('output.json', 'w', encoding='utf-16').write('{"a": 1}')
