# mktemp in $TMPDIR and in the run directory, then mv to the special names
t=$(mktemp)
[[ $t == "$TMPDIR"/* ]] && echo 'in TMPDIR'
echo '{"from": "mktemp"}' > "$t"
mv "$t" output.json
u=$(mktemp ./work.XXXXXX)
jq 'del(.a)' variables.json > "$u"
mv -f "$u" variables.json
stat -c %a variables.json
