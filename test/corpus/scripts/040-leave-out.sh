# leaving keys out deletes them
jq 'del(.b) | del(.c.x)' variables.json > t && cat t > variables.json
