# variables.json that is JSON but no object: a warning, nothing is stored, the text can be read
echo '[1, 2]' > variables.json
cat variables.json
echo "[$(cronium_getVariable a)]"
