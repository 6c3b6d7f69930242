# rm of variables.json, then a new file with that name
rm variables.json
[[ -e variables.json ]] || echo gone
echo '{"fresh": true}' > variables.json
cat variables.json
