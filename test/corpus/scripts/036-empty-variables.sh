# an empty variables.json: a warning, nothing is stored
: > variables.json
stat -c %s variables.json
[[ -s variables.json ]] || echo empty
