# jq 1.6 rounds numbers that it only passes on
jq -c '.n += 1' variables.json > t && mv t variables.json
cat variables.json
