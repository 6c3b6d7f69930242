# ln: a hard link to variables.json, written through the other name
ln variables.json alias.json
stat -c %h variables.json
jq '.b = 2' variables.json > t
cat t > alias.json
jq -c . variables.json
