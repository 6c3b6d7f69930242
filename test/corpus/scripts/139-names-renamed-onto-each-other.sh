# variables.json renamed to output.json: it is the output now, and there are no variables to read
echo '{"a": 2}' > variables.json
mv variables.json output.json
echo "[$(cronium_getVariable a)]"
