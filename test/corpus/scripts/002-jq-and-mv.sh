# jq … > t && mv t variables.json: rename onto the name
jq '.count += 1 | .last = "x"' variables.json > t && mv t variables.json
jq -c . variables.json
