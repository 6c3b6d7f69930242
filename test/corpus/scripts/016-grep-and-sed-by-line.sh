# no JSON parser at all: grep, sed and cut rely on one member a line
grep -o '"city": "[^"]*"' variables.json | cut -d'"' -f4
sed -n 's/^  "count": \([0-9]*\),*$/\1/p' variables.json
grep -c '^  "' variables.json
