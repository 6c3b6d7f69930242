# variables.json is rendered exactly so: two spaces, one member a line, no newline at the end
od -c variables.json | sed -n '1p;$p'
tail -c 1 variables.json
echo
cat variables.json | while IFS= read -r line; do echo "$line"; done
