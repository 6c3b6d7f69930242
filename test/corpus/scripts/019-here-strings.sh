# here-strings, mapfile and process substitution over the files
mapfile -t lines < variables.json
echo "${#lines[@]} lines"
read -r first _ <<< "$(jq -r .words variables.json)"
echo "$first"
diff <(jq -S . variables.json) <(jq -S '.words = "x"' variables.json) | grep -c '^[<>]'
jq -n --slurpfile v variables.json '$v[0].words' > output.json
