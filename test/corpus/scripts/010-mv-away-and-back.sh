# variables.json renamed away, edited there, and renamed back
mv variables.json elsewhere.json
[[ -f variables.json ]] || echo away
echo "[$(cronium_getVariable city)]"
jq '.city = "Bergen"' elsewhere.json > edited.json
mv edited.json variables.json
cronium_getVariable city
