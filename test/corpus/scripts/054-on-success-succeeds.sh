# --commit on-success and exit 0: all of it
cronium_setVariable a 2
jq '.b = [1]' -c variables.json > t && mv t variables.json
cronium_setCondition ''
