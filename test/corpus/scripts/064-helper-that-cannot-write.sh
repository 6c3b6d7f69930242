# a helper that cannot write: variables.json is a directory for a while
mv variables.json saved.json
mkdir variables.json
cronium_setVariable a 1 2>/dev/null
echo "status $?"
rmdir variables.json
mv saved.json variables.json
cronium_setVariable a 1
