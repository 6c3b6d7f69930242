# a key that is deleted and set again comes last
jq 'del(.a)' variables.json > t && mv t variables.json
cronium_setVariable a again
jq -c 'del(.__updated__)' variables.json
